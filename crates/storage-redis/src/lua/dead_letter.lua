-- ARGV: message, lease, reason.
if settle() then return { 2 } end
local state = call('HGET', LIVE.state, ARGV[1])
local m = state and read(state)
if not m or m.lease ~= ARGV[2] then return { 3 } end
bury(ARGV[1], m, ARGV[3])
tell(DEAD, 1)
return { 0 }
