-- Takes a message out. KEYS: stream, later, ids, delayed. ARGV: id. Gives 0 when there is none, 1 when it has
-- not run, 2 when its node was told.
local stream, later, ids, delayed, id = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1]
local entry = redis.call('HGET', ids, id)
if redis.call('HDEL', delayed, id) == 1 then
  redis.call('HDEL', ids, id)
  redis.call('ZREM', later, 'd' .. id)
  return 1
end
entry = entry or id
if not string.match(entry, '^%d+%-%d+$') then return 0 end
local was_there = redis.call('XDEL', stream, entry) == 1
redis.call('HDEL', ids, id)
if not was_there then return 0 end
local ok, pending = pcall(redis.call, 'XPENDING', stream, GROUP, entry, entry, 1)
local item = ok and pending[1]
if not item then return 1 end
local consumer = item[2]
if consumer == NOBODY then
  redis.call('ZREM', later, 'r' .. entry .. ' ' .. whole(item[4]))
  redis.call('XACK', stream, GROUP, entry)
  return 1
end
local node, number = string.match(consumer, '^(.*)/(%d+):%d+$')
if node then redis.call('PUBLISH', 'mortise:queue:' .. node, 'c ' .. number .. ' ' .. entry) end
return 2
