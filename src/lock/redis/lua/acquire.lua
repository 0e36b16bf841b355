-- Asks for the key. ARGV: node, number, lease, hears, whether to wait, now, the grace period's length.
-- Gives {1, token} when it is granted; {2, milliseconds left of the lease that it waits for} when it is
-- in the line; {0} when it is held, and nobody is to wait.
local node, number, lease, hears, wait, now, period = unpack(ARGV)
local left = redis.call('PTTL', holder)
if left == -2 then
  local free = redis.call('EXISTS', line, grace) == 0
  if not free and redis.call('EXISTS', grace) == 0 then
    -- A lease has lapsed, and who has waited for it comes first.
    let_in(now)
    left = redis.call('PTTL', holder)
    free = left == -2
  end
  if free then
    local token = redis.call('INCR', counter)
    if token >= LEAST then
      token = string.format('%.0f', token)
      redis.call('SET', holder, table.concat({ node, number, token, lease, now }, '|'), 'PX', lease)
      return { 1, tonumber(token) }
    end
    lost_counter()
    begin_grace(period)
  end
  if left == -2 then left = redis.call('PTTL', grace) end
end
if wait == '0' then return { 0 } end
redis.call('RPUSH', line, table.concat({ node, number, lease, hears }, '|'))
return { 2, left }
