-- Publishes dead letters again under their ids. KEYS: stream, hungry, ids, dead. ARGV: their entries. Gives how many:
-- one whose id waits or runs again already stays.
local stream, hungry, ids, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local count = 0
for _, letter in ipairs(ARGV) do
  local found = redis.call('XRANGE', dead, letter, letter)[1]
  local fields = found and fields_of(found)
  if fields and redis.call('HEXISTS', ids, fields.u) == 0 then
    redis.call('HSET', ids, fields.u, redis.call('XADD', stream, '*', 'm', fields.m, 'u', fields.u))
    redis.call('XDEL', dead, letter)
    count = count + 1
  end
end
wake(hungry, count)
return count
