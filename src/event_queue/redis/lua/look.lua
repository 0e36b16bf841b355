-- Fetches what is due and what is new; with nothing more to fetch, the node waits in the line of those that are
-- told. KEYS: stream, later, hungry, delayed, ids. ARGV: consumer, place in the line, whether it has the place
-- (y, n, or m for maybe), how many to fetch, how many of them may be suspects, from how many tries on one is.
-- Gives whether the node is in the line, the milliseconds until the next is due or -1, whether the channel is
-- paused, `{ tries, entry }` of what is tried again, and new entries.
local stream, later, hungry, delayed, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local consumer, place, has_place = ARGV[1], ARGV[2], ARGV[3]
local count, suspects, suspect = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local function wait()
  if has_place == 'm' then redis.call('LREM', hungry, 0, place) end
  if has_place ~= 'y' then redis.call('RPUSH', hungry, place) end
end

local now = clock()
local due = redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, 256)
if due[1] == 'p' then
  wait()
  return { 1, -1, 1, {}, {} }
end
local again, promoted, left, held = {}, 0, 0, false
for _, member in ipairs(due) do
  if string.sub(member, 1, 1) == 'd' then
    local id = string.sub(member, 2)
    local text = redis.call('HGET', delayed, id)
    redis.call('ZREM', later, member)
    redis.call('HDEL', delayed, id)
    if text then
      redis.call('HSET', ids, id, redis.call('XADD', stream, '*', 'm', text, 'u', id))
      promoted = promoted + 1
    end
  else
    local entry, tries = string.match(member, '^r(%S+) (%d+)$')
    local is_suspect = tonumber(tries) >= suspect
    if is_suspect and suspects <= 0 then
      held = true
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
end

local fresh = {}
if #again < count then
  local read = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', count - #again, 'STREAMS', stream, '>')
  if read then fresh = read[1][2] end
end
local is_full = #again + #fresh >= count
if is_full then wake(hungry, promoted + left) else wait() end
local first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
local next = first[1] and math.max(first[2] - now, 0) or -1
if held then next = math.max(next, 250) end
return { is_full and 0 or 1, next, 0, again, fresh }
