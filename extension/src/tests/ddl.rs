//! Promise: whatever becomes of a table's definition, capture follows it or says so; nothing escapes silently.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;
    use serde_json::{Value, json};

    use crate::tests::tests::{assert_accepted, captured, event, failure, ingest, one, rows, run};

    fn things() {
        run(r#"create table things (id int primary key, tenant text, secret text, note text, tags jsonb);
               select headwater.enable('things', tenant_column => 'tenant', exclude => '{secret}', events => '{
                 "created": {"rule": "create"}, "noted": {"rule": "set", "fields": ["note"]},
                 "tagged": {"rule": "append", "field": "tags", "value": "tag"}}');
               insert into things values (1, 'a', 'hush', 'first', '["x"]')"#);
    }

    fn thing(n: u32, name: &str, second: u32, payload: Value) -> Value {
        let mut event = event(n, "", "1", second, payload);
        event["entity_type"] = json!("thing");
        event["event_type"] = json!(format!("thing.{name}"));
        event
    }

    #[pg_test]
    fn the_registry_follows_renamed_columns() {
        things();
        run("alter table things rename id to key; alter table things rename tenant to org;
             alter table things rename secret to hidden; alter table things rename note to remark;
             alter table things rename tags to labels");
        assert_eq!(
            rows("select key_columns, tenant_column, excluded, rules from headwater.entity"),
            json!([{"key_columns": ["key"], "tenant_column": "org", "excluded": ["hidden"], "rules": {
                "created": {"rule": "create"}, "noted": {"rule": "set", "fields": ["remark"]},
                "tagged": {"rule": "append", "field": "labels", "value": "tag"}}}])
        );
        assert_accepted(&ingest(&[thing(1, "tagged", 1, json!({"tag": "y"}))]));
        run("update things set hidden = 'still', remark = 'second'");
        let row = json!({"key": 1, "org": "a", "remark": "second", "labels": ["x"]});
        let events = one::<pgrx::JsonB>("select jsonb_agg(payload) from headwater.event").expect("events").0;
        assert!(!events.to_string().contains("hush") && !events.to_string().contains("still"), "{events}");
        let fold = one::<pgrx::JsonB>("select headwater.materialize('thing', '1')").expect("a state").0;
        for (name, value) in row.as_object().expect("an object") {
            if name != "labels" {
                assert_eq!(&fold[name], value, "{fold}");
            }
        }
    }

    #[pg_test]
    fn a_rename_never_makes_an_excluded_column_visible() {
        things();
        // Two at once, each taking the other's name, and a column that comes back under the name of one that went.
        run(
            "alter table things rename secret to t; alter table things rename note to secret; alter table things rename t to note",
        );
        run("insert into things values (2, 'a', 'hush', 'seen')");
        assert_eq!(
            one::<String>("select payload::text from headwater.event where entity_id = '2'").expect("an event"),
            r#"{"id": 2, "tags": null, "secret": "seen", "tenant": "a"}"#
        );
        run(
            "alter table things drop column note; alter table things add column fresh text default 'hush'; alter table things rename fresh to note",
        );
        run("insert into things values (3, 'a')");
        assert_eq!(rows("select excluded from headwater.entity"), json!([{"excluded": ["note"]}]));
        run("alter table things disable trigger headwater_insert; alter table things enable trigger headwater_insert");
        run(
            "select headwater.disable('things'); alter table things rename note to elsewhere; select headwater.enable('things')",
        );
        run("insert into things values (4, 'a')");
        let of = |id: i32| {
            one::<bool>(&format!(
                "select payload::text like '%hush%' from headwater.event where entity_id = '{id}' and payload ? 'id'"
            ))
        };
        assert_eq!([of(3), of(4)], [Some(false), Some(false)]);
        assert_eq!(
            one::<bool>("select has_column_privilege('headwater_client', 'things', 'elsewhere', 'select')"),
            Some(false)
        );
    }

    #[pg_test]
    fn a_new_column_is_granted_and_shared_beside_an_excluded_one() {
        things();
        run("alter table things add column extra int default 7, add column plain int");
        let may = |column: &str| {
            one::<bool>(&format!("select has_column_privilege('headwater_client', 'things', '{column}', 'update')"))
        };
        assert_eq!([may("extra"), may("plain"), may("secret")], [Some(true), Some(true), Some(false)]);
        // Its default stands in every row; so it does in the log.
        assert_eq!(one::<i32>("select (headwater.materialize('thing', '1') ->> 'extra')::int"), Some(7));
        assert_accepted(&ingest(&[thing(1, "noted", 1, json!({"note": "late"}))]));
        assert_eq!(rows("select extra, note from things"), json!([{"extra": 7, "note": "first"}]));
        // Whoever took the grant away keeps it so.
        run("revoke all on things from headwater_client; alter table things add column more int");
        assert_eq!(may("more"), Some(false));
    }

    #[pg_test]
    fn a_column_of_another_type_is_recorded_as_it_is_now() {
        run(
            "create table t (id int primary key, n int, d text); select headwater.enable('t'); insert into t values (1, 5, 'x')",
        );
        run("alter table t alter column n type bigint, alter column id type bigint");
        assert_eq!(
            one::<String>("select headwater.materialize('t', '1')::text").as_deref(),
            Some(r#"{"d": "x", "n": "5", "id": "1"}"#)
        );
        run("alter table t drop column d; update t set n = 6");
        assert_eq!(captured("t")[2]["payload"], json!({"n": "6"}));
    }

    #[pg_test]
    fn partitions_come_and_go_with_their_rows() {
        run("create role owner_of_p; grant create on schema public to owner_of_p;
             create table p (id int, region text, v int, primary key (id, region)) partition by list (region);
             create table p1 partition of p for values in ('eu'); alter table p owner to owner_of_p; alter table p1 owner to owner_of_p;
             select headwater.enable('p')");
        run("set local role owner_of_p; create table p2 partition of p for values in ('us') partition by range (id);
             create table p2a partition of p2 for values from (0) to (100); insert into p2a values (1, 'us', 1);
             create table p3 (v int, gone int, id int not null, region text not null); alter table p3 drop column gone;
             insert into p3 values (5, 7, 'as'); alter table p attach partition p3 for values in ('as');
             update p3 set v = 6; reset role");
        assert_eq!(
            captured("p"),
            json!([{"entity_id": "1/us", "name": "created", "payload": {"id": 1, "region": "us", "v": 1}},
                   {"entity_id": "7/as", "name": "created", "payload": {"id": 7, "region": "as", "v": 5}},
                   {"entity_id": "7/as", "name": "updated", "payload": {"v": 6}}])
        );
        assert_eq!(rows("select * from headwater.check() where problem not like '%slot%'"), json!([]));
        run(
            "set local role owner_of_p; alter table p detach partition p3; alter table p detach partition p2; insert into p3 values (8, 8, 'as'); reset role",
        );
        assert_eq!(
            captured("p")[3],
            json!({"entity_id": "7/as", "name": "deleted", "payload": {"id": 7, "region": "as"}})
        );
        assert_eq!(
            captured("p")[4],
            json!({"entity_id": "1/us", "name": "deleted", "payload": {"id": 1, "region": "us"}})
        );
        assert_eq!(captured("p").as_array().map(Vec::len), Some(5));
        assert_eq!(
            rows("select relname, relreplident, exists (select from pg_trigger where tgrelid = c.oid and not tgisinternal) as captured
                  from pg_class c where relname in ('p', 'p1', 'p2', 'p2a', 'p3') order by 1"),
            json!([{"relname": "p", "relreplident": "f", "captured": true}, {"relname": "p1", "relreplident": "f", "captured": true},
                   {"relname": "p2", "relreplident": "d", "captured": false}, {"relname": "p2a", "relreplident": "d", "captured": false},
                   {"relname": "p3", "relreplident": "d", "captured": false}])
        );
    }

    #[pg_test]
    fn ddl_by_which_changes_would_escape_is_refused() {
        run("create table p (id int primary key) partition by range (id); create table p1 partition of p for values from (0) to (10);
             create table q (id int) partition by range (id); create table t (id int primary key); create table base (id int);
             select headwater.enable('p'), headwater.enable('t'); insert into p values (1)");
        let check = |ddl: &str, says: &str, hints: &str| {
            let (code, message, hint) = failure(ddl);
            assert!(
                code == "55000" && message.contains(says) && hint.contains(hints),
                "{ddl}: {code} {message} / {hint}"
            );
        };
        check(
            "drop table p1",
            "its rows would go without an event",
            "detach partition public.p1; drop table public.p1;",
        );
        check("alter table p1 set unlogged", "partition public.p1 is unlogged", "detach it");
        check(
            "create table kid () inherits (t)",
            "tables inherit from table public.t",
            "headwater.disable('public.t')",
        );
        check("alter table t inherit base", "table public.t inherits from another", "no inherit public.base");
        check(
            "alter table q attach partition t default",
            "table public.t is a partition",
            "Enable the table that it belongs to: public.q",
        );
        let (code, _, hint) =
            failure("select headwater.disable('t'); create table kid () inherits (t); select headwater.enable('t')");
        assert!(code == "42809" && hint.contains("partitioned"), "{code} {hint}");
        let (code, message, _) = failure(
            "create table child () inherits (base); alter table child add primary key (id); select headwater.enable('child')",
        );
        assert!(code == "42809" && message.contains("inherits from another"), "{code} {message}");
        // Together with its table a partition may go, and alone once it is detached.
        run(
            "alter table p detach partition p1; drop table p1; create table p2 partition of p for values from (0) to (10); drop table p",
        );
        assert_eq!(captured("p").as_array().map(Vec::len), Some(2));
    }

    #[pg_test]
    fn a_dropped_table_leaves_the_registry_and_its_history_stays() {
        run(
            "create table t (id int primary key, n int); select headwater.enable('t'); insert into t values (1, 1), (2, 2); drop table t",
        );
        assert_eq!(rows("select * from headwater.entity"), json!([]));
        assert_eq!(rows("select * from headwater.member"), json!([]));
        assert_eq!(captured("t").as_array().map(Vec::len), Some(2));
        // Another of its name goes on from there.
        run("create table t (id int primary key, m int); insert into t values (2, 20); select headwater.enable('t')");
        assert_eq!(one::<String>("select headwater.materialize('t', '1')::text"), None);
        assert_eq!(one::<i32>("select (headwater.materialize('t', '2') ->> 'm')::int"), Some(20));
        run(
            "create schema s; create table s.u (id int primary key); select headwater.enable('s.u'); drop schema s cascade",
        );
        assert_eq!(one::<i64>("select count(*) from headwater.entity"), Some(1));
    }

    #[pg_test]
    fn what_changed_while_a_trigger_was_disabled_is_recorded_when_it_is_back() {
        run("create table t (id int primary key, n int); select headwater.enable('t'); insert into t values (1, 1)");
        run(
            "alter table t disable trigger all; update t set n = 2; insert into t values (2, 2); alter table t enable trigger all",
        );
        assert_eq!(
            one::<String>("select headwater.materialize('t', '1')::text").as_deref(),
            Some(r#"{"n": 2, "id": 1}"#)
        );
        assert_eq!(
            one::<String>("select headwater.materialize('t', '2')::text").as_deref(),
            Some(r#"{"n": 2, "id": 2}"#)
        );
        run("drop trigger headwater_update on t; update t set n = 3; select headwater.enable('t')");
        assert_eq!(
            one::<String>("select headwater.materialize('t', '2')::text").as_deref(),
            Some(r#"{"n": 3, "id": 2}"#)
        );
    }

    #[pg_test]
    fn a_lost_column_stops_changes_until_it_is_replaced() {
        things();
        run("alter table things drop column tenant");
        let (code, _, hint) = failure("insert into things values (2)");
        assert!(code == "42703" && hint.contains("headwater.enable"), "{code} {hint}");
        run("select headwater.enable('things', tenant_column => ''); insert into things values (2)");
        assert_eq!(one::<String>("select headwater.materialize('thing', '1') ->> 'note'").as_deref(), Some("first"));
    }

    #[pg_test]
    fn renamed_schemas_tables_and_types_do_not_leave_stale_statements() {
        run("create schema s; create type s.mood as enum ('glad', 'sad'); create table s.t (id int primary key, m s.mood, n int);
             grant usage on schema s to headwater_client; select headwater.enable('s.t', entity => 'thing', events => array['created', 'noted'])");
        let mut n = 0;
        let mut noted = |table: &str| {
            n += 1;
            let events =
                [thing(2 * n, "created", n, json!({"m": "glad"})), thing(2 * n + 1, "noted", n + 1, json!({"n": n}))];
            let events = events.map(|mut event| {
                event["entity_id"] = json!(n.to_string());
                event.as_object_mut().expect("an object").remove("tenant_id");
                event
            });
            assert_accepted(&ingest(&events));
            run(&format!("update {table} set m = 'sad'"));
        };
        noted("s.t");
        run("alter schema s rename to r");
        noted("r.t");
        run("alter table r.t rename to u");
        noted("r.u");
        run("alter type r.mood rename to temper");
        noted("r.u");
        run("alter table r.u set schema public; grant usage on schema public to headwater_client");
        noted("public.u");
        assert_eq!(one::<i64>("select count(*) from public.u"), Some(5));
        assert_eq!(one::<i64>("select count(*) from public.u where n = id and m = 'sad'"), Some(5));
    }

    #[pg_test]
    fn unrelated_ddl_and_failures_of_ours_do_not_disturb() {
        things();
        run("create table other (id int); alter table other add column n int; drop table other; create temp table scratch (id int) on commit drop;
             create view v as select 1 as x; alter table v rename column x to y; create index on things (note); drop index things_note_idx");
        run("create table plain (id int primary key); select headwater.enable('plain')");
        // As if the registry were damaged.
        run("update headwater.entity set rules = '[]' where entity_type = 'plain'; alter table plain rename id to key");
        assert_eq!(
            one::<i64>("select count(*) from pg_attribute where attrelid = 'plain'::regclass and attname = 'key'"),
            Some(1)
        );
    }

    #[pg_test]
    fn nothing_of_ours_stays_on_tables_that_are_disabled() {
        run("create table d (id int primary key); create table n (id int primary key); alter table n replica identity nothing;
             create table i (id int primary key, u int not null constraint one unique); alter table i replica identity using index one;
             create table f (id int primary key); alter table f replica identity full; create table s (x int);
             create table p (id int primary key) partition by range (id); create table p1 partition of p default;
             select headwater.enable('d'), headwater.enable('n'), headwater.enable('i'), headwater.enable('f'), headwater.enable('p'), headwater.publish('s');
             insert into d values (1); insert into p values (1)");
        let identities = "select string_agg(relreplident::text, '' order by relname) from pg_class where relname in ('d', 'n', 'i', 'f', 's', 'p', 'p1')";
        assert_eq!(one::<String>(identities).as_deref(), Some("fffffff"));
        run("select headwater.disable('i')");
        assert_eq!(one::<bool>("select indisreplident from pg_index where indexrelid = 'one'::regclass"), Some(true));
        run("create role stranger; grant headwater_admin to stranger; set local role stranger");
        assert_eq!(failure("select headwater.disable_all()").0, "42501");
        run("reset role; select headwater.disable_all()");
        assert_eq!(one::<String>(identities).as_deref(), Some("dfinddd"));
        assert_eq!(
            one::<i64>(
                "select count(*) from pg_trigger where tgname like 'headwater%' and tgrelid <> 'headwater.event'::regclass"
            ),
            Some(0)
        );
        assert_eq!(one::<i64>("select count(*) from pg_publication where pubname like 'headwater%'"), Some(0));
        assert_eq!(one::<i64>("select count(*) from headwater.event"), Some(2));
        run("drop extension headwater; insert into d values (2); delete from p; truncate i");
    }

    #[pg_test]
    fn nobody_but_a_superuser_may_have_ddl_go_unfollowed() {
        things();
        run(
            "create role eve; grant create on schema public to eve; alter table things owner to eve; set local role eve",
        );
        assert_eq!(failure("set headwater.follow = 'off'").0, "42501");
        run(
            "alter table things rename secret to plain; reset role; insert into things values (2, 'a', 'hush', 'seen')",
        );
        assert_eq!(one::<i64>("select count(*) from headwater.event where payload::text like '%hush%'"), Some(0));
        assert_eq!(rows("select excluded from headwater.entity"), json!([{"excluded": ["plain"]}]));
    }

    #[pg_test]
    fn check_finds_what_was_not_followed() {
        things();
        let problems = || rows("select problem, statement from headwater.check(true) where problem not like '%slot%'");
        assert_eq!(problems(), json!([]));
        let mended = |damage: &str, says: &str| {
            run(&format!("set local headwater.follow = off; {damage}; set local headwater.follow = on"));
            let found = problems();
            assert!(found.to_string().contains(says), "{damage}: {found}");
            for problem in found.as_array().expect("rows") {
                run(problem["statement"].as_str().expect("a statement"));
            }
            assert_eq!(problems(), json!([]), "{damage}");
        };
        mended("alter table things rename secret to plain", "nobody followed it");
        assert_eq!(rows("select excluded from headwater.entity"), json!([{"excluded": ["plain"]}]));
        mended("alter table things alter column note type varchar(9)", "nobody followed it");
        mended(
            "alter table things disable trigger headwater_update; update things set note = 'unseen';
             alter table things enable always trigger headwater_update",
            "1 of 1 rows of public.things that were looked at are not the fold of their events, '1' for one",
        );
        mended("set local session_replication_role = replica; alter table things disable trigger headwater_delete; delete from things;
                alter table things enable always trigger headwater_delete; set local session_replication_role = origin", "rows of public.things");
        mended("create table kin () inherits (things)", "escape capture: tables inherit from table public.things");
        assert_eq!(one::<bool>("select enabled from headwater.entity"), Some(false));
    }

    #[pg_test]
    fn renamed_values_and_attributes_are_recorded() {
        run("create type mood as enum ('a', 'b'); create type pair as (a int, b mood[]);
             create table d (id int primary key, m mood, p pair); select headwater.enable('d');
             insert into d values (1, 'a', row(1, '{a}')), (2, 'b', null)");
        run("alter type mood rename value 'a' to 'z'");
        let expected =
            json!([{"entity_id": "1", "name": "updated", "payload": {"id": 1, "m": "z", "p": {"a": 1, "b": ["z"]}}}]);
        let recorded = || {
            rows(
                "select entity_id, split_part(event_type, '.', 2) as name, payload from headwater.event where position > 2 order by position",
            )
        };
        let all = recorded();
        let new: Vec<_> =
            all.as_array().expect("rows").iter().filter(|event| event["name"] == "updated").cloned().collect();
        assert_eq!(json!(new), expected);
        run("alter type pair rename attribute a to n cascade");
        assert_eq!(
            one::<pgrx::JsonB>("select headwater.materialize('d', '1') -> 'p'").map(|json| json.0),
            Some(json!({"n": 1, "b": ["z"]}))
        );
        let before = one::<i64>("select count(*) from headwater.event");
        run("alter type mood add value 'c'");
        assert_eq!(one::<i64>("select count(*) from headwater.event"), before);
    }

    /// As after `pg_upgrade`, which fires no event trigger: the first command there may be a rename.
    #[pg_test]
    fn renames_are_followed_in_an_upgraded_cluster() {
        things();
        run("update headwater.member set seen_in = 'elsewhere'");
        run("alter table things rename secret to plain; insert into things values (2, 'a', 'hush', 'seen')");
        assert_eq!(rows("select excluded from headwater.entity"), json!([{"excluded": ["plain"]}]));
        assert_eq!(one::<i64>("select count(*) from headwater.event where payload::text like '%hush%'"), Some(0));
        assert_eq!(rows("select problem from headwater.check() where problem not like '%slot%'"), json!([]));
    }
}
