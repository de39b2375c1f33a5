-- Joins and leaves of one partition, in order. Doing it twice is the same as doing it once.
-- KEYS, for each operation: entries of the channel (client -> holder, user, info), how many entries each holder's users
--   have there, members of the holder (channel and client).
-- ARGV, for each operation: 'j' or 'l', client, holder, user, entry, member.
-- Returns, for each operation, 1 if it changed whose entry there is: a leave of an entry that another holder has taken
--   over, or of none, is 0.
local function owner(entry)
  local holder, at = struct.unpack('>I4c0', entry)
  return holder, (struct.unpack('>I4c0', entry, at))
end
local function pair(holder, user)
  return struct.pack('>I4c0', #holder, holder) .. user
end
local function uncount(counts, holder, user)
  if redis.call('HINCRBY', counts, pair(holder, user), -1) <= 0 then
    redis.call('HDEL', counts, pair(holder, user))
  end
end
local results = {}
for i = 1, #KEYS / 3 do
  local entries, counts, members = KEYS[i * 3 - 2], KEYS[i * 3 - 1], KEYS[i * 3]
  local kind, client, holder, user, entry, member = unpack(ARGV, i * 6 - 5, i * 6)
  local old = redis.call('HGET', entries, client)
  local old_holder, old_user
  if old then old_holder, old_user = owner(old) end
  results[i] = 0
  if kind == 'j' then
    if old then uncount(counts, old_holder, old_user) end
    redis.call('HSET', entries, client, entry)
    redis.call('HINCRBY', counts, pair(holder, user), 1)
    redis.call('SADD', members, member)
    results[i] = 1
  else
    redis.call('SREM', members, member)
    if old_holder == holder then
      redis.call('HDEL', entries, client)
      uncount(counts, old_holder, old_user)
      results[i] = 1
    end
  end
end
return results
