-- KEYS: the list of queues. ARGV: name, the incarnation that may stand there, the one that is to.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 0
