//! Promise: when the streamer cannot start it ends with status 1 and says what is wrong and how to mend it.

use headwater_tests::deadline::eventually;
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::{Ending, Streamer};

fn assert_says(ending: &Ending, words: &[&str]) {
    assert_eq!(ending.status.code(), Some(1), "{}", ending.message);
    for word in words {
        assert!(ending.message.contains(word), "no {word:?} in:\n{}", ending.message);
    }
    assert!(!ending.message.contains("panicked"), "{}", ending.message);
}

#[tokio::test]
async fn without_logical_wal() {
    let postgres = Postgres::start_bare(&["wal_level=replica"]).await;
    postgres.install().await;
    let ending = Streamer::run_to_end(&postgres.streamer_url(), &["--insecure"]).await;
    assert_says(&ending, &["wal_level", "replica", "alter system set wal_level = 'logical'", "restart"]);
}

#[tokio::test]
async fn without_the_extension() {
    let postgres = Postgres::start_bare(&["wal_level=logical"]).await;
    postgres.sql("create role headwater_streamer login replication password 'flows-downhill'").await;
    let ending = Streamer::run_to_end(&postgres.streamer_url(), &["--insecure"]).await;
    assert_says(&ending, &["extension", "create extension headwater"]);
}

#[tokio::test]
async fn without_membership() {
    let postgres = Postgres::start().await;
    postgres.sql("revoke headwater_writer from headwater_streamer").await;
    let ending = Streamer::run_to_end(&postgres.streamer_url(), &["--insecure"]).await;
    assert_says(&ending, &["grant headwater_writer to \"headwater_streamer\""]);
}

#[tokio::test]
async fn without_the_right_to_replicate() {
    let postgres = Postgres::start().await;
    postgres.sql("alter role headwater_streamer noreplication").await;
    let ending = Streamer::run_to_end(&postgres.streamer_url(), &["--insecure"]).await;
    assert_says(&ending, &["alter role \"headwater_streamer\" replication"]);
}

#[tokio::test]
async fn with_a_wrong_password() {
    let postgres = Postgres::start().await;
    let url = postgres.streamer_url().replace("flows-downhill", "flows-uphill");
    let ending = Streamer::run_to_end(&url, &["--insecure"]).await;
    assert_says(&ending, &["password", "headwater_streamer"]);
    assert!(!ending.message.contains("flows-uphill"), "a password in a message: {}", ending.message);
}

#[tokio::test]
async fn with_a_taken_port() {
    let postgres = Postgres::start().await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let ending = Streamer::run_to_end(&postgres.streamer_url(), &["--insecure", "--port", &port]).await;
    assert_says(&ending, &[&port, "--port"]);
}

#[tokio::test]
async fn with_a_slot_that_another_uses() {
    let postgres = Postgres::start().await;
    let first = Streamer::start(&postgres, &[]).await;
    let ending = Streamer::run_to_end(&postgres.streamer_url(), &["--insecure"]).await;
    assert_says(&ending, &["headwater_default", "--replica"]);
    drop(first);
}

#[tokio::test]
async fn two_replicas_have_slots_of_their_own() {
    let postgres = Postgres::start().await;
    let _first = Streamer::start(&postgres, &[]).await;
    let _second = Streamer::start(&postgres, &["--replica", "second"]).await;
    assert_eq!(2, postgres.count("select count(*) from pg_replication_slots where active").await);
}

#[tokio::test]
async fn without_saying_how_clients_are_known() {
    let postgres = Postgres::start().await;
    let ending = Streamer::run_to_end(&postgres.streamer_url(), &[]).await;
    assert_says(&ending, &["--insecure"]);
}

#[tokio::test]
async fn with_a_setting_that_means_nothing() {
    let ending =
        Streamer::run_to_end("postgres://nobody@127.0.0.1:1/none", &["--insecure", "--ring-bytes", "lots"]).await;
    assert!(!ending.status.success());
    assert!(ending.message.contains("--ring-bytes") && ending.message.contains("lots"), "{}", ending.message);
}

/// Somebody's open transaction is no mistake of the set-up: it is told and waited for, without a queue of others behind us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_lock_on_the_event_table_it_says_so_and_comes_back() {
    let postgres = Postgres::start().await;
    postgres.sql("drop publication if exists headwater_events").await;
    let holder = postgres.connect().await;
    holder.batch_execute("begin; lock table headwater.event in share mode").await.unwrap();
    let mut streamer = Streamer::spawned(&postgres, &[]);
    eventually("it to be told", || async { streamer.logged().contains("waits for a lock").then_some(()) }).await;
    holder.batch_execute("commit").await.unwrap();
    streamer.healthy().await;
}
