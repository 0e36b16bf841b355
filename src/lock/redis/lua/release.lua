-- Ends a lease. ARGV: node, number, now. Gives 1, or 0 when it had ended before.
local node, number, now = unpack(ARGV)
local place = redis.call('LPOP', line)
if not place then
  if not is_of(redis.call('GET', holder), node, number) then return 0 end
  redis.call('DEL', holder)
  return 1
end
local granted = grant(place, now)
-- One command sets the next holder and tells the last: it is put back when it was somebody else.
local before = redis.pcall('SET', holder, granted.value, 'PX', granted.lease, 'GET')
if type(before) == 'table' then
  -- Redis before 6.2.
  before = redis.call('GET', holder)
  redis.call('SET', holder, granted.value, 'PX', granted.lease)
end
if before and not is_of(before, node, number) then
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
