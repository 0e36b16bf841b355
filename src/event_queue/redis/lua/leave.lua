-- The node is no more. KEYS: stream, hungry. ARGV: consumer, place in the line.
redis.call('LREM', KEYS[2], 0, ARGV[2])
local ok, pending = pcall(redis.call, 'XPENDING', KEYS[1], GROUP, '-', '+', 1, ARGV[1])
if ok and not pending[1] then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], GROUP, ARGV[1]) end
return 'ok'
