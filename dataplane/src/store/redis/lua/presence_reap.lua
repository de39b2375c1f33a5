-- Removes entries of a dead holder; each entry is returned by one call only, whoever else reaps.
-- KEYS: leases of the partition, the dead, members of the holder; then for each member: entries of its channel, counts of
--   its channel.
-- ARGV: holder; then for each member: the member, its client.
-- Returns, for each member, its entry, or '' if it was not the holder's any more. Nothing when the holder lives again.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('SREM', KEYS[2], ARGV[1])
  return {}
end
local reaped = {}
for i = 1, (#ARGV - 1) / 2 do
  local entries, counts = KEYS[2 + i * 2], KEYS[3 + i * 2]
  local member, client = ARGV[i * 2], ARGV[1 + i * 2]
  reaped[i] = ''
  if redis.call('SREM', KEYS[3], member) == 1 then
    local entry = redis.call('HGET', entries, client)
    if entry then
      local holder, at = struct.unpack('>I4c0', entry)
      local user = struct.unpack('>I4c0', entry, at)
      if holder == ARGV[1] then
        local pair = struct.pack('>I4c0', #holder, holder) .. user
        redis.call('HDEL', entries, client)
        if redis.call('HINCRBY', counts, pair, -1) <= 0 then
          redis.call('HDEL', counts, pair)
        end
        reaped[i] = entry
      end
    end
  end
end
if redis.call('SCARD', KEYS[3]) == 0 then
  redis.call('SREM', KEYS[2], ARGV[1])
end
return reaped
