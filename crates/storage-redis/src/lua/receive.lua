-- ARGV: lane, how many at most, visibility, the new lease, bytes at most.
if settle() then return { 2 } end
local lane = lanes(ARGV[1])
local seqs, messages, bodies = front(lane, tonumber(ARGV[2]), tonumber(ARGV[5]))
local lines, leased, states, expiring = {}, {}, {}, {}
local ends = now + tonumber(ARGV[3])
for n, seq in ipairs(seqs) do
  local m = messages[n]
  m.deliveries = math.min(m.deliveries + 1, 4294967295)
  m.lease = ARGV[4]
  lines[n] = line(m)
  leased[#leased + 1] = ends
  leased[#leased + 1] = seq
  states[#states + 1] = seq
  states[#states + 1] = lines[n]
  if m.expires > 0 then expiring[#expiring + 1] = seq end
end
many('ZREM', lane.ready, seqs)
many('ZREM', EXPIRING, expiring)
many('ZADD', lane.leased, leased)
many('HSET', lane.state, states)
return { 0, now, next_due(lane), call('ZCARD', lane.ready), show(lane, seqs, lines, bodies) }
