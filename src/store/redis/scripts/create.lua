#!lua
-- Stores a request with its job, if the caps allow. A request that is there already is left alone.
-- KEYS: state, facts, open, due, jobs, prompts
-- ARGV: now, id, tag of the client ('-' at its end: a decoy), user, expires_at, ttl, per_client, per_user,
--       interval, facts, job id, job, id and text of the job instead, channel, wake of the worker, wake of the
--       inbox, how long prompts count, then of each budget since when and how many; a job's id is '' where
--       there is none
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 'yes'
end
local now, id, client, expires_at, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]
local of_user, of_client = 0, 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[3], '(' .. now, '+inf', 'BYSCORE')) do
    local tag = string.sub(member, #id + 1)
    if #tag == 16 then
        of_user = of_user + 1
    end
    if string.sub(tag, 1, 16) == string.sub(client, 1, 16) then
        of_client = of_client + 1
    end
end
if of_client >= tonumber(ARGV[7]) then
    return 'over client cap'
end
if of_user >= tonumber(ARGV[8]) then
    return 'over user cap'
end
redis.call('HSET', KEYS[1], 's', 'pending', 'e', expires_at, 'i', ARGV[9], 'c', client, 'u', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('SET', KEYS[2], ARGV[10], 'PX', ttl)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
redis.call('ZADD', KEYS[3], expires_at, id .. client)
if redis.call('PTTL', KEYS[3]) < tonumber(ttl) then
    redis.call('PEXPIRE', KEYS[3], ttl)
end
local answer, job_id, job = 'yes', ARGV[11], ARGV[12]
if job_id ~= '' then
    for budget = 19, #ARGV, 2 do
        local spent = redis.call('ZCOUNT', KEYS[6], '(' .. ARGV[budget], '+inf')
        if spent >= tonumber(ARGV[budget + 1]) then
            answer, job_id, job = 'inbox only', ARGV[13], ARGV[14]
        end
    end
end
if answer == 'yes' and job_id ~= '' then
    redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now - ARGV[18])
    redis.call('ZADD', KEYS[6], now, id)
    -- What is counted for nobody need not be remembered: it is for the time that it takes.
    local kept = #client == 16 and ARGV[18] or ttl
    if redis.call('PTTL', KEYS[6]) < tonumber(kept) then
        redis.call('PEXPIRE', KEYS[6], kept)
    end
end
if job_id ~= '' then
    if redis.call('HSETNX', KEYS[5], job_id, '0 ' .. job) == 1 then
        redis.call('ZADD', KEYS[4], now, job_id)
    end
    redis.call('PUBLISH', ARGV[15], ARGV[16])
end
redis.call('PUBLISH', ARGV[15], ARGV[17])
return answer
