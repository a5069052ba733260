-- ARGV: lane, message, lease, new lease, visibility or '', whether there is a new body, the body, whether there are new attributes, the attributes.
if settle() then return { 2 } end
local lane = lanes(ARGV[1])
local seq = ARGV[2]
local state = call('HGET', lane.state, seq)
local m = state and read(state)
if not m or m.lease ~= ARGV[3] then return { 3 } end
if ARGV[6] == '1' then
  call('HSET', lane.body, seq, ARGV[7])
  m.size = #ARGV[7]
end
local visibility = ARGV[5] ~= '' and tonumber(ARGV[5])
-- See the head of queue.lua: a lease can be renewed although the server is full.
call('ZREM', lane.ready, '')
if ARGV[8] == '1' then
  if ARGV[9] == '' then call('HDEL', lane.attributes, seq) else call('HSET', lane.attributes, seq, ARGV[9]) end
  -- Instead of all that were there.
  if lane == DEAD then call('HDEL', INFO, seq) end
end
m.lease = ARGV[4]
call('HSET', lane.state, seq, line(m))
if visibility then
  local before = call('ZSCORE', lane.leased, seq)
  call('ZREM', lane.ready, seq)
  if lane == LIVE then call('ZREM', EXPIRING, seq) end
  if visibility == 0 then
    call('ZREM', lane.leased, seq)
    make_ready(lane, { seq }, { m })
    tell(lane, 1)
  else
    call('ZADD', lane.leased, now + visibility, seq)
    -- Others may be asleep until the old end of the lease.
    if not before or now + visibility < tonumber(before) then tell(lane, 0) end
  end
end
return { 0 }
