create function headwater.invalidate(relation regclass) returns void
  language c volatile strict
as 'MODULE_PATHNAME', 'invalidate_wrapper';
comment on function headwater.invalidate(regclass) is 'Makes every backend forget what it cached of a table and its registry entry, once this transaction commits.';
