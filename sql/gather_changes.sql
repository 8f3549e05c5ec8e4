create function headwater.gather_changes() returns boolean
  language c volatile strict
as 'MODULE_PATHNAME', 'gather_changes_wrapper';
comment on function headwater.gather_changes() is 'For the streamer, on its replication connection: from here on the changes of a transaction are sent together, and not each by itself. False on any other connection, where nothing changes.';
