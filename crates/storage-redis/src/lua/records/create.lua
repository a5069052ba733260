-- KEYS: what is known of the table. ARGV: ID, stamp, schema. Answers the schema and the ID of the table that is there.
local there = redis.call('HMGET', KEYS[1], 'schema', 'id')
if there[1] then return there end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'stamp', ARGV[2], 'schema', ARGV[3])
return false
