-- Sets how many connections a holder has for an account, unless all living holders together would have too many.
-- KEYS: leases of the partition, connections of the account (holder -> number).
-- ARGV: holder, its number, the most there may be ('' for no limit).
-- Returns 1 if the number was set.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local others = 0
local seats = redis.call('HGETALL', KEYS[2])
for i = 1, #seats, 2 do
  local lease = redis.call('ZSCORE', KEYS[1], seats[i])
  if not lease then
    redis.call('HDEL', KEYS[2], seats[i])
  elseif seats[i] ~= ARGV[1] and tonumber(lease) > now then
    others = others + seats[i + 1]
  end
end
if ARGV[3] ~= '' and others + ARGV[2] > tonumber(ARGV[3]) then
  return 0
end
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
return 1
