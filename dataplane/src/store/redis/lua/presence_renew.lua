-- Starts or renews a lease.
-- KEYS: leases of the partition.
-- ARGV: holder, time to live in milliseconds.
-- Returns whether there was a lease, ended or not, and how many holders live.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
return { known, redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%.0f', now), '+inf') }
