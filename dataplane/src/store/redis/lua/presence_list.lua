-- The holders that live, and all of a hash: what is visible is the caller's to say.
-- KEYS: leases of the partition (holder -> end, in milliseconds of this server's clock), the hash.
-- ARGV: 'values', or 'all' for fields and values in turn.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local living = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf')
if ARGV[1] == 'values' then
  return { living, redis.call('HVALS', KEYS[2]) }
end
return { living, redis.call('HGETALL', KEYS[2]) }
