create function headwater.why_not_capturable(relation regclass, out reason text, out hint text)
  language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  perform headwater.require_capturable(relation);
exception when wrong_object_type then
  get stacked diagnostics reason = message_text, hint = pg_exception_hint;
end
$$;
comment on function headwater.why_not_capturable(regclass) is 'Why changes of a table cannot be captured, and what to do; nulls if they can.';
