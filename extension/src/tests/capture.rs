//! Capture: every form of value, statements within statements, a clock that was set back.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::JsonB;
    use pgrx::prelude::*;
    use serde_json::{Value, json};

    fn run(sql: &str) {
        Spi::run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn rows(sql: &str) -> Value {
        let sql = format!("select coalesce(jsonb_agg(to_jsonb(r)), '[]') from ({sql}) r");
        Spi::get_one::<JsonB>(&sql).expect("a query").expect("an array").0
    }

    /// Names and payloads of the events of entity `t`, in the order of the fold.
    fn told() -> Value {
        rows(
            "select split_part(event_type, '.', 2) as name, payload from headwater.event where entity_type = 't' order by occurred_at, id",
        )
    }

    fn assert_rows_equal_folds() {
        assert_eq!(
            rows(
                "select t.id, headwater.to_json(t) as row, headwater.materialize('t', t.id::text) as fold from t
                  where headwater.to_json(t) is distinct from headwater.materialize('t', t.id::text)"
            ),
            json!([])
        );
    }

    /// `headwater.to_json` of an expression.
    fn json_of(expression: &str) -> Value {
        Spi::get_one::<JsonB>(&format!("select headwater.to_json({expression})")).expect("a query").expect("a value").0
    }

    #[pg_test]
    fn every_form_of_value_travels_without_loss() {
        run("create type mood as enum ('glad', 'sad'); create type pair as (a int8, b text); create domain count as int8 check (value > 0);
             create type deep as (p pair, moods mood[], n numeric)");
        for (expression, expected) in [
            ("0", json!(0)),
            ("-1::int2", json!(-1)),
            ("10000", json!(10000)),
            ("20000000", json!(20_000_000)),
            ("(-2147483648)::int4", json!(i64::from(i32::MIN))),
            ("2147483647", json!(i32::MAX)),
            ("9223372036854775807", json!("9223372036854775807")),
            ("(-9223372036854775807 - 1)::int8", json!("-9223372036854775808")),
            ("5::count", json!("5")),
            ("1.50::numeric", json!("1.50")),
            ("'NaN'::numeric", json!("NaN")),
            ("'-Infinity'::numeric", json!("-Infinity")),
            ("0.1::float8", json!(0.1)),
            ("'1e20'::float8", "100000000000000000000".parse::<Value>().expect("a number")),
            ("'Infinity'::float4", json!("Infinity")),
            ("true", json!(true)),
            ("'glad'::mood", json!("glad")),
            ("array['glad', null]::mood[]", json!(["glad", null])),
            ("array[[1, 2], [3, 4]]::int8[]", json!([["1", "2"], ["3", "4"]])),
            ("array[[[1], [2]]]", json!([[[1], [2]]])),
            ("'[2:3]={7,8}'::int[]", json!([7, 8])),
            ("'{}'::text[]", json!([])),
            ("row(9007199254740993, 'x')::pair", json!({"a": "9007199254740993", "b": "x"})),
            (
                "row(row(1, null), array['sad'], 'NaN')::deep",
                json!({"p": {"a": "1", "b": null}, "moods": ["sad"], "n": "NaN"}),
            ),
            ("array[row(1, 'y')]::pair[]", json!([{"a": "1", "b": "y"}])),
            (r"'\x00ff'::bytea", json!("\\x00ff")),
            ("''::bytea", json!("\\x")),
            ("'infinity'::timestamptz", json!("infinity")),
            ("'2026-11-22 12:00+02'::timestamptz", json!("2026-11-22T10:00:00+00:00")),
            ("'0044-03-15 BC'::date", json!("0044-03-15 BC")),
            ("'2026-11-22 12:00'::timestamp", json!("2026-11-22T12:00:00")),
            ("'[1,5)'::int8range", json!("[1,5)")),
            ("'{[1,2),[3,4)}'::int4multirange", json!("{[1,2),[3,4)}")),
            ("'10.0.0.1'::inet", json!("10.0.0.1")),
            ("'x'::char(3)", json!("x  ")),
            ("'00000000-0000-0000-0000-00000000000a'::uuid", json!("00000000-0000-0000-0000-00000000000a")),
            (r#"'"lone"'::jsonb"#, json!("lone")),
            ("'null'::json", json!(null)),
            (
                "'[1, {\"b\": 1, \"a\": [true, 1.0]}]'::json",
                "[1, {\"a\": [true, 1.0], \"b\": 1}]".parse().expect("JSON"),
            ),
            ("'12345678901234567890.5'::jsonb", "12345678901234567890.5".parse().expect("a number")),
            ("'ü\"\\'::text", json!("ü\"\\")),
        ] {
            assert_eq!(json_of(expression), expected, "{expression}");
        }
    }

    /// The jsonb that we write is the one that Postgres writes: byte for byte, also past the strides of its entries.
    #[pg_test]
    fn our_jsonb_is_that_of_postgres() {
        let columns = |what: &dyn Fn(usize) -> String| (1..=120).map(what).collect::<Vec<_>>().join(", ");
        let table = columns(&|i| format!("c{i} {}", ["int", "text", "jsonb", "bool", "int[]", "float8"][i % 6]));
        run(&format!("create table wide (id int primary key, {table}); select headwater.enable('wide')"));
        let values = columns(&|i| {
            [
                "7",
                "'text of some length'",
                "'{\"k\": [1, 2.5, null], \"a\": {}}'",
                "false",
                "array[1, null, 30000]",
                "2.5",
            ][i % 6]
                .to_owned()
        });
        run(&format!(
            "insert into wide values (1, {values}), (2, null, {})",
            columns(&|_| "null".to_owned()).split_once(", ").expect("many").1
        ));
        assert_eq!(
            rows("select bool_and(row(headwater.to_json(w))::record operator(pg_catalog.*=) row(to_jsonb(w))::record) as same,
                  bool_and(e.payload = to_jsonb(w)) as told
                  from wide w join headwater.event e on e.entity_type = 'wide' and e.entity_id = w.id::text"),
            json!([{"same": true, "told": true}])
        );
        // What an index looks up is found: its keys stand where Postgres looks for them.
        assert_eq!(
            rows(
                "select count(*) from headwater.event where entity_type = 'wide' and payload ? 'c99' and payload @> '{\"c6\": 7}'"
            ),
            json!([{"count": 1}])
        );
    }

    #[pg_test]
    fn a_row_changed_again_by_its_own_trigger_folds_to_what_it_is() {
        run("create table t (id int primary key, n int, m int); select headwater.enable('t');
             create function again() returns trigger language plpgsql as $$ begin
               if pg_trigger_depth() < 3 then update t set n = coalesce(n, 0) + 10, m = pg_trigger_depth() where id = new.id; end if;
               return null; end $$;
             create trigger again after insert or update on t for each row execute function again()");
        run("insert into t values (1, 1), (2, 2)");
        assert_rows_equal_folds();
        run("update t set n = 5 where id = 1");
        run("insert into t values (2, 7), (3, 3) on conflict (id) do update set n = excluded.n");
        assert_rows_equal_folds();
        assert_eq!(rows("select * from t order by id"), rows("select (headwater.materialize('t', id::text)->>'id')::int as id,
            (headwater.materialize('t', id::text)->>'n')::int as n, (headwater.materialize('t', id::text)->>'m')::int as m from t order by id"));
        // Also after a statement that failed between its beginning and its end.
        run("do $$ begin insert into t values (9, 9), (1, 1); exception when unique_violation then null; end $$;
             update t set m = null where id = 2");
        assert_rows_equal_folds();
    }

    #[pg_test]
    fn a_row_that_its_delete_brings_back_is_there() {
        run("create table t (id int primary key, n int); select headwater.enable('t');
             create function back() returns trigger language plpgsql as $$ begin
               insert into t values (old.id, old.n + 1); return null; end $$;
             create trigger back after delete on t for each row execute function back(); insert into t values (1, 1)");
        run("delete from t");
        assert_rows_equal_folds();
        assert_eq!(told()[2]["name"], json!("created"));
        assert_eq!(told()[1]["name"], json!("deleted"));
    }

    #[pg_test]
    fn statement_triggers_that_write_again_fold_right() {
        // One that fires before ours, one that fires after.
        run("create table t (id int primary key, n int); select headwater.enable('t');
             create function more() returns trigger language plpgsql as $$ begin
               if pg_trigger_depth() = 1 then update t set n = n + 1; end if; return null; end $$;
             create trigger aaa after insert on t for each statement execute function more();
             create trigger zzz after insert on t for each statement execute function more()");
        run("insert into t values (1, 1); insert into t values (2, 1)");
        assert_eq!(rows("select id, n from t order by id"), json!([{"id": 1, "n": 5}, {"id": 2, "n": 3}]));
        assert_rows_equal_folds();
    }

    #[pg_test]
    fn a_replica_session_is_captured_too_and_once() {
        run("create table t (id int primary key, n int); select headwater.enable('t')");
        run("set local session_replication_role = replica");
        run(
            "insert into t values (1, 1), (2, 2); update t set n = 3 where id = 1; delete from t where id = 2; truncate t",
        );
        let names: Vec<_> = told().as_array().expect("events").iter().map(|event| event["name"].clone()).collect();
        assert_eq!(names, ["created", "created", "updated", "deleted", "deleted"].map(Value::from));
    }

    #[pg_test]
    fn a_change_stands_above_the_history_although_the_clock_was_set_back() {
        run(
            "create table t (id int primary key, n int); select headwater.enable('t'); insert into t values (1, 1), (2, 1)",
        );
        // As if another machine's clock, an hour ahead, had stamped it. Newest of all: a backend that begins looks at those.
        run("insert into headwater.event (id, entity_type, entity_id, event_type, payload, schema_version, occurred_at, recorded_at, source, applies)
             select headwater.uuid_v7(), 't', '1', 't.updated', '{\"n\": 2}', 1, clock_timestamp() + interval '1 hour', clock_timestamp() + interval '1 hour', 'capture', true");
        crate::clock::forget();
        run("update t set n = 3");
        assert_rows_equal_folds();
        assert_eq!(
            rows(
                "select entity_id, occurred_at < clock_timestamp() as present from headwater.event
                  where entity_type = 't' and payload = '{\"n\": 3}' order by entity_id"
            ),
            json!([{"entity_id": "1", "present": false}, {"entity_id": "2", "present": true}])
        );
    }

    #[pg_test]
    fn what_did_not_change_is_not_told() {
        run("create table t (id int primary key, n numeric, long text, j jsonb, f float8); select headwater.enable('t');
             insert into t values (1, 1.0, repeat('x', 100000) || clock_timestamp(), '{}', 0);
             update t set n = 1.00; update t set long = long, j = '{}', f = '-0'; update t set long = reverse(long)");
        let told = told();
        assert_eq!(told[1]["payload"], json!({"n": "1.00"}));
        assert_eq!(told[2]["payload"].as_object().expect("an object").keys().collect::<Vec<_>>(), ["f"]);
        assert_eq!(told[3]["payload"].as_object().expect("an object").keys().collect::<Vec<_>>(), ["long"]);
    }
}
