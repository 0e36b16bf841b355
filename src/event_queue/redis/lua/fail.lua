-- A message is to be tried again (`again`) or is a dead letter (`dead`). KEYS: stream, later, dead, ids, hungry.
-- ARGV: consumer, entry, what, tries, delay in milliseconds, error, dead letters at most. Gives 'ok', or 'lost'
-- when the message is not the consumer's any more, or 'gone' when nobody wants it any more.
local stream, later, dead, ids, hungry = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local consumer, entry, what, tries, delay = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
if not redis.call('XPENDING', stream, GROUP, entry, entry, 1, consumer)[1] then return 'lost' end
if not redis.call('XRANGE', stream, entry, entry)[1] then
  redis.call('XACK', stream, GROUP, entry)
  return 'gone'
end
if what == 'dead' then
  bury(stream, dead, ids, entry, tonumber(tries), ARGV[6], ARGV[7])
else
  put_back(stream, later, entry, tries, clock() + delay)
  if delay == 0 then wake(hungry, 1) end
end
return 'ok'
