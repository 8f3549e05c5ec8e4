//! Promise: history can be read exactly, at every instant, and whatever became of the forms of its payloads since.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use std::collections::BTreeSet;
    use std::str::FromStr;

    use headwater_model::clock::Micros;
    use headwater_model::event::StoredEvent;
    use headwater_model::fold;
    use headwater_model::rules::Rules;
    use pgrx::prelude::*;
    use serde_json::{Value, json};

    use crate::head;
    use crate::tests::tests::{
        ORDER, assert_accepted, assert_rows_equal_folds, codes, event, failure, ingest, one, orders, rows, run,
    };

    /// Reads a history page by page; returns the ids, and asserts that they come in order.
    fn pages(limit: usize, more: &str) -> Vec<String> {
        let mut ids = Vec::new();
        let mut behind = String::new();
        loop {
            let page = rows(&format!(
                "select id, occurred_at from headwater.history('order', '{ORDER}', \"limit\" => {limit}{behind}{more})"
            ));
            let page = page.as_array().expect("rows").clone();
            assert!(page.len() <= limit);
            ids.extend(page.iter().map(|row| row["id"].as_str().expect("an id").to_owned()));
            let Some(last) = page.last().filter(|_| page.len() == limit) else { return ids };
            behind = format!(", since => {}, after => {}", quoted(&last["occurred_at"]), quoted(&last["id"]));
        }
    }

    fn quoted(value: &Value) -> String {
        format!("'{}'", value.as_str().expect("a text"))
    }

    #[pg_test]
    fn history_is_paged_exactly() {
        orders();
        // Four events an instant, so that pages end within one.
        let events: Vec<_> = (0..40)
            .map(|n| {
                let (name, payload) =
                    if n == 0 { ("created", json!({})) } else { ("item_added", json!({"item": {"id": n}})) };
                event(n, name, ORDER, n / 4, payload)
            })
            .collect();
        for event in events.iter().rev() {
            assert_accepted(&ingest(std::slice::from_ref(event)));
        }
        let all = rows("select id from headwater.event order by occurred_at, id");
        let all: Vec<_> = all.as_array().expect("rows").iter().map(|row| row["id"].as_str().expect("an id")).collect();
        assert!(all.len() >= 40);
        for limit in [1, 3, 4, 7, 1000] {
            assert_eq!(pages(limit, ""), all, "{limit}");
            assert_eq!(pages(limit, ", tenant_id => 'a'"), all, "{limit}");
        }
        assert!(pages(5, ", tenant_id => 'b'").is_empty());
        for (wrong, says) in [
            ("\"limit\" => 0", "a page has 1 to"),
            ("\"limit\" => 10001", "a page has 1 to"),
            ("\"limit\" => null", "limit is null"),
            ("after => gen_random_uuid()", "after needs since"),
        ] {
            let (code, message, hint) = failure(&format!("select headwater.history('order', '{ORDER}', {wrong})"));
            assert!(code == "22023" && message.contains(says) && !hint.is_empty(), "{code} {message} {hint}");
        }
        run("set local role headwater_reader");
        assert_eq!(pages(11, "").len(), all.len());
    }

    /// The brute-force oracle: everything in the table, folded by the model, up to each instant.
    fn assert_every_instant_is_the_fold_of_what_had_happened() {
        let rules = Rules::parse(&rows("select rules from headwater.entity where entity_type = 'order'")[0]["rules"])
            .expect("rules");
        let all = rows(
            "select e.entity_id, e.tenant_id, e.id, e.event_type, e.source, e.payload,
                    (extract(epoch from e.occurred_at) * 1000000)::int8 as at from headwater.event e where e.applies",
        );
        let baselines = rows("select entity_id, tenant_id, state from headwater.snapshot where id is null");
        let all = all.as_array().expect("rows");
        let entities: BTreeSet<_> =
            all.iter().filter_map(|e| e["entity_id"].as_str().zip(e["tenant_id"].as_str())).collect();
        let instants: BTreeSet<i64> =
            all.iter().filter_map(|e| e["at"].as_i64()).flat_map(|at| [at - 1, at, at + 1]).collect();
        let mut states = BTreeSet::new();
        for (entity_id, tenant) in &entities {
            let of = |row: &&Value| row["entity_id"] == *entity_id && row["tenant_id"] == *tenant;
            let baseline = baselines.as_array().expect("rows").iter().find(of);
            let baseline = baseline.and_then(|row| row["state"].as_object().cloned());
            for at in &instants {
                let mut events: Vec<_> = all
                    .iter()
                    .filter(of)
                    .filter(|event| event["at"].as_i64().expect("an instant") <= *at)
                    .map(|event| StoredEvent {
                        occurred_at: Micros(event["at"].as_i64().expect("an instant")),
                        id: uuid::Uuid::from_str(event["id"].as_str().expect("an id")).expect("an id"),
                        name: event["event_type"].as_str().expect("a text").replace("order.", ""),
                        captured: event["source"] == "capture",
                        payload: event["payload"].as_object().expect("an object").clone(),
                    })
                    .collect();
                let expected =
                    fold::fold(baseline.clone(), &mut events, &rules, &mut |_, state, _| Some(state.clone()));
                let found = rows(&format!(
                    "select headwater.materialize('order', '{}', '{}'::timestamptz, '{}') as state",
                    entity_id,
                    Micros(*at),
                    tenant
                ));
                assert_eq!(
                    found[0]["state"],
                    expected.map_or(Value::Null, Value::Object),
                    "{entity_id} at {}",
                    Micros(*at)
                );
                states.insert(found[0]["state"].to_string());
            }
        }
        assert!(states.len() > 10 && states.contains("null"), "the history is rich enough to tell instants apart");
    }

    #[pg_test]
    fn every_instant_is_the_fold_of_what_had_happened_by_then() {
        run("create table orders (id uuid primary key default gen_random_uuid(), tenant_id text, table_number int,
                                  status text default 'open', items jsonb default '[]', updated_at timestamptz);
             insert into orders (id, tenant_id, table_number) values ('33333333-3333-4333-8333-333333333333', 'a', 3)");
        run(r#"select headwater.enable('orders', tenant_column => 'tenant_id', events => '{
               "created": {"rule": "create"}, "item_added": {"rule": "append", "field": "items", "value": "item"},
               "state_changed": {"rule": "set", "fields": ["status"]}, "deleted": {"rule": "delete"}}')"#);
        let baselined = "33333333-3333-4333-8333-333333333333";
        let item = |n: u32| json!({"item": {"id": n}});
        // Deleted and revived; then what happened in between arrives late, and something after a delete.
        assert_accepted(&ingest(&[
            event(1, "created", ORDER, 10, json!({"table_number": 7})),
            event(2, "item_added", ORDER, 20, item(1)),
            event(3, "deleted", ORDER, 30, json!({})),
            event(4, "created", ORDER, 40, json!({"table_number": 8})),
        ]));
        assert_accepted(&ingest(&[event(5, "state_changed", ORDER, 45, json!({"status": "paid"}))]));
        assert_accepted(&ingest(&[
            event(6, "item_added", ORDER, 15, item(2)),
            event(7, "item_added", ORDER, 35, item(3)),
        ]));
        assert_accepted(&ingest(&[
            event(8, "item_added", baselined, 50, item(4)),
            event(9, "item_added", baselined, 5, item(5)),
        ]));
        run(&format!(
            "update orders set table_number = 9; delete from orders where id = '{baselined}'; update orders set tenant_id = 'b'"
        ));
        assert_rows_equal_folds();
        assert_every_instant_is_the_fold_of_what_had_happened();
    }

    #[pg_test]
    fn an_instant_beyond_all_events_is_no_error() {
        orders();
        assert_accepted(&ingest(&[event(1, "created", ORDER, 10, json!({"table_number": 7}))]));
        for (as_of, there) in
            [("infinity", true), ("-infinity", false), ("4713-01-01 bc", false), ("294276-01-01", true)]
        {
            let found =
                one::<bool>(&format!("select headwater.materialize('order', '{ORDER}', '{as_of}') is not null"));
            assert_eq!(found, Some(there), "{as_of}");
        }
    }

    // Upcasts

    #[pg_test]
    fn old_payloads_are_lifted_wherever_they_are_read() {
        orders();
        run(&format!("insert into orders (id, tenant_id, table_number) values ('{ORDER}', 'a', 7)"));
        let future = |n: u32, name: &str, payload: Value| {
            let mut event = event(n, name, ORDER, 0, payload);
            event["timestamp"] = rows("select clock_timestamp() as now")[0]["now"].clone();
            event
        };
        assert_accepted(&ingest(&[future(1, "item_added", json!({"item": {"id": 1, "qty": 2}}))]));
        run("update orders set status = 'paid'");

        run("alter table orders rename table_number to seat;
             select headwater.upcast('order', 1, '{\"step\": \"rename\", \"field\": \"table_number\", \"to\": \"seat\"}')");
        assert_eq!(
            one::<i32>(
                r#"select headwater.upcast('order.item_added', 1, '[{"step": "rename", "field": "/item/qty", "to": "/item/count"}]')"#
            ),
            Some(2)
        );
        run(r#"select headwater.upcast('order', 1, '[{"step": "rename", "field": "table_number", "to": "seat"},
                 {"step": "each", "field": "items", "steps": [{"step": "rename", "field": "qty", "to": "count"}]}]');
               update orders set items = '[{"id": 1, "count": 2}]'"#);
        assert_rows_equal_folds();

        // An old client's late event, and a present one: stored as they came, applied as they are meant now.
        let old = future(2, "item_added", json!({"item": {"id": 2, "qty": 5}}));
        let mut present = future(3, "item_added", json!({"item": {"id": 3, "count": 1}}));
        present["schema_version"] = json!(2);
        assert_accepted(&ingest(&[old, present]));
        assert_rows_equal_folds();
        let items = json!([{"id": 1, "count": 2}, {"id": 2, "count": 5}, {"id": 3, "count": 1}]);
        assert_eq!(rows("select items from orders")[0]["items"], items);
        let stored =
            rows("select payload, schema_version from headwater.event where source = 'client' order by position");
        assert_eq!(stored[1], json!({"payload": {"item": {"id": 2, "qty": 5}}, "schema_version": 1}));
        assert_eq!(stored[2]["schema_version"], json!(2));
        let read = rows(&format!(
            "select payload, schema_version from headwater.history('order', '{ORDER}') where source = 'client'"
        ));
        assert_eq!(read[1], json!({"payload": {"item": {"id": 2, "count": 5}}, "schema_version": 2}));
        assert_eq!(
            rows(&format!("select payload->'seat' as seat from headwater.history('order', '{ORDER}') limit 1"))[0]["seat"],
            json!(7)
        );
        // What is captured from now on bears the present version.
        run("update orders set seat = 8");
        assert_eq!(one::<i32>("select schema_version from headwater.event order by position desc limit 1"), Some(2));
        assert_rows_equal_folds();

        let mut newer = future(4, "item_added", json!({"item": {}}));
        newer["schema_version"] = json!(3);
        assert_eq!(codes(&ingest(&[newer])), [(0, "unsupported_version".to_owned())]);
    }

    #[pg_test]
    fn baselines_are_lifted_and_defaults_do_not_touch_changes() {
        run(&format!(
            "create table orders (id uuid primary key, tenant_id text, table_number int, updated_at timestamptz);
             insert into orders values ('{ORDER}', 'a', 1);
             select headwater.enable('orders', tenant_column => 'tenant_id');
             update orders set table_number = 2;
             alter table orders add tip int default 5;
             select headwater.upcast('order', 1, '{{\"step\": \"default\", \"field\": \"tip\", \"value\": 5}}');
             update orders set tip = 6"
        ));
        assert_rows_equal_folds();
        // Were the default filled into old changes too, one of them would set the tip back.
        let tips = rows(&format!(
            "select headwater.materialize('order', '{ORDER}', occurred_at)->>'tip' as tip from headwater.event order by position"
        ));
        let tips: Vec<_> = tips.as_array().expect("rows").iter().map(|row| row["tip"].clone()).collect();
        assert!(tips.len() > 1 && tips.last() == Some(&json!("6")), "{tips:?}");
        assert!(tips[..tips.len() - 1].iter().all(|tip| *tip == json!("5")), "{tips:?}");
    }

    #[pg_test]
    fn a_renamed_column_is_renamed_in_the_past_and_for_old_clients() {
        run("create table orders (id uuid primary key, tenant_id text, a text, n int, updated_at timestamptz);
             select headwater.enable('orders', tenant_column => 'tenant_id', events => '{\"created\": {\"rule\": \"create\"}, \"named\": {\"rule\": \"set\", \"fields\": [\"a\"]}}')");
        assert_accepted(&ingest(&[event(1, "created", ORDER, 1, json!({"a": "x"}))]));
        let events = one::<i64>("select count(*) from headwater.event");
        run(
            "alter table orders rename a to b; alter table orders rename n to m; alter table orders rename b to c; alter table orders rename c to d",
        );
        assert_eq!(one::<i64>("select count(*) from headwater.event"), events, "the rows are what they were");
        assert_eq!(one::<i32>("select schema_version from headwater.entity"), Some(5));
        assert_rows_equal_folds();
        for (n, version, field) in [(2, 1, "a"), (3, 2, "b"), (4, 3, "b"), (5, 4, "c"), (6, 5, "d")] {
            let mut named = event(n, "named", ORDER, n, json!({field: format!("v{version}")}));
            named["schema_version"] = json!(version);
            assert_accepted(&ingest(&[named]));
            assert_eq!(one::<String>("select d from orders"), Some(format!("v{version}")));
            assert_rows_equal_folds();
        }
        let mut wrong = event(7, "named", ORDER, 7, json!({"a": "of version 1"}));
        wrong["schema_version"] = json!(2);
        assert_eq!(codes(&ingest(&[wrong])), [(0, "invalid_payload".to_owned())]);
    }

    #[pg_test]
    fn a_renamed_key_tenant_or_excluded_column_raises_no_version_that_is_not_needed() {
        run("create table orders (id uuid primary key, tenant_id text, secret text, updated_at timestamptz);
             select headwater.enable('orders', tenant_column => 'tenant_id', exclude => '{secret}');
             insert into orders values (gen_random_uuid(), 'a', 'x');
             alter table orders rename secret to hidden");
        assert_eq!(one::<i32>("select schema_version from headwater.entity"), Some(1));
        run("alter table orders rename tenant_id to org");
        assert_eq!(one::<i32>("select schema_version from headwater.entity"), Some(2));
        let state = "select headwater.materialize('order', id::text, null, org) = to_jsonb(o) - 'hidden' from orders o";
        assert_eq!(one::<bool>(state), Some(true));
    }

    #[pg_test]
    fn a_custom_upcast_runs_as_the_role_that_applies_and_its_error_is_the_events() {
        orders();
        run("create schema app; grant usage on schema app to headwater_client;
             create function app.lift(payload jsonb) returns jsonb language plpgsql immutable as $$
             begin
               if payload ? 'broken' then raise exception 'cannot be lifted' using errcode = 'HW001'; end if;
               return jsonb_build_object('item', payload || jsonb_build_object('by', current_user));
             end $$;
             select headwater.upcast('order.item_added', 1, '{\"step\": \"custom\", \"function\": \"app.lift\"}')");
        let answer = ingest(&[
            event(1, "created", ORDER, 1, json!({})),
            event(2, "item_added", ORDER, 2, json!({"id": 1})),
            event(3, "item_added", ORDER, 3, json!({"broken": 1})),
        ]);
        assert_eq!(codes(&answer), [(2, "constraint_violation".to_owned())]);
        assert_eq!(answer["rejected"][0]["sqlstate"], json!("HW001"));
        assert_eq!(rows("select items from orders")[0]["items"], json!([{"id": 1, "by": "headwater_client"}]));
    }

    #[pg_test]
    fn what_is_no_upcast_is_refused_with_a_remedy() {
        orders();
        let check = |arguments: &str, code: &str, says: &str| {
            let (sqlstate, message, hint) = failure(&format!("select headwater.upcast({arguments})"));
            assert!(sqlstate == code && message.contains(says) && !hint.is_empty(), "{sqlstate} {message} / {hint}");
        };
        let remove = "'{\"step\": \"remove\", \"field\": \"x\"}'";
        check(&format!("'none', 1, {remove}"), "42704", "no table is entity \"none\"");
        check(&format!("'', 1, {remove}"), "42704", "no table");
        check(&format!("'order.', 1, {remove}"), "22023", "cannot name an event");
        check(&format!("'order', 0, {remove}"), "22023", "from_version 0 is none");
        check(&format!("'order', 2, {remove}"), "22023", "the present schema version is 1");
        check("'order', 1, '{\"step\": \"fold\"}'", "22023", "is no step");
        check("'order', 1, '{\"step\": \"custom\", \"function\": \"app.none\"}'", "22023", "no such function");
        run(
            "drop function pg_temp.fails; create role stranger; grant headwater_admin to stranger; set local role stranger",
        );
        let (code, message, _) = failure(&format!("select headwater.upcast('order', 1, {remove})"));
        assert_eq!((code.as_str(), message.as_str()), ("42501", "must be owner of table public.orders"));
    }
    #[pg_test]
    fn where_entities_stand_is_the_same_by_index_and_by_sql() {
        run("insert into headwater.event (id, tenant_id, entity_type, entity_id, event_type, payload, schema_version, occurred_at, recorded_at, source, applies)
             select gen_random_uuid(), (array[null, 't', 'u'])[1 + n % 3], (array['x', 'xy'])[1 + n / 3 % 2], (array['a', 'ab', 'b/c', '1', '10', 'ä'])[1 + n / 6 % 6],
                    'x.e', '{}', 1, now() - (random() * 20)::int * interval '1 s', now(), 'sql', random() < 0.5 from generate_series(0, 1999) n");
        let ids: Vec<String> = ["a", "ab", "b", "b/c", "1", "10", "ä", "none", ""].map(str::to_owned).to_vec();
        let compare = |says: &str| {
            for (entity_type, tenant) in
                ["x", "xy", "y"].into_iter().flat_map(|t| [(t, None), (t, Some("t")), (t, Some("v"))])
            {
                let heads = Spi::connect_mut(|client| head::heads(client, entity_type, tenant, &ids));
                for (id, found) in ids.iter().zip(heads) {
                    let last = one::<String>(&format!(
                        "select (select (extract(epoch from occurred_at) * 1000000)::int8 || ' ' || id from headwater.event
                         where entity_type = '{entity_type}' and entity_id = '{id}' and tenant_id is not distinct from {} and applies
                         order by occurred_at desc, id desc limit 1)",
                        tenant.map_or("null".to_owned(), |tenant| format!("'{tenant}'")),
                    ));
                    let found_last = found.last.map(|(at, id)| format!("{} {id}", at.0));
                    assert_eq!(found_last, last, "{says}: {entity_type} {id} {tenant:?}");
                    assert_eq!(
                        found.erased,
                        says == "erased" && entity_type == "x" && id == "ab",
                        "{says}: {entity_type} {id}"
                    );
                }
            }
        };
        compare("by index");
        // From here on, of this type by SQL.
        run("insert into headwater.erased (entity_type, entity_id, erased_by) values ('x', 'ab', 'somebody')");
        compare("erased");
        run(
            "insert into headwater.snapshot (entity_type, entity_id, state, occurred_at, id) values ('xy', 'none', '{}', '2020-01-01', gen_random_uuid())",
        );
        let head = Spi::connect_mut(|client| head::heads(client, "xy", None, &["none".to_owned()]));
        assert!(head[0].last.is_some(), "what is folded is not there for the index");
    }
}
