#!lua
-- Makes a dead job due, as if it were new.
-- KEYS: due, jobs, dead
-- ARGV: id, now, payload
if redis.call('HDEL', KEYS[3], ARGV[1]) == 0 then
    return redis.call('HEXISTS', KEYS[2], ARGV[1])
end
redis.call('HSET', KEYS[2], ARGV[1], '0 ' .. ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
