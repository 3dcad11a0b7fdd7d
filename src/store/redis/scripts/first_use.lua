#!lua
-- 1 when this is used for the first time. The operation's id tells a second use from one whose reply
-- was lost.
-- KEYS: entry
-- ARGV: now, expires_at, ttl, operation
local used = redis.call('GET', KEYS[1])
if used then
    local expires_at, operation = string.match(used, '^(%d+) (.*)$')
    if tonumber(expires_at) > tonumber(ARGV[1]) and operation ~= ARGV[4] then
        return 0
    end
end
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[4], 'PX', ARGV[3])
return 1
