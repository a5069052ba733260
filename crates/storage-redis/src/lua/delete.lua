-- ARGV: lane, then for each receipt the message and the lease.
if settle() then return { 2 } end
local lane, other = lanes(ARGV[1])
local seqs, gone, outcomes, done = {}, {}, {}, {}
for n = 2, #ARGV, 2 do seqs[#seqs + 1] = ARGV[n] end
local states = fetch(lane.state, seqs)
for n, seq in ipairs(seqs) do
  if done[seq] then
    -- An earlier receipt of this call has removed it.
    outcomes[n] = 0
  elseif not states[n] then
    outcomes[n] = call('HEXISTS', other.state, seq)
  elseif read(states[n]).lease == ARGV[2 * n + 1] then
    gone[#gone + 1] = seq
    done[seq] = true
    outcomes[n] = 0
  else
    outcomes[n] = 1
  end
end
forget(lane, gone)
return { 0, outcomes }
