-- KEYS: what is known of the queue. ARGV: the spec, its delivery cap (0: none), its dedup window, what tells this queue from others of its name.
local there = redis.call('HGET', KEYS[1], 'spec')
if there then return there end
redis.call('HSET', KEYS[1], 'spec', ARGV[1], 'max_deliveries', ARGV[2], 'dedup_window', ARGV[3], 'incarnation', ARGV[4], 'seq', '0')
return false
