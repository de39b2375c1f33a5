-- Appends blocks of entries to a partition.
--
-- KEYS: 1 numbers (hash)  2 blocks (hash: sequence number -> block)
--       3... requests that are too large for a block, set before with a short life
-- ARGV: 1 writer  2 batch (grows with each batch of the writer)  3 unix seconds
--       then per block: lane, entries, bytes of requests, bytes stored, block
-- Promise: all blocks or none, with sequence numbers that follow each other. The writer's last batch again changes nothing
-- but the version, so that a WAIT after it waits for something. The counters are right at any time.
-- Answer: first number, version, bytes stored, entries, then per block of a batch not seen before: lane, waiting, bytes
-- waiting, parked.
local numbers = KEYS[1]
local fields = { 'next', 'version', 'entries', 'bytes', 'd' .. ARGV[1] }
local column, sums = {}, {}
for at = 4, #ARGV, 5 do
  local lane = ARGV[at]
  if not column[lane] then
    column[lane] = #fields + 1
    fields[#fields + 1] = 'w' .. lane
    fields[#fields + 1] = 'b' .. lane
    fields[#fields + 1] = 'p' .. lane
  end
end
local values = redis.call('HMGET', numbers, unpack(fields))
if values[5] then
  local batch, first = string.match(values[5], '^(%d+):(%d+):')
  if batch == ARGV[2] then
    local version = redis.call('HINCRBY', numbers, 'version', 1)
    return { tonumber(first), version, tonumber(values[4] or 0), tonumber(values[3] or 0) }
  end
end
local set = {}
if not values[1] then
  local now = redis.call('TIME')
  values[1] = tonumber(now[1]) * 16
  set = { 'epoch', now[1] .. '.' .. now[2], 'low', values[1], 'first', values[1] }
end
for index = 1, #fields do
  sums[index] = tonumber(values[index] or 0) or 0
end
local first = sums[1]
sums[5] = ARGV[2] .. ':' .. first .. ':' .. ARGV[3]
local stored = {}
for at = 4, #ARGV, 5 do
  local place = column[ARGV[at]]
  local entries, bytes = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  sums[place] = sums[place] + entries
  sums[place + 1] = sums[place + 1] + bytes
  sums[3] = sums[3] + entries
  sums[4] = sums[4] + tonumber(ARGV[at + 3])
  stored[#stored + 1] = sums[1]
  stored[#stored + 1] = ARGV[at + 4]
  sums[1] = sums[1] + 1
end
sums[2] = sums[2] + 1
for index = 1, #fields do
  -- Parked is only read here: one that is not there stays away.
  if index <= 5 or (index - 6) % 3 ~= 2 then
    set[#set + 1] = fields[index]
    set[#set + 1] = sums[index]
  end
end
redis.call('HSET', KEYS[2], unpack(stored))
redis.call('HSET', numbers, unpack(set))
for index = 3, #KEYS do
  redis.call('PERSIST', KEYS[index])
end
local answer = { first, sums[2], sums[4], sums[3] }
for at = 4, #ARGV, 5 do
  local place = column[ARGV[at]]
  answer[#answer + 1] = ARGV[at]
  answer[#answer + 1] = sums[place]
  answer[#answer + 1] = sums[place + 1]
  answer[#answer + 1] = sums[place + 2]
end
return answer
