-- Plain messages, each at the end. KEYS: stream, hungry. ARGV: the messages. Gives their ids.
local entries = {}
for i = 1, #ARGV do entries[i] = redis.call('XADD', KEYS[1], '*', 'm', ARGV[i]) end
wake(KEYS[2], #ARGV)
return entries
