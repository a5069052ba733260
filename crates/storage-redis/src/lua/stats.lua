-- ARGV: lane.
if settle() then return { 2 } end
local lane = lanes(ARGV[1])
local live = lane == LIVE
local oldest = call('ZRANGE', lane.age, 0, 0)
local state = oldest[1] and call('HGET', lane.state, oldest[1])
return {
  0, call('ZCARD', lane.ready), live and call('ZCARD', DELAYED) or 0, call('ZCARD', lane.leased),
  live and call('ZCARD', DEAD.age) or 0, state and read(state).sent or '',
}
