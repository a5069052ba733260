-- KEYS: those of the table. ARGV: the time or '' for the server's, the table, how many at most. Answers how many were freed, and looked at.
local t = read_table(cmsgpack.unpack(ARGV[2]), KEYS, 0)
local state = check_table(t)
if state then return { state, 1 } end
check_kinds(t)
local freed, seen = sweep(t, ARGV[1] ~= '' and tonumber(ARGV[1]) or server, tonumber(ARGV[3]))
return { 0, freed, seen }
