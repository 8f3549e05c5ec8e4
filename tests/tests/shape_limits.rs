//! Promise: what requests for shapes take is bounded, whoever asks: readers that read slowly share what they are sent, what nobody
//! waits for ends, and none of it holds up the end of the service.

use headwater_tests::deadline::eventually;
use headwater_tests::http::{client, with_query};
use headwater_tests::place::resident_bytes;
use headwater_tests::shape::{active, get, send};
use headwater_tests::token;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::orders;
use crate::shape::{start, start_on};

/// Asks for a path, and reads nothing of the answer.
async fn ask_and_read_nothing(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n").as_bytes()).await.unwrap();
    // Something has come: the answer is on its way.
    stream.readable().await.unwrap();
    stream
}

#[tokio::test]
async fn slow_readers_share_what_they_are_sent() {
    const READERS: usize = 40;
    let (postgres, streamer) = start(&["--chunk-bytes=100000000"]).await;
    postgres
        .sql("create table t (id int primary key, v text); insert into t select n, repeat('x', 1000) from generate_series(1, 16000) n")
        .await;
    let url = streamer.url("/v1/shape");
    let first = get(&url, &[("table", "t"), ("offset", "-1")]).await;
    let size = first.body.len() as u64;
    assert!(size > 16_000_000, "{size}");
    let length = first.header("content-length").expect("its length is known").parse::<u64>().unwrap();
    assert_eq!(length, size);
    // A part of the log, too: as large, and the same for all.
    let (handle, offset) = (first.header("electric-handle").unwrap(), first.header("electric-offset").unwrap());
    postgres.sql("update t set v = repeat('y', 1000)").await;
    let query = [("table", "t"), ("handle", handle), ("offset", offset), ("live", "true")];
    let part = with_query(&url, &query);
    assert!(send(client().get(part.clone())).await.body.len() > 8_000_000);
    let before = resident_bytes(streamer.pid());
    let mut readers = Vec::new();
    for path in ["/v1/shape?table=t&offset=-1".to_owned(), format!("{}?{}", part.path(), part.query().unwrap())] {
        for _ in 0..READERS {
            readers.push(ask_and_read_nothing(streamer.port(), &path).await);
        }
    }
    let more = resident_bytes(streamer.pid()).saturating_sub(before);
    assert!(more < 5 * size, "{READERS} readers of each of two answers of {size} bytes take {more} bytes");
    drop(readers);
}

#[tokio::test]
async fn rows_that_nobody_waits_for_are_not_read() {
    let (postgres, streamer) = start(&[]).await;
    let url = streamer.url("/v1/shape");
    let mut holder = postgres.connect().await;
    // Shapes of one table would wait together.
    let tables: Vec<String> = (0..6).map(|n| format!("t{n}")).collect();
    for table in &tables {
        postgres.sql(&format!("create table {table} (id int primary key)")).await;
        assert_eq!(get(&url, &[("table", table), ("offset", "now")]).await.status, 200);
    }
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute(&format!("lock table {} in access exclusive mode", tables.join(", "))).await.unwrap();
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%from%limit 0%'";
    let mut shapes = Vec::new();
    for table in &tables {
        let request = client().get(with_query(&url, &[("table", table), ("offset", "-1"), ("where", "id > 0")]));
        shapes.push(tokio::spawn(send(request)));
    }
    eventually("the streamer to wait for the lock", async || (postgres.count(waiting).await == 6).then_some(())).await;
    for shape in shapes.drain(1..) {
        shape.abort();
    }
    eventually("only the one to wait that is waited for", async || (postgres.count(waiting).await == 1).then_some(()))
        .await;
    lock.rollback().await.unwrap();
    assert_eq!(shapes.remove(0).await.unwrap().status, 200);
    let again = get(&url, &[("table", "t3"), ("offset", "-1"), ("where", "id > 0")]).await;
    assert_eq!(again.status, 200, "who comes back is served: {again:?}");
}

#[tokio::test]
async fn those_who_wait_for_first_rows_do_not_hold_up_the_end() {
    let (postgres, mut streamer) = start(&[]).await;
    postgres.sql("create table t (id int primary key)").await;
    let url = streamer.url("/v1/shape");
    assert_eq!(get(&url, &[("table", "t"), ("offset", "now")]).await.status, 200);
    let mut holder = postgres.connect().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute("lock table t in access exclusive mode").await.unwrap();
    let requests = [("offset", "-1"), ("subset__where", "true")].map(|asked| {
        let query = if asked.0 == "offset" { vec![asked] } else { vec![("offset", "now"), asked] };
        tokio::spawn(send(client().get(with_query(&url, &[vec![("table", "t")], query].concat()))))
    });
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    eventually("the streamer to wait for the lock", async || (postgres.count(waiting).await == 2).then_some(())).await;
    assert!(streamer.terminate().await.success());
    for request in requests {
        let answer = request.await.unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    }
    assert!(!streamer.logged().contains("some requests did not end in time"));
    lock.rollback().await.unwrap();
}

#[tokio::test]
async fn now_is_behind_every_commit_that_the_client_knows_of() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql("create table t (id int primary key)").await;
    let url = streamer.url("/v1/shape");
    let writer = postgres.connect().await;
    for n in 0..10 {
        // Some work for who decodes it.
        let rows = "insert into t select n from generate_series($1::int, $1 + 9999) n";
        writer.execute(rows, &[&(n * 10_000)]).await.unwrap();
        let row = writer.query_one("select (pg_current_wal_flush_lsn() - '0/0')::int8", &[]).await.unwrap();
        let flushed = u64::try_from(row.get::<_, i64>(0)).unwrap();
        let answer = get(&url, &[("table", "t"), ("offset", "now")]).await;
        let offset = answer.header("electric-offset").unwrap();
        let place: u64 = offset.split('_').next().unwrap().parse().unwrap();
        assert!(place >= flushed - 1, "{offset} lies before {flushed}, which was committed before");
    }
}

#[tokio::test]
async fn head_and_etags_say_what_get_says() {
    let (postgres, streamer) = start(&["--chunk-bytes=50000"]).await;
    postgres
        .sql("create table t (id int primary key, \"größe\n\" int); insert into t select n, n from generate_series(1, 300) n")
        .await;
    let url = with_query(&streamer.url("/v1/shape"), &[("table", "t"), ("offset", "-1")]);
    let got = send(client().get(url.clone())).await;
    let head = send(client().head(url.clone())).await;
    for name in ["content-length", "cache-control", "etag", "electric-schema", "electric-handle", "electric-offset"] {
        assert_eq!(head.header(name), got.header(name), "{name}");
    }
    assert_eq!(got.header("content-length"), Some(got.body.len().to_string().as_str()));
    let schema: serde_json::Value = serde_json::from_str(got.header("electric-schema").unwrap()).unwrap();
    assert!(schema["größe\n"]["not_null"].is_null() && schema["größe\n"]["type"] == "int4", "{schema}");

    // Nothing came, so the offset stays; but what a column may hold has changed.
    let (handle, offset) = (got.header("electric-handle").unwrap(), "0_inf");
    let next = with_query(&streamer.url("/v1/shape"), &[("table", "t"), ("offset", offset), ("handle", handle)]);
    let same = |etag: &str| send(client().get(next.clone()).header("if-none-match", etag));
    let before = send(client().get(next.clone())).await;
    let etag = before.header("etag").unwrap();
    assert_eq!(same(etag).await.status, 304);
    postgres.sql("alter table t alter \"größe\n\" set not null").await;
    eventually("the schema to be noticed", async || {
        let answer = same(etag).await;
        let changed = answer.status == 200
            && answer.header("electric-schema").unwrap().contains("not_null\":true,\"type\":\"int4\"}}");
        changed.then_some(())
    })
    .await;
}

#[tokio::test]
async fn tenants_are_not_told_which_tables_there_are() {
    let (postgres, streamer) = orders::start(&token::ARGUMENTS).await;
    postgres
        .sql(
            "create table unpublished (id int primary key); create table unreadable (id int primary key, open int, v text); \
             select headwater.publish('unreadable'); revoke all on unreadable from headwater_streamer; \
             grant select (id, open) on unreadable to headwater_streamer",
        )
        .await;
    active(&streamer.url("")).await;
    let url = streamer.url("/v1/shape");
    let own = token::of(Some("cafe"), "somebody");
    let ask = async |token: &str, query: &[(&str, &str)]| {
        send(client().get(with_query(&url, query)).bearer_auth(token)).await
    };
    for offset in ["-1", "now"] {
        for table in ["nothing", "unpublished", "pg_catalog.pg_authid", "unreadable"] {
            let answer = ask(&own, &[("table", table), ("offset", offset)]).await;
            assert!(answer.status == 400 && answer.body.contains("does not exist"), "{table}: {answer:?}");
        }
        // Who may do everything is told what to do; and nobody reads from the log what the role may not read.
        let answer = ask(token::ADMIN, &[("table", "unpublished"), ("offset", offset)]).await;
        assert!(answer.status == 400 && answer.body.contains("headwater.publish"), "{answer:?}");
        assert_eq!(ask(token::ADMIN, &[("table", "unreadable"), ("offset", offset)]).await.status, 503);
        let filtered = [("table", "unreadable"), ("offset", offset), ("columns", "id"), ("where", "v = 'x'")];
        assert_eq!(ask(token::ADMIN, &filtered).await.status, 503);
        let part = [("table", "unreadable"), ("offset", offset), ("columns", "id,open")];
        assert_eq!(ask(&own, &part).await.status, 200, "what it may read is read");
    }
}

#[tokio::test]
async fn a_snapshot_larger_than_memory_is_read_back_by_many_at_once() {
    // 100 MB of rows: beyond the memory for snapshots, in chunks of 10 MB.
    let (postgres, first) = start(&[]).await;
    drop(first);
    postgres
        .sql("create table t (id int primary key, v text); insert into t select n, repeat('x', 1000) from generate_series(1, 90000) n")
        .await;
    let streamer = start_on(&postgres, &["--replica=large", "--chunk-bytes=10000000"]).await;
    let url = streamer.url("/v1/shape");
    let whole = async || {
        let (mut offset, mut handle, mut rows) = ("-1".to_owned(), String::new(), 0);
        loop {
            let mut query = vec![("table", "t"), ("offset", offset.as_str())];
            if !handle.is_empty() {
                query.push(("handle", handle.as_str()));
            }
            let answer = get(&url, &query).await;
            assert_eq!(answer.status, 200, "{query:?}");
            rows += answer.body.matches("\"operation\":\"insert\"").count();
            let up_to_date = answer.header("electric-up-to-date").is_some();
            let next = answer.header("electric-offset").unwrap().to_owned();
            handle = answer.header("electric-handle").unwrap().to_owned();
            if up_to_date {
                return rows;
            }
            offset = next;
        }
    };
    let (a, b) = tokio::join!(whole(), whole());
    assert_eq!((a, b), (90_000, 90_000));
}
