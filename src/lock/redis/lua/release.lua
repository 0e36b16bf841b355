-- Ends a lease. ARGV: node|number, now, whether the lease counts as held by its node: 1, or 0 when it may
-- have ended. Gives 1, or 0 when it had ended before.

-- The usual case comes before the functions of the others.
local place = ARGV[3] == '1' and redis.call('LPOP', KEYS[4])
if not place then
  local held, owner = redis.call('GET', KEYS[3]), ARGV[1] .. '|'
  if not held or string.sub(held, 1, #owner) ~= owner then return 0 end
  redis.call('DEL', KEYS[3])
  if ARGV[3] == '1' then return 1 end
end

--{common}
local me, now = unpack(ARGV)
if not place then
  -- Who held it is no proof, in a grace period, of who does.
  if redis.call('EXISTS', grace) == 0 then let_in(now) end
  return 1
end
local granted = grant(place, now)
-- One command sets the next holder and tells the last: it is put back when it was somebody else, which
-- cannot be but by a clock that jumps.
local before = redis.pcall('SET', holder, granted.value, 'PX', granted.lease, 'GET')
if type(before) == 'table' then
  -- Redis before 6.2.
  before = redis.call('GET', holder)
  redis.call('SET', holder, granted.value, 'PX', granted.lease)
end
if before and not is_of(before, me) then
  -- Its holder counts on its whole lease at the most, so that a later end harms nobody.
  local lease = string.match(before, '^[^|]*|%d+|%d+|(%d+)|')
  redis.call('SET', holder, before, 'PX', lease)
  redis.call('LPUSH', line, place)
  return 0
end
if not before and redis.call('EXISTS', grace) == 1 then
  redis.call('DEL', holder)
  redis.call('LPUSH', line, place)
  return 0
end
if not is_told(granted) then
  redis.call('DEL', holder)
  let_in(now)
end
return before and 1 or 0
