-- KEYS: what is known of the table, the sorted set to go through, that of expiry. ARGV: the table's stamp, the time or '' for the server's, 'up' or
-- 'down', from where, to where, how many at most, how many bytes at most (but one record at least), what rows begin with, the columns of
-- the index (packed; none: the set holds the keys). Answers whether there may be more, the last that was looked at, and keys with their rows.
local now = ARGV[2] ~= '' and tonumber(ARGV[2]) or server
if call('HGET', KEYS[1], 'stamp') ~= ARGV[1] then return { 1 } end
local limit, most, columns = tonumber(ARGV[6]), tonumber(ARGV[7]), cmsgpack.unpack(ARGV[9])
local command, from, to = 'ZRANGEBYLEX', ARGV[4], ARGV[5]
if ARGV[3] == 'down' then command, from, to = 'ZREVRANGEBYLEX', to, from end
local members = call(command, KEYS[2], from, to, 'LIMIT', 0, limit)

-- The key behind the values, each of which ends with a zero.
local function key_of(member)
  local at = 0
  for _ = 1, #columns do at = string.find(member, '\0', at + 1, true) or at end
  return string.sub(member, at + 1)
end

local answer, bytes, last = {}, 0, ''
for n, member in ipairs(members) do
  local key = key_of(member)
  local row = redis.pcall('HGETALL', ARGV[8] .. key)
  if row.err then
    -- In a Cluster it may be on its way to another node, where the caller finds it by its name.
    if not string.find(row.err, 'non local key', 1, true) then return row end
    row = {}
  end
  local about = {}
  for at = 1, #row, 2 do
    if string.sub(row[at], 1, 1) == '@' then about[row[at]] = row[at + 1] end
    bytes = bytes + #row[at] + #row[at + 1]
  end
  local current = not has_expired(about['@expires'], now)
  if current and #row > 0 and #columns > 0 then
    -- What lost its row by eviction, and was written again, may stand here twice.
    local index = read_index(about['@index'])
    current = index ~= nil and values(columns, index) .. key == member
    if not index then return { 6, key } end
  end
  if current then
    answer[#answer + 1] = key
    answer[#answer + 1] = row
  end
  last = member
  if bytes > most and n < #members then return { 0, 1, last, answer } end
end
return { 0, #members == limit and 1 or 0, last, answer }
