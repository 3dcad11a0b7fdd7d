#!lua
-- Ends an attempt, if it is still the last one: the job is done, due again, or dead.
-- KEYS: due, jobs, dead
-- ARGV: id, attempt, 'ack', or 'retry' and a due time, or 'bury', a record and a ttl
local job = redis.call('HGET', KEYS[2], ARGV[1])
if not job or string.match(job, '^%d+') ~= ARGV[2] then
    return 0
end
if ARGV[3] == 'retry' then
    redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1])
    return 1
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
if ARGV[3] == 'bury' then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
    redis.call('PEXPIRE', KEYS[3], ARGV[5])
end
return 1
