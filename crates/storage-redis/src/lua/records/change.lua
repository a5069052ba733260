-- A change of the schema that leaves the records as they are. KEYS: what is known of the table, what is left of earlier ones, and keys that are to go.
-- ARGV: the old stamp, the new one, the new schema. 1: it is not as the caller knows it; 2: it is being rewritten.
local t = { meta = KEYS[1], dropped = KEYS[2], stamp = ARGV[1] }
local state = check_table(t)
if state then return { state } end
call('HSET', KEYS[1], 'stamp', ARGV[2], 'schema', ARGV[3])
for n = 3, #KEYS do call('UNLINK', KEYS[n]) end
return { 0 }
