-- What stands in front of every script that works on the messages of a queue: the keys, the time, and what is due.
--
-- A script answers with a list that begins with a number: 0 done, 1 there is no such queue, 2 more is due than one call does (call again),
-- 3 the receipt is stale. A server without memory refuses a script at its first write, if that is one that takes memory: scripts that give
-- something back (or only move it) therefore begin with a ZREM, which goes through, and all after it too.

local call = redis.call
local META, DELAYED, EXPIRING, DEDUP, DEDUP_UNTIL, INFO = KEYS[1], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[18]
local LIVE = { body = KEYS[2], attributes = KEYS[3], state = KEYS[4], age = KEYS[5], ready = KEYS[6], leased = KEYS[7] }
local DEAD = { body = KEYS[12], attributes = KEYS[13], state = KEYS[14], age = KEYS[15], ready = KEYS[16], leased = KEYS[17] }
local BASE = string.sub(META, 1, -5)
-- How many values one command takes: Lua's stack holds 8,000.
local STEP = 1000
-- How much one call moves of what is due: bounds how long it keeps others waiting.
local MOST, MOST_BYTES = 1000, 16777216

local spec = call('HMGET', META, 'max_deliveries', 'dedup_window')
if not spec[2] then return { 1 } end
local MAX, WINDOW = tonumber(spec[1]), tonumber(spec[2])
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

-- A number as text: Lua writes those of 15 digits and more with an exponent. Commands take numbers as they are.
local function int(number) return string.format('%.0f', number) end
local NOW = int(now)

-- The order of receiving: priorities from 9 to 0, then by age. 2^49 messages fit into one.
local function rank(priority, seq) return (9 - priority) * 562949953421312 + seq end

-- Waiting receivers look again. Who may not publish does without.
local function tell(lane, count)
  redis.pcall('PUBLISH', BASE .. (lane == DEAD and 'dead:news' or 'news'), count)
end

-- What is known of a message beside body and attributes: one line that a person can read.
local function read(line)
  local priority, expires, sent, deliveries, size, lease, kind = string.match(line, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%S+) ?(.*)$')
  return {
    priority = tonumber(priority), expires = tonumber(expires), sent = sent, deliveries = tonumber(deliveries),
    size = tonumber(size), lease = lease, kind = kind,
  }
end

local function line(m)
  local expires = m.expires > 0 and int(m.expires) or '0'
  local kind = m.kind ~= '' and ' ' .. m.kind or ''
  return m.priority .. ' ' .. expires .. ' ' .. m.sent .. ' ' .. m.deliveries .. ' ' .. m.size .. ' ' .. m.lease .. kind
end

-- A command with many values, a step at a time.
local function many(command, key, values)
  for from = 1, #values, STEP do
    call(command, key, unpack(values, from, math.min(from + STEP - 1, #values)))
  end
end

local function fetch(key, fields)
  local found = {}
  for from = 1, #fields, STEP do
    local part = call('HMGET', key, unpack(fields, from, math.min(from + STEP - 1, #fields)))
    for n = 1, #part do found[from + n - 1] = part[n] end
  end
  return found
end

local function forget(lane, seqs)
  for _, key in ipairs({ lane.age, lane.leased, lane.ready }) do many('ZREM', key, seqs) end
  if lane == LIVE then
    many('ZREM', DELAYED, seqs)
    many('ZREM', EXPIRING, seqs)
  else
    many('HDEL', INFO, seqs)
  end
  for _, key in ipairs({ lane.body, lane.attributes, lane.state }) do many('HDEL', key, seqs) end
end

-- Carries a message to the other lane, where it is ready, without a lease, a time to live or deliveries.
local function carry(seq, m, from, to)
  local body, attributes = call('HGET', from.body, seq), call('HGET', from.attributes, seq)
  forget(from, { seq })
  m.expires, m.deliveries, m.lease = 0, 0, '-'
  call('HSET', to.body, seq, body or '')
  if attributes then call('HSET', to.attributes, seq, attributes) end
  call('HSET', to.state, seq, line(m))
  call('ZADD', to.age, seq, seq)
  call('ZADD', to.ready, rank(m.priority, seq), seq)
end

local function bury(seq, m, reason)
  local about = m.deliveries .. ' ' .. NOW .. ' ' .. reason
  carry(seq, m, LIVE, DEAD)
  call('HSET', INFO, seq, about)
end

-- Why a message that becomes ready now is dead instead.
local function doom(m)
  if MAX > 0 and m.deliveries >= MAX then return 'max-deliveries' end
  if m.expires > 0 and m.expires <= now then return 'expired' end
end

-- Makes messages ready that are in no other set of their lane.
local function make_ready(lane, seqs, messages)
  local ready, expiring = {}, {}
  for n, seq in ipairs(seqs) do
    local m = messages[n]
    local reason = lane == LIVE and doom(m)
    if reason then
      bury(seq, m, reason)
    else
      ready[#ready + 1] = rank(m.priority, seq)
      ready[#ready + 1] = seq
      if m.expires > 0 then
        expiring[#expiring + 1] = m.expires
        expiring[#expiring + 1] = seq
      end
    end
  end
  many('ZADD', lane.ready, ready)
  many('ZADD', EXPIRING, expiring)
end

-- Forgets dedup ids whose window is over, so many at most.
local function forget_ids(most)
  local over = call('ZRANGEBYSCORE', DEDUP_UNTIL, '-inf', now, 'LIMIT', 0, most)
  many('ZREM', DEDUP_UNTIL, over)
  many('HDEL', DEDUP, over)
end

-- Brings the queue up to now: what is due becomes ready, what is over becomes a dead letter. True: there is more of it.
local function settle()
  local left, bytes = MOST, 0
  local from = { { DELAYED, LIVE }, { LIVE.leased, LIVE }, { EXPIRING, LIVE }, { DEAD.leased, DEAD } }
  for _, pair in ipairs(from) do
    local key, lane = pair[1], pair[2]
    local due = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, left)
    if #due > 0 then
      local seqs, messages = {}, {}
      for n, state in ipairs(fetch(lane.state, due)) do
        -- What somebody removed by hand is nowhere else either.
        local m = state and read(state)
        if m and lane == LIVE and doom(m) then bytes = bytes + m.size end
        if bytes > MOST_BYTES and n > 1 then left = 0 break end
        if m then
          seqs[#seqs + 1] = due[n]
          messages[#messages + 1] = m
        else
          call('ZREM', key, due[n])
        end
      end
      many('ZREM', key, seqs)
      make_ready(lane, seqs, messages)
      left = left - #due
      if left <= 0 then return true end
    end
  end
  forget_ids(MOST)
  return false
end

-- Which lane a call is about, and the other one.
local function lanes(name)
  if name == 'dead' then return DEAD, LIVE end
  return LIVE, DEAD
end

-- In how many microseconds something may become ready in the lane; -1: not by itself.
local function next_due(lane)
  local best
  local keys = { LIVE.leased, DELAYED }
  if lane == DEAD then keys = { DEAD.leased, LIVE.leased, DELAYED, EXPIRING } end
  for _, key in ipairs(keys) do
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then
      local at = tonumber(first[2])
      if not best or at < best then best = at end
    end
  end
  return best and math.max(0, best - now) or -1
end

-- The messages of a lane's `ready` from the front, and their bodies: at most `max`, of at most so many bytes together, but one at least.
local function front(lane, max, most_bytes)
  local seqs, messages, bytes = {}, {}, 0
  local ready = call('ZRANGE', lane.ready, 0, max - 1)
  local states = fetch(lane.state, ready)
  for n, seq in ipairs(ready) do
    if states[n] then
      local m = read(states[n])
      bytes = bytes + m.size
      if #seqs > 0 and bytes > most_bytes then break end
      seqs[#seqs + 1] = seq
      messages[#messages + 1] = m
    else
      -- What somebody removed by hand must not be in the way.
      call('ZREM', lane.ready, seq)
    end
  end
  local bodies = fetch(lane.body, seqs)
  if lane == DEAD then return seqs, messages, bodies end
  -- A server that may evict keys has lost bodies: no message is made up with an empty one.
  local whole = { {}, {}, {} }
  for n, seq in ipairs(seqs) do
    if bodies[n] then
      local at = #whole[1] + 1
      whole[1][at], whole[2][at], whole[3][at] = seq, messages[n], bodies[n]
    else
      bury(seq, messages[n], 'body-lost')
    end
  end
  return unpack(whole)
end

-- Messages as they are answered, five values each.
local function show(lane, seqs, lines, bodies)
  local attributes = fetch(lane.attributes, seqs)
  local infos = lane == DEAD and fetch(INFO, seqs) or {}
  local shown = {}
  for n, seq in ipairs(seqs) do
    shown[#shown + 1] = seq
    shown[#shown + 1] = lines[n]
    shown[#shown + 1] = bodies[n] or ''
    shown[#shown + 1] = attributes[n] or ''
    shown[#shown + 1] = infos[n] or ''
  end
  return shown
end
