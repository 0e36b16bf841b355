-- Puts the end of a lease off, or the lease back that the server has lost. ARGV: node|number,
-- milliseconds from now, token, lease, since, the grace period's length. Gives 1, or 0 when it has ended.

--{common}
local me, left, token, lease, since, period = unpack(ARGV)
local value = table.concat({ me, token, lease, '' }, '|')
local held = redis.call('GET', holder)
if held and string.sub(held, 1, #value) == value then
  -- Also when the server has no memory for more.
  redis.call('PEXPIRE', holder, left)
  return 1
end
if is_of(held, me) then
  redis.call('SET', holder, value .. string.match(held, '%d+$'), 'PX', left)
  return 1
end
if redis.call('EXISTS', counter) == 0 then
  begin_grace(period)
elseif redis.call('EXISTS', grace) == 0 then
  return 0
end
-- Nothing is granted now: what else is held was granted before, and lost its place since if it has a
-- smaller token.
if held and tonumber(string.match(held, '^[^|]*|%d+|(%d+)|')) >= tonumber(token) then return 0 end
if tonumber(redis.call('GET', counter)) < tonumber(token) then redis.call('SET', counter, token) end
redis.call('SET', holder, value .. since, 'PX', left)
return 1
