create function headwater.caller() returns name
  language c stable strict
as 'MODULE_PATHNAME', 'caller_name_wrapper';
comment on function headwater.caller() is 'The role that called from outside, seen from within a security definer function (SET ROLE counts).';
