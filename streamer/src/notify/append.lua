-- Appends entries to the relay: all of those that are not there yet, or nothing where that would leave a hole.
--
-- KEYS[1]  the stream
-- ARGV     how many entries to keep, about; the last entry that the caller knows to be there (lsn, op); the last one that
--          was published (lsn, op); then for each entry: lsn, op, channel, message, cursor, entity type, entity id, event.
--          A marker of a hole has no channel, and the reason in place of the event.
--
-- Answers {how many were added, lsn and op of the last one that ever was there}, or {-1, lsn, op} if the stream has lost
-- entries that the caller knows of. Numbers have 64 bits and Lua's do not: they stay texts.
local function below(lsn_a, op_a, lsn_b, op_b)
  if #lsn_a ~= #lsn_b then return #lsn_a < #lsn_b end
  if lsn_a ~= lsn_b then return lsn_a < lsn_b end
  if #op_a ~= #op_b then return #op_a < #op_b end
  return op_a < op_b
end

local lsn, op = '0', '0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  -- Not the last entry: that one may have been deleted, and then its id is not free again.
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      lsn, op = string.match(info[i + 1], '(%d+)-(%d+)')
    end
  end
end
if below(lsn, op, ARGV[2], ARGV[3]) then return {-1, lsn, op} end

local added = 0
for i = 6, #ARGV, 8 do
  if below(lsn, op, ARGV[i], ARGV[i + 1]) then
    lsn, op = ARGV[i], ARGV[i + 1]
    local id = lsn .. '-' .. op
    if ARGV[i + 2] == '' then
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], id, 'gap', ARGV[i + 7], 'cursor', ARGV[i + 4])
    else
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], id, 'cursor', ARGV[i + 4], 'entity_type', ARGV[i + 5],
        'entity_id', ARGV[i + 6], 'event', ARGV[i + 7])
      if below(ARGV[4], ARGV[5], lsn, op) then redis.call('PUBLISH', ARGV[i + 2], ARGV[i + 3]) end
    end
    added = added + 1
  end
end
return {added, lsn, op}
