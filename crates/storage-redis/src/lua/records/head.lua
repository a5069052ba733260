-- What stands in front of every script that works on the records of tables.
--
-- A script answers with a list that begins with a number: 0 done, 1 the table is not as the caller knows it (or gone), 2 it is being rewritten,
-- 3 a precondition does not hold, 4 a unique value is taken, 5 there is no such queue, 6 a record was not written by this toolkit.
-- Everything is read, so that keys of another kind are found, before the first write, which is one that takes memory where any of them does: a
-- server without memory refuses it, and with it the whole script.

local call = redis.call
-- How many values one command takes: Lua's stack holds 8,000.
local STEP = 1000
local time = call('TIME')
local server = time[1] * 1000000 + time[2]

-- A number as text: Lua writes those of 15 digits and more with an exponent. Commands take numbers as they are.
local function int(number) return string.format('%.0f', number) end

-- A command with many values, a step at a time.
local function many(command, key, values)
  for from = 1, #values, STEP do
    call(command, key, unpack(values, from, math.min(from + STEP - 1, #values)))
  end
end

-- What stands in the indexes, by column: the packed list of a record's `@index`. nil: it is damaged.
local function read_index(packed)
  if not packed then return {} end
  local whole, list = pcall(cmsgpack.unpack, packed)
  if not whole or type(list) ~= 'table' then return nil end
  local index = {}
  for n = 1, #list, 2 do index[list[n]] = list[n + 1] end
  return index
end

-- The columns' values in a row, as in an index; nil where one is missing and none may be.
local function values(columns, index, whole)
  local parts = {}
  for n, column in ipairs(columns) do
    if whole and not index[column] then return nil end
    parts[n] = index[column] or '-\0'
  end
  return table.concat(parts)
end

local function has_expired(expires, now)
  local at = expires and tonumber(expires)
  return at ~= nil and at ~= false and at <= now
end

-- Removes a record that has expired: nothing of it counts any more. `t`: keys, expiring, data (what its keys begin with), index, unique.
local function forget(t, member, now)
  local row = t.data .. 'row:' .. member
  local found = redis.pcall('HMGET', row, '@version', '@expires', '@index')
  if found.err then
    -- Of another kind, and not one of ours: it is in nobody's way. One that is on its way to another node comes up again.
    if not string.find(found.err, 'non local key', 1, true) then call('ZREM', t.expiring, member) end
    return 0
  end
  if found[1] and not has_expired(found[2], now) then
    if found[2] then call('ZADD', t.expiring, found[2], member) else call('ZREM', t.expiring, member) end
    return 0
  end
  local index = read_index(found[3] or nil) or {}
  for _, one in ipairs(t.index) do call('ZREM', one.key, values(one.columns, index) .. member) end
  for _, set in ipairs(t.unique) do
    local value = values(set.columns, index, true)
    local holder = value and call('HGET', set.key, value)
    if holder and string.match(holder, '^%S+ (.*)$') == member then call('HDEL', set.key, value) end
  end
  call('ZREM', t.keys, member)
  call('ZREM', t.expiring, member)
  call('DEL', row)
  return 1
end

-- So many expired records at most.
local function sweep(t, now, most)
  local due = call('ZRANGEBYSCORE', t.expiring, '-inf', now, 'LIMIT', 0, most)
  local freed = 0
  for _, member in ipairs(due) do freed = freed + forget(t, member, now) end
  return freed, #due
end

-- A table as callers tell of it (a packed list: stamp, how many versions are kept, what keys of records begin with, the columns of each index, those
-- of each unique set) with its keys, which begin behind KEYS[at]. Answers the table, and its last key's number.
local function read_table(list, keys, at)
  local t = {
    stamp = list[1], keep = tonumber(list[2]), data = list[3], meta = keys[at + 1], dropped = keys[at + 2], keys = keys[at + 3],
    expiring = keys[at + 4], kept = keys[at + 5], index = {}, unique = {},
  }
  at = at + 5
  for n, columns in ipairs(list[4]) do t.index[n] = { key = keys[at + n], columns = columns } end
  at = at + #list[4]
  for n, columns in ipairs(list[5]) do t.unique[n] = { key = keys[at + n], columns = columns, held = {}, changed = {} } end
  return t, at + #list[5]
end

-- Holds a table's stamp against the one that is there, and ends a rewriting whose program is gone. nil: go on.
local function check_table(t)
  local found = call('HMGET', t.meta, 'stamp', 'altering', 'altering_until', 'altering_schema')
  if found[1] ~= t.stamp then return 1 end
  if found[2] then
    if tonumber(found[3] or 0) > server then return 2 end
    call('HSET', t.dropped, found[2], found[4] or '')
    call('HDEL', t.meta, 'altering', 'altering_until', 'altering_schema')
  end
end

-- Keys of another kind than ours end the script here.
local function check_kinds(t)
  call('ZCARD', t.keys)
  call('ZCARD', t.expiring)
  if t.keep ~= 0 then call('ZCARD', t.kept) end
  for _, one in ipairs(t.index) do call('ZCARD', one.key) end
  for _, set in ipairs(t.unique) do call('HLEN', set.key) end
end
