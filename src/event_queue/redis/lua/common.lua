-- What the scripts have in common. A server may refuse any of their commands, as by its rules of access, after those
-- before it have been done. So all are in an order in which nothing is lost then, and doing it all again does no harm.
local GROUP = 'mortise'
-- Whose the messages are that wait for their next attempt.
local NOBODY = '-'
-- How often a message was tried before, and how often it ended its node, are one number: the group's
-- count of deliveries less 1, in 32 bits each.
local CRASH = 4294967296

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Tells up to `count` of the nodes that wait for messages; those that are gone are passed over.
local function wake(hungry, count)
  while count > 0 do
    local place = redis.call('LPOP', hungry)
    if not place then return end
    local node, number = string.match(place, '^(.*)/(%d+)$')
    if redis.call('PUBLISH', 'mortise:queue:' .. node, 'w ' .. number) > 0 then count = count - 1 end
  end
end

local function whole(number)
  return string.format('%.0f', number)
end

-- The message is processed, or gone: its id may be queued again.
local function finish(stream, ids, entry, id)
  redis.call('XDEL', stream, entry)
  redis.call('XACK', stream, GROUP, entry)
  -- Told twice it may be another's by now.
  if id ~= '' and redis.call('HGET', ids, id) == entry then redis.call('HDEL', ids, id) end
end

local function fields_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  return fields
end

-- Makes a dead letter of it.
local function bury(stream, dead, ids, entry, tries, error, most)
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  local fields = found and fields_of(found) or {}
  if found then
    -- Refused now or not at all, or each time that it is told makes a letter.
    redis.call('XDEL', stream, '0-0')
    redis.call('XACK', stream, GROUP, '0-0')
    redis.call('HDEL', ids, '')
    -- An entry that is none of ours is kept as it is.
    redis.call('XADD', dead, 'MAXLEN', most, '*', 'm', fields.m or cjson.encode(found[2]), 'u', fields.u or entry, 'r', whole((tries - 1) % CRASH), 'e', error)
  end
  finish(stream, ids, entry, fields.u or '')
end

-- The message is to be run again, in `delay` milliseconds.
local function put_back(stream, later, entry, tries, due)
  redis.call('ZADD', later, whole(due), 'r' .. entry .. ' ' .. tries)
  redis.call('XCLAIM', stream, GROUP, NOBODY, 0, entry, 'RETRYCOUNT', tries, 'JUSTID')
end
