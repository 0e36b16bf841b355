-- Fetches what is due and what is new; with nothing more to fetch, the node waits in the line of those that are
-- told. KEYS: stream, later, hungry, delayed, ids. ARGV: consumer, place in the line, whether it has the place
-- (y, n, or m for maybe), how many to fetch, how many of them may be suspects, from how many tries on one is.
-- Gives whether the node is in the line, the milliseconds until the next is due or -1, whether the channel is
-- paused, `{ tries, entry }` of what is tried again, and new entries.
local stream, later, hungry, delayed, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local consumer, place, has_place = ARGV[1], ARGV[2], ARGV[3]
local count, suspects, suspect = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local PAGE = 256
-- How soon suspects that are held are looked at again, in milliseconds.
local AGAIN = 250

local function wait()
  if has_place == 'm' then redis.call('LREM', hungry, 0, place) end
  if has_place ~= 'y' then redis.call('RPUSH', hungry, place) end
end

local now = clock()
local again, promoted, left, held = {}, 0, 0, 0

-- What was kept back goes to the end of the channel. Refused halfway, the next look goes on: its id says what
-- has been done.
local function promote(member)
  local id = string.sub(member, 2)
  local text = redis.call('HGET', delayed, id)
  if text and redis.call('HGET', ids, id) == '' then
    redis.call('HSET', ids, id, '')
    redis.call('HSET', ids, id, redis.call('XADD', stream, '*', 'm', text, 'u', id))
    promoted = promoted + 1
  end
  redis.call('HDEL', delayed, id)
  redis.call('ZREM', later, member)
end

local function retry(member)
  local entry, tries = string.match(member, '^r(%S+) (%d+)$')
  local is_suspect = tonumber(tries) >= suspect
  if is_suspect and suspects <= 0 then
    held = held + 1
  elseif #again >= count then
    left = left + 1
  else
    local claimed = redis.call('XCLAIM', stream, GROUP, consumer, 0, entry, 'RETRYCOUNT', tries)[1]
    redis.call('ZREM', later, member)
    if claimed and claimed[2] then
      again[#again + 1] = { tries, claimed }
      if is_suspect then suspects = suspects - 1 end
    else
      redis.call('XACK', stream, GROUP, entry)
    end
  end
end

repeat
  -- Suspects that are held stay, before what else is due.
  local due = redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', held, PAGE)
  if due[1] == 'p' then
    wait()
    return { 1, -1, 1, {}, {} }
  end
  for _, member in ipairs(due) do
    if string.sub(member, 1, 1) == 'd' then promote(member) else retry(member) end
  end
until #due < PAGE or #again >= count or promoted >= PAGE

local fresh = {}
if #again < count then
  local read = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', count - #again, 'STREAMS', stream, '>')
  if read then fresh = read[1][2] end
end
local is_full = #again + #fresh >= count
if is_full then wake(hungry, promoted + left) else wait() end
local first = redis.call('ZRANGE', later, held, held, 'WITHSCORES')
local next = first[1] and math.max(first[2] - now, 0) or -1
if held > 0 then next = next < 0 and AGAIN or math.min(next, AGAIN) end
return { is_full and 0 or 1, next, 0, again, fresh }
