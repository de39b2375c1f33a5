#!lua flags=allow-oom
-- Records what became of entries.
--
-- KEYS: 1 numbers (hash)  2 blocks (hash)  3 states (hash: sequence number -> the block's mark, one character per entry,
--       records)
-- ARGV: 1 the holder's token; empty: an operator's wish  2 first block that may have something waiting; empty: not known
--       then per block: number, mark, entries, lane, count of records, and per record: index from 0, new state, bytes of
--       the request, record
-- States: 0 waits, 1 delivered, 2 parked, 3 discarded, 4 replayed; the new state `a` records attempts only.
-- Promise: it is done also when the server's memory is used up: a verdict that is not recorded is a request delivered
-- twice. A holder whose token is out of date changes nothing. An entry that is settled stays as it is, except that an
-- operator may dismiss one that is parked. A block that is not there, or is another one, is passed over.
-- Answer: 1 (0: out of date), version, bytes stored, entries changed, then per block: lane, waiting, bytes waiting, parked.
local numbers, blocks, states = KEYS[1], KEYS[2], KEYS[3]
local operator = ARGV[1] == ''
if not operator and redis.call('HGET', numbers, 'token') ~= ARGV[1] then
  return { 0 }
end
local deltas, order = {}, {}
local changed, grown = 0, 0
local set = {}
local at = 3
while at <= #ARGV do
  local number, mark, entries, lane, records = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], tonumber(ARGV[at + 4])
  at = at + 5
  local delta = deltas[lane]
  if not delta then
    delta = { 0, 0, 0 }
    deltas[lane] = delta
    order[#order + 1] = lane
  end
  local state = redis.call('HGET', states, number)
  local before = state and #state or 0
  if not state then
    local block = redis.call('HGET', blocks, number)
    if block and string.sub(block, 3, 6) == mark then
      state = mark .. string.rep('0', entries)
    end
  elseif string.sub(state, 1, 4) ~= mark then
    state = false
  end
  if state then
    local codes = { string.byte(state, 5, 4 + entries) }
    local tail = { string.sub(state, 5 + entries) }
    for _ = 1, records do
      local index, new, bytes = tonumber(ARGV[at]) + 1, ARGV[at + 1], tonumber(ARGV[at + 2])
      local old = codes[index]
      if new == 'a' then
        if old == 48 then
          tail[#tail + 1] = ARGV[at + 3]
        end
      elseif old == 48 or (operator and old == 50) then
        codes[index] = string.byte(new)
        tail[#tail + 1] = ARGV[at + 3]
        changed = changed + 1
        if old == 48 then
          delta[1] = delta[1] - 1
          delta[2] = delta[2] - bytes
        else
          delta[3] = delta[3] - 1
        end
        if new == '2' then
          delta[3] = delta[3] + 1
        end
      end
      at = at + 4
    end
    local now = mark .. string.char(unpack(codes)) .. table.concat(tail)
    set[#set + 1] = number
    set[#set + 1] = now
    grown = grown + #now - before
  else
    at = at + 4 * records
  end
end
if #set > 0 then
  redis.call('HSET', states, unpack(set))
end
local version = redis.call('HINCRBY', numbers, 'version', 1)
local stored = redis.call('HINCRBY', numbers, 'bytes', grown)
if ARGV[2] ~= '' then
  redis.call('HSET', numbers, 'first', ARGV[2])
end
if operator and changed > 0 then
  redis.call('HINCRBY', numbers, 'dismissed', 1)
end
local answer = { 1, version, stored, changed }
for _, lane in ipairs(order) do
  local delta = deltas[lane]
  local now = {}
  for index, letter in ipairs({ 'w', 'b', 'p' }) do
    if delta[index] ~= 0 then
      now[index] = redis.call('HINCRBY', numbers, letter .. lane, delta[index])
    else
      now[index] = tonumber(redis.call('HGET', numbers, letter .. lane) or 0)
    end
  end
  if now[1] == 0 and now[3] == 0 then
    redis.call('HDEL', numbers, 'w' .. lane, 'b' .. lane, 'p' .. lane)
  end
  answer[#answer + 1] = lane
  answer[#answer + 1] = now[1]
  answer[#answer + 1] = now[2]
  answer[#answer + 1] = now[3]
end
return answer
