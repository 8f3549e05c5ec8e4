//! Promise: whatever a function is called with, it answers or fails with a clear error; nothing breaks, and nothing of the
//! catalog has changed afterwards.
//!
//! The functions are those that `pg_proc` names, and each needs a call that works, below: a new one without it fails here.
//! From that call come the hostile ones: each argument in turn takes every hostile value of its type.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use std::collections::BTreeMap;

    use pgrx::prelude::*;
    use serde_json::Value;

    use crate::tests::tests::{one, orders, rows, run};

    /// Fewer calls than this to a function with arguments are too few.
    const CALLS: usize = 50;

    /// A call of each function, by its name, as arguments in SQL.
    const WORKS: &[(&str, &[&str])] = &[
        ("attach_capture", &["'t'::regclass", "'thing'"]),
        ("attach_member", &["'t'::regclass", "'thing'"]),
        ("backfill", &["'t'::regclass"]),
        ("caller", &[]),
        ("capture", &[]),
        ("disable", &["'t'::regclass"]),
        ("disable_all", &[]),
        ("discard_rejected", &["'0190a0a0-0000-7000-8000-000000000001'::uuid", "'a'"]),
        (
            "emit",
            &[
                "'thing.noted'",
                "'1'",
                "'{\"n\": 1}'::jsonb",
                "'eve'",
                "true",
                "'a'",
                "'phone'",
                "'0190a0a0-0000-7000-8000-000000000001'::uuid",
                "1",
            ],
        ),
        (
            "enable",
            &[
                "'t'::regclass",
                "'thing'",
                "'[\"created\", \"noted\"]'::jsonb",
                "'{id}'::text[]",
                "'tenant'",
                "'owner'",
                "'{secret}'::text[]",
                "'memory'",
                "true",
                "true",
            ],
        ),
        (
            "enable_table",
            &[
                "'t'::regclass",
                "'thing'",
                "'[\"created\", \"noted\"]'::jsonb",
                "'{id}'::text[]",
                "'tenant'",
                "'owner'",
                "'{secret}'::text[]",
                "'memory'",
                "true",
                "true",
            ],
        ),
        ("ensure_publications", &[]),
        ("follow", &["'t'::regclass"]),
        ("follow_columns", &["'t'::regclass"]),
        ("follow_ddl", &[]),
        ("follow_drop", &[]),
        ("follow_partitions", &["'t'::regclass", "'thing'"]),
        ("grant_client", &["'t'::regclass", "'{secret}'::text[]"]),
        (
            "ingest",
            &[
                "'[{\"id\": \"0190a0a0-0000-7000-8000-000000000002\", \"event_type\": \"thing.noted\", \"entity_type\": \"thing\", \"entity_id\": \"1\", \"payload\": {\"n\": 2}, \"timestamp\": \"2026-01-01T00:00:00Z\"}]'::jsonb",
                "'{\"tenant_id\": \"a\", \"sub\": \"eve\"}'::jsonb",
            ],
        ),
        ("invalidate", &["'t'::regclass"]),
        ("is_captured", &["'t'::regclass"]),
        ("key_of", &["'t'::regclass", "'{id}'::text[]"]),
        ("leaves", &["'t'::regclass"]),
        ("lock_briefly", &["'t'::regclass", "'share row exclusive'"]),
        ("lock_snapshots", &["'thing'", "true"]),
        ("chunks", &["'t'::regclass"]),
        ("differences", &["'thing'", "'{1}'::text[]"]),
        ("find_row", &["'thing'", "'1'"]),
        ("greatest_key", &["'t'::regclass", "'id'"]),
        ("record_differences", &["'thing'", "'{1}'::text[]"]),
        ("record_entities", &["'thing'", "'{1}'::text[]"]),
        ("require_read_committed", &[]),
        ("rows", &["'t'::regclass", "'thing'", "0::bigint", "1::bigint"]),
        ("materialize", &["'thing'", "'1'", "'2026-01-01'::timestamptz", "'a'"]),
        ("members", &["'t'::regclass"]),
        ("open_states", &["'states'::refcursor", "'thing'", "0::bigint", "true", "'a'", "'1'"]),
        ("parse_rules", &["'[\"created\", \"noted\"]'::jsonb", "'{n,note}'::text[]"]),
        ("place_of", &["'t'::regclass"]),
        ("publish", &["'t'::regclass"]),
        ("reconcile", &["'t'::regclass"]),
        ("record_rows", &["'t'::regclass", "'t'::regclass", "'created'"]),
        ("refuse_change", &[]),
        ("release", &["'t'::regclass"]),
        ("remember", &["'t'::regclass"]),
        (
            "rename_fields",
            &["'{\"noted\": {\"rule\": \"set\", \"fields\": [\"n\"]}}'::jsonb", "'{\"n\": \"m\"}'::jsonb"],
        ),
        ("replace_meta", &[]),
        ("require_capturable", &["'t'::regclass"]),
        ("require_owner", &["'t'::regclass"]),
        ("retry_rejected", &["'0190a0a0-0000-7000-8000-000000000001'::uuid", "'a'"]),
        ("set_identity", &["'t'::regclass", "'thing'"]),
        ("set_trigger_modes", &["'t'::regclass"]),
        ("settable_columns", &["'t'::regclass", "'{id}'::text[]"]),
        ("singular", &["'things'"]),
        ("state_within", &["'thing'", "'1'", "'a'"]),
        ("syncable_tables", &[]),
        ("tell_streamer", &[]),
        ("to_json", &["'x'::text"]),
        ("uuid_v7", &[]),
        ("write_baselines", &["'t'::regclass", "'t'::regclass", "0::bigint", "1::bigint"]),
        ("apply_retention", &["'90 days'::interval"]),
        ("as_field", &["'/a'"]),
        ("backfill_batch", &["'t'::regclass"]),
        ("begin_backfill", &["'t'::regclass"]),
        ("change_allowed", &[]),
        ("check", &["true"]),
        ("check_definitions", &[]),
        ("check_rows", &[]),
        ("columns_of", &["'t'::regclass"]),
        ("follow_types", &["'{25}'::oid[]"]),
        ("following", &[]),
        ("gather_changes", &[]),
        ("why_not_capturable", &["'t'::regclass"]),
        ("check_sequences", &[]),
        ("check_snapshots", &[]),
        ("compact", &["'thing'", "'90 days'::interval"]),
        ("compact_range", &["'thing'", "now()", "1::bigint", "100::bigint"]),
        (
            "digest_of_events",
            &[
                "'\\x00'::bytea",
                "'thing'",
                "'1'",
                "'a'",
                "'2026-01-01'::timestamptz",
                "'0190a0a0-0000-7000-8000-000000000001'::uuid",
                "now()",
                "'0190a0a0-0000-7000-8000-000000000001'::uuid",
            ],
        ),
        ("digest_of_snapshot", &["'\\x00'::bytea", "'{}'::jsonb", "1"]),
        ("drop_events", &["1::bigint", "100::bigint", "now() - interval '90 days'"]),
        ("drop_receipts", &["now() - interval '90 days'"]),
        ("end_backfill", &["'t'::regclass"]),
        ("erase", &["'thing'", "'1'"]),
        ("event_writers", &[]),
        ("fold_to", &["'thing'", "'1'", "'a'", "now()", "'0190a0a0-0000-7000-8000-000000000001'::uuid"]),
        (
            "history",
            &[
                "'thing'",
                "'1'",
                "'2026-01-01'::timestamptz",
                "10",
                "'0190a0a0-0000-7000-8000-000000000001'::uuid",
                "'a'",
            ],
        ),
        ("lift", &["'thing'", "'thing.noted'", "'client'", "1", "'{}'::jsonb"]),
        ("min_horizon", &[]),
        ("openapi", &[]),
        ("raise_horizon", &["'thing'", "'90 days'::interval"]),
        ("require_horizon", &["'90 days'::interval"]),
        ("type_schema", &["'int4'::regtype::oid", "-1", "true"]),
        ("upcast", &["'thing'", "1", "'[]'::jsonb"]),
    ];

    const TEXTS: &[&str] = &[
        "null",
        "''",
        "' '",
        "'\"'",
        "'\"\"'",
        "''''",
        "E'\\\\'",
        "'a\"b'",
        "E'a\\nb'",
        "E'\\x01'",
        "'x''; drop table t; --'",
        "'$1'",
        "'%s%I%L%n'",
        "'{}'",
        "'null'",
        "'t'",
        "'T'",
        "'select'",
        "'pg_catalog.pg_class'",
        "'headwater.event'",
        "'thing'",
        "'thing.'",
        "'.noted'",
        "'thing.noted.x'",
        "'~'",
        "'~1/~0'",
        "'/'",
        "'1/2'",
        "'01'",
        "'1e3'",
        "'NaN'",
        "'ü'",
        "'😀'",
        "U&'\\202E'",
        "U&'\\FEFF'",
        "repeat('x', 63)",
        "repeat('x', 64)",
        "repeat('ü', 32)",
        "repeat('/', 1000)",
        "repeat('x', 1000000)",
        "repeat('\"', 100)",
        "chr(1114111)",
        "convert_from('\\xff'::bytea, 'UTF8')",
        "'a' || chr(0)",
        "repeat('(', 10000)",
        "E'\\u00e9' || E'e\\u0301'",
        "'id'",
        "'secret'",
        "'tenant'",
        "'created'",
        "'deleted'",
    ];

    const RELATIONS: &[&str] = &[
        "null",
        "0",
        "1",
        "2147483648",
        "4294967295",
        "'pg_class'::regclass",
        "'pg_authid'::regclass",
        "'pg_class_oid_index'::regclass",
        "'information_schema.tables'::regclass",
        "'headwater.event'::regclass",
        "'headwater.entity'::regclass",
        "'headwater.event_position_seq'::regclass",
        "'headwater.event_pkey'::regclass",
        "'seen'::regclass",
        "'stored'::regclass",
        "'numbers'::regclass",
        "'pair'::regclass",
        "'fleeting'::regclass",
        "'pg_temp.passing'::regclass",
        "'parent'::regclass",
        "'child'::regclass",
        "'p'::regclass",
        "'p1'::regclass",
        "'q'::regclass",
        "'nokey'::regclass",
        "'keyed'::regclass",
        "'nothing'::regclass",
        "'theirs'::regclass",
        "'t_pkey'::regclass",
        "(select reltoastrelid from pg_class where oid = 't'::regclass)",
        "'\"a \"\"quoted\"\" ''one''\"'::regclass",
        "U&'\"\\00fc \\+01F600\"'::regclass",
        "'\"Select\"'::regclass",
        "'\"two\nlines\"'::regclass",
        "(repeat('x', 63))::regclass",
        "'wide'::regclass",
        "'domains'::regclass",
        "'odd'::regclass",
        "'many'::regclass",
        "'deferred'::regclass",
        "'partial'::regclass",
        "'no_such'::regclass",
        "'a.b.c.d'::regclass",
        "''::regclass",
        "'pg_toast.pg_toast_1255'::regclass",
        "'pg_stat_activity'::regclass",
        "'pg_publication'::regclass",
        "'orders'::regclass",
        "'secured'::regclass",
        "'forced'::regclass",
        "'headwater.member'::regclass",
    ];

    const JSON: &[&str] = &[
        "null",
        "'null'",
        "'1'",
        "'-0.0'",
        "'\"x\"'",
        "'[]'",
        "'{}'",
        "'[null]'",
        "'[[]]'",
        "'[{}]'",
        "'[1]'",
        "'[\"\"]'",
        "'[\"a\\nb\"]'",
        "'[\"Created\"]'",
        "'{\"\": {}}'",
        "'{\"noted\": null}'",
        "'{\"noted\": 1}'",
        "'{\"noted\": {}}'",
        "'{\"noted\": {\"rule\": null}}'",
        "'{\"noted\": {\"rule\": \"nothing\"}}'",
        "'{\"noted\": {\"rule\": \"set\", \"fields\": 1}}'",
        "'{\"noted\": {\"rule\": \"set\", \"fields\": [null]}}'",
        "'{\"noted\": {\"rule\": \"append\"}}'",
        "'{\"noted\": {\"rule\": \"custom\", \"function\": \"pg_catalog.pg_sleep\"}}'",
        "'{\"noted\": {\"rule\": \"custom\", \"function\": \"x); drop table t; --\"}}'",
        "'{\"noted\": {\"rule\": \"custom\", \"function\": \"\\\"\"}}'",
        "'{\"noted\": {\"rule\": \"remove\", \"field\": \"n\", \"where\": {}}}'",
        "'{\"tenant_id\": 1}'",
        "'{\"tenant_id\": null}'",
        "'{\"tenant_id\": \"b\"}'",
        "'{\"tenant_id\": [\"a\"]}'",
        "'{\"sub\": {}}'",
        "'{\"role\": 1}'",
        "'{\"role\": \"postgres\"}'",
        "'{\"role\": \"headwater_client\\\"; drop table t\"}'",
        "'{\"trusted\": \"yes\"}'",
        "'{\"trusted\": 1}'",
        "'{\"sub\": 1e131000, \"tenant_id\": 1e131000}'",
        "'[1e131071]'",
        "'1e131073'",
        "'{\"n\": \"\\u0000\"}'",
        "'{\"n\": \"\\ud800\"}'",
        "('[' || repeat('[', 5000) || repeat(']', 5000) || ']')",
        "repeat('[', 1000000)",
        "(repeat('{\"a\":', 3000) || '1' || repeat('}', 3000))",
        "(select jsonb_agg(i) from generate_series(1, 2000) i)",
        "(select jsonb_object_agg('k' || i, i) from generate_series(1, 2000) i)",
        "jsonb_build_object('n', repeat('x', 1000000))",
        "jsonb_build_array(repeat('x', 1000000))",
        "'{\"n\": {\"rule\": \"increment\", \"field\": \"id\", \"by\": \"n\"}}'",
        "'{\"a\": 1, \"a\": 2}'",
    ];

    const ARRAYS: &[&str] = &[
        "null",
        "'{}'",
        "'{null}'",
        "'{id,null}'",
        "array[null, null]::text[]",
        "'{\"\"}'",
        "'{id,id}'",
        "'{{id,n},{note,secret}}'",
        "'[5:6]={id,n}'",
        "'{ID}'",
        "'{no_such}'",
        "'{ctid}'",
        "'{tableoid}'",
        "'{xmin}'",
        "'{\"a\\\"b\"}'",
        "array['x''; drop table t; --']",
        "array[E'a\\nb']",
        "array['%I']",
        "array['$1']",
        "array[repeat('x', 64)]",
        "array[repeat('x', 1000000)]",
        "array['ü', '😀']",
        "'{tenant}'",
        "'{id,tenant}'",
        "'{owner}'",
        "'{secret}'",
        "'{n,note}'",
        "'{note}'",
        "'{g}'",
        "'{id,n,note,secret,tenant,owner,g}'",
        "(select array_agg('c' || i) from generate_series(1, 5000) i)",
        "array_fill('id'::text, array[2000])",
        "array_fill('x'::text, array[2, 2, 2, 2, 2, 2])",
        "array[convert_from('\\xc3', 'UTF8')]",
        "'{'",
        "'not an array'",
        "'{a'",
        "array['\"id\"']",
        "array[' id']",
        "array['id ']",
        "array['t.id']",
        "array['(select 1)']",
        "array['*']",
        "array['null']",
        "array['NULL']",
        "array['1']",
        "array['select']",
        "array['headwater']",
        "array[chr(1114111)]",
        "array[E'\\x01']",
        "array[repeat('\"', 63)]",
    ];

    const UUIDS: &[&str] = &[
        "null",
        "'00000000-0000-0000-0000-000000000000'",
        "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        "'no uuid'",
        "''",
        "'0190a0a0-0000-8000-8000-000000000001'",
        "'{0190A0A0-0000-7000-8000-000000000001}'",
    ];
    const INSTANTS: &[&str] = &[
        "null",
        "'infinity'",
        "'-infinity'",
        "'4714-11-24 00:00:00+00 BC'",
        "'294276-12-31 23:59:59.999999+00'",
        "'2026-02-30'",
        "''",
        "'epoch'",
        "now()",
        "'1582-10-10'",
    ];
    const INTEGERS: &[&str] = &[
        "null",
        "0",
        "-1",
        "2147483647",
        "-2147483648",
        "2147483648",
        "9223372036854775807::bigint",
        "-9223372036854775808::bigint",
        "'seven'",
        "1e400",
    ];
    const BOOLEANS: &[&str] = &["null", "true", "false", "'maybe'"];
    const INTERVALS: &[&str] = &[
        "null",
        "'0'",
        "'-90 days'",
        "'3 months'",
        "'178000000 years'",
        "'-178000000 years'",
        "'89 days 23:59:59.999999'",
        "'yesterday'",
        "''",
    ];
    const BYTES: &[&str] = &["null", "''", "'\\x00'", "'\\xff'", "'\\x0'", "convert_to(repeat('x', 1000000), 'UTF8')"];
    const OIDS: &[&str] = &[
        "null",
        "0",
        "1",
        "-1",
        "4294967295",
        "4294967296",
        "'headwater.entity'::regtype",
        "'int4[]'::regtype",
        "'anyelement'::regtype",
        "'many'::regclass",
    ];
    const ANYTHING: &[&str] = &[
        "7",
        "row(1, 'x')",
        "now()",
        "array[1, 2]",
        "array[null::text]",
        "'{null}'::text[]",
        "point(1, 2)",
        "'{created,noted}'",
        "'nonsense'",
        "'{\"created\"'",
        "''",
        "'[]'",
        "'{{a,b},{c,d}}'::text[]",
        "'\\x00'::bytea",
        "'{\"created\": {\"rule\": \"create\"}}'::json",
        "1.5",
        "'t'::regclass",
        "'a'::name",
        "array['a']::name[]",
        "'x'::xml",
        "repeat('[', 100000)",
    ];

    fn hostile(type_name: &str) -> Vec<&'static str> {
        match type_name {
            "text" | "name" | "refcursor" => TEXTS.to_vec(),
            "regclass" => RELATIONS.to_vec(),
            "jsonb" => JSON.to_vec(),
            "text[]" => ARRAYS.to_vec(),
            "uuid" => UUIDS.to_vec(),
            "timestamp with time zone" => INSTANTS.to_vec(),
            "integer" | "bigint" => INTEGERS.to_vec(),
            "boolean" => BOOLEANS.to_vec(),
            "interval" => INTERVALS.to_vec(),
            "bytea" => BYTES.to_vec(),
            "oid" => OIDS.to_vec(),
            "oid[]" => vec!["null", "'{}'", "array[null]::oid[]", "'{0,4294967295}'", "'{{25,1043},{23,20}}'"],
            "\"any\"" => ANYTHING.iter().chain(JSON).copied().collect(),
            other => panic!("no hostile values of the type {other}: think of some"),
        }
    }

    /// Tables of every kind that there is, and a role that owns none of them.
    fn tables() {
        orders();
        run(
            r#"create table t (id int primary key, tenant text, owner text, n int, note text, secret text, g int generated always as (1) stored);
               select headwater.enable('t', entity => 'thing', tenant_column => 'tenant', exclude => '{secret}', events => array['created', 'noted']);
               insert into t values (1, 'a', 'eve', 1, 'x', 'hush');
               create view seen as select * from t; create materialized view stored as select 1 as id; create sequence numbers; create type pair as (a int, b text);
               create unlogged table fleeting (id int primary key); create temp table passing (id int primary key) on commit drop;
               create table parent (id int primary key); create table child () inherits (parent);
               create table p (id int primary key) partition by range (id); create table p1 partition of p default; create table q (id int) partition by range (id);
               create table nokey (n int); create table keyed (a text, b int, primary key (a, b)); create table nothing (); create table theirs (id int primary key);
               create table "a ""quoted"" 'one'" ("i""d" int primary key, "n'" text); create table "Select" ("from" int primary key, "where" text);
               create table "two
lines" ("i
d" int primary key); create table many (id int primary key, a int[], j jsonb, e text);
               create domain small as int check (value < 10); create table domains (id small primary key, s small[]);
               create table odd (id numeric primary key, x xml, r int4range, m int4multirange, b bit(3), p point, i interval);
               create table deferred (id int primary key deferrable initially deferred); create table partial (id int); create unique index on partial (id) where id > 0;
               create table secured (id int primary key); alter table secured enable row level security;
               create table forced (id int primary key); alter table forced enable row level security; alter table forced force row level security"#,
        );
        run(&format!("create table {} (id int primary key)", "x".repeat(63)));
        run(r#"create table U&"\00fc \+01F600" (id int primary key, U&"\202E" text)"#);
        let columns: Vec<_> = (0..200).map(|i| format!("c{i} int")).collect();
        run(&format!("create table wide (id int primary key, {})", columns.join(", ")));
        run(
            "insert into p values (1); insert into keyed values ('x/y', 1); insert into many values (1, '{1}', '{}', 'e')",
        );
        // Runs a call, and takes back whatever it did.
        run("create function public.attempt(call text) returns text[] language plpgsql as $$
             declare code text; says text; hint text;
             begin
               begin
                 execute call;
                 raise exception using errcode = 'HW000';
               exception when others then
                 get stacked diagnostics code = returned_sqlstate, says = message_text, hint = pg_exception_hint;
               end;
               return array[code, says, hint];
             end $$");
    }

    /// Everything that the catalog and our tables hold.
    fn state_of_everything() -> Value {
        rows("select (select md5(string_agg(c::text, '' order by c.oid)) from (select oid, relname, relnamespace, reltype, relowner, relkind, relpersistence, relreplident, relacl, relhastriggers from pg_class) c) as classes,
                     (select md5(string_agg(a::text, '' order by a.attrelid, a.attnum)) from (select attrelid, attnum, attname, atttypid, attnotnull, attacl, attisdropped from pg_attribute) a) as attributes,
                     (select md5(string_agg(p::text, '' order by p.oid)) from pg_proc p) as functions, (select md5(string_agg(t::text, '' order by t.oid)) from pg_trigger t) as triggers,
                     (select md5(string_agg(r::text, '' order by r.oid)) from (select oid, rolname, rolsuper, rolinherit from pg_authid) r) as roles,
                     (select md5(string_agg(m::text, '' order by m.roleid, m.member)) from pg_auth_members m) as memberships,
                     (select count(*) from pg_type) as types, (select count(*) from pg_operator) as operators, (select count(*) from pg_constraint) as constraints,
                     (select count(*) from pg_namespace where nspname not like 'pg\\_%temp\\_%') as schemas, (select md5(string_agg(p::text, '')) from pg_publication_rel p) as published,
                     (select md5(string_agg(e::text, '' order by e.entity_type)) from headwater.entity e) as registry, (select count(*) from headwater.event) as events")
    }

    /// SQLSTATE, message and hint; `HW000` where the call was answered.
    fn attempt(call: &str) -> (String, String, String) {
        let outcome: Option<Vec<Option<String>>> =
            Spi::get_one_with_args("select public.attempt($1)", &[call.into()]).expect("an outcome");
        let mut parts = outcome.expect("three texts").into_iter().map(Option::unwrap_or_default);
        let mut next = || parts.next().unwrap_or_default();
        (next(), next(), next())
    }

    /// Internal errors, and what a function should have said better than by failing somewhere within.
    fn unclear(code: &str) -> bool {
        ["XX", "58"].iter().any(|class| code.starts_with(class))
    }

    #[pg_test]
    fn hostile_calls_are_answered_or_fail_clearly() {
        tables();
        let before = state_of_everything();
        let works: BTreeMap<_, _> = WORKS.iter().copied().collect();
        let functions = rows("select p.proname as name, p.prokind as kind, p.prorettype::regtype::text as result,
                                     array(select format_type(t, null) from unnest(p.proargtypes::oid[]) with ordinality a (t, place) order by place) as types
                              from pg_proc p where p.pronamespace = 'headwater'::regnamespace order by 1");
        let mut wrong = Vec::new();
        let mut calls = 0;
        for function in functions.as_array().expect("functions") {
            let name = function["name"].as_str().expect("a name");
            let Some(arguments) = works.get(name) else {
                panic!("headwater.{name} has no call in WORKS: add one that works")
            };
            let types: Vec<_> =
                function["types"].as_array().expect("types").iter().map(|t| t.as_str().expect("a type")).collect();
            assert_eq!(types.len(), arguments.len(), "headwater.{name} takes {types:?}");
            let verb = if function["kind"] == "p" { "call" } else { "select" };
            let call = |arguments: &[&str]| format!("{verb} headwater.{name}({})", arguments.join(", "));
            let mut hostile_calls = vec![call(&vec!["null"; arguments.len()])];
            for (place, type_name) in types.iter().enumerate() {
                for value in hostile(type_name) {
                    let value =
                        if *type_name == "\"any\"" { value.to_owned() } else { format!("({value})::{type_name}") };
                    let mut arguments = arguments.to_vec();
                    arguments[place] = &value;
                    hostile_calls.push(call(&arguments));
                }
            }
            // Two at once, of some pairs.
            for (place, type_name) in types.iter().enumerate().skip(1) {
                for (first, second) in
                    hostile(types[0]).into_iter().zip(hostile(type_name).into_iter().rev()).step_by(6)
                {
                    let (first, second) = (
                        format!("({first})::{}", types[0]),
                        format!(
                            "({second}){}",
                            if *type_name == "\"any\"" { String::new() } else { format!("::{type_name}") }
                        ),
                    );
                    let mut arguments = arguments.to_vec();
                    arguments[0] = &first;
                    arguments[place] = &second;
                    hostile_calls.push(call(&arguments));
                }
            }
            assert!(
                types.iter().all(|name| hostile(name).len() < CALLS)
                    || hostile_calls.len() >= CALLS
                    || types == ["uuid", "text"],
                "headwater.{name}: only {} calls",
                hostile_calls.len()
            );
            for call in hostile_calls {
                let (code, message, _) = attempt(&call);
                // Only Postgres calls a trigger; pgrx says so in its own words, as Postgres' own triggers do.
                if unclear(&code) && !(name == "capture" && message.contains("NotTrigger"))
                    || message.contains("panicked")
                {
                    wrong.push(format!("{}\n  {code} {message}", call.chars().take(300).collect::<String>()));
                }
                calls += 1;
            }
        }
        assert!(wrong.is_empty(), "{} of {calls} calls failed unclearly:\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(state_of_everything(), before, "the catalog has changed");
        assert_eq!(
            one::<String>("select headwater.materialize('thing', '1')::text").as_deref(),
            Some(r#"{"g": 1, "n": 1, "id": 1, "note": "x", "owner": "eve", "tenant": "a"}"#)
        );
    }
    /// In a schema of mallory's, in front of her path, there are functions and operators by the names and signatures of
    /// Postgres' own: whoever calls one of them is found out.
    #[pg_test]
    fn nothing_planted_in_the_path_is_called() {
        tables();
        run("create role mallory; grant headwater_admin, headwater_writer to mallory; grant create on schema public to mallory;
             create schema evil; grant usage on schema evil to public");
        run(r#"do $plant$
             declare
               types constant oid[] := array['text', 'name', 'int2', 'int4', 'int8', 'bool', 'oid', 'regclass', 'jsonb', 'text[]', 'timestamptz', '"char"', 'uuid', 'numeric']::regtype[]::oid[];
               planted record;
             begin
               for planted in
                 select distinct format('%I', proname) as name, array_to_string(array(select format_type(t, null) from unnest(proargtypes::oid[]) t), ', ') as arguments
                 from pg_proc where pronamespace = 'pg_catalog'::regnamespace and prokind = 'f' and proargtypes::oid[] <@ types and pronargs between 1 and 4 and provariadic = 0
               loop
                 execute format($f$create function evil.%s(%s) returns text language plpgsql as 'begin raise exception using errcode = ''HW666'', message = ''%s was called''; end'$f$,
                                planted.name, planted.arguments, planted.name);
               end loop;
               for planted in
                 select oprname as name, oprleft::regtype as l, oprright::regtype as r, row_number() over () as n from pg_operator
                 where oprnamespace = 'pg_catalog'::regnamespace and oprleft = any (types) and oprright = any (types)
               loop
                 execute format($f$create function evil.operator_%s(%s, %s) returns boolean language plpgsql as 'begin raise exception using errcode = ''HW666'', message = ''an operator was called''; end'$f$,
                                planted.n, planted.l, planted.r);
                 execute format('create operator evil.%s (leftarg = %s, rightarg = %s, function = evil.operator_%s)', planted.name, planted.l, planted.r, planted.n);
               end loop;
             end $plant$"#);
        assert!(one::<i64>("select count(*) from pg_operator where oprnamespace = 'evil'::regnamespace") > Some(100));
        assert!(one::<i64>("select count(*) from pg_proc where pronamespace = 'evil'::regnamespace") > Some(500));
        run("alter table t owner to mallory");
        let mut called = Vec::new();
        for (name, arguments) in WORKS {
            let verb = if ["backfill", "compact", "apply_retention"].contains(name) { "call" } else { "select" };
            // Internal ones are the extension's owner's; what mallory may call she calls.
            for role in ["mallory", "none"] {
                let sql = format!("{verb} headwater.{name}({})", arguments.join(", "));
                run(&format!("set local role {role}; set local search_path = evil, pg_catalog, public"));
                let (code, message, _) = attempt(&sql);
                run("set local role none; set local search_path = public");
                if code == "HW666" {
                    called.push(format!("{sql}: {message}"));
                }
            }
        }
        for ddl in [
            "alter table public.t rename column n to m",
            "alter table public.t add column extra int default 1",
            "update public.t set note = 'y'",
            "alter table public.t disable trigger user",
            "insert into public.t (id) values (2)",
            "truncate public.t",
            "alter schema public rename to private",
            "drop table public.t cascade",
        ] {
            run("set local search_path = evil, pg_catalog, public");
            let (code, message, _) = attempt(ddl);
            run("set local search_path = public");
            if code != "HW000" {
                called.push(format!("{ddl}: {code} {message}"));
            }
        }
        assert!(called.is_empty(), "{}", called.join("\n"));
    }

    #[pg_test]
    fn huge_payloads_are_taken_or_refused_clearly() {
        tables();
        for (call, codes) in [
            ("select headwater.emit('thing.noted', '1', jsonb_build_object('note', repeat('x', 10000000)))", &["HW000", "54000", "22023"][..]),
            ("select headwater.ingest(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'event_type', 'thing.noted', 'entity_type', 'thing', 'entity_id', '1', 'tenant_id', 'a',
                'timestamp', '2026-01-01T00:00:00Z', 'payload', jsonb_build_object('note', repeat('x', 10000000)))), '{\"trusted\": true}')", &["HW000"]),
            ("select headwater.ingest('[]', jsonb_build_object('sub', repeat('x', 10000000), 'tenant_id', 1e131000))", &["HW000", "22023"]),
            ("insert into t (id, note) values (7, repeat('x', 10000000))", &["HW000"]),
        ] {
            let (code, message, _) = attempt(call);
            assert!(codes.contains(&code.as_str()), "{call}: {code} {message}");
        }
    }
}
