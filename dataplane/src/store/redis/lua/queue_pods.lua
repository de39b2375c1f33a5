#!lua flags=allow-oom
-- Keeps the list of data planes that take part.
--
-- KEYS: 1 pods (sorted set: name, by when it is over)
-- ARGV: 1 name  2 time to live (ms); 0: it leaves
-- Promise: whoever did not come again in time is not in the answer.
-- Answer: names.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
