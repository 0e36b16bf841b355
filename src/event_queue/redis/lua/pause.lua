-- Nothing is fetched from now on, or again. KEYS: later, hungry, stream. ARGV: 1 or 0.
local later, hungry, stream = KEYS[1], KEYS[2], KEYS[3]
if ARGV[1] == '1' then
  -- Before all that is ever due, so that whoever looks sees it first.
  redis.call('ZADD', later, -1, 'p')
  -- Who fetches without looking is told to look.
  local ok, consumers = pcall(redis.call, 'XINFO', 'CONSUMERS', stream, GROUP)
  for _, info in ipairs(ok and consumers or {}) do
    local node, number = string.match(info[2], '^(.*)/(%d+):%d+$')
    if node then redis.call('PUBLISH', 'mortise:queue:' .. node, 'p ' .. number) end
  end
elseif redis.call('ZREM', later, 'p') == 1 then
  wake(hungry, math.huge)
end
return 'ok'
