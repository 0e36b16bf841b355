-- Puts the end of a lease off, or the lease back that the server has lost. ARGV: node|number,
-- milliseconds from now, token, lease, since, the grace period's length. Gives 1, or 0 when it has ended.

--{common}
local me, left, token, lease, since, period = unpack(ARGV)
local value = table.concat({ me, token, lease, since }, '|')
local held = redis.call('GET', holder)
if is_of(held, me) then
  redis.call('SET', holder, value, 'PX', left)
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
redis.call('SET', holder, value, 'PX', left)
return 1
