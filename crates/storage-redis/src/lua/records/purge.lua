-- KEYS: the keys of a table that is gone, and the rows and histories of those in ARGV.
redis.call('ZREM', KEYS[1], unpack(ARGV))
for n = 2, #KEYS do redis.call('UNLINK', KEYS[n]) end
return 0
