-- A node has connected. KEYS: the counter of tokens, the grace period, the server's run. ARGV: the app,
-- the grace period's length. When the server is not the one it was, has started anew or lost its data,
-- what it had granted last may be gone, and the grace period begins. Gives {app, milliseconds left of it}.
local counter, grace, run = KEYS[1], KEYS[2], KEYS[3]
local app, period = unpack(ARGV)
-- Without the right to ask only lost data is noticed; the third number tells.
local info = redis.pcall('INFO', 'server')
local current = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
local count, before = redis.call('GET', counter), redis.call('GET', run)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- Each time: a server that went back to older data has an older count.
redis.call('SET', counter, string.format('%.0f', math.max(now, tonumber(count) or 0)))
if current then redis.call('SET', run, current) end
if not count or before and current and before ~= current then
  redis.call('SET', grace, '1', 'PX', period)
  redis.pcall('PUBLISH', counter .. '!', 'reclaim')
end
return { app, redis.call('PTTL', grace), current and 1 or 0 }
