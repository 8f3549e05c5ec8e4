//! Promise: on Postgres 17 and later standbys get our slots too, and after a promotion the streamer goes on with the slot that is there.
//! Oracle: `pg_replication_slots` of both servers. On the Postgres 18 of the stage `pg18`.

use headwater_tests::deadline::eventually;
use headwater_tests::event::position;
use headwater_tests::place::postgres_programs_of;
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;

const FAILOVER: &str = "select count(*) from pg_replication_slots where slot_type = 'logical' and failover";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_go_to_standbys_and_the_streamer_goes_on_after_a_promotion() {
    let Some(programs) = postgres_programs_of(18) else {
        eprintln!("passed over: Postgres 18 with the extension is not there (scripts/test pg18 installs it)");
        return;
    };
    let primary = Postgres::start_of(programs, &["wal_level=logical"]).await;
    primary.install().await;
    primary.sql("create table note (id int primary key); select headwater.enable('note', entity => 'note')").await;
    // A slot from before the upgrade to 17 gets it too.
    primary
        .sql(
            "select headwater.ensure_publications();
             select pg_create_logical_replication_slot('headwater_older', 'pgoutput')",
        )
        .await;
    let older = Streamer::start(&primary, &["--replica", "older"]).await;
    assert_eq!(1, primary.count(FAILOVER).await);
    drop(older);
    primary
        .sql("select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where active_pid is not null")
        .await;
    primary.sql("select pg_drop_replication_slot('headwater_older')").await;

    let mut streamer = Streamer::start(&primary, &["--ring-wal", "64KiB"]).await;
    assert_eq!(1, primary.count(FAILOVER).await, "made so");
    let standby = primary
        .standby_with(
            &["-C", "-S", "standby", "-d", "dbname=headwater"],
            "hot_standby_feedback = on\nsync_replication_slots = on\nwal_receiver_status_interval = 1\n",
        )
        .await;
    let writer = primary.connect().await;
    let mut id = 0;
    // The standby's worker takes the slot over once it has the WAL that the slot stands at.
    eventually("the slot on the standby", || {
        id += 1;
        let (writer, standby, id) = (&writer, &standby, id);
        async move {
            writer.execute("insert into note values ($1)", &[&id]).await.unwrap();
            let ready = "select count(*) from pg_replication_slots where slot_name = 'headwater_default' and synced and not temporary";
            (standby.count(ready).await == 1).then_some(())
        }
    })
    .await;
    let all = usize::try_from(id).unwrap();
    eventually("the standby to have all", || async {
        (standby.count("select count(*) from note").await == all).then_some(())
    })
    .await;
    streamer.terminate().await;
    drop(primary);
    standby.promote().await;

    let streamer = Streamer::start(&standby, &[]).await;
    assert!(
        !streamer.logged().contains("making the"),
        "the slot is the one that was synchronized: {}",
        streamer.logged()
    );
    assert_eq!(1, standby.count(FAILOVER).await);
    standby.sql("insert into note values (0)").await;
    let page = streamer.since(&[]).await;
    let positions: Vec<i64> = page["events"].as_array().unwrap().iter().map(position).collect();
    assert_eq!(all + 1, positions.len());
    assert_eq!(
        1,
        standby.count("select count(*) from pg_replication_slots where slot_type = 'logical' and active").await
    );
}
