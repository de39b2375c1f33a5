-- Reads a part of a stream; makes the stream's meta if it is absent.
--
-- KEYS: the stream and its meta, as in broker_publish.lua.
-- ARGV: 1 the epoch of a new stream, 2 life of a meta in s, 3 the epoch that it must have (empty: any),
--       4 first and 5 last entry id of the part, 6 how many (0: none, -1: all), 7 "1": newest first.
-- Answers {epoch, offset, id of the top publication, {offset, frame, ...}}, at one instant; the list is missing when the
-- epoch is another.
local meta = redis.call('HMGET', KEYS[2], 'e', 'o', 'l')
if not meta[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'e', ARGV[1], 'o', 0)
  meta = { ARGV[1], '0', false }
end
if redis.call('TTL', KEYS[2]) < tonumber(ARGV[2]) - 86400 then redis.call('EXPIRE', KEYS[2], ARGV[2]) end
local top = { meta[1], meta[2], meta[3] or '' }
if ARGV[3] ~= '' and ARGV[3] ~= meta[1] then return top end
local found = {}
if ARGV[6] ~= '0' then
  local command, from, to = 'XRANGE', ARGV[4], ARGV[5]
  if ARGV[7] == '1' then command, from, to = 'XREVRANGE', to, from end
  local entries
  if ARGV[6] == '-1' then
    entries = redis.call(command, KEYS[1], from, to)
  else
    entries = redis.call(command, KEYS[1], from, to, 'COUNT', ARGV[6])
  end
  for _, entry in ipairs(entries) do
    found[#found + 1] = string.match(entry[1], '^%d+')
    found[#found + 1] = entry[2][2]
  end
end
top[4] = found
return top
