//! Tests inside a backend. Each runs in a transaction of its own that is rolled back.

use pgrx::prelude::*;

mod capture;
mod ddl;
mod edges;
mod forgotten;
mod history;
mod hostile;
mod order;
mod retention;
mod roles;
mod statements;
mod trust;

#[pg_schema]
mod tests {
    use pgrx::JsonB;
    use pgrx::prelude::*;
    use serde_json::{Value, json};

    /// A batch that a trusted backend sends.
    const TRUSTED: &str = r#"{"trusted": true}"#;
    pub(super) const ORDER: &str = "11111111-1111-4111-8111-111111111111";

    pub(super) fn run(sql: &str) {
        Spi::run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(super) fn one<T: FromDatum + IntoDatum>(sql: &str) -> Option<T> {
        Spi::get_one(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(super) fn rows(sql: &str) -> Value {
        let sql = format!("select coalesce(jsonb_agg(to_jsonb(r)), '[]') from ({sql}) r");
        one::<JsonB>(&sql).expect("an array").0
    }

    /// Runs SQL that must fail; returns its SQLSTATE, message and hint.
    pub(super) fn failure(sql: &str) -> (String, String, String) {
        run("create or replace function pg_temp.fails(sql text) returns text[] language plpgsql as $$
             declare message text; hint text;
             begin
               execute sql;
               return null;
             exception when others then
               get stacked diagnostics message = message_text, hint = pg_exception_hint;
               return array[sqlstate, message, hint];
             end $$");
        let failed: Option<Vec<String>> =
            Spi::get_one_with_args("select pg_temp.fails($1)", &[sql.into()]).expect("one array");
        let [code, message, hint]: [String; 3] =
            failed.unwrap_or_else(|| panic!("did not fail: {sql}")).try_into().expect("three texts");
        (code, message, hint)
    }

    pub(super) fn orders() {
        run("create table orders (id uuid primary key default gen_random_uuid(), tenant_id text, table_number int,
                                  status text default 'open' constraint known_status check (status in ('open', 'paid', 'late')),
                                  items jsonb default '[]', updated_at timestamptz)");
        run(r#"select headwater.enable('orders', tenant_column => 'tenant_id', events => '{
               "created": {"rule": "create"}, "item_added": {"rule": "append", "field": "items", "value": "item"},
               "item_removed": {"rule": "remove", "field": "items", "where": {"id": "item_id"}},
               "state_changed": {"rule": "set", "fields": ["status"]}, "deleted": {"rule": "delete"}}')"#);
    }

    /// An event of tenant `a`; `n` makes its id, `second` its instant.
    pub(super) fn event(n: u32, name: &str, entity_id: &str, second: u32, payload: Value) -> Value {
        json!({"id": format!("0190a0a0-0000-7000-8000-{n:012x}"), "event_type": format!("order.{name}"), "entity_type": "order",
               "entity_id": entity_id, "payload": payload, "tenant_id": "a",
               "timestamp": format!("2026-01-01T00:{:02}:{:02}.000001Z", second / 60, second % 60)})
    }

    pub(super) fn ingest_as(claims: &str, events: &[Value]) -> Value {
        Spi::get_one_with_args::<JsonB>(
            "select headwater.ingest($1, $2::jsonb)",
            &[JsonB(json!(events)).into(), claims.into()],
        )
        .expect("ingest")
        .expect("an answer")
        .0
    }

    pub(super) fn ingest(events: &[Value]) -> Value {
        ingest_as(TRUSTED, events)
    }

    /// The codes of the rejects, by index.
    pub(super) fn codes(answer: &Value) -> Vec<(u64, String)> {
        let rejected = answer["rejected"].as_array().expect("an array");
        rejected
            .iter()
            .map(|r| (r["index"].as_u64().expect("an index"), r["code"].as_str().expect("a code").to_owned()))
            .collect()
    }

    pub(super) fn assert_accepted(answer: &Value) {
        assert_eq!(answer["rejected"], json!([]), "{answer}");
    }

    pub(super) fn captured(entity: &str) -> Value {
        rows(&format!(
            "select entity_id, split_part(event_type, '.', 2) as name, payload from headwater.event
             where entity_type = '{entity}' order by position"
        ))
    }

    /// The promise of the whole: what the events fold to is what stands in the table.
    pub(super) fn assert_rows_equal_folds() {
        let wrong = rows(
            "select o.id, to_jsonb(o) - 'updated_at' as row, headwater.materialize('order', o.id::text, null, o.tenant_id) as fold
             from orders o
             where (to_jsonb(o) - 'updated_at') is distinct from
                   (headwater.materialize('order', o.id::text, null, o.tenant_id) - 'updated_at')
             union all
             select e.entity_id::uuid, null, headwater.materialize('order', e.entity_id, null, e.tenant_id)
             from (select distinct entity_id, tenant_id from headwater.event where entity_type = 'order') e
             where headwater.materialize('order', e.entity_id, null, e.tenant_id) is not null
               and not exists (select from orders o where o.id::text = e.entity_id and o.tenant_id is not distinct from e.tenant_id)",
        );
        assert_eq!(wrong, json!([]));
    }

    // Declaring

    #[pg_test]
    fn enable_takes_events_in_every_form_and_names_the_entity() {
        let check = |table: &str, entity: &str, events: &str, names: Value| {
            run(&format!("create table {table} (id int primary key, n int)"));
            assert_eq!(one::<String>(&format!("select headwater.enable('{table}'{events})")).as_deref(), Some(entity));
            let rules = rows(&format!(
                "select jsonb_object_keys(rules) as name from headwater.entity where entity_type = '{entity}' order by 1"
            ));
            assert_eq!(
                rules,
                json!(names.as_array().expect("names").iter().map(|name| json!({"name": name})).collect::<Vec<_>>())
            );
        };
        check("categories", "category", "", json!(["created", "deleted", "updated"]));
        check("boxes", "box", ", events => array['created', 'moved']", json!(["created", "moved"]));
        check("addresses", "address", ", events => '{created,moved}'", json!(["created", "moved"]));
        check("status", "status", r#", events => '["made"]'"#, json!(["made"]));
        check(
            "t5",
            "thing",
            r#", 'thing', '{"n": {"rule": "increment", "field": "n", "by": "n"}}'::jsonb"#,
            json!(["n"]),
        );
        check("t6", "t6", ", events => null", json!(["created", "deleted", "updated"]));
    }

    #[pg_test]
    fn enable_says_what_is_wrong_and_what_to_do() {
        run("create table nokey (n int); create table good (id int primary key, n int, secret text, g int generated always as (1) stored);
             create unlogged table fleeting (id int primary key); create view seen as select 1 as id;
             create table nullable (id int unique, n int); create table other (id int primary key)");
        let check = |call: &str, code: &str, says: &str, hints: &str| {
            let (sqlstate, message, hint) = failure(&format!("select headwater.enable({call})"));
            assert!(
                sqlstate == code && message.contains(says) && hint.contains(hints),
                "{call}: {sqlstate} {message} / {hint}"
            );
        };
        check("'nokey'", "42P16", "no primary key", "add primary key");
        check("'nullable', key => array['id']", "42P16", "are no key", "not-null columns of a unique index");
        check("'fleeting'", "42809", "unlogged", "write-ahead log");
        check("'seen'", "42809", "not a table", "beneath");
        check("'good', entity => 'Good'", "42602", "cannot be a name", "Choose one");
        check("'good', tenant_column => 'tenant'", "42703", "no column \"tenant\"", "id, n, secret, g");
        check("'good', exclude => '{id}'", "22023", "cannot be excluded", "");
        check("'good', notification => 'pigeon'", "22023", "no backend", "memory, redis");
        check("'good', events => array['Made']", "22023", "cannot name an event", "");
        check(
            r#"'good', events => '{"a": {"rule": "set", "fields": ["id"]}}'"#,
            "22023",
            "\"id\", which is no column",
            "n, secret",
        );
        check(
            r#"'good', events => '{"a": {"rule": "set", "fields": ["g"]}}'"#,
            "22023",
            "\"g\", which is no column",
            "n, secret",
        );
        check("'good', events => 7", "22023", "must be an array", "");
        check("null", "22023", "which table", "orders");
        run("select headwater.enable('good', entity => 'good')");
        check("'good', entity => 'better'", "55000", "is entity \"good\" already", "");
        check("'other', entity => 'good'", "42710", "belongs to table", "Choose another name");
        assert_eq!(one::<i64>("select count(*) from headwater.entity"), Some(1));
    }

    #[pg_test]
    fn enable_alters_what_a_second_call_names_and_keeps_the_rest() {
        run("create table things (id int primary key, tenant text, secret text)");
        run(
            "select headwater.enable('things', tenant_column => 'tenant', exclude => '{secret}', events => array['made'])",
        );
        run("select headwater.enable('things', events => array['moved'])");
        run("select headwater.enable('things', exclude => '{}')");
        let entry = rows("select tenant_column, excluded, jsonb_object_keys(rules) as event from headwater.entity");
        assert_eq!(entry, json!([{"tenant_column": "tenant", "excluded": [], "event": "moved"}]));
        run("insert into things values (1, 'a', 'known now')");
        assert_eq!(captured("thing")[0]["payload"], json!({"id": 1, "tenant": "a", "secret": "known now"}));
    }

    #[pg_test]
    fn clients_get_the_table_unless_told_otherwise() {
        let may = |table: &str, column: &str| {
            one::<bool>(&format!("select has_column_privilege('headwater_client', '{table}', '{column}', 'update')"))
        };
        run("create table mine (id int primary key, n int); create table ours (id int primary key, n int, secret int)");
        run("select headwater.enable('mine', grant_client => false), headwater.enable('ours', exclude => '{secret}')");
        run("alter table ours add column added int; select headwater.enable('mine'), headwater.enable('ours')");
        assert_eq!(
            [may("mine", "n"), may("ours", "added"), may("ours", "secret")],
            [Some(false), Some(true), Some(false)]
        );
    }

    #[pg_test]
    fn a_schema_is_opened_to_clients_only_by_who_may_do_so() {
        let opened = || one::<bool>("select has_schema_privilege('headwater_client', 'vault', 'usage')");
        run("create role keeper; create role guest; grant headwater_admin to guest, keeper;
             create schema vault authorization keeper; grant usage, create on schema vault to guest; set local role guest;
             create table vault.mine (id int primary key); select headwater.enable('vault.mine', entity => 'mine')");
        assert_eq!(opened(), Some(false));
        run("reset role; create table vault.theirs (id int primary key); alter table vault.theirs owner to keeper;
             set local role keeper; select headwater.enable('vault.theirs', entity => 'theirs')");
        assert_eq!(opened(), Some(true));
    }

    #[pg_test]
    fn a_stranger_cannot_enable_a_table_of_others() {
        run(
            "create role stranger; grant headwater_admin to stranger; create table theirs (id int primary key); set local role stranger",
        );
        let (code, message, _) = failure("select headwater.enable('theirs')");
        assert_eq!((code.as_str(), message.as_str()), ("42501", "must be owner of table public.theirs"));
    }

    #[pg_test]
    fn disable_ends_capture_and_keeps_history() {
        orders();
        run(
            "insert into orders (tenant_id) values ('a'); select headwater.disable('orders'); update orders set status = 'paid'",
        );
        assert_eq!(one::<i64>("select count(*) from headwater.event"), Some(1));
        run("drop table orders");
        assert_eq!(one::<i64>("select count(*) from headwater.event"), Some(1));
    }

    // Capture

    #[pg_test]
    fn every_changed_row_is_one_event() {
        run("create table t (id int primary key, n int, note text); select headwater.enable('t')");
        run("insert into t select i, i from generate_series(1, 3) i");
        run("update t set n = n * 10 where id <> 2");
        run("update t set n = n");
        run("insert into t values (3, 0, 'x'), (4, 0, 'y') on conflict (id) do update set note = excluded.note");
        run("merge into t using (values (1), (5)) s (id) on t.id = s.id
             when matched then delete when not matched then insert values (s.id, 50)");
        run("truncate t");
        let names = rows(
            "select split_part(event_type, '.', 2) as name, count(*) as n, jsonb_agg(distinct payload) as payloads
                          from headwater.event group by 1 order by 1",
        );
        assert_eq!(names[0]["n"], json!(5), "{names}");
        assert_eq!(names[1]["n"], json!(5), "one by merge, four by truncate: {names}");
        assert_eq!(names[2]["n"], json!(6), "{names}");
        assert_eq!(names[2]["payloads"], json!([{}, {"n": 10}, {"n": 30}, {"note": "x"}]));
        assert_eq!(
            one::<i64>("select count(*) from headwater.event where source <> 'capture' or not applies"),
            Some(0)
        );
    }

    #[pg_test]
    fn keys_that_are_handed_on_end_with_the_row_that_has_them() {
        run(
            "create table t (id int primary key, tenant text, n int); select headwater.enable('t', tenant_column => 'tenant')",
        );
        run("insert into t values (1, 'a', 1), (2, 'a', 2), (9, 'a', 9)");
        // From the highest down, so that the unique index is content.
        run("update t set id = id + 1 where id = 2; update t set id = id + 1 where id = 1");
        run("update t set tenant = 'b', n = 10 where id = 9");
        let fold = |id: &str, tenant: &str| {
            one::<JsonB>(&format!("select headwater.materialize('t', '{id}', null, '{tenant}')")).map(|j| j.0)
        };
        assert_eq!(fold("1", "a"), None);
        assert_eq!(fold("2", "a"), Some(json!({"id": 2, "tenant": "a", "n": 1})));
        assert_eq!(fold("3", "a"), Some(json!({"id": 3, "tenant": "a", "n": 2})));
        assert_eq!(fold("9", "a"), None);
        assert_eq!(fold("9", "b"), Some(json!({"id": 9, "tenant": "b", "n": 10})));
    }

    #[pg_test]
    fn values_reach_javascript_without_loss_whatever_the_session_has() {
        run("create type mood as enum ('glad', 'sad'); create type pair as (a int8, b text);
             create table t (id int8 primary key, n numeric(30, 10), a int8[], f float8, b bytea, at timestamptz, d date, i interval,
                             r int4range, m mood, p pair, j json, g int generated always as (1) stored);
             select headwater.enable('t')");
        run("set local timezone = 'Asia/Tokyo'; set local datestyle = 'German'; set local bytea_output = 'escape';
             set local intervalstyle = 'postgres_verbose'; set local extra_float_digits = -10");
        run(
            r#"insert into t values (9007199254740993, 12345678901234567890.0123456789, '{9007199254740993}', 'NaN', '\x00ff',
               '2026-11-22 12:00:00.000001+00', '2026-11-22', '1 day 2 hours', '[1,5)', 'glad', row(1, 'x'), '{"k": 1}')"#,
        );
        assert_eq!(
            captured("t"),
            json!([{"entity_id": "9007199254740993", "name": "created", "payload": {
                "id": "9007199254740993", "n": "12345678901234567890.0123456789", "a": ["9007199254740993"], "f": "NaN", "b": "\\x00ff",
                "at": "2026-11-22T12:00:00.000001+00:00", "d": "2026-11-22", "i": "P1DT2H", "r": "[1,5)", "m": "glad", "p": {"a": "1", "b": "x"},
                "j": {"k": 1}, "g": 1}}])
        );
        assert_eq!(one::<String>("show timezone").as_deref(), Some("Asia/Tokyo"));
    }

    #[pg_test]
    fn odd_names_composite_keys_and_excluded_columns() {
        run(
            r#"create schema "Odd ""one"""; create table "Odd ""one"""."Ta'ble" ("K/1" text, "k~2" int, "v'al" int, secret text, primary key ("K/1", "k~2"));
               select headwater.enable('"Odd ""one"""."Ta''ble"', entity => 'odd', exclude => '{secret}')"#,
        );
        run(
            r#"insert into "Odd ""one"""."Ta'ble" values ('a/b~c', 1, 2, 'hush'); update "Odd ""one"""."Ta'ble" set secret = 'x'"#,
        );
        assert_eq!(
            captured("odd"),
            json!([{"entity_id": "a~1b~0c/1", "name": "created", "payload": {"K/1": "a/b~c", "k~2": 1, "v'al": 2}},
                   {"entity_id": "a~1b~0c/1", "name": "updated", "payload": {}}])
        );
    }

    #[pg_test]
    fn cascades_columns_that_come_and_go_and_partitions_are_captured() {
        run("create table parent (id int primary key); create table child (id int primary key, parent int references parent on delete cascade);
             select headwater.enable('parent'), headwater.enable('child', entity => 'child')");
        run("insert into parent values (1); insert into child values (1, 1), (2, 1); delete from parent");
        assert_eq!(captured("child").as_array().expect("events").len(), 4);
        run("alter table child add column extra int; insert into child values (3, null, 7); alter table child drop column parent;
             insert into child values (4, 8)");
        assert_eq!(captured("child")[4]["payload"], json!({"id": 3, "parent": null, "extra": 7}));
        assert_eq!(captured("child")[5]["payload"], json!({"id": 4, "extra": 8}));

        run("create table p (id int primary key, v int) partition by range (id); create table p1 partition of p for values from (0) to (10);
             create table p2 partition of p for values from (10) to (20); select headwater.enable('p')");
        run(
            "insert into p values (1, 1), (11, 1); insert into p1 values (2, 1); update p set v = 2 where id = 1; update p set id = 12 where id = 2; truncate p",
        );
        let names: Vec<_> = captured("p")
            .as_array()
            .expect("events")
            .iter()
            .map(|e| format!("{} {}", e["entity_id"], e["name"]))
            .collect();
        assert_eq!(
            names.join(", ").replace('"', ""),
            "1 created, 11 created, 2 created, 1 updated, 2 deleted, 12 created, 1 deleted, 11 deleted, 12 deleted"
        );
    }

    #[pg_test]
    fn a_rolled_back_change_leaves_no_event() {
        run("create table t (id int primary key); select headwater.enable('t')");
        run("do $$ begin insert into t values (1); raise exception 'no'; exception when others then null; end $$");
        assert_eq!(captured("t"), json!([]));
    }

    #[pg_test]
    fn events_are_immutable() {
        orders();
        run("insert into orders (tenant_id) values ('a')");
        for statement in
            ["update headwater.event set payload = '{}'", "delete from headwater.event", "truncate headwater.event"]
        {
            let (code, message, _) = failure(statement);
            assert!(code == "55000" && message.contains("immutable"), "{statement}: {code} {message}");
        }
    }

    #[pg_test]
    fn rows_that_were_there_have_baselines() {
        run(
            "create table t (id int primary key, n int); insert into t select i, i from generate_series(1, 3) i; select headwater.enable('t')",
        );
        assert_eq!(
            rows("select entity_id, state from headwater.snapshot order by 1")[2],
            json!({"entity_id": "3", "state": {"id": 3, "n": 3}})
        );
        // As if the table were large: the first change writes the baseline, from the old row, once.
        run("create table big (id int primary key, n int); insert into big select i, i from generate_series(1, 3) i;
             select headwater.enable('big', backfill => false)");
        run(
            "update big set n = 10 where id = 1; update big set n = 11 where id = 1; delete from big where id = 2; insert into big values (4, 4); update big set n = 5 where id = 4",
        );
        assert_eq!(
            rows("select entity_id, state from headwater.snapshot where entity_type = 'big' order by 1"),
            json!([{"entity_id": "1", "state": {"id": 1, "n": 1}}, {"entity_id": "2", "state": {"id": 2, "n": 2}}])
        );
        assert_eq!(
            one::<JsonB>("select headwater.materialize('big', '1')").map(|j| j.0),
            Some(json!({"id": 1, "n": 11}))
        );
    }

    // Ingest

    #[pg_test]
    fn a_batch_is_stored_and_applied_and_defaults_are_recorded() {
        orders();
        let answer = ingest(&[
            event(1, "created", ORDER, 0, json!({"table_number": 7})),
            event(2, "item_added", ORDER, 1, json!({"item": {"id": 1}})),
            event(3, "item_added", ORDER, 2, json!({"item": {"id": 2}})),
            event(4, "item_removed", ORDER, 3, json!({"item_id": 1})),
        ]);
        assert_accepted(&answer);
        assert_eq!(answer["accepted"].as_array().map(Vec::len), Some(4));
        let row = rows("select tenant_id, table_number, status, items from orders");
        assert_eq!(row, json!([{"tenant_id": "a", "table_number": 7, "status": "open", "items": [{"id": 2}]}]));
        let made = rows("select event_type, payload, source from headwater.event where source <> 'client'");
        assert_eq!(
            made,
            json!([{"event_type": "order.updated", "source": "capture",
                    "payload": {"id": ORDER, "tenant_id": "a", "status": "open", "items": [], "updated_at": null}}])
        );
        assert_rows_equal_folds();
        assert_accepted(&ingest(&[event(5, "deleted", ORDER, 4, json!({}))]));
        assert_eq!(one::<i64>("select count(*) from orders"), Some(0));
        assert_eq!(
            one::<i64>("select count(*) from headwater.event where source = 'capture'"),
            Some(1),
            "own writes are not captured again"
        );
        assert_rows_equal_folds();
    }

    #[pg_test]
    fn each_wrong_event_is_rejected_alone() {
        orders();
        run("insert into orders (id, tenant_id) values ('22222222-2222-4222-8222-222222222222', 'b')");
        let other = "22222222-2222-4222-8222-222222222222";
        let mut later = event(11, "created", ORDER, 0, json!({}));
        later["timestamp"] = json!("2999-01-01T00:00:00Z");
        let mut version = event(12, "created", ORDER, 0, json!({}));
        version["schema_version"] = json!(2);
        let mut expecting = event(13, "state_changed", ORDER, 9, json!({"status": "paid"}));
        expecting["expected_position"] = json!(12345);
        let mut unknown = event(14, "created", ORDER, 0, json!({}));
        unknown["entity_type"] = json!("pizza");
        unknown["event_type"] = json!("pizza.created");
        let answer = ingest(&[
            event(1, "created", ORDER, 0, json!({"table_number": 1})),
            json!("no event"),
            event(2, "eaten", ORDER, 1, json!({})),
            event(3, "item_added", ORDER, 1, json!({})),
            event(4, "state_changed", ORDER, 1, json!({"status": "burnt"})),
            event(5, "created", "no-uuid", 1, json!({})),
            event(6, "created", &ORDER.replace('1', "A"), 1, json!({})),
            event(7, "created", other, 1, json!({"table_number": "seven"})),
            event(8, "created", other, 1, json!({"tenant_id": "b"})),
            event(9, "created", other, 1, json!({})),
            event(10, "state_changed", other, 1, json!({"status": "paid"})),
            later,
            version,
            expecting,
            unknown,
            event(15, "state_changed", ORDER, 3, json!({"status": "paid"})),
        ]);
        let expected = [
            (1, "invalid_payload"),
            (2, "unknown_event_type"),
            (3, "invalid_payload"),
            (4, "constraint_violation"),
            (5, "invalid_payload"),
            (6, "invalid_payload"),
            (7, "invalid_payload"),
            (8, "invalid_payload"),
            (9, "constraint_violation"),
            (11, "clock_skew"),
            (12, "unsupported_version"),
            (13, "version_conflict"),
            (14, "unknown_event_type"),
        ];
        assert_eq!(codes(&answer), expected.map(|(index, code)| (index, code.to_owned())), "{answer:#}");
        assert_eq!(answer["rejected"][3]["constraint"], json!("known_status"));
        assert_eq!(answer["rejected"][3]["sqlstate"], json!("23514"));
        assert!(answer["rejected"][9]["server_time"].is_string());
        assert_eq!(
            rows("select tenant_id, table_number, status from orders order by tenant_id"),
            json!([{"tenant_id": "a", "table_number": 1, "status": "paid"}, {"tenant_id": "b", "table_number": null, "status": "open"}]),
            "somebody else's row is as if it were missing"
        );
        assert_rows_equal_folds();
        assert_eq!(one::<i64>("select count(*) from headwater.rejected_event"), Some(11));
    }

    #[pg_test]
    fn a_retry_gets_the_first_answer() {
        orders();
        let mut keyed = event(3, "item_added", ORDER, 2, json!({"item": 1}));
        keyed["idempotency_key"] = json!("once");
        let batch = [
            event(1, "created", ORDER, 0, json!({})),
            event(2, "state_changed", ORDER, 1, json!({"status": "burnt"})),
            keyed.clone(),
        ];
        let first = ingest(&batch);
        assert_eq!(codes(&first), [(1, "constraint_violation".to_owned())]);
        let events = one::<i64>("select count(*) from headwater.event");
        assert_eq!(ingest(&batch), first);
        // The same by its key, under another id; and twice in one batch.
        keyed["id"] = json!("0190a0a0-0000-7000-8000-0000000000ff");
        assert_accepted(&ingest(&[keyed.clone(), keyed.clone()]));
        // What was refused once is refused again, also when it could now be accepted.
        run("alter table orders drop constraint known_status");
        assert_eq!(ingest(&batch), first);
        assert_eq!(one::<i64>("select count(*) from headwater.event"), events);
        // The same id or key with something else in it.
        keyed["payload"] = json!({"item": 2});
        let changed = event(1, "created", ORDER, 0, json!({"table_number": 2}));
        assert_eq!(codes(&ingest(&[changed, keyed])), [(0, "conflict".to_owned()), (1, "conflict".to_owned())]);
        // Ids belong to tenants.
        let mut theirs = event(1, "created", "33333333-3333-4333-8333-333333333333", 0, json!({}));
        theirs["tenant_id"] = json!("b");
        assert_accepted(&ingest(&[theirs]));
        assert_rows_equal_folds();
    }

    #[pg_test]
    fn a_custom_rule_merges_as_the_role_that_applies() {
        run("create table score (id int primary key, best int, by_role text); create schema app; grant usage on schema app to headwater_client;
             create function app.best(state jsonb, event jsonb) returns jsonb immutable language sql
               return case when event -> 'payload' ->> 'points' = 'none' then null else
                 state || jsonb_build_object('by_role', current_user,
                   'best', greatest((state ->> 'best')::int, (event -> 'payload' ->> 'points')::int)) end;
             create function app.vague(state jsonb, event jsonb) returns jsonb language sql return state");
        let declare = |function: &str| {
            format!(
                r#"select headwater.enable('score', events => '{{"created": {{"rule": "create"}}, "played": {{"rule": "custom", "function": "{function}"}}}}')"#
            )
        };
        for (function, says) in [
            ("best", "no such function"),
            ("app.none", "no such function"),
            ("app.vague", "not immutable"),
            ("app.best(); drop", ""),
        ] {
            let (_, message, _) = failure(&declare(function));
            assert!(message.contains(says), "{function}: {message}");
        }
        run(&declare("app.best"));
        let score = |n: u32, name: &str, second: u32, payload: Value| {
            let mut event = event(n, "", "1", second, payload);
            event["entity_type"] = json!("score");
            event["event_type"] = json!(format!("score.{name}"));
            event
        };
        assert_accepted(&ingest(&[
            score(1, "created", 0, json!({})),
            score(2, "played", 1, json!({"points": 5})),
            score(3, "played", 3, json!({"points": 3})),
        ]));
        assert_eq!(rows("select best, by_role from score"), json!([{"best": 5, "by_role": "headwater_client"}]));
        assert_accepted(&ingest(&[score(4, "played", 2, json!({"points": 9}))]));
        assert_eq!(rows("select best from score"), json!([{"best": 9}]));
        assert_accepted(&ingest(&[score(5, "played", 4, json!({"points": "none"}))]));
        assert_eq!(rows("select * from score"), json!([]));
        let wrong = ingest(&[score(6, "created", 5, json!({})), score(7, "played", 6, json!({"points": "many"}))]);
        assert_eq!(codes(&wrong), [(1, "invalid_payload".to_owned())]);
    }

    #[pg_test]
    fn a_dead_letter_can_be_tried_again_or_discarded() {
        orders();
        let burnt = event(2, "state_changed", ORDER, 1, json!({"status": "burnt"}));
        let claims = r#"{"sub": "eve", "tenant_id": "a"}"#;
        let answer = ingest_as(claims, &[event(1, "created", ORDER, 0, json!({})), burnt.clone()]);
        assert_eq!(codes(&answer), [(1, "constraint_violation".to_owned())]);
        let retry =
            |id: &str| one::<JsonB>(&format!("select headwater.retry_rejected('{id}', 'a')")).expect("an answer").0;
        let id = burnt["id"].as_str().expect("an id");
        assert_eq!(codes(&retry(id)), [(0, "constraint_violation".to_owned())]);
        run("alter table orders drop constraint known_status");
        assert_accepted(&retry(id));
        assert_eq!(rows("select status from orders"), json!([{"status": "burnt"}]));
        assert_eq!(
            rows("select user_id from headwater.event where event_type = 'order.state_changed'"),
            json!([{"user_id": "eve"}])
        );
        assert_accepted(&ingest_as(claims, std::slice::from_ref(&burnt)));
        assert_eq!(failure(&format!("select headwater.retry_rejected('{id}', 'a')")).0, "P0002");

        let unknown = event(3, "eaten", ORDER, 1, json!({}));
        let first = ingest_as(claims, std::slice::from_ref(&unknown));
        run(&format!("select headwater.discard_rejected('{}', 'a')", unknown["id"].as_str().expect("an id")));
        assert_eq!(one::<i64>("select count(*) from headwater.rejected_event"), Some(0));
        assert_eq!(ingest_as(claims, &[unknown]), first, "the receipt stays");
        assert_rows_equal_folds();
    }

    #[pg_test]
    fn a_published_table_is_on_the_stream_without_events() {
        run(
            "create table t (n int); select headwater.publish('t'); select headwater.publish('t'); insert into t values (1)",
        );
        assert_eq!(
            one::<i64>(
                "select count(*) from pg_publication_tables where pubname = 'headwater_tables' and tablename = 't'"
            ),
            Some(1)
        );
        assert_eq!(
            one::<i64>("select count(*) from pg_class where oid = 't'::regclass and relreplident = 'f'"),
            Some(1)
        );
        assert_eq!(one::<i64>("select count(*) from headwater.event"), Some(0));
    }

    #[pg_test]
    fn the_token_says_who_sends() {
        orders();
        let claims = r#"{"sub": "eve", "tenant_id": "a"}"#;
        let mut event1 = event(1, "created", ORDER, 0, json!({}));
        event1.as_object_mut().expect("an object").remove("tenant_id");
        assert_accepted(&ingest_as(claims, &[event1]));
        assert_eq!(
            rows("select distinct tenant_id, user_id from headwater.event"),
            json!([{"tenant_id": "a", "user_id": "eve"}])
        );
        let mut stolen = event(2, "state_changed", ORDER, 1, json!({"status": "paid"}));
        stolen["tenant_id"] = json!("b");
        let mut feigned = event(3, "state_changed", ORDER, 1, json!({"status": "paid"}));
        feigned["user_id"] = json!("adam");
        assert_eq!(
            codes(&ingest_as(claims, &[stolen, feigned])),
            [(0, "forbidden".to_owned()), (1, "forbidden".to_owned())]
        );
        let (code, message, hint) =
            failure(r#"set local role headwater_writer; select headwater.ingest('[]', '{"role": "postgres_nobody"}')"#);
        assert!(
            code == "28000" && message.contains("no such role") && hint.contains("create role"),
            "{code} {message} {hint}"
        );
        let (code, message, _) = failure(
            r#"create role mighty; set local role headwater_writer; select headwater.ingest('[]', '{"role": "mighty"}')"#,
        );
        assert!(code == "28000" && message.contains("no member"), "{code} {message}");
        let (code, ..) = failure("set local role headwater_client; select headwater.ingest('[]', '{}')");
        assert_eq!(code, "42501");
    }

    #[pg_test]
    fn the_tables_own_policies_judge_by_the_claims() {
        orders();
        run("alter table orders enable row level security;
             create policy see on orders for select to headwater_client using (true);
             create policy make on orders for insert to headwater_client
               with check (current_setting('request.jwt.claims')::jsonb ->> 'sub' = 'eve');
             create policy change on orders for update to headwater_client using (true) with check (status <> 'paid')");
        let of = |user: &str| format!(r#"{{"sub": "{user}", "tenant_id": "a"}}"#);
        let created = event(1, "created", ORDER, 0, json!({}));
        let again = event(2, "created", ORDER, 0, json!({}));
        assert_eq!(codes(&ingest_as(&of("adam"), &[created])), [(0, "forbidden".to_owned())]);
        assert_accepted(&ingest_as(&of("eve"), &[again]));
        let paid = event(3, "state_changed", ORDER, 2, json!({"status": "paid"}));
        let late = event(4, "state_changed", ORDER, 3, json!({"status": "late"}));
        assert_eq!(codes(&ingest_as(&of("adam"), &[paid, late])), [(0, "forbidden".to_owned())]);
        assert_eq!(one::<String>("select status from orders").as_deref(), Some("late"));
        let deleted = event(5, "deleted", ORDER, 4, json!({}));
        assert_eq!(codes(&ingest_as(&of("eve"), &[deleted])), [(0, "forbidden".to_owned())]);
        assert_rows_equal_folds();
    }

    #[pg_test]
    fn what_triggers_make_of_a_row_is_recorded_and_other_rows_are_captured() {
        orders();
        run(
            "create table audit (id int generated always as identity primary key, what text); select headwater.enable('audit')",
        );
        run("create function shout() returns trigger language plpgsql as $$ begin new.table_number := coalesce(new.table_number, 0) + 100; return new; end $$;
             create trigger shout before insert or update on orders for each row execute function shout();
             create function note() returns trigger language plpgsql security definer as $$
             begin
               insert into audit (what) values (new.status);
               if new.status = 'late' then update orders set items = '[\"sorry\"]' where id = new.id; end if;
               return null;
             end $$;
             create trigger note after insert or update of status on orders for each row execute function note()".replace("\\\"", "\"").as_str());
        assert_accepted(&ingest(&[event(1, "created", ORDER, 0, json!({"table_number": 7}))]));
        assert_rows_equal_folds();
        assert_eq!(one::<i32>("select table_number from orders"), Some(107));
        assert_eq!(captured("audit").as_array().map(Vec::len), Some(1));
        // The trigger writes the same row again, one level deeper: captured, though ingest's own write is not.
        assert_accepted(&ingest(&[event(2, "state_changed", ORDER, 1, json!({"status": "late"}))]));
        let after = rows("select status, items, table_number from orders");
        assert_eq!(after, json!([{"status": "late", "items": ["sorry"], "table_number": 307}]));
        assert_eq!(captured("audit").as_array().map(Vec::len), Some(2));
        assert_rows_equal_folds();
    }

    /// A trigger that writes the row again, stamped later than the events that are still to come of the same batch.
    #[pg_test]
    fn a_batch_goes_on_from_what_triggers_made_of_the_row() {
        orders();
        run("create function again() returns trigger language plpgsql security definer as $$
             begin update orders set table_number = table_number + 1 where id = new.id; return null; end $$;
             create trigger again after insert on orders for each row execute function again()");
        assert_accepted(&ingest(&[
            event(1, "created", ORDER, 0, json!({"table_number": 1})),
            event(2, "state_changed", ORDER, 1, json!({"status": "paid"})),
            event(3, "created", ORDER, 2, json!({"table_number": 50})),
        ]));
        assert_eq!(rows("select table_number, status from orders"), json!([{"table_number": 2, "status": "paid"}]));
        assert_rows_equal_folds();
    }

    #[pg_test]
    fn late_events_take_their_place() {
        orders();
        assert_accepted(&ingest(&[
            event(1, "created", ORDER, 0, json!({"status": "open"})),
            event(2, "state_changed", ORDER, 20, json!({"status": "paid"})),
        ]));
        assert_accepted(&ingest(&[event(3, "state_changed", ORDER, 10, json!({"status": "late"}))]));
        assert_eq!(one::<String>("select status from orders").as_deref(), Some("paid"));
        // Before its create an event finds nothing to change.
        let other = "44444444-4444-4444-8444-444444444444";
        assert_accepted(&ingest(&[event(4, "state_changed", other, 10, json!({"status": "late"}))]));
        assert_eq!(one::<i64>("select count(*) from orders"), Some(1));
        assert_accepted(&ingest(&[event(5, "created", other, 5, json!({}))]));
        assert_eq!(one::<String>(&format!("select status from orders where id = '{other}'")).as_deref(), Some("late"));
        assert_accepted(&ingest(&[event(6, "deleted", ORDER, 15, json!({}))]));
        assert_eq!(one::<i64>(&format!("select count(*) from orders where id = '{ORDER}'")), Some(0));
        assert_rows_equal_folds();
    }

    /// All orders of arrival, batches and duplicates give the same row and the same fold.
    #[pg_test]
    fn histories_converge() {
        orders();
        run("alter table orders drop constraint known_status");
        let mut seed: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for history in 0..40_u32 {
            let events: Vec<_> = (0..=random(9))
                .map(|i| {
                    let name = ["created", "item_added", "item_removed", "state_changed", "deleted"]
                        [usize::try_from(random(5)).expect("small")];
                    let n = random(3);
                    let payload = match name {
                        "created" => json!({"table_number": n}),
                        "item_added" => json!({"item": {"id": n}}),
                        "item_removed" => json!({"item_id": n}),
                        "state_changed" => json!({"status": format!("s{n}")}),
                        _ => json!({}),
                    };
                    let i = u32::try_from(i).expect("small");
                    event(history * 1000 + i, name, "", u32::try_from(random(20)).expect("small"), payload)
                })
                .collect();
            let mut outcomes = Vec::new();
            for arrival in 0..4_u32 {
                let entity_id = format!("00000000-0000-4000-8000-{:012x}", history * 10 + arrival);
                let mut remaining: Vec<_> = events
                    .iter()
                    .cloned()
                    .map(|mut event| {
                        event["entity_id"] = json!(entity_id);
                        // Its own ids, in the same order among themselves.
                        event["id"] =
                            json!(event["id"].as_str().expect("an id").replacen("0190", &format!("01{arrival}0"), 1));
                        event
                    })
                    .collect();
                let mut sent: Vec<Value> = Vec::new();
                while !remaining.is_empty() {
                    let mut batch = Vec::new();
                    for _ in 0..=random(3) {
                        if !remaining.is_empty() {
                            let which = usize::try_from(random(remaining.len() as u64)).expect("small");
                            batch.push(if arrival == 0 { remaining.remove(0) } else { remaining.remove(which) });
                        }
                    }
                    if !sent.is_empty() && random(3) == 0 {
                        batch.push(sent[usize::try_from(random(sent.len() as u64)).expect("small")].clone());
                    }
                    assert_accepted(&ingest(&batch));
                    sent.extend(batch);
                }
                outcomes
                    .push(rows(&format!("select table_number, status, items from orders where id = '{entity_id}'")));
            }
            assert!(
                outcomes.windows(2).all(|pair| pair[0] == pair[1]),
                "history {history}: {outcomes:#?}\n{events:#?}"
            );
        }
        assert_rows_equal_folds();
    }

    #[pg_test]
    fn an_emitted_event_is_history_unless_it_applies() {
        orders();
        run(&format!("insert into orders (id, tenant_id) values ('{ORDER}', 'a')"));
        run(&format!("select headwater.emit('order.printed', '{ORDER}', '{{\"copies\": 2}}')"));
        run(&format!(
            "select headwater.emit('order.state_changed', '{ORDER}', '{{\"status\": \"paid\"}}', user_id => 'eve', apply => true)"
        ));
        let events = rows(
            "select event_type, source, applies, tenant_id, user_id from headwater.event where source = 'sql' order by position",
        );
        assert_eq!(
            events,
            json!([{"event_type": "order.printed", "source": "sql", "applies": false, "tenant_id": "a", "user_id": null},
                   {"event_type": "order.state_changed", "source": "sql", "applies": true, "tenant_id": "a", "user_id": "eve"}])
        );
        assert_eq!(one::<String>("select status from orders").as_deref(), Some("paid"));
        assert_rows_equal_folds();
        for (call, code) in [
            ("'pizza.x', '1'", "42704"),
            ("'nonsense', '1'", "42704"),
            ("'order.x', 'no-uuid'", "22P02"),
            ("null, '1'", "22023"),
            ("'order.x', ''", "22023"),
        ] {
            assert_eq!(failure(&format!("select headwater.emit({call})")).0, code, "{call}");
        }
    }

    /// An event that finds nothing to change, of another tenant or for history only, is no baseline.
    #[pg_test]
    fn a_row_is_not_lost_for_want_of_its_baseline() {
        run("create table t (id int primary key, tenant text, n int, m int); insert into t values (1, 'a', 1, 1), (2, 'a', 2, 2);
             select headwater.enable('t', tenant_column => 'tenant', events => array['created', 'moved'], backfill => false)");
        let moved = |n: u32, tenant: &str, id: &str, payload: Value| {
            let mut moved = event(n, "", id, 0, payload);
            moved["entity_type"] = json!("t");
            moved["event_type"] = json!("t.moved");
            moved["tenant_id"] = json!(tenant);
            moved
        };
        assert_accepted(&ingest(&[moved(1, "b", "1", json!({"n": 5}))]));
        run("select headwater.emit('t.noted', '2')");
        run("update t set n = n + 100");
        assert_accepted(&ingest(&[moved(2, "a", "1", json!({"m": 7})), moved(3, "a", "2", json!({"m": 7}))]));
        assert_eq!(
            rows("select id, n, m from t order by id"),
            json!([{"id": 1, "n": 101, "m": 7}, {"id": 2, "n": 102, "m": 7}])
        );
    }

    #[pg_test]
    fn a_row_that_a_policy_hides_is_not_absent() {
        run("create table doc (id int primary key, owner text, body text); alter table doc enable row level security;
             create policy own on doc to headwater_client using (owner = current_setting('request.jwt.claims', true)::jsonb ->> 'sub') with check (true);
             select headwater.enable('doc', user_column => 'owner', events => array['created', 'edited']);
             insert into doc values (1, 'alice', 'by alice')");
        let edited = |n: u32, second: u32, body: &str| {
            let mut edited = event(n, "", "1", second, json!({"body": body}));
            edited["entity_type"] = json!("doc");
            edited["event_type"] = json!("doc.edited");
            edited.as_object_mut().expect("an object").remove("tenant_id");
            edited
        };
        assert_eq!(
            codes(&ingest_as(r#"{"sub": "mallory"}"#, &[edited(1, 0, "by mallory")])),
            [(0, "forbidden".to_owned())]
        );
        assert_accepted(&ingest_as(r#"{"sub": "alice"}"#, &[edited(2, 1, "late")]));
        assert_eq!(one::<String>("select body from doc").as_deref(), Some("by alice"));
    }

    #[pg_test]
    fn what_changed_while_capture_was_off_is_recorded_when_it_is_on_again() {
        orders();
        run(&format!(
            "insert into orders (id, tenant_id, table_number) values ('{ORDER}', 'a', 1), (gen_random_uuid(), 'a', 2)"
        ));
        run("select headwater.disable('orders')");
        run(&format!(
            "update orders set table_number = 99 where id = '{ORDER}'; delete from orders where table_number = 2; insert into orders (tenant_id) values ('a')"
        ));
        run("select headwater.enable('orders')");
        assert_rows_equal_folds();
        assert_accepted(&ingest(&[event(1, "state_changed", ORDER, 0, json!({"status": "late"}))]));
        assert_eq!(
            rows("select table_number from orders where table_number is not null"),
            json!([{"table_number": 99}])
        );
        assert_eq!(one::<i64>("select count(*) from orders"), Some(2));
        run("alter table orders disable trigger headwater_update");
        run("update orders set table_number = 100 where table_number = 99");
        run("select headwater.enable('orders')");
        assert_rows_equal_folds();
    }

    #[pg_test]
    fn no_code_of_a_tables_owner_runs_as_the_extensions_owner() {
        run("create role mallory; grant create on schema public to mallory; create table heard (who text); grant insert on heard to public;
             set local role mallory;
             create function public.evil(text) returns boolean language plpgsql as
               $$ begin insert into public.heard values (current_user); return true; end $$;
             create domain public.evil_key as text check (public.evil(value));
             create table public.dom (id public.evil_key primary key, n int);
             reset role; grant usage on schema public to headwater_client;
             select headwater.enable('dom', events => array['created', 'moved'])");
        let mut created = event(1, "", "k", 0, json!({"n": 1}));
        created["entity_type"] = json!("dom");
        created["event_type"] = json!("dom.created");
        assert_accepted(&ingest(&[created.clone()]));
        created["id"] = json!("0190a0a0-0000-7000-8000-000000000002");
        created["event_type"] = json!("dom.moved");
        assert_accepted(&ingest(&[created]));
        run("update dom set n = 3; select headwater.emit('dom.noted', 'k')");
        assert_eq!(rows("select distinct who from heard where who not in ('headwater_client')"), json!([]));

        run("create table bait (x int);
             create function public.idx(x int) returns int immutable language plpgsql as $$ begin perform headwater.enable('public.bait'); return x; end $$;
             insert into bait values (1); alter table bait owner to mallory; grant headwater_admin to mallory");
        let (code, message, _) = failure("create index on bait (public.idx(x))");
        assert!(code == "42501" && message.contains("security-restricted"), "{code} {message}");
    }

    #[pg_test]
    fn an_emitted_event_defers_to_its_transaction_and_has_an_id_of_its_own() {
        orders();
        run(&format!("insert into orders (id, tenant_id) values ('{ORDER}', 'a')"));
        run("create table parent (id int primary key); create table child (id int references parent deferrable initially deferred);
             insert into child values (1)");
        run(&format!(
            "select headwater.emit('order.state_changed', '{ORDER}', '{{\"status\": \"paid\"}}', apply => true)"
        ));
        run("insert into parent values (1); set constraints all immediate");
        let emit =
            format!("select headwater.emit('order.noted', '{ORDER}', id => '0190a0a0-0000-7000-8000-000000000001')");
        run(&emit);
        let (_, message, _) = failure(&emit);
        assert!(message.contains("has an event with the id"), "{message}");
    }

    #[pg_test]
    fn an_event_twice_in_a_batch_by_its_key_has_one_verdict() {
        orders();
        let twins = |name: &str| {
            let (mut first, mut second) = (event(1, name, ORDER, 0, json!({})), event(2, name, ORDER, 0, json!({})));
            first["idempotency_key"] = json!(name);
            second["idempotency_key"] = json!(name);
            ingest(&[first, second])
        };
        let refused = twins("eaten");
        assert_eq!(codes(&refused), [(0, "unknown_event_type".to_owned()), (1, "unknown_event_type".to_owned())]);
    }

    #[pg_test]
    fn history_and_time_travel() {
        orders();
        assert_accepted(&ingest(&[
            event(1, "created", ORDER, 0, json!({"status": "open"})),
            event(2, "state_changed", ORDER, 10, json!({"status": "late"})),
            event(3, "state_changed", ORDER, 20, json!({"status": "paid"})),
        ]));
        let at = |second: u32| {
            one::<JsonB>(&format!(
                "select headwater.materialize('order', '{ORDER}', '2026-01-01T00:00:{second:02}.5Z')"
            ))
            .map(|j| j.0["status"].clone())
        };
        assert_eq!([at(0), at(10), at(20)], [Some(json!("open")), Some(json!("late")), Some(json!("paid"))]);
        assert_eq!(
            one::<JsonB>(&format!("select headwater.materialize('order', '{ORDER}', '2025-01-01')")).map(|j| j.0),
            None
        );
        assert_eq!(
            one::<i64>(&format!("select count(*) from headwater.history('order', '{ORDER}', '2026-01-01T00:00:05Z')")),
            Some(2)
        );
    }

    #[pg_test]
    fn check_finds_what_is_wrong_and_its_statement_mends_it() {
        let problems = || rows("select problem, statement from headwater.check() where problem not like '%slot%'");
        orders();
        assert_eq!(problems(), json!([]));
        let check = |damage: &str, says: &str| {
            run(damage);
            let found = problems();
            assert!(found.to_string().contains(says), "{damage}: {found}");
            for problem in found.as_array().expect("rows") {
                // With DDL followed, as an operator has it.
                run("set local headwater.follow = on");
                run(problem["statement"].as_str().expect("a statement"));
                run("set local headwater.follow = off");
            }
            assert_eq!(problems(), json!([]), "{damage}");
        };
        check("drop publication headwater_events", "headwater_events is missing");
        check("alter publication headwater_events drop table headwater.event", "does not carry the events");
        check("drop trigger headwater_update on orders", "are not captured");
        check("alter table orders disable trigger headwater_insert", "are not captured");
        check("alter table orders replica identity default", "replica identity full");
        check("alter publication headwater_tables drop table orders", "not in the publication");
        check("alter table orders drop column tenant_id", "tenant_id");
        run("create table p (id int primary key) partition by range (id); select headwater.enable('p')");
        run("set local headwater.follow = off");
        check("create table p1 partition of p for values from (0) to (10)", "p1");
        run("create table gone (id int primary key); select headwater.enable('gone'); drop table gone");
        assert!(problems().to_string().contains("entity gone is gone"), "{}", problems());
    }

    // Guard rails

    #[pg_test]
    fn every_function_has_a_pinned_search_path_and_is_nobodys() {
        let open = rows(
            "select p.proname from pg_proc p where p.pronamespace = 'headwater'::regnamespace
             and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)",
        );
        assert_eq!(open, json!([]), "executable by PUBLIC");
        let unpinned = rows(
            "select p.proname from pg_proc p join pg_language l on l.oid = p.prolang
             where p.pronamespace = 'headwater'::regnamespace and not exists (select from unnest(p.proconfig) c where c like 'search_path=%')
               and (p.prosecdef or l.lanname in ('sql', 'plpgsql')) and p.prokind = 'f'",
        );
        assert_eq!(unpinned, json!([]), "without a pinned search_path");
        let uncommented = rows(
            "select p.proname from pg_proc p where p.pronamespace = 'headwater'::regnamespace and obj_description(p.oid, 'pg_proc') is null",
        );
        assert_eq!(uncommented, json!([]), "without a comment");
    }

    #[pg_test]
    fn functions_planted_in_the_path_are_not_called() {
        orders();
        run("create schema evil;
             create function evil.concat(variadic text[]) returns text language plpgsql as $$ begin raise exception 'hijacked'; end $$;
             create function evil.is_distinct(a text, b text) returns boolean language plpgsql as $$ begin raise exception 'hijacked'; end $$;
             create operator evil.<> (function = evil.is_distinct, leftarg = text, rightarg = text);
             set local search_path = evil, pg_catalog, public");
        run("insert into public.orders (tenant_id) values ('a'); update public.orders set status = 'paid'");
        assert_accepted(&ingest(&[event(1, "created", ORDER, 0, json!({}))]));
    }
}
