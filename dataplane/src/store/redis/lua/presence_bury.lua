-- Takes the leases that ended from the living to the dead: from now on their holders have to join again what they hold.
-- KEYS: leases of the partition, the dead.
-- ARGV: most holders to take or tell.
-- Returns dead holders whose entries are still there.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])
for _, holder in ipairs(ended) do
  redis.call('ZREM', KEYS[1], holder)
  redis.call('SADD', KEYS[2], holder)
end
return redis.call('SRANDMEMBER', KEYS[2], ARGV[1])
