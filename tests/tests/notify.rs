//! Promise: every notification backend keeps the same contract; Redis gets every event exactly once and in order from
//! any number of publishers, whatever happens to it; and what is not pushed says so. Oracle: the event table.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::StreamExt;
use headwater_streamer::notify::{
    Backend, Channel, Kind, Memory, Noop, NotifyError, Redis as RedisBackend, RedisSettings,
};
use headwater_tests::deadline::{PATIENCE, eventually};
use headwater_tests::event::{position, text};
use headwater_tests::follower::Follower;
use headwater_tests::http;
use headwater_tests::postgres::Postgres;
use headwater_tests::redis::{Redis, RelayEntry};
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;
use redis::AsyncCommands;
use serde_json::{Value, json};

use crate::load::{Load, assert_events_match_rows};
use crate::orders;

/// What those that push have to do besides.
async fn pushes(backend: &dyn Backend, order: &Channel, cafe: &Channel, menu: &Channel) {
    let kind = backend.kind();
    let mut first = backend.subscribe(order).await.unwrap();
    let mut second = backend.subscribe(order).await.unwrap();
    let mut elsewhere = backend.subscribe(cafe).await.unwrap();
    let mut slow = backend.subscribe(menu).await.unwrap();
    for n in 0..100 {
        let payload = json!({ "n": n, "text": "a\"b\n☃" }).to_string();
        backend.broadcast(order, &format!("order.{n}"), &payload).await.unwrap();
    }
    backend.broadcast(cafe, "order.last", "[1.50]").await.unwrap();
    for subscription in [&mut first, &mut second] {
        for n in 0..100 {
            let message = tokio::time::timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
            assert_eq!(message.event_type, format!("order.{n}"), "{kind}");
            let payload: Value = serde_json::from_str(&message.payload).unwrap();
            assert_eq!(payload, json!({ "n": n, "text": "a\"b\n☃" }), "{kind}");
        }
    }
    let only = tokio::time::timeout(PATIENCE, elsewhere.next()).await.unwrap().unwrap();
    assert_eq!((only.event_type.as_str(), only.payload.as_str()), ("order.last", "[1.50]"), "{kind}: as it stands");

    // One that leaves takes nothing from the others.
    backend.unsubscribe(second).await.unwrap();
    backend.broadcast(order, "order.more", "null").await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, first.next()).await.unwrap().unwrap().event_type, "order.more");

    // One that does not read loses the oldest, knows how many, and holds nobody up.
    for n in 0..3000 {
        backend.broadcast(menu, "menu.changed", &n.to_string()).await.unwrap();
    }
    let mut got = 0;
    loop {
        let message = tokio::time::timeout(PATIENCE, slow.next()).await.unwrap().unwrap();
        got += 1;
        if message.payload == "2999" {
            break;
        }
    }
    assert_eq!(got + slow.lost(), 3000, "{kind}");

    backend.close().await;
    assert!(tokio::time::timeout(PATIENCE, first.next()).await.unwrap().is_none(), "{kind}: ends");
    assert!(matches!(backend.subscribe(order).await, Err(NotifyError::Closed)), "{kind}");
}

/// What every backend has to do.
async fn conforms(backend: Arc<dyn Backend>) {
    let kind = backend.kind();
    backend.health_check().await.unwrap();
    assert_eq!(backend.supports_push(), kind != Kind::Noop);
    let (order, cafe, menu) =
        (Channel::new("order", None), Channel::new("order", Some("cafe")), Channel::new("menu", None));

    // Nobody listens: no failure.
    backend.broadcast(&order, "order.created", "{}").await.unwrap();
    if backend.supports_push() {
        pushes(&*backend, &order, &cafe, &menu).await;
    } else {
        assert!(matches!(backend.subscribe(&order).await, Err(NotifyError::NothingIsPushed)), "{kind}");
    }
    backend.close().await;
    assert!(backend.health_check().await.is_err(), "{kind}");
    assert!(matches!(backend.broadcast(&order, "order.created", "{}").await, Err(NotifyError::Closed)), "{kind}");
}

fn settings(redis: &Redis) -> RedisSettings {
    RedisSettings::new(&redis.url(), "sync".to_owned(), 1000).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_backend_keeps_the_same_contract() {
    conforms(Arc::new(Memory::default())).await;
    conforms(Arc::new(Noop::default())).await;
    let mut redis = Redis::start().await;
    conforms(Arc::new(RedisBackend::new(settings(&redis)))).await;

    // And with a server that comes and goes.
    let backend = RedisBackend::new(settings(&redis));
    backend.health_check().await.unwrap();
    redis.kill().await;
    assert!(backend.health_check().await.is_err());
    redis.resume().await;
    backend.health_check().await.unwrap();
}

/// Waits until the relay has this many events; all entries then.
async fn relay_with(redis: &Redis, events: usize) -> Vec<RelayEntry> {
    eventually("the relay to have every event", || async {
        let entries = redis.relay().await;
        (entries.iter().filter(|entry| entry.event.is_some()).count() >= events).then_some(entries)
    })
    .await
}

/// Exactly once, and each entity's in the order of their positions.
async fn assert_relay_matches_table(postgres: &Postgres, entries: &[RelayEntry]) {
    let rows = postgres.connect().await.query("select id::text from headwater.event", &[]).await.unwrap();
    let table: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let events: Vec<&Value> = entries.iter().filter_map(|entry| entry.event.as_ref()).collect();
    let relayed: HashSet<String> = events.iter().map(|event| text(event, "id").to_owned()).collect();
    assert_eq!(events.len(), relayed.len(), "something is there twice");
    assert!(relayed == table, "{} of {} events", relayed.intersection(&table).count(), table.len());
    let mut last: HashMap<(&str, &str), i64> = HashMap::new();
    for event in events {
        let before = last.insert((text(event, "entity_type"), text(event, "entity_id")), position(event)).unwrap_or(0);
        assert!(before < position(event), "{event} behind {before}");
    }
}

async fn published(streamer: &Streamer) -> Value {
    http::get(&streamer.url("/health"), &[]).await.json()["notification"]["redis"].clone()
}

/// Redis killed, and emptied; publishers killed. The ring is long enough for all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_publishers_leave_every_event_in_the_relay_once_whatever_is_killed() {
    let mut redis = Redis::start().await;
    let postgres = Postgres::start().await;
    let url = redis.url();
    let arguments = |replica| vec!["--notification-backend", "redis", "--redis-url", &url, "--replica", replica];
    let mut first = Streamer::start(&postgres, &arguments("one")).await;
    let second = Streamer::start(&postgres, &arguments("two")).await;
    eventually("the relay to begin", || async { (!redis.relay().await.is_empty()).then_some(()) }).await;
    let load = Load::start(&postgres).await;
    let more = async |redis: &Redis| {
        let wanted = load.acknowledged() + 200;
        relay_with(redis, wanted).await;
    };

    for _ in 0..3 {
        more(&redis).await;
        redis.kill().await;
        let before = load.acknowledged();
        eventually("the load to go on without Redis", || async { (load.acknowledged() > before + 200).then_some(()) })
            .await;
        redis.resume().await;
    }
    more(&redis).await;
    // A Redis that forgets everything while it stays up.
    redis.connect().await.flushall::<()>().await.unwrap();
    more(&redis).await;
    first.kill().await;
    more(&redis).await;
    first.resume().await;
    more(&redis).await;

    let acknowledged = load.stop().await;
    let events = assert_events_match_rows(&postgres, acknowledged).await;
    let entries = relay_with(&redis, events).await;
    assert_relay_matches_table(&postgres, &entries).await;
    let (one, two) = (published(&first).await, published(&second).await);
    println!("{events} events; {one} {two}");
    assert_eq!((&one["gaps"], &two["gaps"]), (&json!(0), &json!(0)), "the ring reached back to all that was lost");
    // Where the relay begins, which two that begin at once may both say; and nowhere else.
    let markers = entries.iter().take_while(|entry| entry.event.is_none()).count();
    assert!((1..=2).contains(&markers), "{:?}", &entries[..markers]);
    assert_eq!(entries.len(), markers + events, "no hole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_was_away_for_longer_than_the_ring_says_where_its_hole_is() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    let arguments = ["--notification-backend", "redis", "--redis-url", &url, "--ring-bytes", "16384"];
    let (postgres, streamer) = orders::start(&arguments).await;
    let cursor = streamer.cursor_now().await;
    let follower = Follower::start(&streamer.url("/api/v1/events/stream"), &cursor);
    let insert = async |from: i32, upto: i32| {
        for number in from..=upto {
            postgres.sql(&format!("insert into orders (table_number) values ({number})")).await;
        }
    };
    insert(1, 5).await;
    relay_with(&redis, 5).await;
    redis.kill().await;
    insert(6, 200).await;
    // Nobody is held up meanwhile.
    eventually("the client to have all", || async { (follower.seen().distinct() == 200).then_some(()) }).await;
    redis.resume().await;
    insert(201, 205).await;

    let number =
        |entry: &RelayEntry| entry.event.as_ref().map(|event| event["payload"]["table_number"].as_i64().unwrap());
    let entries = eventually("the relay to go on", || async {
        let entries = redis.relay().await;
        entries.iter().any(|entry| number(entry) == Some(205)).then_some(entries)
    })
    .await;
    let numbers: Vec<Option<i64>> = entries.iter().map(number).collect();
    let hole = numbers.iter().rposition(Option::is_none).unwrap();
    assert!(hole > 0, "{numbers:?}");
    let before: Vec<i64> = numbers[..hole].iter().filter_map(|number| *number).collect();
    let behind: Vec<i64> = numbers[hole + 1..].iter().map(|number| number.unwrap()).collect();
    assert!(before.len() <= 5 && before.iter().eq((1..).take(before.len()).collect::<Vec<_>>().iter()), "{numbers:?}");
    assert!(
        behind[0] > 6 && behind.iter().copied().eq(behind[0]..=205),
        "nothing missing behind the marker: {numbers:?}"
    );
    assert_eq!(published(&streamer).await["gaps"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_are_told_once_by_two_publishers_of_what_is_for_redis() {
    let redis = Redis::start().await;
    let url = redis.url();
    let arguments = |replica| vec!["--redis-url", &url, "--replica", replica];
    let (postgres, _first) = orders::start(&arguments("one")).await;
    let _second = Streamer::start(&postgres, &arguments("two")).await;
    postgres
        .sql(
            "select headwater.enable('orders', entity => 'order', notification => 'redis');
             create table noise (id int primary key); select headwater.enable('noise', entity => 'noise')",
        )
        .await;
    let mut listener = redis::Client::open(url.as_str()).unwrap().get_async_pubsub().await.unwrap();
    listener.psubscribe("sync:*").await.unwrap();
    let mut messages = listener.on_message();
    for number in 1..=50 {
        postgres.sql(&format!("insert into noise values ({number})")).await;
        let tenant = if number == 50 { "null" } else { "'cafe'" };
        postgres.sql(&format!("insert into orders (tenant_id, table_number) values ({tenant}, {number})")).await;
    }
    for number in 1..=50 {
        let message = tokio::time::timeout(PATIENCE, messages.next()).await.unwrap().unwrap();
        let channel = if number == 50 { "sync:order" } else { "sync:order:cafe" };
        assert_eq!(message.get_channel_name(), channel);
        let told: Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
        let payload = &told["payload"];
        assert_eq!((&told["type"], &payload["event_type"]), (&json!("order.created"), &json!("order.created")));
        assert_eq!(payload["payload"]["table_number"], number);
        let mut members: Vec<&str> = payload.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["entity_id", "event_type", "payload", "timestamp", "user_id"]);
    }
    let entries = relay_with(&redis, 50).await;
    assert_eq!(
        entries.iter().filter(|entry| entry.event.is_some()).count(),
        50,
        "and nothing of what is not for Redis"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_erased_leaves_the_relay() {
    let redis = Redis::start().await;
    let url = redis.url();
    let (postgres, streamer) = orders::start(&["--notification-backend", "redis", "--redis-url", &url]).await;
    postgres.sql("insert into orders (status) values ('a secret'), ('nothing special')").await;
    relay_with(&redis, 2).await;
    postgres.sql("select headwater.erase('order', (select id::text from orders where status = 'a secret'))").await;
    let erased = |entry: &RelayEntry| entry.event.as_ref().is_some_and(|event| event["event_type"] == "order.erased");
    let entries = eventually("the tombstone", || async {
        let entries = redis.relay().await;
        entries.iter().any(erased).then_some(entries)
    })
    .await;
    let all = format!("{entries:?}");
    assert!(!all.contains("a secret") && all.contains("nothing special"), "{all}");

    // Neither does it come back when a relay is filled anew from the ring.
    redis.connect().await.flushall::<()>().await.unwrap();
    postgres.sql("insert into orders (status) values ('later')").await;
    let entries = relay_with(&redis, 3).await;
    let all = format!("{entries:?}");
    assert!(!all.contains("a secret") && all.contains("later"), "{all}");
    assert!(published(&streamer).await["rewinds"].as_i64().unwrap() >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_pushed_says_so_and_can_be_polled() {
    let (postgres, streamer) = orders::start(&[]).await;
    postgres
        .sql("create table quiet (id int primary key); select headwater.enable('quiet', entity => 'quiet', notification => 'noop')")
        .await;
    let stream = streamer.url("/api/v1/events/stream");
    let refused = eventually("the registry to be known", || async {
        let answer = Connection::open(http::with_query(&stream, &[("entity_type", "quiet")]), None).await;
        answer.err().flatten()
    })
    .await;
    refused.assert_problem(409, "polling_only");

    let start = streamer.cursor_now().await;
    let mut live = Connection::open(http::with_query(&stream, &[]), None).await.unwrap();
    let notice = live.find("the notice", |block| block.event.as_deref() == Some("headwater.polling")).await;
    assert_eq!(notice.json(), json!({ "entity_types": ["quiet"] }));
    postgres.sql("insert into quiet values (1); insert into orders (table_number) values (2)").await;
    let mut late = Connection::open(http::with_query(&stream, &[]), Some(&start)).await.unwrap();
    for connection in [&mut live, &mut late] {
        let event = connection
            .find("the order", |block| block.event.as_deref().is_some_and(|it| !it.starts_with("headwater.")))
            .await;
        assert_eq!(event.event.as_deref(), Some("order.created"), "nothing of `quiet` before it");
    }
    let page = eventually("the poller's page", || async {
        let page = streamer.since(&[("cursor", &start), ("entity_type", "quiet")]).await;
        (!page["events"].as_array().unwrap().is_empty()).then_some(page)
    })
    .await;
    assert_eq!(page["events"][0]["entity_id"], "1");
}

#[tokio::test]
async fn with_noop_every_stream_is_refused_and_the_document_says_polling() {
    let (postgres, streamer) = orders::start(&["--notification-backend", "noop"]).await;
    let stream = streamer.url("/api/v1/events/stream");
    let answer = Connection::open(http::with_query(&stream, &[]), None).await.err().flatten().unwrap();
    answer.assert_problem(409, "polling_only");
    let transports = async || {
        let document = http::get(&streamer.url("/openapi.json"), &[]).await.json();
        let paths = document["paths"].as_object().unwrap().values();
        let syncs = paths.filter_map(|path| path.get("x-sync"));
        syncs.map(|sync| format!("{} {}", text(sync, "notification"), text(sync, "transport"))).collect::<HashSet<_>>()
    };
    assert_eq!(transports().await, HashSet::from(["noop polling".to_owned()]));
    postgres.sql("select headwater.enable('orders', entity => 'order', notification => 'memory')").await;
    assert_eq!(transports().await, HashSet::from(["memory sse".to_owned()]));
    eventually("streams of that entity", || async {
        Connection::open(http::with_query(&stream, &[("entity_type", "order")]), None).await.ok()
    })
    .await;
}

#[tokio::test]
async fn redis_is_asked_for_by_name_and_address() {
    let ending =
        Streamer::run_to_end("postgres://nobody@127.0.0.1:1/none", &["--insecure", "--notification-backend", "redis"])
            .await;
    assert_eq!(ending.status.code(), Some(1));
    assert!(ending.message.contains("--redis-url"), "{}", ending.message);
}
