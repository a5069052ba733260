-- Puts a table that was rewritten in its place. KEYS: what is known of it, what is left of earlier ones. ARGV: the new ID, its stamp.
local found = redis.call('HMGET', KEYS[1], 'altering', 'altering_schema', 'id', 'schema')
if found[1] ~= ARGV[1] then return { 1 } end
redis.call('HSET', KEYS[2], found[3], found[4])
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'stamp', ARGV[2], 'schema', found[2])
redis.call('HDEL', KEYS[1], 'altering', 'altering_schema', 'altering_until')
return { 0 }
