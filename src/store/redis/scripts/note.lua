#!lua
-- Notes what became of a request's pushes, as long as the request itself is remembered.
-- KEYS: state, sent
-- ARGV: 'set', or 'once' for what is noted the first time only; then fields and values
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then
    return 0
end
local command = ARGV[1] == 'once' and 'HSETNX' or 'HSET'
for field = 2, #ARGV, 2 do
    redis.call(command, KEYS[2], ARGV[field], ARGV[field + 1])
end
redis.call('PEXPIRE', KEYS[2], left)
return 1
