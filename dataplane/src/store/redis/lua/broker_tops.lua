-- Where streams stand. KEYS: metas, as in broker_publish.lua. Answers {epoch, offset, id of the top publication} of
-- each, one after the other; empty for one that is absent.
local tops = {}
for _, key in ipairs(KEYS) do
  local meta = redis.call('HMGET', key, 'e', 'o', 'l')
  tops[#tops + 1] = meta[1] or ''
  tops[#tops + 1] = meta[2] or '0'
  tops[#tops + 1] = meta[3] or ''
end
return tops
