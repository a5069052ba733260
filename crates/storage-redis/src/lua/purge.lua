-- ARGV: lane.
if settle() then return { 2 } end
local lane = lanes(ARGV[1])
local count = call('ZCARD', lane.age)
for _, key in pairs(lane) do call('UNLINK', key) end
if lane == LIVE then call('UNLINK', DELAYED, EXPIRING) else call('UNLINK', INFO) end
return { 0, count }
