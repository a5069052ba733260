-- KEYS: what is known of the table, a record's history. ARGV: its stamp.
if redis.call('HGET', KEYS[1], 'stamp') ~= ARGV[1] then return { 1 } end
return { 0, redis.call('LRANGE', KEYS[2], 0, -1) }
