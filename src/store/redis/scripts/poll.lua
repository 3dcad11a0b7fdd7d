#!lua
-- A poll: answers where the request stands and whether the interval was kept, and takes note of it.
-- KEYS: state
-- ARGV: now, replaces (0|1), held until (0: not held), repeated (0|1), tolerance, slow down,
--       longest interval, channel, wake
local stored = redis.call('HMGET', KEYS[1], 's', 'e', 'i', 'l', 'h', 'n', 'p')
local state, expires_at = stored[1], stored[2]
if not state then
    return false
end
local now, last, number = tonumber(ARGV[1]), tonumber(stored[4]), tonumber(stored[6] or 0)
if state ~= 'pending' or now >= tonumber(expires_at) then
    return { state, expires_at, 'kept', number }
end
-- The reply to this very poll was lost, and it is sent again.
if ARGV[4] == '1' and last == now then
    return { state, expires_at, stored[7] or 'kept', number }
end
local held_elsewhere = stored[5] and tonumber(stored[5]) > now
local interval = tonumber(stored[3])
local early = last and math.max(now - last, 0) + tonumber(ARGV[5]) < interval
if early and ARGV[2] == '0' and not held_elsewhere then
    local longest = math.max(tonumber(ARGV[7]), interval)
    local slower = math.min(interval + tonumber(ARGV[6]), longest)
    redis.call('HSET', KEYS[1], 'l', now, 'n', number + 1, 'p', 'broken', 'i', slower)
    return { state, expires_at, 'broken', number + 1 }
end
redis.call('HSET', KEYS[1], 'l', now, 'n', number + 1, 'p', 'kept', 'h', ARGV[3])
if held_elsewhere then
    redis.call('PUBLISH', ARGV[8], ARGV[9])
end
return { state, expires_at, 'kept', number + 1 }
