-- Writes records of a table that is being rewritten. KEYS: those of the new table, then a row each, or a history. ARGV: the new table, for how long
-- the rewriting goes on (µs), 'rows' or 'history', then for each row: key, expiry or '', all of the hash, columns and what stands in their
-- indexes; or the versions of the one history, the newest first. 4: two records have one unique value.
local t, at = read_table(cmsgpack.unpack(ARGV[1]), KEYS, 0)
if call('HGET', t.meta, 'altering') ~= t.stamp then return { 1 } end
call('HSET', t.meta, 'altering_until', int(server + tonumber(ARGV[2])))
if ARGV[3] == 'history' then
  call('ZADD', t.kept, 0, ARGV[4])
  for n = 5, #ARGV do call('RPUSH', KEYS[at + 1], ARGV[n]) end
  return { 0 }
end
for n = 4, #ARGV do
  local w = cmsgpack.unpack(ARGV[n])
  local member, index = w[1], read_index(cmsgpack.pack(w[4]))
  for s, set in ipairs(t.unique) do
    local value = values(set.columns, index, true)
    if value and call('HSETNX', set.key, value, (w[2] ~= '' and w[2] or '-') .. ' ' .. member) == 0 then
      local _, other = string.match(call('HGET', set.key, value), '^(%S+) (.*)$')
      if other ~= member then return { 4, n - 3, s, other } end
    end
  end
  many('HSET', KEYS[at + n - 3], w[3])
  if #w[4] > 0 then call('HSET', KEYS[at + n - 3], '@index', cmsgpack.pack(w[4])) end
  for _, one in ipairs(t.index) do call('ZADD', one.key, 0, values(one.columns, index) .. member) end
  call('ZADD', t.keys, 0, member)
  if w[2] ~= '' then call('ZADD', t.expiring, w[2], member) end
end
return { 0 }
