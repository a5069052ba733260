-- ARGV: how many at most. By age, whatever the priority: the oldest of each, then the oldest of these.
if settle() then return { 2 } end
local max, oldest = math.min(tonumber(ARGV[1]), MOST), {}
for priority = 0, 9 do
  local found = call('ZRANGEBYSCORE', DEAD.ready, rank(priority, 0), '(' .. int(rank(priority - 1, 0)), 'LIMIT', 0, max)
  for _, seq in ipairs(found) do oldest[#oldest + 1] = seq end
end
table.sort(oldest, function(a, b) return tonumber(a) < tonumber(b) end)
local count, bytes = 0, 0
for n = 1, math.min(max, #oldest) do
  local seq = oldest[n]
  local state = call('HGET', DEAD.state, seq)
  if state and bytes < MOST_BYTES then
    local m = read(state)
    bytes = bytes + m.size
    carry(seq, m, DEAD, LIVE)
    count = count + 1
  end
end
if count > 0 then tell(LIVE, count) end
return { 0, count }
