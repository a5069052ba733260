-- KEYS: for each table those of `read_table`; for each record its row, and its history where the table keeps any; for each queue all of it.
-- ARGV: the time or '' for the server's; the tables; the records (number of the table, key); the number of queues; then a write each: number of the
-- record, what to do, what is expected, the version expected, expiry or '', fields and their JSON, fields to remove, columns and what stands
-- in their indexes ('': nothing any more). A message: number of the queue, `send`, and what `send.lua` takes.
local NOW = ARGV[1] ~= '' and ARGV[1] or int(server)
local now = tonumber(NOW)
-- How many expired records one batch removes from each table: more than it can write that expire would pile up.
local SWEEP = 16

local tables, at = {}, 0
for n, list in ipairs(cmsgpack.unpack(ARGV[2])) do
  tables[n], at = read_table(list, KEYS, at)
  local state = check_table(tables[n])
  if state then return { state, n } end
end
for _, t in ipairs(tables) do check_kinds(t) end

local rows = {}
for n, pair in ipairs(cmsgpack.unpack(ARGV[3])) do
  local t = tables[tonumber(pair[1])]
  local row = { table = t, member = pair[2], key = KEYS[at + 1] }
  at = at + 1
  if t.keep ~= 0 then
    row.history = KEYS[at + 1]
    at = at + 1
    call('LLEN', row.history)
  end
  local found = call('HMGET', row.key, '@version', '@expires', '@index')
  if not found[1] and call('EXISTS', row.key) == 1 then return { 6, n } end
  row.index = read_index(found[3] or nil)
  row.there, row.expires = found[1] and true or false, found[2] or nil
  row.version = row.there and tonumber(found[1]) or 0
  if not row.version or not row.index then return { 6, n } end
  if row.there and has_expired(row.expires, now) then row.version = 0 end
  row.old_index, row.old_expires, row.alive = row.there and row.index, row.expires, row.version > 0
  rows[n] = row
end

local queues = {}
for n = 1, tonumber(ARGV[4]) do
  local keys = {}
  for part = 1, 18 do keys[part] = KEYS[at + part] end
  at = at + 18
  queues[n] = { keys = keys, messages = {}, there = call('HGET', keys[1], 'dedup_window') }
  for _, part in ipairs({ 2, 3, 4, 10 }) do call('HLEN', keys[part]) end
  for _, part in ipairs({ 5, 6, 7, 8, 9, 11 }) do call('ZCARD', keys[part]) end
end

-- Who has a unique value: "expires KEY", as this batch has left it so far.
local function holder(set, value)
  local held = set.held[value]
  if held == nil then
    held = call('HGET', set.key, value)
    set.held[value] = held
  end
  if not held then return nil end
  local expires, member = string.match(held, '^(%S+) (.*)$')
  return member, expires
end

-- Takes a row's unique values, and gives back those it had. The number of the set whose value another record has, and that one's key.
local function claim(row, index, expires)
  for n, set in ipairs(row.table.unique) do
    local value = values(set.columns, index, true)
    local member, till = nil, nil
    if value then member, till = holder(set, value) end
    if member and member ~= row.member and not has_expired(till, now) then return n, member end
  end
  for _, set in ipairs(row.table.unique) do
    local old, new = values(set.columns, row.index, true), values(set.columns, index, true)
    if old and old ~= new and holder(set, old) == row.member then
      set.held[old], set.changed[old] = false, true
    end
    if new then
      set.held[new], set.changed[new] = (expires or '-') .. ' ' .. row.member, true
    end
  end
end

local function expected(w, version)
  if w[3] == 'absent' then return version == 0 end
  if w[3] == 'present' then return version > 0 end
  if w[3] == 'version' then return int(version) == w[4] end
  return true
end

local writes, versions, count = {}, {}, #ARGV - 4
for n = 1, count do
  local w = cmsgpack.unpack(ARGV[4 + n])
  local what = w[2]
  if what == 'send' then
    local queue = queues[tonumber(w[1])]
    if not queue.there then return { 5, n } end
    for part = 3, 9 do queue.messages[#queue.messages + 1] = w[part] end
    versions[n] = '0'
  else
    local row = rows[tonumber(w[1])]
    local version = row.version
    if not expected(w, version) then return { 3, n, int(version) } end
    if what == 'put' or what == 'merge' then
      local index, expires = {}, row.expires
      if what == 'put' then
        expires = w[5] ~= '' and w[5] or nil
      else
        for column, value in pairs(row.index) do index[column] = value end
      end
      for at = 1, #w[8], 2 do index[w[8][at]] = w[8][at + 1] ~= '' and w[8][at + 1] or nil end
      local set, other = claim(row, index, expires)
      if set then return { 4, n, set, other } end
      row.version, row.index, row.expires, row.alive, row.changed = version + 1, index, expires, true, true
      if what == 'merge' and #w[8] == 0 then w.same_index = true end
    elseif what == 'delete' and version > 0 then
      claim(row, {}, nil)
      row.version, row.index, row.expires, row.alive, row.changed = 0, {}, nil, false, true
    end
    versions[n] = int(what == 'delete' and version or row.version)
    -- A record may expire in the middle of its batch: for those that come after it is not there.
    if has_expired(row.expires, now) then row.version = 0 end
    w.row, w.version, w.index, w.expires = row, versions[n], row.index, row.expires
    if (what == 'put' or what == 'merge' or what == 'delete') and versions[n] ~= '0' then writes[#writes + 1] = w end
  end
end

-- From here on nothing fails.
for _, row in ipairs(rows) do
  if row.changed and row.alive then call('ZADD', row.table.keys, 0, row.member) end
end

local function packed(index)
  local list = {}
  for column, value in pairs(index) do
    list[#list + 1] = column
    list[#list + 1] = value
  end
  return #list > 0 and cmsgpack.pack(list)
end

-- The record as it is now, as its history keeps it.
local function remember(row, w)
  local all, fields = call('HGETALL', row.key), {}
  for n = 1, #all, 2 do
    local name = all[n]
    if string.sub(name, 1, 1) ~= '@' or string.sub(name, 2, 2) == '@' then
      if string.sub(name, 1, 1) == '@' then name = string.sub(name, 2) end
      fields[#fields + 1] = cjson.encode(name) .. ':' .. all[n + 1]
    end
  end
  local expires = w.expires and ',"expires":' .. w.expires or ''
  local text = '{"version":' .. w.version .. ',"updated":' .. NOW .. expires .. ',"fields":{' .. table.concat(fields, ',') .. '}}'
  call('LPUSH', row.history, text)
  if row.table.keep > 0 then call('LTRIM', row.history, 0, row.table.keep - 1) end
  call('ZADD', row.table.kept, 0, row.member)
end

for _, w in ipairs(writes) do
  local row = w.row
  if w[2] == 'delete' then
    call('DEL', row.key)
    row.there = false
  else
    local about = { '@version', w.version, '@updated', NOW }
    if w[2] == 'put' then
      if row.there then call('DEL', row.key) end
      if w.expires then
        about[5], about[6] = '@expires', w.expires
      end
    end
    local index = not w.same_index and packed(w.index)
    if index then
      about[#about + 1] = '@index'
      about[#about + 1] = index
    elseif not w.same_index and w[2] == 'merge' then
      call('HDEL', row.key, '@index')
    end
    call('HSET', row.key, unpack(about))
    many('HSET', row.key, w[6])
    many('HDEL', row.key, w[7])
    row.there = true
    if row.history then remember(row, w) end
  end
end

for _, row in ipairs(rows) do
  if row.changed then
    local t = row.table
    for _, one in ipairs(t.index) do
      local old = row.old_index and values(one.columns, row.old_index)
      local new = row.alive and values(one.columns, row.index)
      if old ~= new then
        if old then call('ZREM', one.key, old .. row.member) end
        if new then call('ZADD', one.key, 0, new .. row.member) end
      end
    end
    local expires = row.alive and row.expires or nil
    if expires then
      call('ZADD', t.expiring, expires, row.member)
    elseif row.old_expires then
      call('ZREM', t.expiring, row.member)
    end
    if not row.alive then call('ZREM', t.keys, row.member) end
    t.changed = true
  end
end

for _, t in ipairs(tables) do
  for _, set in ipairs(t.unique) do
    for value in pairs(set.changed) do
      if set.held[value] then call('HSET', set.key, value, set.held[value]) else call('HDEL', set.key, value) end
    end
  end
  if t.changed then sweep(t, now, SWEEP) end
end

for _, queue in ipairs(queues) do
  if #queue.messages > 0 then send(queue.keys, queue.messages) end
end
return { 0, versions }
