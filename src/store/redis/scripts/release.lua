#!lua
-- Gives back the slot of an idempotency key, if it still stands for this auth_req_id.
-- KEYS: slot
-- ARGV: sealed auth_req_id
if redis.call('HGET', KEYS[1], 'a') == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
return 1
