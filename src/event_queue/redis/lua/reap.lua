-- Takes the messages of a consumer that has not renewed its lease. KEYS: stream, later, dead, ids, hungry. ARGV:
-- consumer, lease in milliseconds, crashes that make a message a dead letter, whether a crash is an attempt
-- (1 or 0), the error of such dead letters, dead letters at most. Gives how many are run again, how many are dead
-- letters, whether there are more.
local stream, later, dead, ids, hungry = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local consumer, lease, most_crashes, crash_counts = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local BATCH = 100

local function has_lapsed()
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, GROUP)) do
    local of = {}
    for i = 1, #info, 2 do of[info[i]] = info[i + 1] end
    if of.name == consumer then return of.idle >= lease end
  end
  return false
end

local function retries_of(entry)
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  local ok, message = pcall(cjson.decode, found and fields_of(found).m or '')
  local most = ok and type(message) == 'table' and type(message[1]) == 'table' and message[1].maxRetries
  return type(most) == 'number' and most or math.huge
end

if not has_lapsed() then return { 0, 0, 0 } end
local moved, buried, now = 0, 0, clock()
local pending = redis.call('XPENDING', stream, GROUP, '-', '+', BATCH, consumer)
for _, item in ipairs(pending) do
  local entry, tries = item[1], item[4] + CRASH
  if crash_counts then tries = tries + 1 end
  if not redis.call('XRANGE', stream, entry, entry)[1] then
    redis.call('XACK', stream, GROUP, entry)
  elseif tries >= most_crashes * CRASH or (crash_counts and (tries - 1) % CRASH > retries_of(entry)) then
    bury(stream, dead, ids, entry, tries, ARGV[5], ARGV[6])
    buried = buried + 1
  else
    put_back(stream, later, entry, whole(tries), now)
    moved = moved + 1
  end
end
wake(hungry, moved)
if #pending < BATCH then redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, consumer) end
return { moved, buried, #pending == BATCH and 1 or 0 }
