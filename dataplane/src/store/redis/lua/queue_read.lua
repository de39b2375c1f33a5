-- Reads a stretch of a partition.
--
-- KEYS: 1 numbers (hash)  2 blocks (hash)  3 states (hash)
-- ARGV: 1 from which number on; empty: from the lowest  2 blocks at most  3 bytes at most; one block goes whatever its
--       size  4 bytes of each block that are wanted; 0: all  5 numbers looked at, at most
-- Promise: changes nothing. Blocks come in order; with each one its states as they are at the same moment.
-- Answer: epoch (nil: the partition does not exist), lowest, next, version, dismissals, first number not looked at, bytes
-- stored, first that may have something waiting, and then per block: number, block or its beginning, its length, states or an empty string.
local numbers = redis.call('HMGET', KEYS[1], 'epoch', 'low', 'next', 'version', 'dismissed', 'bytes', 'first')
if not numbers[1] or not numbers[3] then
  return { false }
end
local low, next = tonumber(numbers[2] or numbers[3]), tonumber(numbers[3])
local at = low
if ARGV[1] ~= '' then
  at = math.max(tonumber(ARGV[1]), low)
end
local left, bytes, wanted = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local looks = tonumber(ARGV[5])
local answer = { numbers[1], low, next, tonumber(numbers[4] or 0), tonumber(numbers[5] or 0), 0,
  tonumber(numbers[6] or 0), tonumber(numbers[7] or 0) }
local found = false
while at < next and left > 0 and looks > 0 do
  looks = looks - 1
  local block = redis.call('HGET', KEYS[2], at)
  if block then
    local length = #block
    if wanted > 0 and length > wanted then
      block = string.sub(block, 1, wanted)
    end
    if found and #block > bytes then
      break
    end
    found = true
    bytes = bytes - #block
    left = left - 1
    answer[#answer + 1] = at
    answer[#answer + 1] = block
    answer[#answer + 1] = length
    answer[#answer + 1] = redis.call('HGET', KEYS[3], at) or ''
  end
  at = at + 1
end
answer[6] = at
return answer
