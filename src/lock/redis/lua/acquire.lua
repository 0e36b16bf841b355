-- Asks for the key. ARGV: node, number, lease, hears, whether to wait, now, the grace period's length.
-- Gives {1, token} when it is granted; {2, milliseconds left of the lease that it waits for} when it is
-- in the line; {0} when it is held, and nobody is to wait.

-- The two usual cases come before the functions of the others, which cost half as much as they do.
local left = redis.call('PTTL', KEYS[3])
if left == -2 then
  if redis.call('EXISTS', KEYS[2], KEYS[4]) == 0 then
    local token = redis.call('INCR', KEYS[1])
    -- Less than that: see LEAST.
    if token >= 1099511627776 then
      local value = string.format('%s|%s|%.0f|%s|%s', ARGV[1], ARGV[2], token, ARGV[3], ARGV[6])
      redis.call('SET', KEYS[3], value, 'PX', ARGV[3])
      return { 1, token }
    end
  end
else
  if ARGV[5] == '0' then return { 0 } end
  redis.call('RPUSH', KEYS[4], string.format('%s|%s|%s|%s', ARGV[1], ARGV[2], ARGV[3], ARGV[4]))
  return { 2, left }
end

--{common}
local node, number, lease, hears, wait, now, period = unpack(ARGV)
if redis.call('EXISTS', grace) == 0 then
  if redis.call('EXISTS', line) == 0 then
    -- The counter was not there, and neither is anything else.
    begin_grace(period)
  else
    -- A lease has lapsed, and who has waited for it comes first.
    let_in(now)
    left = redis.call('PTTL', holder)
    if left == -2 then
      local token = next_token()
      redis.call('SET', holder, table.concat({ node, number, token, lease, now }, '|'), 'PX', lease)
      return { 1, tonumber(token) }
    end
  end
end
if wait == '0' then return { 0 } end
if left == -2 then left = redis.call('PTTL', grace) end
redis.call('RPUSH', line, table.concat({ node, number, lease, hears }, '|'))
return { 2, left }
