-- Gives a place in the line up, or the lease that has come of it. ARGV: node|number, lease, hears, now.

--{common}
local me, lease, hears, now = unpack(ARGV)
if redis.call('LREM', line, 1, table.concat({ me, lease, hears }, '|')) == 1 then return 1 end
if not is_of(redis.call('GET', holder), me) then return 0 end
redis.call('DEL', holder)
if redis.call('EXISTS', grace) == 0 then let_in(now) end
return 1
