-- A node has connected. KEYS: the counter of tokens, the grace period, the server's run. ARGV: the app,
-- the grace period's length. When the server is not the one it was, has started anew or lost its data,
-- what it had granted last may be gone, and the grace period begins. Gives {app, milliseconds left of it}.
local counter, grace, run = KEYS[1], KEYS[2], KEYS[3]
local app, period = unpack(ARGV)
-- A user who may not ask gets no answer; then only lost data is noticed.
local info = redis.pcall('INFO', 'server')
local current = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'unknown'
local count = redis.call('GET', counter)
if not count or redis.call('GET', run) ~= current then
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  redis.call('SET', counter, string.format('%.0f', math.max(now, tonumber(count) or 0)))
  redis.call('SET', grace, '1', 'PX', period)
  redis.call('SET', run, current)
  redis.call('PUBLISH', counter .. '!', 'reclaim')
end
return { app, redis.call('PTTL', grace) }
