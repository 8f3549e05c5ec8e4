create function headwater.uuid_v7() returns uuid
  language c volatile strict parallel safe
as 'MODULE_PATHNAME', 'uuid_v7_wrapper';
comment on function headwater.uuid_v7() is 'A new UUIDv7 (RFC 9562). Those of one backend rise.';
