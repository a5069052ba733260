-- Gives a rewriting up. KEYS: what is known of the table, what is left of earlier ones. ARGV: the new ID.
local found = redis.call('HMGET', KEYS[1], 'altering', 'altering_schema')
if found[1] ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'altering', 'altering_schema', 'altering_until')
redis.call('HSET', KEYS[2], found[1], found[2])
return 0
