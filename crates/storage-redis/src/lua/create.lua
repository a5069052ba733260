-- KEYS: all of the queue, the first is what is known of it. ARGV: the spec, its delivery cap (0: none), its dedup window, what tells this queue
-- from others of its name. Answers the spec of the queue that is there, and what tells it from others.
local there = redis.call('HMGET', KEYS[1], 'spec', 'incarnation')
if there[1] then return there end
-- Where the first key alone was lost (evicted, removed by hand) the messages are still there: new ones must not take their numbers.
local seq = 0
for _, age in ipairs({ KEYS[5], KEYS[15] }) do
  seq = math.max(seq, tonumber(redis.call('ZRANGE', age, -1, -1)[1] or 0))
end
redis.call(
  'HSET', KEYS[1], 'spec', ARGV[1], 'max_deliveries', ARGV[2], 'dedup_window', ARGV[3], 'incarnation', ARGV[4],
  'seq', string.format('%.0f', seq)
)
return false
