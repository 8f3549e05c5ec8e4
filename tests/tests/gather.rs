//! Promise: a walsender that sends what belongs to a transaction together sends the same, and each small transaction whole. Oracle: a
//! walsender that was not told to.

use headwater_tests::postgres::Postgres;
use headwater_tests::walsender::{Message, Walsender};

const GATHER: &str = "select headwater.gather_changes()";

/// What stands in the last transaction.
const LAST: &[u8] = b"the end of it";

/// All that a walsender can have to tell: small and long transactions, long rows, changed tables, what is taken back, messages within
/// and without transactions, prepared ones, what is not published.
const WORK: &str = "
    insert into note values (1, 'one'), (2, 'two');
    update note set body = 'three' where id = 2;
    delete from note where id = 1;
    create table unpublished (id int); insert into unpublished values (1);
    insert into note select n, repeat(md5(n::text), 3) from generate_series(10, 20000) n;
    insert into note select n, string_agg(md5((n * m)::text), '') from generate_series(30000, 30010) n, generate_series(1, 9000) m group by n;
    update note set id = id + 1000000 where id between 30000 and 30005;
    select pg_logical_emit_message(true, 'elsewhere', 'within');
    select pg_logical_emit_message(false, 'elsewhere', repeat('without', 10000));
    alter table note add column more int default 7;
    insert into note values (3, 'after');
    alter table note replica identity full;
    update note set more = 8 where id < 100;
    truncate note;
    begin; insert into note values (4, 'kept'); savepoint s; insert into note select n from generate_series(50000, 60000) n; rollback to s;
    insert into note values (5, 'kept, too'); commit;
    begin; insert into note values (6, 'taken back'); rollback;
    begin; insert into note values (7, 'prepared'); prepare transaction 'p'; insert into note values (8, 'between'); commit prepared 'p';
    insert into note values (9, 'the end of it')";

/// What others ask pgoutput for, too.
const WAYS: [(&str, &str); 5] = [
    ("ours", "proto_version '1', messages 'true'"),
    ("silent", "proto_version '1'"),
    ("binary", "proto_version '1', binary 'true'"),
    ("streaming", "proto_version '2', streaming 'on', messages 'true'"),
    ("prepared", "proto_version '3', two_phase 'on'"),
];

async fn start() -> Postgres {
    let postgres =
        Postgres::start_bare(&["wal_level=logical", "max_prepared_transactions=4", "logical_decoding_work_mem=64kB"])
            .await;
    postgres.install().await;
    let note = "create table note (id int primary key, body text); create publication everything for table note, headwater.event;
        select headwater.enable('note')";
    postgres.sql(note).await;
    postgres
}

fn stream(postgres: &Postgres, slot: &str, options: &str, gather: bool) -> Walsender {
    let mut walsender = Walsender::open(postgres);
    if gather {
        assert_eq!(Some("t"), walsender.query(GATHER).as_deref());
        assert_eq!(Some("t"), walsender.query(GATHER).as_deref(), "once more");
    }
    walsender.stream(&format!("START_REPLICATION SLOT {slot} LOGICAL 0/0 ({options}, publication_names 'everything')"));
    walsender
}

/// Everything up to the commit of the last transaction.
fn told(mut walsender: Walsender) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut is_last = false;
    loop {
        for message in walsender.piece().0 {
            is_last |= message.body.windows(LAST.len()).any(|window| window == LAST);
            let commits = message.body[0] == b'C';
            messages.push(message);
            if is_last && commits {
                walsender.end();
                assert_eq!(Some("1"), walsender.query("select 1").as_deref());
                return messages;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walsender_that_gathers_sends_the_same() {
    let postgres = start().await;
    let client = postgres.connect().await;
    for (way, _) in WAYS {
        for slot in ["gathered", "plain"] {
            let make = "select pg_create_logical_replication_slot($1, 'pgoutput', false, $2)";
            client.execute(make, &[&format!("{way}_{slot}"), &(way == "prepared")]).await.unwrap();
        }
    }
    for statement in WORK.split(';') {
        client.batch_execute(statement).await.unwrap();
    }
    for (way, options) in WAYS {
        let [gathered, plain] = ["gathered", "plain"].map(|slot| {
            let walsender = stream(&postgres, &format!("{way}_{slot}"), options, slot == "gathered");
            tokio::task::spawn_blocking(move || told(walsender))
        });
        let (gathered, plain) = (gathered.await.unwrap(), plain.await.unwrap());
        let bytes: usize = plain.iter().map(|message| message.body.len()).sum();
        assert!(bytes > 1_000_000, "{way}: {bytes} bytes are no test");
        assert!(gathered == plain, "{way}: {} and {} messages", gathered.len(), plain.len());
    }
}

/// How many of the pieces in which small transactions come end within one.
async fn torn(postgres: &Postgres, gather: bool) -> usize {
    let client = postgres.connect().await;
    client.execute("select pg_create_logical_replication_slot('small', 'pgoutput')", &[]).await.unwrap();
    let mut walsender = stream(postgres, "small", "proto_version '1'", gather);
    let reader = tokio::task::spawn_blocking(move || {
        let mut torn = 0;
        loop {
            let (messages, whole) = walsender.piece();
            let Some(last) = messages.last() else { continue };
            torn += usize::from(!whole || last.body[0] != b'C');
            if messages.iter().any(|message| message.body.windows(LAST.len()).any(|window| window == LAST)) {
                return torn;
            }
        }
    });
    for n in 0..200 {
        client.execute("insert into note select $1 * 10 + n, 'x' from generate_series(1, 5) n", &[&n]).await.unwrap();
    }
    client.execute("insert into note values (-1, 'the end of it')", &[]).await.unwrap();
    let torn = reader.await.unwrap();
    client
        .batch_execute(
            "select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where active;
             select pg_drop_replication_slot('small'); delete from note",
        )
        .await
        .unwrap();
    torn
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_transaction_comes_whole() {
    let postgres = start().await;
    assert_eq!(Some(false), postgres.connect().await.query_one(GATHER, &[]).await.unwrap().get(0), "no walsender");
    assert_eq!(0, torn(&postgres, true).await);
    assert!(torn(&postgres, false).await > 100, "as this sees pieces where there are some");
}
