#!lua
-- Writes what the Ledger says. A redeemed request stays redeemed: who read the Ledger just before is
-- out of date.
-- KEYS: state, open
-- ARGV: state, member of open, channel, wake of the request, wake of the inbox
local state = redis.call('HGET', KEYS[1], 's')
if not state or state == ARGV[1] or state == 'redeemed' then
    return 0
end
redis.call('HSET', KEYS[1], 's', ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
redis.call('PUBLISH', ARGV[3], ARGV[5])
return 1
