//! Promise: folding history into snapshots changes no state; dropping it is bounded, and says so; erasing leaves nothing.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;
    use serde_json::{Value, json};

    use crate::tests::tests::{
        ORDER, assert_accepted, assert_rows_equal_folds, codes, event, failure, ingest, ingest_as, one, orders, rows,
        run,
    };

    const OTHER: &str = "22222222-2222-4222-8222-222222222222";
    const BASELINED: &str = "33333333-3333-4333-8333-333333333333";

    /// What happened on the first of January 2026, in minutes 0 to 9, and is recorded then; deleted, revived, baselined.
    fn past() {
        run(&format!(
            "create table orders (id uuid primary key default gen_random_uuid(), tenant_id text, table_number int,
                                  status text default 'open', items jsonb default '[]', updated_at timestamptz);
             insert into orders (id, tenant_id, table_number) values ('{BASELINED}', 'a', 3)"
        ));
        run(r#"select headwater.enable('orders', tenant_column => 'tenant_id', events => '{
               "created": {"rule": "create"}, "item_added": {"rule": "append", "field": "items", "value": "item"},
               "state_changed": {"rule": "set", "fields": ["status"]}, "deleted": {"rule": "delete"}}')"#);
        let item = |n: u32| json!({"item": {"id": n}});
        assert_accepted(&ingest(&[
            event(1, "created", ORDER, 10, json!({"table_number": 7})),
            event(2, "item_added", ORDER, 20, item(1)),
            event(3, "deleted", ORDER, 30, json!({})),
            event(4, "created", ORDER, 40, json!({"table_number": 8})),
            event(5, "item_added", BASELINED, 50, item(2)),
            event(6, "created", OTHER, 60, json!({"table_number": 9})),
            event(7, "deleted", OTHER, 70, json!({})),
        ]));
        assert_accepted(&ingest(&[
            event(8, "item_added", ORDER, 25, item(3)),
            event(9, "item_added", ORDER, 45, item(4)),
        ]));
        run("alter table headwater.event disable trigger refuse_change;
             update headwater.event set recorded_at = occurred_at;
             alter table headwater.event enable always trigger refuse_change");
        run(
            "select headwater.emit('order.item_added', '33333333-3333-4333-8333-333333333333', '{\"item\": {\"id\": 5}}', apply => true)",
        );
        assert_rows_equal_folds();
    }

    /// What `call headwater.compact('order')` does, without its commits.
    fn compact(older_than: &str) -> Option<i64> {
        one(&format!(
            "select headwater.compact_range('order', headwater.raise_horizon('order', '{older_than}'), 0, 9223372036854775807)"
        ))
    }

    /// What `call headwater.apply_retention()` does, without its commits.
    fn drop_events() -> Option<i64> {
        one("select headwater.drop_events(0, 9223372036854775807, now() - interval '90 days')")
    }

    fn states() -> Value {
        rows(
            "select e.entity_id, at, headwater.materialize('order', e.entity_id, at, 'a') as state
             from (select distinct entity_id from headwater.event) e
             cross join (select distinct occurred_at as at from headwater.event union all select null) i order by 1, 2",
        )
    }

    fn item(n: u32, second: u32, entity_id: &str) -> Value {
        event(n, "item_added", entity_id, second, json!({"item": {"id": n}}))
    }

    #[pg_test]
    fn compaction_changes_no_state_and_folds_go_on_from_it() {
        past();
        let before = states();
        // In two steps: the second goes on from the first one's snapshots.
        run("update headwater.entity set horizon = '2026-01-01T00:00:42Z'");
        run("select headwater.compact_range('order', '2026-01-01T00:00:42Z', 0, 1000000)");
        assert_eq!(states(), before);
        assert_eq!(compact("90 days"), Some(3));
        assert_eq!(states(), before);
        assert_eq!(compact("90 days"), Some(0), "there is nothing new to fold");
        assert_rows_equal_folds();
        assert_eq!(rows("select * from headwater.check(true) where problem like '%snapshot%'"), json!([]));

        // Too late is what happened before; what happened since takes its place, behind the snapshot.
        let mut recent = item(20, 0, ORDER);
        recent["timestamp"] = rows("select now() - interval '89 days' as at")[0]["at"].clone();
        let mut later = item(21, 0, ORDER);
        later["timestamp"] = rows("select now() - interval '88 days' as at")[0]["at"].clone();
        assert_accepted(&ingest(&[later]));
        let answer = ingest(&[item(22, 44, ORDER), recent, item(23, 599, "44444444-4444-4444-8444-444444444444")]);
        assert_eq!(codes(&answer), [(0, "too_late".to_owned()), (2, "too_late".to_owned())]);
        assert_eq!(
            rows(&format!("select items from orders where id = '{ORDER}'"))[0]["items"],
            json!([{"id": 4}, {"id": 20}, {"id": 21}])
        );
        assert_rows_equal_folds();
        // A retry of what was accepted before is no late event.
        assert_accepted(&ingest(&[event(2, "item_added", ORDER, 20, json!({"item": {"id": 1}}))]));
    }

    #[pg_test]
    fn a_late_event_beneath_a_snapshot_is_refused_even_where_the_horizon_is_not_known_yet() {
        past();
        compact("90 days");
        // As in a backend whose registry is out of date.
        run("update headwater.entity set horizon = null; select headwater.invalidate('orders')");
        assert_eq!(codes(&ingest(&[item(22, 44, ORDER)])), [(0, "too_late".to_owned())]);
        assert_rows_equal_folds();
    }

    #[pg_test]
    fn retention_drops_what_is_in_snapshots_and_says_how_far_back_history_reaches() {
        past();
        assert_eq!(drop_events(), Some(0), "nothing is in a snapshot yet");
        compact("90 days");
        let before = rows(
            "select entity_id, headwater.materialize('order', entity_id, null, 'a') from (select distinct entity_id from headwater.event) e order by 1",
        );
        let dropped = drop_events().expect("a count");
        assert!(dropped >= 9, "{dropped}");
        assert_eq!(one::<i64>("select count(*) from headwater.event"), Some(1), "the one of today");
        assert_rows_equal_folds();
        let after = rows(
            "select entity_id, headwater.materialize('order', entity_id, null, 'a') from headwater.snapshot order by 1",
        );
        assert_eq!(after, before);
        assert_eq!(
            one::<i64>("select count(*) from headwater.snapshot where is_floor"),
            Some(3),
            "and nothing beneath"
        );
        assert_eq!(
            one::<bool>(
                "select dropped_position = (select min(position) from headwater.event) - 1 from headwater.meta"
            ),
            Some(true)
        );

        let (code, message, hint) =
            failure(&format!("select headwater.materialize('order', '{ORDER}', '2026-01-01T00:00:30Z')"));
        assert!(
            code == "P0002"
                && message.contains("reaches back to 2026-01-01T00:00:45.000001Z")
                && hint.contains("apply_retention"),
            "{message}"
        );
        assert_eq!(
            rows(&format!(
                "select headwater.materialize('order', '{ORDER}', '2026-01-01T00:01:30Z')->'items' as items"
            ))[0]["items"],
            json!([{"id": 4}])
        );
        run(&format!("update orders set status = 'late' where id = '{ORDER}'"));
        let mut back = event(30, "created", OTHER, 0, json!({"table_number": 1}));
        back["timestamp"] = rows("select now() - interval '1 day' as at")[0]["at"].clone();
        assert_accepted(&ingest(&[back]));
        assert_rows_equal_folds();
        let (code, ..) = failure("delete from headwater.event");
        assert_eq!(code, "55000", "immutable as ever");
        assert_eq!(rows("select * from headwater.check(true) where problem like '%snapshot%'"), json!([]));
    }

    #[pg_test]
    fn receipts_go_only_when_their_events_would_come_too_late() {
        past();
        run("update headwater.receipt set recorded_at = '2026-01-01'");
        let dropped = || one::<i64>("select headwater.drop_receipts(now() - interval '90 days')");
        assert_eq!(dropped(), Some(0), "without a horizon every event could come again");
        compact("90 days");
        assert_eq!(dropped(), Some(9));
        assert_eq!(
            codes(&ingest(&[event(2, "item_added", ORDER, 20, json!({"item": {"id": 1}}))])),
            [(0, "too_late".to_owned())]
        );
    }

    #[pg_test]
    fn the_horizon_is_never_short() {
        orders();
        for call in [
            "select headwater.raise_horizon('order', '89 days')",
            "select headwater.drop_events(0, 1, now() - interval '1 day')",
            "select headwater.drop_receipts(now())",
            "call headwater.apply_retention(interval '1 day')",
            "call headwater.compact('order', interval '1 day')",
        ] {
            let (code, message, hint) = failure(call);
            assert!(
                code == "22023" && message.contains("90 days at least") && hint.contains("too_late"),
                "{call}: {code} {message}"
            );
        }
        assert_eq!(failure("call headwater.compact('none')").0, "42704");
        run(
            "drop function pg_temp.fails; create role stranger; grant headwater_admin to stranger; set local role stranger",
        );
        assert_eq!(failure("select headwater.raise_horizon('order', '90 days')").0, "42501");
    }

    #[pg_test]
    fn check_finds_snapshots_that_were_changed_and_its_statement_mends_them() {
        past();
        compact("90 days");
        let problems = || rows("select problem, statement from headwater.check(true) where problem like '%snapshot%'");
        assert_eq!(problems(), json!([]));
        for damage in [
            "update headwater.snapshot set state = state || '{\"table_number\": 1}' where id is not null and state is not null",
            "update headwater.snapshot set folded = '\\x00', hash = headwater.digest_of_snapshot('\\x00', state, schema_version) where id is not null",
        ] {
            run(damage);
            let found = problems();
            assert!(!found.as_array().expect("rows").is_empty(), "{damage}");
            for problem in found.as_array().expect("rows") {
                run(problem["statement"].as_str().expect("a statement"));
            }
            compact("90 days");
            assert_eq!(problems(), json!([]), "{damage}");
            assert_rows_equal_folds();
        }
    }

    #[pg_test]
    fn check_finds_what_else_may_be_wrong_and_its_statement_mends_it() {
        run("create table lines (a int not null, b int not null, n int, secret text, constraint of_lines unique (a, b));
             create table seats (id int primary key generated by default as identity, n int);
             set local headwater.follow = off");
        run(
            r#"select headwater.enable('lines', key => '{a,b}', exclude => '{secret}', events => '{"made": {"rule": "create"}, "counted": {"rule": "set", "fields": ["n"]}}'),
                      headwater.enable('seats')"#,
        );
        let problems = || rows("select problem, statement from headwater.check() where problem not like '%slot%'");
        assert_eq!(problems(), json!([]));
        for (damage, says) in [
            ("alter publication headwater_tables set (publish = 'insert')", "does not publish insert, update"),
            ("alter publication headwater_events set (publish = 'delete')", "does not publish insert"),
            ("alter table lines drop constraint of_lines", "no unique index is left over a, b"),
            ("revoke headwater_client from headwater_writer", "is no member of headwater_client"),
            ("revoke headwater_reader from headwater_admin", "is no member of headwater_reader"),
            ("revoke usage on schema public from public, headwater_client", "not use its schema"),
            ("grant update (secret) on lines to headwater_client", "excluded column secret"),
            ("insert into seats (id) values (3)", "public.seats_id_seq goes on at 1"),
            (
                "insert into lines values (1, 1); select setval('headwater.event_position_seq', 1, false)",
                "event_position_seq goes on at 1",
            ),
            ("alter table lines drop column n", "event counted of entity line"),
        ] {
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
        }
        run("create role reads; grant headwater_reader to reads; set local role reads");
        assert_eq!(problems(), json!([]), "without rights on the tables");
    }

    /// Every code that there is, from one batch or the other.
    #[pg_test]
    fn every_reject_code_is_given_for_its_reason() {
        past();
        compact("90 days");
        run("alter table orders add constraint few check (table_number < 100)");
        run(&format!("select headwater.erase('order', '{OTHER}')"));
        let now = rows("select clock_timestamp() as at, clock_timestamp() + interval '1 hour' as ahead");
        let made = |n: u32, name: &str, payload: Value| {
            let mut event = event(n, name, ORDER, 0, payload);
            event["timestamp"] = now[0]["at"].clone();
            event
        };
        let with = |mut event: Value, member: &str, value: Value| {
            event[member] = value;
            event
        };
        let check = |code: &str, event: Value| {
            let answer = ingest(std::slice::from_ref(&event));
            assert_eq!(codes(&answer), [(0, code.to_owned())], "{event} {answer}");
        };
        let paid = || made(60, "state_changed", json!({"status": "paid"}));
        assert_accepted(&ingest(&[paid()]));
        check("unknown_event_type", made(61, "exploded", json!({})));
        check("invalid_payload", made(62, "item_added", json!({})));
        check("constraint_violation", made(63, "created", json!({"table_number": 100})));
        check("conflict", with(paid(), "payload", json!({"status": "open"})));
        check(
            "version_conflict",
            with(made(64, "state_changed", json!({"status": "open"})), "expected_position", json!(1)),
        );
        check("clock_skew", with(made(65, "deleted", json!({})), "timestamp", now[0]["ahead"].clone()));
        check("too_late", item(66, 44, ORDER));
        check("unsupported_version", with(made(67, "deleted", json!({})), "schema_version", json!(2)));
        check("too_large", with(made(68, "deleted", json!({})), "entity_id", json!("x".repeat(1025))));
        check("erased", with(made(69, "state_changed", json!({"status": "open"})), "entity_id", json!(OTHER)));
        let claims = r#"{"sub": "u", "tenant_id": "b"}"#;
        assert_eq!(codes(&ingest_as(claims, &[made(70, "deleted", json!({}))])), [(0, "forbidden".to_owned())]);
    }

    // Erasure

    #[pg_test]
    fn an_erased_entity_leaves_no_payload_anywhere() {
        past();
        compact("90 days");
        run("alter table orders add constraint known check (status <> 'secret-a')");
        let secret = |n: u32| event(n, "state_changed", ORDER, n, json!({"status": "secret-a"}));
        let mut now = secret(40);
        now["timestamp"] = rows("select clock_timestamp() as at")[0]["at"].clone();
        assert_eq!(codes(&ingest(&[now])), [(0, "constraint_violation".to_owned())]);
        run(&format!("update orders set status = 'secret-b', items = '[\"secret-c\"]' where id = '{ORDER}'"));
        assert!(one::<i64>(&format!("select headwater.erase('order', '{ORDER}')")).expect("a count") > 3);
        assert_eq!(one::<i64>(&format!("select count(*) from orders where id = '{ORDER}'")), Some(0));
        for table in ["event", "snapshot", "receipt", "rejected_event", "erased", "entity"] {
            let traces = rows(&format!(
                "select to_jsonb(t)::text as t from headwater.{table} t where to_jsonb(t)::text like '%secret%'"
            ));
            assert_eq!(traces, json!([]), "{table}");
        }
        let last =
            rows("select event_type, payload, applies, source from headwater.event order by position desc limit 1");
        assert_eq!(last, json!([{"event_type": "order.erased", "payload": {}, "applies": true, "source": "capture"}]));
        assert_eq!(
            one::<i64>(&format!(
                "select count(*) from headwater.event where entity_id = '{ORDER}' and payload <> '{{}}'"
            )),
            Some(0)
        );
        assert_rows_equal_folds();
        let mut late = item(50, 0, ORDER);
        late["timestamp"] = rows("select clock_timestamp() as at")[0]["at"].clone();
        let mut created = event(51, "created", ORDER, 0, json!({"table_number": 1}));
        created["timestamp"] = late["timestamp"].clone();
        let mut others = item(52, 0, BASELINED);
        others["timestamp"] = late["timestamp"].clone();
        let answer = ingest(&[late, created, others]);
        assert_eq!(codes(&answer), [(0, "erased".to_owned()), (1, "erased".to_owned())]);
        assert_eq!(failure(&format!("select headwater.emit('order.item_added', '{ORDER}', '{{}}')")).0, "22023");
        let (code, ..) = failure("update headwater.event set payload = '{}'");
        assert_eq!(code, "55000", "immutable as ever");
        // Compaction leaves it alone; a second call has nothing left to do.
        compact("90 days");
        assert_eq!(
            one::<i64>(&format!("select count(*) from headwater.snapshot where entity_id = '{ORDER}'")),
            Some(0)
        );
        assert_eq!(one::<i64>(&format!("select headwater.erase('order', '{ORDER}')")), Some(0));
    }

    #[pg_test]
    fn every_tenant_that_had_an_erased_entity_is_told() {
        orders();
        run(&format!(
            "insert into orders (id, tenant_id) values ('{ORDER}', 'a'); update orders set tenant_id = 'b'; update orders set tenant_id = 'c';
             select headwater.erase('order', '{ORDER}')"
        ));
        let told = rows("select tenant_id from headwater.event where event_type = 'order.erased' order by 1");
        assert_eq!(told, json!([{"tenant_id": "a"}, {"tenant_id": "b"}, {"tenant_id": "c"}]));
        // SQL may use the key again: what is in the table is recorded. Clients may not.
        run(&format!("insert into orders (id, tenant_id) values ('{ORDER}', 'a')"));
        assert_rows_equal_folds();
        let mut late = item(50, 0, ORDER);
        late["timestamp"] = rows("select clock_timestamp() as at")[0]["at"].clone();
        assert_eq!(codes(&ingest(&[late])), [(0, "erased".to_owned())]);
    }

    #[pg_test]
    fn only_the_owner_erases() {
        orders();
        run(&format!("insert into orders (id, tenant_id) values ('{ORDER}', 'a')"));
        assert_eq!(failure("select headwater.erase('none', '1')").0, "42704");
        assert_eq!(failure("select headwater.erase('order', 'no uuid')").0, "22P02");
        run(
            "drop function pg_temp.fails; create role stranger; grant headwater_admin to stranger; set local role stranger",
        );
        assert_eq!(failure(&format!("select headwater.erase('order', '{ORDER}')")).0, "42501");
    }
}
