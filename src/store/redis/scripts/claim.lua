#!lua
-- Takes due jobs of one partition, counts the attempt and hides them until the lease ends.
-- KEYS: due, jobs
-- ARGV: now, end of the lease, limit
-- Answers when the next job is due ('' : none is left), then id, attempt and payload of each.
local answer = { '' }
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[3])) do
    local job = redis.call('HGET', KEYS[2], id)
    if job then
        local attempt, payload = string.match(job, '^(%d+) (.*)$')
        attempt = string.format('%d', attempt + 1)
        redis.call('HSET', KEYS[2], id, attempt .. ' ' .. payload)
        redis.call('ZADD', KEYS[1], ARGV[2], id)
        table.insert(answer, id)
        table.insert(answer, attempt)
        table.insert(answer, payload)
    else
        redis.call('ZREM', KEYS[1], id)
    end
end
answer[1] = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or ''
return answer
