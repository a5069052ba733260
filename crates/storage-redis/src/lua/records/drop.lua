-- KEYS: what is known of the table, what is left of earlier ones. ARGV: the schema that it must have. Answers the ID; 0: it has another schema by now.
local found = redis.call('HMGET', KEYS[1], 'id', 'schema', 'altering', 'altering_schema')
if not found[1] then return false end
if found[2] ~= ARGV[1] then return 0 end
-- Takes memory, if little, and therefore comes after a removal, which a full server lets through.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[2], found[1], found[2])
if found[3] then redis.call('HSET', KEYS[2], found[3], found[4] or '') end
return found[1]
