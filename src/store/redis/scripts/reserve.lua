#!lua
-- Claims the slot of an idempotency key, or tells what it stands for.
-- KEYS: slot
-- ARGV: now, body hash, sealed auth_req_id, expires_at, ttl
local slot = redis.call('HMGET', KEYS[1], 'b', 'a', 'e')
if slot[1] and tonumber(slot[3]) > tonumber(ARGV[1]) then
    if slot[1] ~= ARGV[2] then
        return { 'conflict', '' }
    end
    return { 'replay', slot[2] }
end
redis.call('HSET', KEYS[1], 'b', ARGV[2], 'a', ARGV[3], 'e', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return { 'fresh', '' }
