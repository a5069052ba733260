-- ARGV: lane, how many at most, bytes at most.
if settle() then return { 2 } end
local lane = lanes(ARGV[1])
local seqs, messages, bodies = front(lane, tonumber(ARGV[2]), tonumber(ARGV[3]))
local lines = {}
for n, m in ipairs(messages) do lines[n] = line(m) end
return { 0, show(lane, seqs, lines, bodies) }
