-- KEYS: what is known of the table, the sorted set, and rows. ARGV: the table's stamp, and for each row what stands for it in the set. What has no row is removed.
if redis.call('HGET', KEYS[1], 'stamp') ~= ARGV[1] then return 0 end
for n = 3, #KEYS do
  if redis.call('EXISTS', KEYS[n]) == 0 then redis.call('ZREM', KEYS[2], ARGV[n - 1]) end
end
return 0
