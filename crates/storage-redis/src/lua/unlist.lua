-- KEYS: the list of queues. ARGV: name, incarnation. One that was created again meanwhile stays.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
