-- ARGV: for each message its body, attributes, priority, delay, time to live, dedup id, content type. Times are microseconds.
local WIDTH = 7
local count = #ARGV / WIDTH
local answers, fresh, here = {}, {}, {}
for n = 1, count do
  local dedup = ARGV[(n - 1) * WIDTH + 6]
  local first, same
  if dedup ~= '' then
    same = here[dedup]
    local known = not same and call('HGET', DEDUP, dedup)
    if known then
      local seq, till = string.match(known, '^(%d+) (%d+)$')
      if tonumber(till) > now then first = seq end
    end
  end
  if first or same then
    answers[n] = { first, same }
  else
    fresh[#fresh + 1] = n
    if dedup ~= '' and WINDOW > 0 then here[dedup] = n end
  end
end

local seqs, ready_count = {}, 0
if #fresh > 0 then
  -- The first write takes memory: a full server refuses it, and with it everything.
  local seq = call('HINCRBY', META, 'seq', #fresh) - #fresh
  local bodies, attributes, states, ages, ready, delayed, expiring, ids, untils = {}, {}, {}, {}, {}, {}, {}, {}, {}
  local function add(list, one, two)
    list[#list + 1] = one
    list[#list + 1] = two
  end
  for _, n in ipairs(fresh) do
    seq = seq + 1
    local at, name = (n - 1) * WIDTH, int(seq)
    seqs[n] = name
    local body, priority, delay, ttl = ARGV[at + 1], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
    local m = { priority = priority, expires = ttl > 0 and now + ttl or 0, sent = NOW, deliveries = 0, size = #body, lease = '-', kind = ARGV[at + 7] }
    add(bodies, name, body)
    if ARGV[at + 2] ~= '' then add(attributes, name, ARGV[at + 2]) end
    add(states, name, line(m))
    add(ages, name, name)
    if delay > 0 then
      add(delayed, now + delay, name)
    else
      ready_count = ready_count + 1
      add(ready, rank(priority, seq), name)
      if ttl > 0 then add(expiring, m.expires, name) end
    end
    if ARGV[at + 6] ~= '' and WINDOW > 0 then
      add(ids, ARGV[at + 6], name .. ' ' .. int(now + WINDOW))
      add(untils, now + WINDOW, ARGV[at + 6])
    end
  end
  many('HSET', LIVE.body, bodies)
  many('HSET', LIVE.attributes, attributes)
  many('HSET', LIVE.state, states)
  many('ZADD', LIVE.age, ages)
  many('ZADD', LIVE.ready, ready)
  many('ZADD', DELAYED, delayed)
  many('ZADD', EXPIRING, expiring)
  many('HSET', DEDUP, ids)
  many('ZADD', DEDUP_UNTIL, untils)
  -- Twice as many as are new: they can't pile up, however large the batches are.
  if #ids > 0 then forget_ids(#ids) end
  tell(LIVE, ready_count)
end

local sent = {}
for n = 1, count do
  local answer = answers[n]
  sent[#sent + 1] = answer and (answer[1] or seqs[answer[2]]) or seqs[n]
  sent[#sent + 1] = answer and 1 or 0
end
return { 0, sent }
