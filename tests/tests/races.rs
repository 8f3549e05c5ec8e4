//! Promise: what copies states, erases, reconciles or alters the registry waits for who writes at the same moment, and the
//! other way round, and who sends an event that somebody else is just sending. Oracle: the rows, which must equal the folds; and
//! nothing of what was erased.

use headwater_tests::deadline::eventually;
use headwater_tests::postgres::Postgres;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};

/// Runs a statement in a session of its own, and returns when it waits for a lock.
async fn waiting(postgres: &Postgres, sql: &'static str) -> JoinHandle<Result<(), Error>> {
    waiting_in(postgres, postgres.connect().await, sql).await
}

/// The same in a session that has done something before.
async fn waiting_in(postgres: &Postgres, client: Client, sql: &'static str) -> JoinHandle<Result<(), Error>> {
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let running = tokio::spawn(async move { client.batch_execute(sql).await });
    let waits = format!("select count(*) from pg_locks where pid = {pid} and not granted");
    eventually(&format!("{sql} to wait"), || async {
        assert!(!running.is_finished(), "{sql} did not wait");
        (postgres.count(&waits).await > 0).then_some(())
    })
    .await;
    running
}

async fn begun(postgres: &Postgres, sql: &str) -> Client {
    let client = postgres.connect().await;
    client.batch_execute(&format!("begin; {sql}")).await.unwrap();
    client
}

/// Commits what one session has done, upon which the other goes on.
async fn then(first: &Client, second: JoinHandle<Result<(), Error>>) {
    first.batch_execute("commit").await.unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_erased_is_not_copied_at_the_same_moment() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "create table old (id int primary key, v text); select headwater.enable('old');
             select headwater.ingest(jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'entity_type', 'old', 'event_type', 'old.created',
               'entity_id', n::text, 'payload', '{\"v\": \"SECRET\"}'::jsonb, 'timestamp', now() - interval '200 days')), '{\"trusted\": true}')
             from generate_series(1, 3) n;
             select headwater.raise_horizon('old', interval '100 days')",
        )
        .await;
    let range = "select headwater.compact_range('old', (select horizon from headwater.entity where entity_type = 'old'), 0, 1000000)";
    let compacting = begun(&postgres, range).await;
    let erasing = waiting(&postgres, "select headwater.erase('old', '2')").await;
    then(&compacting, erasing).await;
    assert_eq!(0, postgres.count("select count(*) from headwater.snapshot where entity_id = '2'").await);
    assert_eq!(2, postgres.count("select count(*) from headwater.snapshot").await);

    // And who comes after the marker copies nothing.
    let erasing = begun(&postgres, "delete from headwater.snapshot; select headwater.erase('old', '1')").await;
    let compacting = waiting(&postgres, "select headwater.compact_range('old', (select horizon from headwater.entity where entity_type = 'old'), 0, 1000000)").await;
    then(&erasing, compacting).await;
    assert_eq!(0, postgres.count("select count(*) from headwater.snapshot where entity_id in ('1', '2')").await);

    postgres
        .sql(
            "create table bh (id int primary key, v text); insert into bh select n, 'SECRET' from generate_series(1, 100) n;
             select headwater.enable('bh', backfill => false); select headwater.begin_backfill('bh')",
        )
        .await;
    let copying = begun(&postgres, "select headwater.backfill_batch('bh')").await;
    let erasing = waiting(&postgres, "select headwater.erase('bh', '7')").await;
    then(&copying, erasing).await;
    assert_eq!(
        0,
        postgres.count("select count(*) from headwater.snapshot where entity_type = 'bh' and entity_id = '7'").await
    );
    assert_eq!(99, postgres.count("select count(*) from headwater.snapshot where entity_type = 'bh'").await);
}

#[tokio::test]
async fn erase_waits_for_the_row_that_is_being_inserted() {
    let postgres = Postgres::start().await;
    postgres.sql("create table persons (id int primary key, v text); select headwater.enable('persons')").await;
    let inserting = begun(&postgres, "insert into persons values (1, 'SECRET')").await;
    let erasing = waiting(&postgres, "select headwater.erase('person', '1')").await;
    then(&inserting, erasing).await;
    assert_eq!(0, postgres.count("select count(*) from persons").await);
    assert_eq!(0, postgres.count("select count(*) from headwater.event where payload::text like '%SECRET%'").await);
}

#[tokio::test]
async fn a_registry_that_changes_waits_for_writers() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "create table tc (id int primary key, tn text, v text, h text);
             select headwater.enable('tc', exclude => array['h']); insert into tc values (1, 'acme', 'old', 'h')",
        )
        .await;
    let writing =
        begun(&postgres, "update tc set v = 'new' where id = 1; insert into tc values (3, 'acme', 'x', 'y')").await;
    let enabling = waiting(&postgres, "select headwater.enable('tc', tenant_column => 'tn', exclude => '{}')").await;
    then(&writing, enabling).await;
    let wrong =
        "select count(*) from tc where headwater.materialize('tc', id::text, null, tn) is distinct from to_jsonb(tc)";
    assert_eq!(0, postgres.count(wrong).await);
}

#[tokio::test]
async fn reconcile_records_nothing_that_a_writer_has_just_changed() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "create table rc (id int primary key, v text); select headwater.enable('rc'); insert into rc values (1, 'old'), (2, 'old');
             alter table rc disable trigger headwater_update; update rc set v = 'unseen' where id = 2;
             set headwater.follow = 'off'; alter table rc enable always trigger headwater_update",
        )
        .await;
    let writing = begun(&postgres, "update rc set v = 'new' where id = 1").await;
    let reconciling = waiting(&postgres, "select headwater.reconcile('rc')").await;
    then(&writing, reconciling).await;
    let wrong = "select count(*) from rc where headwater.materialize('rc', id::text) is distinct from to_jsonb(rc)";
    assert_eq!(0, postgres.count(wrong).await);
    assert_eq!(2, postgres.count("select count(*) from headwater.event where event_type = 'rc.updated'").await);
}

#[tokio::test]
async fn erase_names_the_keys_that_a_row_may_have_had_before() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "create table kc (id int primary key, v text); select headwater.enable('kc'); insert into kc values (1, 'SECRET'), (5, 'other');
             update kc set id = 2 where id = 1",
        )
        .await;
    let told = |id: &'static str| {
        let erase = format!("select headwater.erase('kc', '{id}')");
        let postgres = &postgres;
        async move { String::from_utf8(postgres.run("psql", &["-c", &erase]).await.stderr).unwrap() }
    };
    let notice = told("2").await;
    assert!(notice.contains("select headwater.erase('kc', '1');"), "{notice}");
    assert_eq!("", told("1").await);
    assert_eq!("", told("5").await);
    assert_eq!(0, postgres.count("select count(*) from headwater.event where payload::text like '%SECRET%'").await);
}

/// What a session set before the library was loaded, it had no right to set.
#[tokio::test]
async fn ddl_is_followed_whatever_a_session_has_set() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "create role eve; grant create on schema public to eve; create table fg (id int primary key, secret text);
             select headwater.enable('fg', exclude => '{secret}'); alter table fg owner to eve",
        )
        .await;
    let eve = postgres.connect().await;
    eve.batch_execute("set role eve; set headwater.follow = 'off'; alter table fg rename secret to plain")
        .await
        .unwrap();
    eve.batch_execute("insert into fg values (1, 'SECRET')").await.unwrap();
    assert_eq!(0, postgres.count("select count(*) from headwater.event where payload::text like '%SECRET%'").await);
    assert_eq!(1, postgres.count("select count(*) from headwater.entity where excluded = '{plain}'").await);
}

/// A key's index has another number after that.
#[tokio::test]
async fn ingest_goes_on_after_a_partitions_index_was_rebuilt() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "create table ki (id int primary key, n int) partition by range (id);
             create table ki1 partition of ki for values from (0) to (100); select headwater.enable('ki')",
        )
        .await;
    let client = postgres.connect().await;
    for id in 1..=2 {
        let batch = format!(
            "select headwater.ingest(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'entity_type', 'ki', 'event_type', 'ki.created',
               'entity_id', '{id}', 'payload', '{{\"n\": 1}}'::jsonb, 'timestamp', now())), '{{\"trusted\": true}}')"
        );
        client.batch_execute(&batch).await.unwrap();
        postgres.sql("reindex table concurrently ki1").await;
    }
    assert_eq!(2, postgres.count("select count(*) from ki").await);
}

/// A snapshot that is older than the locks would not show what others have just committed.
#[tokio::test]
async fn an_old_snapshot_is_refused() {
    let postgres = Postgres::start().await;
    postgres.sql("create table rr (id int primary key, v text); insert into rr values (1, 'old')").await;
    let client = postgres.connect().await;
    let refused = async |sql: &str| {
        let failed = client.batch_execute(&format!("begin isolation level repeatable read; {sql}")).await.unwrap_err();
        assert_eq!(failed.code().map(|code| code.code().to_owned()), Some("25000".to_owned()), "{sql}: {failed:?}");
        client.batch_execute("rollback").await.unwrap();
    };
    refused("select headwater.enable('rr')").await;
    postgres.sql("select headwater.enable('rr', backfill => false); select headwater.begin_backfill('rr')").await;
    for sql in [
        "select headwater.reconcile('rr')",
        "select headwater.backfill_batch('rr')",
        "select headwater.erase('rr', '1')",
    ] {
        refused(sql).await;
    }
}

/// What a snapshot says of its form is what it was folded by.
#[tokio::test]
async fn a_snapshot_beside_an_upcast_names_the_form_that_it_has() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            r#"create table cw (id int primary key, tag jsonb); grant usage on schema public to headwater_client;
               create function slow(state jsonb, event jsonb) returns jsonb language plpgsql immutable as
                 $$ begin perform pg_advisory_xact_lock_shared(4711); return state; end $$;
               select headwater.enable('cw', events => '{"created": {"rule": "create"}, "slow": {"rule": "custom", "function": "public.slow"}}'::jsonb);
               insert into headwater.event (id, entity_type, entity_id, event_type, payload, schema_version, occurred_at, recorded_at, source, applies)
               select headwater.uuid_v7(), 'cw', n::text, 'cw.' || e.name, e.payload, 1, now() - interval '200 days' + e.at * interval '1 second', now(),
                      case when e.name = 'created' then 'capture' else 'client' end, true
               from generate_series(1, 20) n, (values ('created', '{"tag": "t"}'::jsonb, 0), ('slow', '{}', 1)) e (name, payload, at);
               select headwater.raise_horizon('cw', interval '100 days')"#,
        )
        .await;
    let holding = begun(&postgres, "select pg_advisory_xact_lock(4711)").await;
    let compacting = waiting(&postgres, "select headwater.compact_range('cw', (select horizon from headwater.entity where entity_type = 'cw'), 0, 1000000)").await;
    postgres.sql(r#"select headwater.upcast('cw', 1, '{"step": "wrap", "field": "tag", "key": "w"}')"#).await;
    then(&holding, compacting).await;
    assert_eq!(20, postgres.count("select count(*) from headwater.snapshot").await);
    let wrong = r#"select count(*) from generate_series(1, 20) n where headwater.materialize('cw', n::text) -> 'tag' is distinct from '{"w": "t"}'"#;
    assert_eq!(0, postgres.count(wrong).await);
}

#[tokio::test]
async fn a_column_that_comes_while_events_wait_is_in_what_is_recorded_of_them() {
    const CREATE: &str = "select headwater.ingest(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'entity_type', 'late',
        'event_type', 'late.created', 'entity_id', '1', 'payload', '{}'::jsonb, 'timestamp', now())), '{\"trusted\": true}')";
    let postgres = Postgres::start().await;
    postgres.sql("create table late (id int primary key, v text default 'v'); select headwater.enable('late')").await;
    // A session that knows what the table was.
    let writer = postgres.connect().await;
    writer.batch_execute(CREATE).await.unwrap();
    postgres.sql("delete from late").await;
    let altering = begun(&postgres, "alter table late add column extra text default 'x'").await;
    let writing = waiting_in(&postgres, writer, CREATE).await;
    then(&altering, writing).await;
    let differing = "select count(*) from late where headwater.to_json(late) is distinct from headwater.materialize('late', id::text)";
    assert_eq!((1, 0), (postgres.count("select count(*) from late").await, postgres.count(differing).await));
}

/// An absent row cannot be locked, and what was created and deleted while an event waited for another entity's lock leaves
/// nothing on which its insert would fail.
#[tokio::test]
async fn a_row_that_was_created_and_deleted_while_an_event_waited_stays_deleted() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "create table a (id int primary key, v text); select headwater.enable('a');
             create table b (id int primary key, v text); select headwater.enable('b'); insert into b values (1, 'b')",
        )
        .await;
    let holding = begun(&postgres, "select from b for update").await;
    let sending = "select headwater.ingest(jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'entity_type', e,
        'event_type', e || '.created', 'entity_id', '1', 'payload', '{\"v\": \"client\"}'::jsonb, 'timestamp', now())),
        '{\"trusted\": true}') from unnest(array['a', 'b']) e";
    let sending = waiting(&postgres, sending).await;
    postgres.sql("insert into a values (1, 'sql')").await;
    postgres.sql("delete from a").await;
    then(&holding, sending).await;
    assert_eq!(0, postgres.count("select count(*) from a").await);
    assert_eq!(
        1,
        postgres
            .count("select count(*) from a right join (select) x on true where headwater.materialize('a', '1') is null")
            .await
    );
    assert_eq!(
        3,
        postgres.count("select count(*) from headwater.event where entity_type = 'a' and entity_id = '1'").await
    );
}

#[tokio::test]
async fn the_registry_keeps_what_another_session_has_just_declared() {
    let postgres = Postgres::start().await;
    postgres.sql("create table kept (id int primary key, v text, secret text); select headwater.enable('kept')").await;
    let declaring =
        begun(&postgres, r#"select headwater.upcast('kept', 1, '{"step": "remove", "field": "gone"}')"#).await;
    let enabling = waiting(&postgres, "select headwater.enable('kept', exclude => '{secret}')").await;
    then(&declaring, enabling).await;

    let enabling = begun(&postgres, "select headwater.enable('kept', events => array['created', 'named'])").await;
    let declaring =
        waiting(&postgres, r#"select headwater.upcast('kept', 2, '{"step": "remove", "field": "other"}')"#).await;
    then(&enabling, declaring).await;

    let enabling = begun(&postgres, "select headwater.enable('kept', user_column => 'v')").await;
    let too = waiting(&postgres, "select headwater.enable('kept', notification => 'noop')").await;
    then(&enabling, too).await;
    let entry = "select count(*) from headwater.entity where (schema_version, excluded, notification, user_column)
                 = (3, '{secret}', 'noop', 'v') and rules ? 'named' and upcasts -> 'state' ?& array['1', '2']";
    assert_eq!(1, postgres.count(entry).await);
}

/// Two batches that share an event by its id, and one by its key: the second waits for what becomes of the first.
#[tokio::test]
async fn batches_that_share_events_store_each_once() {
    for (end, under_other_id) in [("commit", 0), ("rollback", 1)] {
        let postgres = Postgres::start().await;
        postgres
            .sql(
                "create table old (id int primary key, v text); create table answer (answer jsonb);
                 select headwater.enable('old', events => '{\"created\": {\"rule\": \"create\"}}')",
            )
            .await;
        let first = begun(&postgres, &answered(&[(2, 2), (4, 4)])).await;
        // One that is new in front, one of the first, one of it under another id, one that is new behind.
        let second = waiting(&postgres, answered(&[(1, 1), (2, 2), (3, 4), (5, 5)]).leak()).await;
        first.batch_execute(end).await.unwrap();
        second.await.unwrap().unwrap();
        assert_eq!(0, postgres.count("select count(*) from answer where answer->'rejected' <> '[]'").await, "{end}");
        let longest = "select max(jsonb_array_length(answer->'accepted'))::bigint from answer";
        assert_eq!(4, postgres.count(longest).await, "{end}: the second's");
        for stored in ["old", "headwater.receipt", "headwater.event where source = 'client'"] {
            assert_eq!(4, postgres.count(&format!("select count(*) from {stored}")).await, "{end}: {stored}");
        }
        let third = "select count(*) from headwater.receipt where event_id::text like '%3'";
        assert_eq!(under_other_id, postgres.count(third).await, "{end}: the one under another id");
    }
}

/// Ingests events of these ids, each of the entity that is its idempotency key too, and keeps the answer.
fn answered(events: &[(u32, u32)]) -> String {
    let event = |(id, entity): &(u32, u32)| {
        format!(
            r#"{{"id": "00000000-0000-4000-8000-00000000000{id}", "entity_type": "old", "entity_id": "{entity}",
                "event_type": "old.created", "idempotency_key": "{entity}", "payload": {{}}, "timestamp": "2026-01-01T00:00:00Z"}}"#
        )
    };
    let events = events.iter().map(event).collect::<Vec<_>>().join(", ");
    format!("insert into answer select headwater.ingest('[{events}]', '{{}}')")
}
