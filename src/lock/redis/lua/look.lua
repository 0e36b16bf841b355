-- How a wait stands; lets the next in when the lease before it has lapsed. ARGV: node|number, lease,
-- hears, now. Gives {1, milliseconds left, token} when the key is held by it; {2, milliseconds left of
-- the lease it waits for} when it is in the line; {0} when it is nowhere.

--{common}
local me, lease, hears, now = unpack(ARGV)
local held = redis.call('GET', holder)
local wait = -2
if not held then
  wait = redis.call('PTTL', grace)
  if wait == -2 then
    let_in(now)
    held = redis.call('GET', holder)
  end
end
if is_of(held, me) then
  return { 1, redis.call('PTTL', holder), tonumber(string.match(held, '^[^|]*|%d+|(%d+)|')) }
end
if held then wait = redis.call('PTTL', holder) end
local place = table.concat({ me, lease, hears }, '|')
local at = redis.pcall('LPOS', line, place)
if type(at) == 'table' then
  -- Redis before 6.0.6.
  at = false
  for _, other in ipairs(redis.call('LRANGE', line, 0, -1)) do
    at = at or other == place
  end
end
if not at then return { 0 } end
-- Lines that nobody looks at any more do not stay for ever.
redis.call('PEXPIRE', line, 86400000)
return { 2, wait }
