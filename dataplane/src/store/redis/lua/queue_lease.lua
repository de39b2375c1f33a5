#!lua flags=allow-oom
-- Takes, keeps or gives back the lease of a partition.
--
-- KEYS: 1 lease (string, with a time to live)  2 numbers (hash)
-- ARGV: 1 holder  2 the holder's token; empty: it holds nothing  3 `take`, `keep`, `look` or `give`  4 time to live (ms)
-- Promise: at most one token is in force, and every token is a new one: it counts up and names its holder. A holder whose
-- lease ran out, and that nobody followed, goes on as if nothing was. `look` changes nothing but its own lease's time.
-- Answer: 1 (held) or 0, token or who holds it, epoch, bytes stored, and, when held, all numbers.
local lease, numbers = KEYS[1], KEYS[2]
local token = redis.call('HGET', numbers, 'token')
if ARGV[2] ~= '' and token == ARGV[2] then
  if ARGV[3] == 'give' then
    redis.call('DEL', lease)
    redis.call('HSET', numbers, 'token', '')
    return { 0, '', '', 0 }
  end
  redis.call('SET', lease, ARGV[1], 'PX', ARGV[4])
  local all = redis.call('HGETALL', numbers)
  return { 1, token, redis.call('HGET', numbers, 'epoch'), tonumber(redis.call('HGET', numbers, 'bytes') or 0), all }
end
local holder = redis.call('GET', lease)
if not holder and ARGV[3] == 'take' then
  if redis.call('HEXISTS', numbers, 'next') == 0 then
    local now = redis.call('TIME')
    local first = tonumber(now[1]) * 16
    redis.call('HSET', numbers, 'next', first, 'low', first, 'first', first, 'epoch', now[1] .. '.' .. now[2])
  end
  -- Writers that ended long ago: membership changes are when there are some.
  local now = tonumber(redis.call('TIME')[1])
  local fields = redis.call('HGETALL', numbers)
  for at = 1, #fields, 2 do
    local seconds = string.match(fields[at + 1], '^%d+:%d+:(%d+)$')
    if seconds and string.sub(fields[at], 1, 1) == 'd' and tonumber(seconds) < now - 3600 then
      redis.call('HDEL', numbers, fields[at])
    end
  end
  token = redis.call('HINCRBY', numbers, 'fence', 1) .. '-' .. ARGV[1]
  redis.call('HSET', numbers, 'token', token)
  redis.call('SET', lease, ARGV[1], 'PX', ARGV[4])
  local all = redis.call('HGETALL', numbers)
  return { 1, token, redis.call('HGET', numbers, 'epoch'), tonumber(redis.call('HGET', numbers, 'bytes') or 0), all }
end
local rest = redis.call('HMGET', numbers, 'epoch', 'bytes')
return { 0, holder or '', rest[1] or '', tonumber(rest[2] or 0) }
