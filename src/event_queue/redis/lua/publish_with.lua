-- Messages with ids of their own, or kept back. KEYS: stream, hungry, later, ids, delayed. ARGV: for each the
-- message, its id or '', its delay in milliseconds. Gives their ids.
local stream, hungry, later, ids, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local answers, added = {}, 0
for i = 1, #ARGV, 3 do
  local text, id, delay = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if id == '' then
    id = redis.call('XADD', stream, '*', 'm', text)
    added = added + 1
  elseif redis.call('HEXISTS', ids, id) == 0 then
    if delay > 0 then
      redis.call('HSET', delayed, id, text)
      redis.call('ZADD', later, whole(clock() + delay), 'd' .. id)
      redis.call('HSET', ids, id, '')
      -- Who waits for messages is to know when the first is due.
      if redis.call('ZRANGE', later, 0, 0)[1] == 'd' .. id then added = added + 1 end
    else
      redis.call('HSET', ids, id, redis.call('XADD', stream, '*', 'm', text, 'u', id))
      added = added + 1
    end
  end
  answers[#answers + 1] = id
end
wake(hungry, added)
return answers
