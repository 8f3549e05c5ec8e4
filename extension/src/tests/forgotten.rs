//! Promise: of an entity that was erased nothing comes back; and what history was folded is not asked for again.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;
    use serde_json::{Value, json};

    use crate::tests::tests::{assert_accepted, codes, failure, ingest, one, rows, run};

    fn sent(n: u32, name: &str, payload: &Value, timestamp: &str) -> Value {
        json!({"id": format!("0190a0a0-0000-7000-8000-{n:012}"), "entity_type": "er", "event_type": format!("er.{name}"), "entity_id": "1",
               "payload": payload, "timestamp": timestamp})
    }

    #[pg_test]
    fn what_is_refused_of_an_erased_entity_is_not_kept() {
        run("create table er (id int primary key, v text); select headwater.enable('er', 'er', events => array['created', 'up']);
             insert into er values (1, 'SECRET'); select headwater.erase('er', '1')");
        let answer = ingest(&[
            sent(1, "up", &json!({"v": "SECRET"}), "2026-01-01T00:00:00Z"),
            sent(2, "SECRET", &json!({}), "2026-01-01T00:00:00Z"),
            sent(3, "up", &json!({"SECRET": 1}), "2026-01-01T00:00:00Z"),
        ]);
        let erased = |place| (place, "erased".to_owned());
        assert_eq!(codes(&answer), [erased(0), erased(1), erased(2)]);
        assert_eq!(rows("select * from headwater.rejected_event"), json!([]));
        assert_eq!(one::<i64>("select count(*) from headwater.receipt where reject::text like '%SECRET%'"), Some(0));
        // A retry gets the same answer.
        let again = ingest(&[sent(1, "up", &json!({"v": "SECRET"}), "2026-01-01T00:00:00Z")]);
        assert_eq!(codes(&again), [erased(0)]);
    }

    #[pg_test]
    fn a_range_is_not_folded_beyond_the_horizon() {
        run(
            "create table er (id int primary key, v text); select headwater.enable('er', 'er'); insert into er values (1, 'x')",
        );
        let (code, message, _) = failure("select headwater.compact_range('er', 'infinity', 0, 100000)");
        assert!(code == "55000" && message.contains("horizon"), "{code} {message}");
        assert_eq!(one::<i64>("select count(*) from headwater.snapshot"), Some(0));
    }

    #[pg_test]
    fn the_expected_position_is_known_after_retention() {
        run(
            "create table er (id int primary key, v text); select headwater.enable('er', 'er', events => array['created', 'up'])",
        );
        assert_accepted(&ingest(&[sent(1, "created", &json!({"v": "a"}), "2026-01-01T00:00:00Z")]));
        let position = one::<i64>("select max(position) from headwater.event").expect("a position");
        run("select headwater.raise_horizon('er', interval '90 days');
             select headwater.compact_range('er', (select horizon from headwater.entity where entity_type = 'er'), 0, 1000000);
             alter table headwater.event disable trigger refuse_change; delete from headwater.event;
             alter table headwater.event enable always trigger refuse_change");
        let mut up = sent(
            2,
            "up",
            &json!({"v": "b"}),
            &one::<String>("select to_char(now() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
                .expect("a time"),
        );
        up["expected_position"] = json!(position);
        assert_accepted(&ingest(&[up]));
    }

    #[pg_test]
    fn who_acts_is_a_text_that_an_event_may_hold() {
        run(r#"create table er (id int primary key, v text); select headwater.enable('er', 'er');
               set local request.jwt.claims = '{"sub": "a\u0000b"}'; insert into er values (1, 'x');
               set local request.jwt.claims = '{"sub": "eve"}'; insert into er values (2, 'x')"#);
        assert_eq!(
            rows("select user_id from headwater.event order by position"),
            json!([{"user_id": null}, {"user_id": "eve"}])
        );
    }
}
