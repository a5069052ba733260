-- KEYS: what is known of the table, its keys, those that expire. ARGV: its stamp, the time or '' for the server's. Answers how many records there are.
local now = ARGV[2] ~= '' and tonumber(ARGV[2]) or server
if call('HGET', KEYS[1], 'stamp') ~= ARGV[1] then return { 1 } end
return { 0, call('ZCARD', KEYS[2]) - call('ZCOUNT', KEYS[3], '-inf', now) }
