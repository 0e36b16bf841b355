-- What is in a channel. KEYS: stream, later, dead. Gives how many wait, are kept back, run, are dead letters, whether
-- it is paused, milliseconds since the oldest that waits was published.
local stream, later, dead = KEYS[1], KEYS[2], KEYS[3]
local paused = redis.call('ZSCORE', later, 'p') and 1 or 0
-- What is due waits like the rest.
local due = redis.call('ZCOUNT', later, 0, clock())
local delayed = redis.call('ZCARD', later) - paused - due
local length, pending, nobodys, last = redis.call('XLEN', stream), 0, 0, '0-0'
local groups = length > 0 and redis.call('XINFO', 'GROUPS', stream) or {}
for _, info in ipairs(groups) do
  local of = {}
  for i = 1, #info, 2 do of[info[i]] = info[i + 1] end
  if of.name == GROUP then
    last = of['last-delivered-id']
    local summary = redis.call('XPENDING', stream, GROUP)
    pending = summary[1]
    for _, consumer in ipairs(summary[4] or {}) do
      if consumer[1] == NOBODY then nobodys = tonumber(consumer[2]) end
    end
  end
end
local oldest, age = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1], 0
if oldest then age = math.max(clock() - tonumber(string.match(oldest[1], '^%d+')), 0) end
local waiting = due + (oldest and math.max(length - pending, 1) or 0)
return { waiting, delayed, pending - nobodys, redis.call('XLEN', dead), paused, age }
