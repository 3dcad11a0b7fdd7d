#!lua
-- Stores a request with its job, if the caps allow. A request that is there already is left alone.
-- KEYS: state, facts, open, due, jobs
-- ARGV: now, id, tag of the client, user, expires_at, ttl, per_client, per_user, interval, facts, job id, job,
--       channel, wake of the worker, wake of the inbox
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 'yes'
end
local now, id, client, expires_at, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]
local of_user, of_client = 0, 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[3], '(' .. now, '+inf', 'BYSCORE')) do
    of_user = of_user + 1
    if string.sub(member, #id + 1) == client then
        of_client = of_client + 1
    end
end
if of_client >= tonumber(ARGV[7]) or of_user >= tonumber(ARGV[8]) then
    return 'over cap'
end
redis.call('HSET', KEYS[1], 's', 'pending', 'e', expires_at, 'i', ARGV[9], 'c', client, 'u', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('SET', KEYS[2], ARGV[10], 'PX', ttl)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
redis.call('ZADD', KEYS[3], expires_at, id .. client)
if redis.call('PTTL', KEYS[3]) < tonumber(ttl) then
    redis.call('PEXPIRE', KEYS[3], ttl)
end
if redis.call('HSETNX', KEYS[5], ARGV[11], '0 ' .. ARGV[12]) == 1 then
    redis.call('ZADD', KEYS[4], now, ARGV[11])
end
redis.call('PUBLISH', ARGV[13], ARGV[14])
redis.call('PUBLISH', ARGV[13], ARGV[15])
return 'yes'
