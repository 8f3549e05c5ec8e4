//! Promise: `/console` shows operators all there is, and nobody else anything; it changes nothing unless it was told to. Oracles: what
//! Postgres says in SQL, and the answers of those who must be turned away.

use headwater_tests::deadline::eventually;
use headwater_tests::event::{order_event, text};
use headwater_tests::http::{self, Answer};
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;
use headwater_tests::token;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::orders;

/// Whatever answers with data.
const READS: [&str; 7] = [
    "/console/api/overview",
    "/console/api/entities",
    "/console/api/entities/order/1/history",
    "/console/api/entities/order/1/state",
    "/console/api/events",
    "/console/api/problems",
    "/console/api/dead-letters",
];

/// As [`READS`], but they need parameters, or change something.
const OTHERS: [(&str, &str); 5] = [
    ("GET", "/console/api/tail"),
    ("GET", "/console/api/nowhere"),
    ("POST", "/console/api/sign-in"),
    ("POST", "/console/api/dead-letters/0190b5a0-0000-7000-8000-000000000001/retry"),
    ("POST", "/console/api/dead-letters/0190b5a0-0000-7000-8000-000000000001/discard"),
];

fn with_tokens<'a>(more: &[&'a str]) -> Vec<&'a str> {
    token::ARGUMENTS.iter().copied().chain(["--admin-claim", "headwater_admin"]).chain(more.iter().copied()).collect()
}

async fn ask(streamer: &Streamer, bearer: Option<&str>, method: &str, path: &str) -> Answer {
    let request = http::client().request(method.parse().unwrap(), streamer.url(path));
    http::send(bearer.iter().fold(request, reqwest::RequestBuilder::bearer_auth)).await
}

/// What the administrators' secret is answered, which must be 200.
async fn look(streamer: &Streamer, path: &str) -> Value {
    let answer = ask(streamer, Some(token::ADMIN), "GET", path).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/json"), "{path}: {answer:?}");
    answer.json()
}

#[tokio::test]
async fn nobody_but_an_operator_sees_anything() {
    let (_postgres, streamer) = orders::start(&with_tokens(&["--console-writes"])).await;
    let (cafe, mere_text) = (token::of(Some("cafe"), "ada"), token::sign(&json!({"headwater_admin": "true"})));
    let paths = READS.iter().map(|path| ("GET", *path)).chain(OTHERS);
    for (method, path) in paths.clone() {
        ask(&streamer, None, method, path).await.assert_problem(401, "unauthenticated");
        ask(&streamer, Some(&cafe), method, path).await.assert_problem(403, "forbidden");
        ask(&streamer, Some(&mere_text), method, path).await.assert_problem(403, "forbidden");
    }
    let expired = token::sign(&json!({"headwater_admin": true, "exp": token::in_seconds(-3600)}));
    ask(&streamer, Some(&expired), "GET", READS[0]).await.assert_problem(401, "token_expired");
    ask(&streamer, Some("wrong"), "GET", READS[0]).await.assert_problem(401, "invalid_token");

    let operator = token::sign(&json!({"sub": "eve", "tenant_id": "cafe", "headwater_admin": true}));
    for bearer in [token::ADMIN, &operator] {
        for path in READS {
            assert_eq!(ask(&streamer, Some(bearer), "GET", path).await.status, 200, "{path}");
        }
        let signed_in = ask(&streamer, Some(bearer), "POST", "/console/api/sign-in").await;
        assert_eq!((signed_in.status, signed_in.json()["writes"].clone()), (200, json!(true)));
    }
    // The claim opens the console, and nothing of the API that others' tokens do not open.
    http::get_as(&operator, &streamer.url("/metrics"), &[]).await.assert_problem(403, "forbidden");
}

#[tokio::test]
async fn without_a_secret_the_console_is_off_and_says_how_to_switch_it_on() {
    let (_postgres, streamer) = orders::start(&[]).await;
    let page = http::get(&streamer.url("/console"), &[]).await;
    assert_eq!((page.status, page.content_type.as_str()), (404, "text/html"), "{page:?}");
    assert!(page.body.contains("--admin-secret") && page.body.contains("HEADWATER_ADMIN_SECRET"), "{}", page.body);
    // Without authentication of the API, too: whoever guesses that nothing is asked for finds nothing.
    for bearer in [None, Some("anything")] {
        for path in READS {
            ask(&streamer, bearer, "GET", path).await.assert_problem(404, "not_found");
        }
    }
    http::get(&streamer.url("/console/main.js"), &[]).await.assert_problem(404, "not_found");

    let with_claim =
        Streamer::run_to_end("postgres://me@127.0.0.1/none", &["--insecure", "--admin-claim", "admin"]).await;
    assert!(with_claim.message.contains("--admin-claim") && !with_claim.status.success(), "{}", with_claim.message);
}

#[tokio::test]
async fn an_insecure_api_does_not_open_the_console() {
    let (_postgres, streamer) = orders::start(&["--admin-secret", token::ADMIN]).await;
    for path in READS {
        ask(&streamer, None, "GET", path).await.assert_problem(401, "unauthenticated");
        assert_eq!(ask(&streamer, Some(token::ADMIN), "GET", path).await.status, 200, "{path}");
    }
    ask(&streamer, Some("wrong"), "GET", READS[0]).await.assert_problem(401, "invalid_token");
}

#[tokio::test]
async fn guesses_at_the_secret_end_soon() {
    let (_postgres, streamer) = orders::start(&["--admin-secret", token::ADMIN]).await;
    let mut wrong = 0;
    let refused = loop {
        let answer = ask(&streamer, Some("a guess"), "POST", "/console/api/sign-in").await;
        if answer.status != 401 {
            break answer;
        }
        wrong += 1;
        assert!(wrong < 100, "one may guess for ever");
    };
    refused.assert_problem(429, "too_many_attempts");
    assert_eq!(wrong, 20);
    // Or the next guess, which may be the right one, would tell.
    let right =
        http::client().post(streamer.url("/console/api/sign-in")).bearer_auth(token::ADMIN).send().await.unwrap();
    assert_eq!(right.status(), 429);
    let wait: u64 = right.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    // Nobody else is kept from anything.
    streamer.since(&[]).await;
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let (_postgres, streamer) = orders::start(&["--admin-secret", token::ADMIN]).await;
    for (path, media_type) in [
        ("/console", "text/html"),
        ("/console/", "text/html"),
        ("/console/main.js", "text/javascript"),
        ("/console/console.css", "text/css"),
        ("/console/icon.svg", "image/svg+xml"),
    ] {
        let answer = http::client().get(streamer.url(path)).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(header("content-type").split(';').next(), Some(media_type), "{path}");
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self';",
            "style-src 'self';",
            "connect-src 'self';",
            "frame-ancestors 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{path}: {policy}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
    }
    for path in ["/console/nothing.js", "/console/..%2fmain.js", "/console/index.html"] {
        http::get(&streamer.url(path), &[]).await.assert_problem(404, "not_found");
    }
}

async fn with_two_tenants() -> (Postgres, Streamer) {
    let (postgres, streamer) = orders::start(&with_tokens(&[])).await;
    postgres
        .sql(
            "insert into orders (id, tenant_id, table_number) values
               ('00000000-0000-4000-8000-000000000001', 'cafe', 1), ('00000000-0000-4000-8000-000000000002', 'bar', 2);
             update orders set status = 'served' where table_number = 1;
             create table menu (dish text primary key, price numeric);
             select headwater.enable('menu', entity => 'menu', notification => 'noop');
             insert into menu values ('a/b', 1.50);",
        )
        .await;
    (postgres, streamer)
}

#[tokio::test]
async fn an_operator_sees_what_is_enabled_and_how_it_goes() {
    let (postgres, streamer) = with_two_tenants().await;
    let found = look(&streamer, "/console/api/entities").await;
    assert_eq!((&found["events_exact"], &found["notification"]), (&json!(true), &json!("memory")), "{found}");
    let entities = found["entities"].as_array().unwrap();
    let names: Vec<&str> = entities.iter().map(|entity| text(entity, "entity_type")).collect();
    assert_eq!(names, ["menu", "order"]);
    assert_eq!(entities[0]["notification"], "noop", "{found}");
    let order = &entities[1];
    assert_eq!(
        (text(order, "table"), order["tenant_column"].as_str()),
        ("public.orders", Some("tenant_id")),
        "{order}"
    );
    assert_eq!(order["rules"]["item_added"]["rule"], "append", "{order}");
    assert_eq!((&order["events"], &order["backfilled"]), (&json!(3), &json!(true)), "{order}");
    assert!(order["last_event_at"].is_string(), "{order}");

    let backlog = "create table old (id int primary key); insert into old select generate_series(1, 100); \
        select headwater.enable('old', entity => 'old', backfill => false)";
    postgres.sql(backlog).await;
    let found = look(&streamer, "/console/api/entities").await;
    let old = found["entities"].as_array().unwrap().iter().find(|entity| entity["entity_type"] == "old");
    assert_eq!(old.unwrap()["backfilled"], false, "{found}");

    let overview = eventually("a first sample with its events", || async {
        let overview = look(&streamer, "/console/api/overview").await;
        let last = overview["samples"].as_array().unwrap().last().cloned().unwrap_or_default();
        (last["events"].as_u64() >= Some(4)).then_some(overview)
    })
    .await;
    assert_eq!((&overview["status"], &overview["slot"]), (&json!("active"), &json!("headwater_default")), "{overview}");
    let slot = &overview["slots"][0];
    assert_eq!((text(slot, "name"), text(slot, "wal_status")), ("headwater_default", "reserved"), "{overview}");
    assert_eq!((&slot["active"], &slot["headwater"]), (&json!(true), &json!(true)), "{overview}");
    assert!(slot["retained_bytes"].as_i64() >= Some(0), "{overview}");
    let last = overview["samples"].as_array().unwrap().last().unwrap();
    assert!(last["lag_bytes"].is_u64() && last["streaming"] == true, "{last}");
    let number = last["number"].as_u64().unwrap();
    let newer = look(&streamer, &format!("/console/api/overview?after={number}")).await;
    assert!(newer["samples"].as_array().unwrap().iter().all(|sample| sample["number"].as_u64() > Some(number)));
    assert_eq!(overview["clients"], json!({"poll": 0, "shape": 0, "sse": 0, "websocket": 0}));

    let stream =
        http::client().get(streamer.url("/api/v1/events/stream")).bearer_auth(token::ADMIN).send().await.unwrap();
    eventually("the stream to be counted", || async {
        (look(&streamer, "/console/api/overview").await["clients"]["sse"] == 1).then_some(())
    })
    .await;
    drop(stream);

    let shape = |more: String| {
        let url = streamer.url(&format!("/v1/shape?table=orders&{more}"));
        http::client().get(url).bearer_auth(token::ADMIN).send()
    };
    let now = shape("offset=now".to_owned()).await.unwrap();
    let header = |name: &str| now.headers()[name].to_str().unwrap().to_owned();
    let (handle, offset) = (header("electric-handle"), header("electric-offset"));
    let waiting = tokio::spawn(shape(format!("live=true&handle={handle}&offset={offset}")));
    eventually("the shape's client to be counted", || async {
        (look(&streamer, "/console/api/overview").await["clients"]["shape"] == 1).then_some(())
    })
    .await;
    waiting.abort();
}

#[tokio::test]
async fn an_operator_sees_what_happened_and_what_was_then() {
    let (postgres, streamer) = with_two_tenants().await;
    let all = look(&streamer, "/console/api/events").await;
    let types = |found: &Value| -> Vec<String> {
        found["events"].as_array().unwrap().iter().map(|event| text(event, "event_type").to_owned()).collect()
    };
    assert_eq!(types(&all), ["menu.created", "order.updated", "order.created", "order.created"]);
    for (query, count) in [
        ("entity_type=order", 3),
        ("entity_type=order&entity_id=00000000-0000-4000-8000-000000000001", 2),
        ("source=capture", 4),
        ("source=client", 0),
        ("tenant_id=cafe", 2),
        ("tenant_id=cafe&entity_type=menu", 0),
        ("entity_type=&limit=2", 2),
        ("entity_type=o' or true --", 0),
    ] {
        let path = format!("/console/api/events?{}", query.replace(' ', "%20").replace('\'', "%27"));
        assert_eq!(types(&look(&streamer, &path).await).len(), count, "{query}");
    }
    // As everybody gets it, to the letter.
    let wire = http::get_as(token::ADMIN, &streamer.url("/api/v1/events/since"), &[]).await.json();
    let mut newest_first = wire["events"].as_array().unwrap().clone();
    newest_first.reverse();
    assert_eq!(all["events"], json!(newest_first));

    let entity = "/console/api/entities/order/00000000-0000-4000-8000-000000000001";
    let timeline = look(&streamer, &format!("{entity}/history")).await;
    assert_eq!(types(&timeline), ["order.created", "order.updated"]);
    let (first, last) = (&timeline["events"][0], &timeline["events"][1]);
    let behind = format!("{entity}/history?since={}&after={}", text(first, "timestamp"), text(first, "id"));
    assert_eq!(look(&streamer, &behind).await["events"], json!([last]));
    let then = look(&streamer, &format!("{entity}/state?as_of={}", text(first, "timestamp"))).await;
    assert_eq!(then["state"]["status"], "open", "{then}");
    assert_eq!(look(&streamer, &format!("{entity}/state")).await["state"]["status"], "served");
    let before = look(&streamer, &format!("{entity}/state?as_of=2001-01-01T00:00:00Z")).await;
    assert_eq!(before["state"], json!(null));
    let dish = look(&streamer, "/console/api/entities/menu/a%2Fb/state").await;
    assert_eq!(dish["state"]["price"], "1.50", "{dish}");
    for (path, status, code) in [
        ("/console/api/entities/nothing/1/state", 404, "unknown_entity"),
        ("/console/api/entities/order/1/state?as_of=soon", 400, "invalid_parameter"),
        ("/console/api/entities/order/1/history?since=2001-01-01T00:00:00Z", 400, "invalid_parameter"),
        ("/console/api/events?entity_type=%00", 400, "invalid_parameter"),
        ("/console/api/events?limit=many", 400, "invalid_parameter"),
        ("/console/api/tail", 400, "invalid_cursor"),
    ] {
        ask(&streamer, Some(token::ADMIN), "GET", path).await.assert_problem(status, code);
    }

    // The tail goes on where the list was made, entities whose clients poll included, and waits for what is not there yet.
    // What was committed just before the list may come once more, as the page expects.
    let client = postgres.connect().await;
    let listed = all["events"].as_array().unwrap();
    let follow = async {
        let mut cursor = text(&all, "cursor").to_owned();
        for _ in 0..3 {
            let tail = look(&streamer, &format!("/console/api/tail?cursor={cursor}&entity_type=menu")).await;
            cursor = text(&tail, "cursor").to_owned();
            let mut news = tail["events"].as_array().unwrap().clone();
            news.retain(|event| !listed.contains(event));
            if !news.is_empty() {
                return news;
            }
        }
        panic!("the tail does not tell of it");
    };
    let (news, ()) = tokio::join!(follow, async {
        client
            .batch_execute("insert into orders (tenant_id) values ('bar'); insert into menu values ('soup', 2)")
            .await
            .unwrap();
    });
    let dishes: Vec<&str> = news.iter().map(|event| text(event, "entity_id")).collect();
    assert_eq!(dishes, ["soup"], "{news:?}");
}

#[tokio::test]
async fn problems_come_with_what_mends_them() {
    let (postgres, streamer) = with_two_tenants().await;
    assert_eq!(look(&streamer, "/console/api/problems").await["problems"], json!([]));
    postgres.sql("alter table orders disable trigger headwater_update").await;
    let found = look(&streamer, "/console/api/problems").await;
    let problem = &found["problems"][0];
    assert!(text(problem, "problem").contains("not captured"), "{found}");
    postgres.sql(text(problem, "statement")).await;
    assert_eq!(look(&streamer, "/console/api/problems").await["problems"], json!([]));
}

/// An event that the table refuses; its id.
async fn refused(postgres: &Postgres, streamer: &Streamer) -> String {
    postgres.sql("alter table orders add constraint tables check (table_number < 100)").await;
    let event = order_event("order.created", Uuid::now_v7(), &json!({"table_number": 1000}));
    let body = json!({ "events": [event] }).to_string();
    let answer =
        http::post_as(&token::of(Some("cafe"), "ada"), &streamer.url("/api/v1/events/batch"), body).await.json();
    assert_eq!(answer["rejected"][0]["code"], "constraint_violation", "{answer}");
    text(&event, "id").to_owned()
}

#[tokio::test]
async fn dead_letters_are_only_read_by_default_and_only_if_the_role_may() {
    let (postgres, streamer) = orders::start(&with_tokens(&[])).await;
    let id = refused(&postgres, &streamer).await;
    let found = look(&streamer, "/console/api/dead-letters").await;
    assert_eq!(
        found,
        json!({"letters": null, "statement": "grant headwater_admin to headwater_streamer;", "writes": false})
    );
    postgres.sql(text(&found, "statement")).await;
    let found = look(&streamer, "/console/api/dead-letters").await;
    let letter = &found["letters"][0];
    assert_eq!((text(letter, "id"), text(letter, "code")), (id.as_str(), "constraint_violation"), "{found}");
    assert_eq!((&letter["user_id"], &letter["event"]["payload"]["table_number"]), (&json!("ada"), &json!(1000)));
    assert!(letter.get("claims").is_none() && found["count"] == 1, "{found}");
    for decision in ["retry", "discard"] {
        let path = format!("/console/api/dead-letters/{id}/{decision}?tenant_id=cafe");
        ask(&streamer, Some(token::ADMIN), "POST", &path).await.assert_problem(403, "read_only");
        ask(&streamer, Some(token::ADMIN), "GET", &path).await.assert_problem(405, "method_not_allowed");
    }
    assert_eq!(postgres.count("select count(*) from headwater.rejected_event").await, 1);
}

#[tokio::test]
async fn with_console_writes_dead_letters_are_replayed_and_discarded() {
    let (postgres, streamer) = orders::start(&with_tokens(&["--console-writes"])).await;
    let id = refused(&postgres, &streamer).await;
    let decide = async |decision: &str, query: &str| {
        let path = format!("/console/api/dead-letters/{id}/{decision}{query}");
        ask(&streamer, Some(token::ADMIN), "POST", &path).await
    };
    let answer = decide("retry", "?tenant_id=cafe").await;
    answer.assert_problem(403, "not_granted");
    assert!(answer.body.contains("grant headwater_admin to headwater_streamer;"), "{}", answer.body);
    postgres.sql("grant headwater_admin to headwater_streamer").await;

    // Refused again, it is there again.
    let answer = decide("retry", "?tenant_id=cafe").await.json();
    assert_eq!(answer["outcome"]["rejected"][0]["code"], "constraint_violation", "{answer}");
    decide("retry", "?tenant_id=bar").await.assert_problem(404, "not_found");
    assert_eq!(postgres.count("select count(*) from headwater.rejected_event").await, 1);

    postgres.sql("alter table orders drop constraint tables").await;
    let answer = decide("retry", "?tenant_id=cafe").await.json();
    assert_eq!(answer["outcome"]["accepted"], json!([id]), "{answer}");
    let row = "select count(*) from orders where table_number = 1000 and tenant_id = 'cafe'";
    assert_eq!(postgres.count(row).await, 1, "its sender's event was applied");
    decide("discard", "?tenant_id=cafe").await.assert_problem(404, "not_found");

    postgres.sql("delete from orders").await;
    let other = refused(&postgres, &streamer).await;
    let path = format!("/console/api/dead-letters/{other}/discard?tenant_id=cafe");
    assert_eq!(ask(&streamer, Some(token::ADMIN), "POST", &path).await.status, 200);
    assert_eq!(look(&streamer, "/console/api/dead-letters").await["letters"], json!([]));
    let path = "/console/api/dead-letters/1';drop/retry".replace('\'', "%27");
    ask(&streamer, Some(token::ADMIN), "POST", &path).await.assert_problem(400, "invalid_parameter");
}

#[tokio::test]
async fn a_question_that_waits_is_ended_and_says_so() {
    let (postgres, streamer) = with_two_tenants().await;
    let client = postgres.connect().await;
    // Somebody's long DDL: what waits for it must not hold up the console's other questions.
    client.batch_execute("begin; lock table headwater.event in access exclusive mode").await.unwrap();
    let answer = ask(&streamer, Some(token::ADMIN), "GET", "/console/api/events").await;
    answer.assert_problem(503, "unavailable");
    client.batch_execute("rollback").await.unwrap();
    look(&streamer, "/console/api/events").await;
}
