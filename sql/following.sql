create function headwater.following() returns boolean
  language c volatile strict
as 'MODULE_PATHNAME', 'following_wrapper';
comment on function headwater.following() is
  'Whether DDL is followed in this session. Functions of Headwater that change tables themselves switch it off, and superusers may: set headwater.follow = off.';
