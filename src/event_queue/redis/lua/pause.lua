-- Nothing is fetched from now on, or again. KEYS: later, hungry. ARGV: 1 or 0.
if ARGV[1] == '1' then
  -- Before all that is ever due, so that whoever looks sees it first.
  redis.call('ZADD', KEYS[1], -1, 'p')
elseif redis.call('ZREM', KEYS[1], 'p') == 1 then
  wake(KEYS[2], math.huge)
end
return 'ok'
