-- Publishes a batch of one partition, in order, all or nothing.
--
-- KEYS[1]  the publisher's last batch: "<number>\n<answer>\n<answer>..."; a batch that comes again gets these answers.
-- KEYS[..] for each channel its pub/sub channel, its stream (entry id <offset>-0, field f: the frame) and its meta:
--          hash of o (top offset), e (epoch), l (id of the top publication), v and w (version and its epoch).
-- KEYS[..] for each idempotency key its answer.
-- ARGV     1 batch number, 2 life of KEYS[1] in ms, 3 life of a meta in s, 4 life of an idempotency key in ms,
--          5 number of channels, then for each channel the epoch that it gets if it has none, then for each publication:
--          channel, idempotency key (their numbers, from 1; 0: none), frame, size (0: deliver only), ttl in ms,
--          version (20 digits; empty: none), version epoch.
-- Answers for each publication: "+" or, when suppressed, "-"; and with history "<offset>:<epoch>".
-- What subscribers get: ":" and the frame, or "<offset>:<epoch>:" and the frame.
-- Promises that a reader who was handed offset n finds 1..n, within what is kept.
local batch = tonumber(ARGV[1])
local last = redis.call('GET', KEYS[1])
if last then
  local number, rest = string.match(last, '^(%d+)(.*)$')
  number = tonumber(number)
  if number == batch then
    local lines = {}
    for line in string.gmatch(rest, '[^\n]+') do lines[#lines + 1] = line end
    return lines
  end
  if number > batch then return redis.error_reply('ERR a later batch was published already') end
end

local channels = tonumber(ARGV[5])
local metas = {}

local function meta_of(channel)
  local known = metas[channel]
  if known then return known end
  local key = KEYS[1 + channel * 3]
  local found = redis.call('HMGET', key, 'e', 'o', 'v', 'w')
  local meta = { key = key, stream = KEYS[channel * 3], epoch = found[1], offset = tonumber(found[2] or 0),
    version = found[3], version_epoch = found[4] }
  if not meta.epoch then
    meta.epoch = ARGV[5 + channel]
    meta.is_new = true
    redis.call('DEL', meta.stream)
  end
  metas[channel] = meta
  return meta
end

local function position(meta)
  return string.format('%.0f', meta.offset) .. ':' .. meta.epoch
end

local answers = {}
for at = 6 + channels, #ARGV, 7 do
  local channel = tonumber(ARGV[at])
  local key = tonumber(ARGV[at + 1])
  local frame = ARGV[at + 2]
  local size = tonumber(ARGV[at + 3])
  local answer
  if key > 0 then
    key = KEYS[1 + channels * 3 + key]
    local known = redis.call('GET', key)
    if known then answer = '-' .. known end
  end
  if not answer and size == 0 then
    redis.call('SPUBLISH', KEYS[channel * 3 - 1], ':' .. frame)
    answer = '+'
    if key ~= 0 then redis.call('SET', key, '', 'PX', ARGV[4]) end
  elseif not answer then
    local meta = meta_of(channel)
    local version = ARGV[at + 5]
    local version_epoch = ARGV[at + 6]
    if version ~= '' and meta.version and version <= meta.version
        and (version_epoch == '' or version_epoch == meta.version_epoch) then
      answer = '-' .. position(meta)
    else
      if version ~= '' then
        meta.version = version
        meta.version_epoch = version_epoch
        meta.has_version = true
      end
      meta.offset = meta.offset + 1
      meta.id = string.sub(frame, 3, 18)
      meta.ttl = ARGV[at + 4]
      local here = position(meta)
      redis.call('XADD', meta.stream, 'MAXLEN', size, string.format('%.0f-0', meta.offset), 'f', frame)
      redis.call('SPUBLISH', KEYS[channel * 3 - 1], here .. ':' .. frame)
      answer = '+' .. here
      if key ~= 0 then redis.call('SET', key, here, 'PX', ARGV[4]) end
    end
  end
  answers[#answers + 1] = answer
end

for _, meta in pairs(metas) do
  if meta.id then
    redis.call('HSET', meta.key, 'o', string.format('%.0f', meta.offset), 'l', meta.id)
    redis.call('PEXPIRE', meta.stream, meta.ttl)
  elseif meta.is_new then
    redis.call('HSET', meta.key, 'o', 0)
  end
  if meta.is_new then redis.call('HSET', meta.key, 'e', meta.epoch) end
  if meta.has_version then redis.call('HSET', meta.key, 'v', meta.version, 'w', meta.version_epoch) end
  -- A day before it is due: so rarely is there something to write.
  if redis.call('TTL', meta.key) < tonumber(ARGV[3]) - 86400 then redis.call('EXPIRE', meta.key, ARGV[3]) end
end
redis.call('SET', KEYS[1], ARGV[1] .. '\n' .. table.concat(answers, '\n'), 'PX', ARGV[2])
return answers
