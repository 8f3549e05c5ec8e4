//! Promise: no code of a table's owner, nor of who declares a rule, runs with the rights of anybody above him; at COMMIT neither.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;
    use serde_json::json;

    use crate::tests::tests::{assert_accepted, codes, event, failure, ingest, one, rows, run};

    /// A role that owns a table, and a function that tells who runs it.
    fn eve() {
        run("create role eve; create schema ev authorization eve; create table public.heard (who text);
             grant all on public.heard to public; grant headwater_admin to eve; grant usage on schema ev to headwater_client;
             set local role eve;
             create function ev.tell() returns int language plpgsql as
               $$ begin insert into public.heard values (current_user); return 1; end $$;
             create function ev.evil(x int) returns int language plpgsql immutable as $$ begin perform ev.tell(); return 1; end $$;
             create function ev.holds(x text) returns boolean language plpgsql immutable as $$ begin perform ev.tell(); return true; end $$;
             reset role");
    }

    /// Whom eve's code was run as, but for her and the role that applies events.
    fn heard() -> serde_json::Value {
        rows("select distinct who from public.heard where who not in ('eve', 'headwater_client')")
    }

    /// What eve can hide code in that planning runs, or reading.
    const PLACES: &[(&str, &str)] = &[
        ("an index expression", "create index on ev.t (ev.evil(1))"),
        ("an index predicate", "create index on ev.t (v) where ev.evil(1) = 1"),
        ("a constraint", "alter table ev.t add check (ev.evil(1) = 1) not valid"),
        (
            "a domain",
            "create domain ev.checked as text check (ev.holds(value)); alter table ev.t add column d ev.checked",
        ),
        ("a default", "alter table ev.t add column z int default ev.tell()"),
        (
            "a cast",
            "create type ev.mood as enum ('sad'); create function ev.said(ev.mood) returns text language plpgsql as
               $$ begin perform ev.tell(); return 'sad'; end $$;
             create cast (ev.mood as text) with function ev.said(ev.mood) as implicit;
             alter table ev.t add column m ev.mood",
        ),
    ];

    /// Every call of ours that reads eve's table, as a superuser, in a fresh plan each.
    const CALLS: &[(&str, &str)] = &[
        ("reconcile", "select headwater.reconcile('ev.t')"),
        ("enable", "select headwater.enable('ev.t', tenant_column => 'v')"),
        ("backfill", "select headwater.begin_backfill('ev.t'); select headwater.backfill_batch('ev.t')"),
        ("record_rows", "select headwater.record_rows('ev.t', 'ev.t', 'created')"),
        ("check", "select count(*) from headwater.check(true)"),
        ("open_states", "select headwater.open_states('c', 'evt', 0, true); fetch all from c; close c"),
        (
            "open_states of one",
            "select headwater.open_states('c', 'evt', 0, true, null, '1'); fetch all from c; close c",
        ),
        ("emit", "select headwater.emit('evt.noted', '1')"),
        (
            "ingest of what nobody sees",
            "select headwater.ingest('[{\"id\": \"0190a0a0-0000-7000-8000-000000000009\", \"event_type\": \"evt.created\", \"entity_type\": \"evt\", \"entity_id\": \"9\", \"payload\": {}, \"timestamp\": \"2026-01-01T00:00:00Z\"}]', '{\"trusted\": true}')",
        ),
        ("follow", "alter table ev.t add column y int default 5"),
        (
            "truncate",
            "update headwater.entity set backfilled = false; select headwater.invalidate('ev.t'); truncate ev.t",
        ),
        ("erase", "select headwater.erase('evt', '1')"),
    ];

    #[pg_test]
    fn whatever_reads_a_table_runs_no_code_of_its_owner_as_anybody_else() {
        eve();
        run("set local constraint_exclusion = on");
        let mut wrong = Vec::new();
        for (place, hide) in PLACES {
            for (name, call) in CALLS {
                run(&format!(
                    "set local role eve; create table ev.t (id int primary key, v text); insert into ev.t values (1, 'a'), (2, 'b'); reset role;
                     select headwater.enable('ev.t', 'evt'); set local headwater.follow = 'off';
                     set local role eve; {hide}; reset role; set local headwater.follow = 'on'; truncate public.heard"
                ));
                // What the relation cache has computed already would not be computed again.
                run("select headwater.invalidate('ev.t')");
                run(call);
                if heard() != json!([]) {
                    wrong.push(format!("{place}, {name}: {}", heard()));
                }
                run(
                    "drop table ev.t; drop type if exists ev.mood cascade; drop domain if exists ev.checked; truncate headwater.snapshot",
                );
                run("delete from headwater.erased");
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[pg_test]
    fn eve_does_not_become_a_superuser() {
        eve();
        run("set local role eve; create table ev.t (id int primary key, v text); reset role; select headwater.enable('ev.t', 'evt');
             set local role eve;
             create function ev.do_it() returns int language plpgsql volatile as $$ begin
               if (select rolsuper from pg_roles where rolname = current_user) then execute 'alter role eve superuser'; end if; return 1; end $$;
             create function ev.worse(x int) returns int language plpgsql immutable as $$ begin perform ev.do_it(); return 1; end $$;
             create index on ev.t (ev.worse(1)); alter table ev.t add column z int default 1;
             select headwater.reconcile('ev.t'); reset role");
        assert_eq!(one::<bool>("select rolsuper from pg_roles where rolname = 'eve'"), Some(false));
    }

    /// The rows of a table that hides them from its owner too are read all the same.
    #[pg_test]
    fn row_security_hides_no_row_from_us() {
        run("create role eve; create schema ev authorization eve; set local role eve;
             create table ev.t (id int primary key, v text); insert into ev.t values (1, 'a');
             alter table ev.t enable row level security; alter table ev.t force row level security; reset role;
             select headwater.enable('ev.t', 'evt', events => array['created', 'noted']); grant usage on schema ev to headwater_client");
        assert_eq!(one::<i64>("select headwater.reconcile('ev.t')"), Some(0));
        assert_eq!(one::<bool>("select state is not null from headwater.find_row('evt', '1')"), Some(true));
        let mut noted = event(1, "", "1", 0, json!({"v": "b"}));
        noted["entity_type"] = json!("evt");
        noted["event_type"] = json!("evt.noted");
        assert_eq!(codes(&ingest(&[noted])), [(0, "forbidden".to_owned())]);
    }

    #[pg_test]
    fn a_custom_rule_leaves_nothing_for_commit() {
        eve();
        run(r#"set local role eve; create table ev.t (id int primary key, v text);
             create function ev.fire() returns trigger language plpgsql as $$ begin perform ev.tell(); return null; end $$;
             create function ev.bad() returns void language plpgsql as $$ begin
               create temp table if not exists hwtmp (a int);
               if not exists (select from pg_trigger where tgname = 'hwtg') then
                 create constraint trigger hwtg after insert on hwtmp deferrable initially deferred for each row execute function ev.fire();
               end if;
               insert into hwtmp values (1); end $$;
             create function ev.m(s jsonb, e jsonb) returns jsonb language plpgsql immutable as $$ begin perform ev.bad(); return s; end $$;
             create function ev.path(s jsonb, e jsonb) returns jsonb language plpgsql immutable as
               $$ begin perform set_config('search_path', 'ev, pg_catalog', false); return s; end $$;
             select headwater.enable('ev.t', 'evt', events => '{"created": {"rule": "create"}, "m": {"rule": "custom", "function": "ev.m"}, "p": {"rule": "custom", "function": "ev.path"}}'::jsonb);
             reset role;
             insert into headwater.event (id, entity_type, entity_id, event_type, payload, schema_version, occurred_at, recorded_at, source, applies)
             select headwater.uuid_v7(), 'evt', '1', 'evt.' || name, '{}', 1, now() + at * interval '1 second', now(), 'client', true
             from (values ('created', 0), ('p', 1)) e (name, at)"#);
        let path = one::<String>("select current_setting('search_path')");
        run("select headwater.materialize('evt', '1')");
        assert_eq!(one::<String>("select current_setting('search_path')"), path);
        run("insert into headwater.event (id, entity_type, entity_id, event_type, payload, schema_version, occurred_at, recorded_at, source, applies)
             values (headwater.uuid_v7(), 'evt', '1', 'evt.m', '{}', 1, now() + interval '2 seconds', now(), 'client', true)");
        let (code, message, _) = failure("select headwater.materialize('evt', '1')");
        assert!(code == "42501" && message.contains("security-restricted"), "{code} {message}");
    }

    #[pg_test]
    fn what_triggers_put_off_is_refused_while_events_are_applied() {
        eve();
        run("set local role eve; create table ev.t (id int primary key, v text); create table ev.later (a int);
             create function ev.fire() returns trigger language plpgsql as $$ begin perform ev.tell(); return null; end $$;
             create constraint trigger fire after insert on ev.later deferrable initially deferred for each row execute function ev.fire();
             create function ev.put_off() returns trigger language plpgsql security definer as $$ begin
               if new.v = 'deferred' then set constraints all deferred; insert into ev.later values (1);
               elsif new.v = 'held' then execute 'declare held cursor with hold for select ev.tell()';
               elsif new.v = 'path' then perform set_config('search_path', 'ev, pg_catalog', false);
               end if;
               return null; end $$;
             create constraint trigger put_off after insert on ev.t deferrable initially deferred for each row execute function ev.put_off();
             reset role; select headwater.enable('ev.t', 'evt')");
        let path = one::<String>("select current_setting('search_path')");
        for (n, (v, refused)) in
            [("deferred", true), ("held", true), ("path", false), ("quiet", false)].into_iter().enumerate()
        {
            let mut created = event(u32::try_from(n).expect("small") + 1, "", &n.to_string(), 0, json!({"v": v}));
            created["entity_type"] = json!("evt");
            created["event_type"] = json!("evt.created");
            let answer = ingest(&[created]);
            if refused {
                assert_eq!(codes(&answer), [(0, "constraint_violation".to_owned())], "{v}");
                assert!(
                    answer["rejected"][0]["reason"].as_str().is_some_and(|why| why.contains("may not use")),
                    "{answer}"
                );
            } else {
                assert_accepted(&answer);
            }
        }
        assert_eq!(one::<String>("select current_setting('search_path')"), path);
        // What would run at COMMIT.
        run("set constraints all immediate");
        assert_eq!(heard(), json!([]));
        assert_eq!(one::<i64>("select count(*) from pg_cursors where is_holdable"), Some(0));
        // Plain SQL may put off what it likes.
        run("insert into ev.t values (10, 'quiet'); set constraints all deferred");
    }

    /// Where capture acts as its owner, for whatever reason, the `search_path` is pinned, and eve is herself again before anything
    /// of hers runs. She has no privilege on anything of ours, and operators of hers stand in front of her path.
    #[pg_test]
    fn capture_acts_as_its_owner_with_a_pinned_path_only() {
        eve();
        run("create function public.note() returns int language plpgsql as
               $$ begin insert into public.heard values (current_user || ' ' || current_setting('search_path')); return 1; end $$;
             create function public.acts(x text) returns text language plpgsql immutable as $$ begin perform public.note(); return x; end $$;
             create index acts on headwater.event (public.acts(entity_id)) where entity_id <> 'none';
             set local role eve;
             create table ev.plain (id int primary key, n int);
             create table ev.seen (id int primary key, c regclass);
             create table ev.old (id int primary key, n int); insert into ev.old values (1, 1);
             create function ev.differs(a text, b text) returns boolean language plpgsql as $$ begin perform ev.tell(); return true; end $$;
             create operator ev.= (function = ev.differs, leftarg = text, rightarg = text);
             create function ev.after() returns trigger language plpgsql as
               $$ begin insert into public.heard values ('after: ' || current_user || ' ' || current_setting('search_path')); return null; end $$;
             create trigger zz after insert or update on ev.plain for each statement execute function ev.after();
             create trigger zz after insert or update on ev.seen for each statement execute function ev.after();
             create trigger zz after insert or update on ev.old for each statement execute function ev.after();
             reset role; revoke headwater_admin from eve;
             select headwater.enable('ev.plain', 'plain'); select headwater.enable('ev.seen', 'seen');
             select headwater.enable('ev.old', 'old', backfill => false); truncate public.heard");
        let owner = one::<String>("select current_user::text").expect("a role");
        for statement in [
            "insert into ev.plain values (1, 1)",
            // A path in which the name needs no schema.
            "insert into ev.seen values (1, 'ev.plain')",
            // Writes the baseline first.
            "update ev.old set n = 2",
        ] {
            run("drop index if exists headwater.acts;
                 create index acts on headwater.event (public.acts(entity_id)) where entity_id <> 'none'; truncate public.heard;
                 set local role eve; set local search_path = ev, pg_catalog");
            run(statement);
            run("reset role; set local search_path = public");
            let heard = rows("select distinct who from public.heard order by 1");
            let expected =
                json!([{"who": "after: eve ev, pg_catalog"}, {"who": format!("{owner} pg_catalog, pg_temp")}]);
            assert_eq!(heard, expected, "{statement}");
        }
        assert_eq!(
            rows("select payload->>'c' as c from headwater.event where entity_type = 'seen'"),
            json!([{"c": "ev.plain"}])
        );
        assert_eq!(rows("select state from headwater.snapshot"), json!([{"state": {"id": 1, "n": 1}}]));

        // With the clock set back, heads are asked for.
        run("insert into headwater.event (id, entity_type, entity_id, event_type, payload, schema_version, occurred_at, recorded_at, source, applies)
             values (headwater.uuid_v7(), 'plain', '1', 'plain.noted', '{}', 1, now() + interval '1 hour', now(), 'sql', true);
             drop index headwater.acts; truncate public.heard");
        crate::clock::forget();
        run(
            "set local role eve; set local search_path = ev, pg_catalog; update ev.plain set n = 2; reset role; set local search_path = public",
        );
        crate::clock::forget();
        assert_eq!(rows("select who from public.heard"), json!([{"who": "after: eve ev, pg_catalog"}]));
        assert_eq!(
            one::<bool>(
                "select occurred_at > now() + interval '59 minutes' from headwater.event where entity_type = 'plain' order by position desc limit 1"
            ),
            Some(true)
        );
    }

    /// An error while capture acts as its owner leaves nobody with the owner's rights.
    #[pg_test]
    fn an_error_in_capture_leaves_its_owner_behind() {
        eve();
        run("create function public.fails(x text) returns text language plpgsql immutable as $$ begin raise exception 'no'; end $$;
             set local role eve; create table ev.plain (id int primary key, n int); reset role; revoke headwater_admin from eve;
             select headwater.enable('ev.plain', 'plain');
             create index fails on headwater.event (public.fails(entity_id))");
        run("set local role eve; set local search_path = ev, pg_catalog;
             create function ev.caught() returns text language plpgsql as $$ begin
               begin
                 insert into ev.plain values (1, 1);
                 return 'no error';
               exception when raise_exception then
                 return current_user || ' ' || current_setting('search_path');
               end; end $$");
        let left = one::<String>("select ev.caught()");
        let now = one::<String>("select current_user || ' ' || current_setting('search_path')");
        run("reset role; set local search_path = public");
        assert_eq!(left.as_deref(), Some("eve ev, pg_catalog"));
        assert_eq!(now.as_deref(), Some("eve ev, pg_catalog"));
    }
}
