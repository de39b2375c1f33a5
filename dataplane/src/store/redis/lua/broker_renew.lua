-- Gives a stream that lost publications a new epoch, so that positions of before are void; once, whoever asks.
--
-- KEYS: the meta, as in broker_publish.lua. ARGV: the epoch that is void, a new one.
-- Answers {epoch, offset, id of the top publication} as they are now.
local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'l')
if meta[1] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'e', ARGV[2])
  meta[1] = ARGV[2]
end
return { meta[1] or '', meta[2] or '0', meta[3] or '' }
