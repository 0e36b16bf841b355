-- What the scripts of locks share: it stands where they say `common`. KEYS: the counter of tokens, the
-- grace period, the holder of the key, the line of those who wait for it.
--
-- A holder is `node|number|token|lease|since`, under the expiry of its lease; a place in the line is
-- `node|number|lease|hears`, where `hears` is 1 when the node is told of the grant and 0 when it looks.
local counter, grace, holder, line = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- A grant that goes to a node which does not use it costs so many milliseconds, and not a lease.
local CLAIM = 1000
-- The counter begins with the microseconds since 1970. What is smaller was made by counting a key that
-- was not there: the server has lost its data.
local LEAST = 1099511627776

local function microseconds()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000000 + time[2])
end

-- The server has lost its data: nothing is granted for a while, so that those who hold locks can put
-- them back.
local function begin_grace(period)
  redis.call('SET', counter, microseconds())
  redis.call('SET', grace, '1', 'PX', period)
  redis.pcall('PUBLISH', counter .. '!', 'reclaim')
end

local function next_token()
  local number = redis.call('INCR', counter)
  if number >= LEAST then return string.format('%.0f', number) end
  number = microseconds()
  redis.call('SET', counter, number)
  return number
end

local function is_of(held, me)
  local owner = me .. '|'
  return held and string.sub(held, 1, #owner) == owner
end

-- Makes a grant for a place in the line: what the holder's key is set to, for how long, and who is told.
local function grant(place, now)
  local node, number, lease, hears = string.match(place, '^([^|]*)|(%d+)|(%d+)|(%d)$')
  local token = next_token()
  return {
    value = table.concat({ node, number, token, lease, now }, '|'),
    lease = math.min(tonumber(lease), CLAIM),
    node = node,
    notice = number .. '|' .. token .. '|' .. holder,
    hears = hears == '1',
  }
end

-- Tells the node of its grant; false when it is not there. A user who may not publish tells nobody: the
-- node looks within a second.
local function is_told(granted)
  if not granted.hears then return true end
  local told = redis.pcall('PUBLISH', counter .. ':' .. granted.node, granted.notice)
  return type(told) == 'table' or told > 0
end

-- Lets in the first of the line who is there. The key must be nobody's, and it is so for sure only when
-- there is no grace period.
local function let_in(now)
  while true do
    local place = redis.call('LPOP', line)
    if not place then return end
    local granted = grant(place, now)
    redis.call('SET', holder, granted.value, 'PX', granted.lease)
    if is_told(granted) then return end
    redis.call('DEL', holder)
  end
end
