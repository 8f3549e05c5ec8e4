create function headwater.type_schema(type oid, modifier int, nullable boolean) returns jsonb
  language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  described record;
  schema jsonb;
begin
  select t.typtype, t.typbasetype, t.typtypmod, t.typrelid, t.typcategory, t.typelem,
         case when t.typnamespace = 'pg_catalog'::regnamespace then t.typname end as builtin
  into described
  from pg_type t where t.oid = type;
  if described.typtype = 'd' then
    return headwater.type_schema(described.typbasetype, described.typtypmod, nullable);
  end if;
  schema := case
    when described.builtin = 'bool' then '{"type": "boolean"}'
    when described.builtin = 'int2' then '{"type": "integer", "minimum": -32768, "maximum": 32767}'
    when described.builtin = 'int4' then '{"type": "integer", "format": "int32", "minimum": -2147483648, "maximum": 2147483647}'
    when described.builtin = 'int8' then '{"$ref": "#/components/schemas/Int8"}'
    when described.builtin = 'numeric' then '{"$ref": "#/components/schemas/Decimal"}'
    when described.builtin in ('float4', 'float8') then '{"$ref": "#/components/schemas/Float"}'
    when described.builtin in ('varchar', 'bpchar') and modifier > 4 then
      jsonb_build_object('type', 'string', 'maxLength', modifier - 4)
    when described.builtin = 'uuid' then '{"type": "string", "format": "uuid"}'
    when described.builtin = 'date' then '{"type": "string", "format": "date"}'
    when described.builtin = 'timestamptz' then '{"type": "string", "format": "date-time"}'
    when described.builtin = 'bytea' then '{"type": "string", "pattern": "^\\\\x([0-9a-f]{2})*$"}'
    when described.builtin in ('json', 'jsonb') then '{}'
    when described.typcategory = 'A' and described.typelem <> 0 then
      jsonb_build_object('type', 'array', 'items', headwater.type_schema(described.typelem, modifier, true))
    when described.typtype = 'e' then
      jsonb_build_object('type', 'string', 'enum', (select jsonb_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = type))
    when described.typtype = 'c' then jsonb_build_object('type', 'object', 'properties', coalesce(
      (select jsonb_object_agg(a.attname, headwater.type_schema(a.atttypid, a.atttypmod, true))
       from pg_attribute a where a.attrelid = described.typrelid and a.attnum > 0 and not a.attisdropped), '{}'))
    else '{"type": "string"}'
  end;
  if nullable then
    if schema ? '$ref' then
      schema := jsonb_build_object('anyOf', jsonb_build_array(schema, '{"type": "null"}'::jsonb));
    elsif schema ? 'type' then
      schema := schema || jsonb_build_object('type', jsonb_build_array(schema -> 'type', 'null'));
      if schema ? 'enum' then
        schema := jsonb_set(schema, '{enum}', (schema -> 'enum') || 'null'::jsonb);
      end if;
    end if;
  end if;
  return schema || jsonb_build_object('x-postgres', format_type(type, modifier));
end
$$;
comment on function headwater.type_schema(oid, int, boolean) is 'The JSON schema of a type''s values as they travel: int8 and numeric as texts. x-postgres names the type.';
