-- KEYS: all of the queue, the first is what is known of it.
local incarnation = redis.call('HGET', KEYS[1], 'incarnation')
if not incarnation then return false end
redis.call('UNLINK', unpack(KEYS))
local base = string.sub(KEYS[1], 1, -5)
redis.pcall('PUBLISH', base .. 'news', '-1')
redis.pcall('PUBLISH', base .. 'dead:news', '-1')
return incarnation
