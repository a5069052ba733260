-- KEYS: what is known of the table, and the rows. ARGV: its stamp, the time or '' for the server's.
local now = ARGV[2] ~= '' and tonumber(ARGV[2]) or server
if call('HGET', KEYS[1], 'stamp') ~= ARGV[1] then return { 1 } end
local rows = {}
for n = 2, #KEYS do
  local row = call('HGETALL', KEYS[n])
  local expires
  for at = 1, #row, 2 do
    if row[at] == '@expires' then expires = row[at + 1] break end
  end
  rows[n - 1] = not has_expired(expires, now) and row or {}
end
return { 0, rows }
