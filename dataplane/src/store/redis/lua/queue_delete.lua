#!lua flags=allow-oom
-- Deletes settled blocks.
--
-- KEYS: 1 numbers (hash)  2 blocks (hash)  3 states (hash)  4... requests kept beside the blocks; they go when all blocks do
-- ARGV: 1 the holder's token  2 lowest number that is left; empty: as it was  then per block: number, mark, lane, bytes
--       beside it
-- Promise: a holder whose token is out of date changes nothing; a block with an entry that waits stays.
-- Answer: 1 (0: out of date), version, bytes stored, entries, blocks deleted, then per lane: lane, waiting, bytes waiting, parked.
local numbers, blocks, states = KEYS[1], KEYS[2], KEYS[3]
if redis.call('HGET', numbers, 'token') ~= ARGV[1] then
  return { 0 }
end
local gone, entries, bytes = {}, 0, 0
local parked, order = {}, {}
for at = 3, #ARGV, 4 do
  local number, lane = ARGV[at], ARGV[at + 2]
  local state = redis.call('HGET', states, number)
  local block = state and redis.call('HGET', blocks, number)
  if block and string.sub(state, 1, 4) == ARGV[at + 1] and string.sub(block, 3, 6) == ARGV[at + 1] then
    local count = string.byte(block, 7) * 256 + string.byte(block, 8)
    local codes = string.sub(state, 5, 4 + count)
    if not string.find(codes, '0', 1, true) then
      local _, kept = string.gsub(codes, '2', '')
      if not parked[lane] then
        parked[lane] = 0
        order[#order + 1] = lane
      end
      parked[lane] = parked[lane] + kept
      gone[#gone + 1] = number
      entries = entries + count
      bytes = bytes + #block + #state + tonumber(ARGV[at + 3])
    end
  end
end
if #gone > 0 then
  redis.call('HDEL', blocks, unpack(gone))
  redis.call('HDEL', states, unpack(gone))
  redis.call('HINCRBY', numbers, 'entries', 0 - entries)
end
local version = redis.call('HINCRBY', numbers, 'version', 1)
local stored = redis.call('HINCRBY', numbers, 'bytes', 0 - bytes)
if ARGV[2] ~= '' then
  redis.call('HSET', numbers, 'low', ARGV[2])
end
if #gone == (#ARGV - 2) / 4 then
  for index = 4, #KEYS do
    redis.call('UNLINK', KEYS[index])
  end
end
local left = tonumber(redis.call('HGET', numbers, 'entries') or 0)
local answer = { 1, version, stored, left, #gone }
for _, lane in ipairs(order) do
  local now = redis.call('HMGET', numbers, 'w' .. lane, 'b' .. lane, 'p' .. lane)
  local left = tonumber(now[3] or 0)
  if parked[lane] > 0 then
    left = redis.call('HINCRBY', numbers, 'p' .. lane, -parked[lane])
  end
  if left == 0 and tonumber(now[1] or 0) == 0 then
    redis.call('HDEL', numbers, 'w' .. lane, 'b' .. lane, 'p' .. lane)
  end
  answer[#answer + 1] = lane
  answer[#answer + 1] = tonumber(now[1] or 0)
  answer[#answer + 1] = tonumber(now[2] or 0)
  answer[#answer + 1] = left
end
return answer
