-- Begins to rewrite a table. KEYS: what is known of it, what is left of earlier ones. ARGV: its stamp, the new ID, the new schema, for how long (µs).
local t = { meta = KEYS[1], dropped = KEYS[2], stamp = ARGV[1] }
local state = check_table(t)
if state then return { state } end
call('HSET', KEYS[1], 'altering', ARGV[2], 'altering_schema', ARGV[3], 'altering_until', int(server + tonumber(ARGV[4])))
return { 0 }
