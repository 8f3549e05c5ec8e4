//! Ingest at the edges of what a table may be: constraints that wait, triggers that object, rows that need each other.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;
    use serde_json::{Value, json};

    use super::super::tests::{captured, codes, ingest, one, rows, run};

    fn event(n: u32, event_type: &str, entity_id: &str, payload: Value) -> Value {
        let (entity, _) = event_type.split_once('.').expect("an event type");
        json!({"id": format!("0190a0a0-0000-7000-8000-{n:012x}"), "event_type": event_type, "entity_type": entity,
               "entity_id": entity_id, "payload": payload, "timestamp": format!("2026-01-01T00:00:{n:02}Z")})
    }

    fn enable(table: &str) {
        run(&format!(
            "select headwater.enable('{table}', entity => '{table}', events => array['created', 'changed', 'deleted'])"
        ));
    }

    fn assert_rejected(answer: &Value, expected: &[(u64, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(index, code)| (*index, (*code).to_owned())).collect();
        assert_eq!(codes(answer), expected, "{answer:#}");
    }

    /// Row and fold of every entity of a table whose key is `id`.
    fn assert_rows_equal_folds(table: &str) {
        let wrong = rows(&format!(
            "select e.entity_id, to_jsonb(its_row) as row, headwater.materialize('{table}', e.entity_id) as fold
             from (select distinct entity_id from headwater.event where entity_type = '{table}') e
             left join {table} its_row on its_row.id::text = e.entity_id
             where to_jsonb(its_row) is distinct from headwater.materialize('{table}', e.entity_id)"
        ));
        assert_eq!(wrong, json!([]));
    }

    #[pg_test]
    fn rows_are_written_in_the_order_of_the_batch() {
        // `answer` sorts before `question`, which it needs.
        run("create table question (id int primary key, t text);
             create table answer (id int primary key, question int not null references question, t text)");
        enable("question");
        enable("answer");
        let batch = [
            event(1, "question.created", "1", json!({})),
            event(2, "answer.created", "1", json!({"question": 1})),
            event(3, "question.created", "2", json!({})),
            event(4, "answer.created", "2", json!({"question": 2})),
        ];
        assert_rejected(&ingest(&batch), &[]);
        let with_a_culprit = [
            event(11, "question.created", "11", json!({})),
            event(12, "answer.created", "11", json!({"question": 11})),
            event(13, "answer.created", "12", json!({"question": 99})),
            event(14, "answer.deleted", "11", json!({})),
            event(15, "question.deleted", "11", json!({})),
            event(16, "question.deleted", "1", json!({})),
        ];
        assert_rejected(&ingest(&with_a_culprit), &[(2, "constraint_violation"), (5, "constraint_violation")]);
        assert_rows_equal_folds("question");
        assert_rows_equal_folds("answer");
    }

    #[pg_test]
    fn deferred_constraints_reject_only_who_violates_them() {
        run("create table question (id int primary key, t text check (t <> 'bad'));
             create table answer (id int primary key, question int references question deferrable initially deferred)");
        enable("question");
        enable("answer");
        let needs_the_next = |n: u32| {
            [
                event(n, "answer.created", &n.to_string(), json!({"question": n})),
                event(n + 1, "question.created", &n.to_string(), json!({})),
            ]
        };
        assert_rejected(&ingest(&needs_the_next(1)), &[]);
        // As the next transaction finds it.
        run("set constraints all deferred");
        let culprit = event(5, "question.created", "5", json!({"t": "bad"}));
        assert_rejected(&ingest(&[&needs_the_next(3)[..], &[culprit]].concat()), &[(2, "constraint_violation")]);
        run("set constraints all deferred");
        let orphan = event(8, "answer.created", "8", json!({"question": 99}));
        assert_rejected(
            &ingest(&[&[orphan][..], &[event(9, "question.created", "9", json!({}))]].concat()),
            &[(0, "constraint_violation")],
        );
        assert_eq!(one::<i64>("select count(*) from answer"), Some(2));
        assert_rows_equal_folds("question");
        assert_rows_equal_folds("answer");
    }

    #[pg_test]
    fn events_of_one_batch_that_exclude_each_other() {
        run(
            "create table seat (id int primary key, place text unique, during int4range, exclude using gist (during with &&))",
        );
        enable("seat");
        let batch = [
            event(1, "seat.created", "1", json!({"place": "a", "during": "[1,5)"})),
            event(2, "seat.created", "2", json!({"place": "a"})),
            event(3, "seat.created", "3", json!({"during": "[4,6)"})),
            event(4, "seat.created", "4", json!({"place": "b", "during": "[5,6)"})),
            event(5, "seat.deleted", "1", json!({})),
            event(6, "seat.created", "5", json!({"place": "a", "during": "[1,2)"})),
        ];
        let answer = ingest(&batch);
        assert_rejected(&answer, &[(1, "constraint_violation"), (2, "constraint_violation")]);
        assert_eq!(answer["rejected"][0]["constraint"], "seat_place_key");
        assert_eq!(answer["rejected"][1]["constraint"], "seat_during_excl");
        assert_rows_equal_folds("seat");
    }

    #[pg_test]
    fn triggers_that_object() {
        run("create table guarded (id int primary key, n int, note text);
             create function objects() returns trigger language plpgsql as $$
             begin
               if new.n = 0 then return null; end if;
               if new.n < 0 then raise exception 'n must not be %', new.n using errcode = 'HW001'; end if;
               return new;
             end $$;
             create trigger objects before insert or update on guarded for each row execute function objects();
             create function keeps() returns trigger language plpgsql as $$
             begin if old.note = 'keep' then return null; end if; return old; end $$;
             create trigger keeps before delete on guarded for each row execute function keeps()");
        enable("guarded");
        let batch = [
            event(1, "guarded.created", "1", json!({"n": 1, "note": "keep"})),
            event(2, "guarded.created", "2", json!({"n": 0})),
            event(3, "guarded.created", "3", json!({"n": -1})),
            event(4, "guarded.changed", "1", json!({"n": 0})),
            event(5, "guarded.deleted", "1", json!({})),
            event(6, "guarded.changed", "1", json!({"n": 6})),
        ];
        let answer = ingest(&batch);
        assert_rejected(
            &answer,
            &[(1, "constraint_violation"), (2, "constraint_violation"), (3, "constraint_violation"), (4, "forbidden")],
        );
        assert_eq!(answer["rejected"][0]["reason"], "a trigger or rule of public.guarded left out the change of 2");
        assert_eq!(answer["rejected"][1]["reason"], "n must not be -1");
        assert_rows_equal_folds("guarded");
    }

    #[pg_test]
    fn triggers_that_write_and_emit() {
        run("create table parent (id int primary key, total int default 0);
             create table child (id int primary key, parent int references parent on delete cascade, n int);
             create function adds_up() returns trigger language plpgsql security definer as $$
             begin
               update parent set total = (select sum(n) from child where parent = new.parent) where id = new.parent;
               perform headwater.emit('parent.counted', new.parent::text, jsonb_build_object('n', new.n));
               return null;
             end $$;
             create trigger adds_up after insert or update on child for each row execute function adds_up()");
        enable("parent");
        enable("child");
        let batch = [
            event(1, "parent.created", "1", json!({})),
            event(2, "child.created", "1", json!({"parent": 1, "n": 2})),
            event(3, "child.created", "2", json!({"parent": 1, "n": 3})),
            event(4, "child.changed", "1", json!({"n": 10})),
            event(5, "parent.created", "1", json!({"total": 1})),
        ];
        assert_rejected(&ingest(&batch), &[]);
        assert_rows_equal_folds("parent");
        assert_rows_equal_folds("child");
        let names = "select array_agg(split_part(event_type, '.', 2) order by position) from headwater.event where entity_type = 'parent' and source = 'sql'";
        assert_eq!(one::<Vec<String>>(names), Some(vec!["counted".to_owned(); 3]));
        assert_rejected(&ingest(&[event(20, "parent.deleted", "1", json!({}))]), &[]);
        assert_eq!(one::<i64>("select count(*) from child"), Some(0));
        assert_rows_equal_folds("child");
        assert_eq!(
            captured("child").as_array().map(|events| events.iter().filter(|event| event["name"] == "deleted").count()),
            Some(2)
        );
    }

    #[pg_test]
    fn one_batch_creates_deletes_and_creates_again() {
        run(
            "create table thing (id text, part int, note text default 'new', twice text generated always as (id || id) stored, primary key (id, part))",
        );
        enable("thing");
        for id in ["~0/1", "~1 '\"\\%/2", "/3", "é👩‍👧/4", "~01/5"] {
            let batch = [
                event(1, "thing.created", id, json!({"note": "a"})),
                event(2, "thing.deleted", id, json!({})),
                event(3, "thing.created", id, json!({})),
                event(4, "thing.changed", id, json!({"twice": "no"})),
                event(5, "thing.changed", id, json!({"id": "no"})),
            ];
            run("delete from headwater.receipt; delete from headwater.rejected_event");
            assert_rejected(&ingest(&batch), &[(3, "invalid_payload"), (4, "invalid_payload")]);
            let state = format!("select headwater.materialize('thing', $id${id}$id$)");
            assert_eq!(one::<pgrx::JsonB>(&state).expect("a state").0["note"], "new", "{id}");
        }
        assert_eq!(one::<i64>("select count(*) from thing where note = 'new' and twice = id || id"), Some(5));
        assert_rejected(&ingest(&[event(30, "thing.created", "a/b/1", json!({}))]), &[(0, "invalid_payload")]);
        assert_rejected(&ingest(&[event(31, "thing.created", "a/01", json!({}))]), &[(0, "invalid_payload")]);
    }

    #[pg_test]
    fn positions_that_are_expected_and_keys_that_come_again() {
        run("create table thing (id int primary key, n int)");
        enable("thing");
        let expecting = |n, position: Value| {
            let mut event = event(n, "thing.changed", "1", json!({"n": n}));
            event["expected_position"] = position;
            event
        };
        assert_rejected(&ingest(&[event(1, "thing.created", "1", json!({"n": 1}))]), &[]);
        let at = || json!(one::<i64>("select max(position) from headwater.event"));
        assert_rejected(&ingest(&[expecting(2, json!(0))]), &[(0, "version_conflict")]);
        assert_rejected(&ingest(&[expecting(3, at())]), &[]);
        let stale = at();
        assert_rejected(&ingest(&[expecting(4, stale.clone()), expecting(5, stale)]), &[(1, "version_conflict")]);
        let keyed = |n, key: &str, value: u32| {
            let mut event = event(n, "thing.changed", "1", json!({"n": value}));
            (event["idempotency_key"], event["timestamp"]) = (json!(key), json!("2026-01-02T00:00:00Z"));
            event
        };
        assert_rejected(&ingest(&[keyed(6, "k", 60)]), &[]);
        assert_rejected(&ingest(&[keyed(7, "k", 60), keyed(8, "k", 80)]), &[(1, "conflict")]);
        assert_eq!(one::<i32>("select n from thing"), Some(60));
        assert_rows_equal_folds("thing");
    }

    /// Changes of many rows go together, but each event has a write of its own: statements count steps, not rows.
    #[pg_test]
    fn what_goes_together_is_one_statement() {
        run("create table thing (id int primary key, n int, t text); create table ran (what text);
             create function ran() returns trigger language plpgsql security definer as $$ begin insert into public.ran values (tg_op); return null; end $$;
             create trigger ran after insert or update or delete on thing for each statement execute function ran()");
        enable("thing");
        let at = |n: u32, name: &str, id: u32, payload: Value| {
            let mut event = event(n, name, &id.to_string(), payload);
            event["timestamp"] = json!(format!("2026-01-01T00:00:00.{n:06}Z"));
            event
        };
        let life = |id: u32| {
            [
                at(3 * id, "thing.created", id, json!({"n": id})),
                at(3 * id + 1, "thing.changed", id, json!({"n": -1})),
                at(3 * id + 2, "thing.changed", id, json!({"t": "x"})),
            ]
        };
        let batch: Vec<_> = (1..=20).flat_map(life).collect();
        assert_rejected(&ingest(&batch), &[]);
        assert_eq!(
            rows("select what, count(*) from ran group by 1 order by 1"),
            json!([{"what": "INSERT", "count": 1}, {"what": "UPDATE", "count": 2}])
        );
        assert_rows_equal_folds("thing");
        // One that is wrong among many is found, and nothing else suffers.
        run("alter table thing add check (n <> 13)");
        let batch: Vec<_> = (1..=20).map(|id| at(100 + id, "thing.changed", id, json!({"n": id}))).collect();
        assert_rejected(&ingest(&batch), &[(12, "constraint_violation")]);
        assert_eq!(one::<i64>("select count(*) from thing where n > 0"), Some(19));
        assert_rows_equal_folds("thing");
    }

    /// A policy that looks at other rows judges each event by what the ones before it left: no statement has two of them.
    #[pg_test]
    fn policies_that_look_at_other_rows_judge_one_event_after_the_other() {
        run("create table seat (id int primary key, n int);
             create function taken() returns bigint stable language sql security definer as $$ select count(*) from public.seat $$;
             alter table seat enable row level security;
             create policy open on seat for select using (true);
             create policy three on seat for insert with check (taken() < 3)");
        enable("seat");
        let batch: Vec<_> = (1..=5).map(|i| event(i, "seat.created", &i.to_string(), json!({"n": 1}))).collect();
        assert_rejected(&ingest(&batch), &[(3, "forbidden"), (4, "forbidden")]);
        assert_rows_equal_folds("seat");
    }

    #[pg_test]
    fn an_id_of_an_event_that_stands_there_is_a_conflict() {
        run("create table thing (id int primary key, n int)");
        enable("thing");
        run("insert into thing values (1, 1)");
        let taken = rows(
            "select id, to_char(occurred_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as at from headwater.event",
        );
        let mut event = event(1, "thing.changed", "1", json!({"n": 2}));
        event["id"] = taken[0]["id"].clone();
        event["timestamp"] = taken[0]["at"].clone();
        assert_rejected(&ingest(&[event.clone()]), &[(0, "conflict")]);
        // Ids that the server makes out of others.
        event["id"] = json!("0190a0a0-0000-8000-8000-000000000001");
        assert_rejected(&ingest(&[event]), &[(0, "conflict")]);
        assert_eq!(one::<i64>("select count(*) from headwater.event"), Some(1));
        assert_rows_equal_folds("thing");
    }

    #[pg_test]
    fn keys_that_are_equal_but_spelt_otherwise_are_no_second_history() {
        run("create table thing (id numeric primary key, n int)");
        enable("thing");
        run("insert into thing values (1.00, 1)");
        let now = rows("select clock_timestamp() as at");
        let changed = |n: u32, id: &str| {
            let mut event = event(n, "thing.changed", id, json!({"n": 2}));
            event["timestamp"] = now[0]["at"].clone();
            event
        };
        assert_rejected(&ingest(&[changed(1, "1"), changed(2, "1.00")]), &[(0, "invalid_payload")]);
        assert_eq!(one::<i32>("select n from thing"), Some(2));
        let refused = super::super::tests::failure("select headwater.emit('thing.changed', '1')");
        assert!(refused.1.contains("1.00"), "{refused:?}");
        assert_eq!(one::<i32>("select (headwater.materialize('thing', '1.00') ->> 'n')::int"), Some(2));
    }

    #[pg_test]
    fn json_that_jsonb_does_not_take_is_recorded_as_its_text() {
        run("create table thing (id int primary key, j json); insert into thing values (0, '\"\\u0000\"')");
        enable("thing");
        run(
            r#"insert into thing values (1, '"\u0000"'), (2, '"\ud800"'), (3, '1e1000000'), (4, '{"a": "\u00e4", "b": 1e5}')"#,
        );
        run("update thing set j = '[\"\\u0000\", 1]' where id = 4");
        assert_eq!(
            rows("select id, headwater.materialize('thing', id::text) -> 'j' as j from thing order by id"),
            json!([{"id": 0, "j": "\"\\u0000\""}, {"id": 1, "j": "\"\\u0000\""}, {"id": 2, "j": "\"\\ud800\""}, {"id": 3, "j": "1e1000000"},
                   {"id": 4, "j": "[\"\\u0000\", 1]"}])
        );
        assert_eq!(
            one::<pgrx::JsonB>(
                "select payload -> 'j' from headwater.event where entity_id = '4' and event_type = 'thing.created'"
            )
            .map(|j| j.0.to_string()),
            Some(r#"{"a":"ä","b":100000}"#.to_owned())
        );
    }

    #[pg_test]
    fn a_batch_and_what_is_folded_for_it_have_their_bounds() {
        run("create table thing (id int primary key, n int default 0)");
        run(
            r#"select headwater.enable('thing', events => '{"created": {"rule": "create"}, "counted": {"rule": "increment", "field": "n", "by": "by"}}')"#,
        );
        let refused = super::super::tests::failure(
            "select headwater.ingest((select jsonb_agg('{}'::jsonb) from generate_series(1, 5001)), '{\"trusted\": true}')",
        );
        assert_eq!(refused.0, "54000");
        run("insert into thing values (1, 0)");
        run(
            "select count(*) from generate_series(1, 300) i, lateral (select headwater.emit('thing.counted', '1', '{\"by\": 1}', apply => i > 0)) e",
        );
        assert_eq!(one::<i32>("select n from thing"), Some(300));
        let at = one::<String>("select to_char((occurred_at + interval '1 microsecond') at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
                                from headwater.event where event_type = 'thing.created'");
        let late = |n: u32| {
            let mut late = event(n, "thing.counted", "1", json!({"by": 1}));
            late["timestamp"] = json!(at);
            late
        };
        run("set local headwater.max_folded_events = 250");
        assert_rejected(&ingest(&[late(1), late(2)]), &[(0, "too_late"), (1, "too_late")]);
        run("set local headwater.max_folded_events = 3000");
        assert_rejected(&ingest(&[late(3)]), &[]);
        assert_eq!(one::<i32>("select n from thing"), Some(301));
        assert_rows_equal_folds("thing");
    }

    /// The fill of the first life sorts behind the second's beginning, and would make its row the first one's user's.
    #[pg_test]
    fn of_two_lives_in_one_instant_each_has_the_user_who_began_it() {
        run("create table doc (id int primary key, owner text, body text default 'empty')");
        run("select headwater.enable('doc', user_column => 'owner', events => array['created', 'deleted'])");
        let of = |id: &str, name: &str, user: &str| {
            let mut event = event(1, name, "1", json!({}));
            event["id"] = json!(format!("0190a0a0-0000-7000-{id}-000000000001"));
            event["user_id"] = json!(user);
            event
        };
        assert_rejected(&ingest(&[of("822c", "doc.created", "bob")]), &[]);
        assert_rejected(&ingest(&[of("824b", "doc.deleted", "bob"), of("8cfe", "doc.created", "ann")]), &[]);
        assert_eq!(one::<String>("select owner from doc").as_deref(), Some("ann"));
        assert_rows_equal_folds("doc");
    }

    #[pg_test]
    fn a_row_without_a_key_is_refused_by_its_name() {
        run("create table thing (id int not null unique, n int)");
        run("select headwater.enable('thing', key => '{id}')");
        run("alter table thing alter column id drop not null");
        let refused = super::super::tests::failure("insert into thing values (null, 1)");
        assert_eq!(refused.0, "23502", "{refused:?}");
        assert!(refused.1.contains("\"id\""), "{refused:?}");
    }
}
