//! Promise: shapes speak ElectricSQL's protocol to the letter. Judged by the protocol's own description, request by
//! request.

use headwater_tests::http::{client, with_query};
use headwater_tests::postgres::Postgres;
use headwater_tests::shape::{Answer, ShapeClient, active, get, mark, select, send};
use headwater_tests::streamer::Streamer;
use serde_json::{Value, json};

/// A database whose tables the streamer may publish, and a streamer as clients' own tests want it.
pub(crate) async fn start(arguments: &[&str]) -> (Postgres, Streamer) {
    let postgres = Postgres::start().await;
    postgres.sql("grant postgres to headwater_streamer").await;
    let streamer = start_on(&postgres, arguments).await;
    (postgres, streamer)
}

/// A streamer on this database.
pub(crate) async fn start_on(postgres: &Postgres, arguments: &[&str]) -> Streamer {
    let usual = [
        "--auto-publish",
        "--allow-shape-deletion",
        "--chunk-bytes=10000",
        "--cache-max-age=1",
        "--cache-stale-age=3",
        "--long-poll-timeout=1000",
    ];
    let name = |argument: &&str| argument.split('=').next().map(str::to_owned);
    let given: Vec<_> = arguments.iter().map(name).collect();
    let usual = usual.iter().filter(|argument| !given.contains(&name(argument)));
    let arguments: Vec<&str> = usual.chain(arguments).copied().collect();
    let streamer = Streamer::start(postgres, &arguments).await;
    active(&streamer.url("")).await;
    streamer
}

struct Session {
    url: String,
}

impl Session {
    fn of(streamer: &Streamer) -> Self {
        Self { url: streamer.url("/v1/shape") }
    }

    async fn get(&self, query: &[(&str, &str)]) -> Answer {
        get(&self.url, query).await
    }

    async fn ok(&self, query: &[(&str, &str)]) -> (Answer, String, String) {
        let answer = self.get(query).await;
        assert_eq!(answer.status, 200, "{query:?}: {answer:?}");
        let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("no {name}: {answer:?}")).to_owned();
        let (handle, offset) = (header("electric-handle"), header("electric-offset"));
        (answer, handle, offset)
    }
}

const ITEMS: &str = "create table items (id int primary key, title text, price numeric(10,2), tags text[], at timestamptz(3), code varchar(8) not null default 'x')";

#[tokio::test]
async fn a_session_goes_as_the_protocol_says() {
    let (postgres, streamer) = start(&[]).await;
    let session = Session::of(&streamer);
    postgres
        .sql(&format!("{ITEMS}; insert into items values (1, 'a/\"b\".c', 1.5, '{{x,y}}', '2026-01-02 03:04:05+01')"))
        .await;

    let (first, handle, offset) = session.ok(&[("table", "items"), ("offset", "-1")]).await;
    assert_eq!(offset, "0_0");
    assert_eq!(first.header("electric-up-to-date"), None);
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(
        first.header("cache-control"),
        Some("public, max-age=604800, s-maxage=3600, stale-while-revalidate=2629746")
    );
    let schema: Value = serde_json::from_str(first.header("electric-schema").unwrap()).unwrap();
    let expected = json!({
        "id": {"type": "int4", "pk_index": 0, "not_null": true}, "title": {"type": "text"},
        "price": {"type": "numeric", "precision": 10, "scale": 2}, "tags": {"type": "text", "dims": 1},
        "at": {"type": "timestamptz", "precision": 3}, "code": {"type": "varchar", "max_length": 8, "not_null": true},
    });
    assert_eq!(schema, expected);
    let messages = first.json();
    let row = json!({
        "key": "\"public\".\"items\"/\"1\"",
        "value": {"id": "1", "title": "a/\"b\".c", "price": "1.50", "tags": "{x,y}", "at": "2026-01-02 02:04:05+00", "code": "x"},
        "headers": {"operation": "insert", "relation": ["public", "items"]},
    });
    assert_eq!(messages[0], row);
    assert_eq!(messages[1]["headers"]["control"], "snapshot-end");
    for name in ["xmin", "xmax"] {
        assert!(messages[1]["headers"][name].as_str().unwrap().parse::<u64>().is_ok(), "{messages}");
    }
    assert_eq!(messages.as_array().unwrap().len(), 2);

    let at = [("table", "items"), ("handle", &handle)];
    let (second, _, offset) = session.ok(&[at[0], at[1], ("offset", "0_0")]).await;
    assert_eq!((offset.as_str(), second.header("electric-up-to-date")), ("0_inf", Some("")));
    assert_eq!(second.json().as_array().unwrap().len(), 1);
    assert_eq!(second.header("cache-control"), Some("public, max-age=1, stale-while-revalidate=3"));
    let tag = second.header("etag").unwrap();
    assert!(tag.starts_with(&format!("W/\"{handle}:0_0:0_inf:")), "{tag}");
    let again = client().get(with_query(&session.url, &[at[0], at[1], ("offset", "0_0")])).header("if-none-match", tag);
    let again = send(again).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(again.header("electric-offset"), Some("0_inf"));

    // A live request waits, and is answered by the first transaction.
    let live = [at[0], at[1], ("offset", "0_inf"), ("live", "true")];
    let (waited, ()) = tokio::join!(session.ok(&live), async {
        let client = postgres.connect().await;
        client
            .batch_execute(
                "begin; insert into items (id) values (2); update items set title = 'b' where id = 1; \
                 update items set id = 3 where id = 2; delete from items where id = 3; commit",
            )
            .await
            .unwrap();
    });
    let (third, _, offset) = waited;
    assert_eq!(third.header("electric-schema"), None);
    assert!(third.header("electric-cursor").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(third.header("cache-control"), Some("public, max-age=5, stale-while-revalidate=5"));
    assert_eq!(third.header("electric-has-data"), Some("true"));
    let messages = third.json();
    let headers: Vec<&Value> = messages.as_array().unwrap().iter().map(|message| &message["headers"]).collect();
    let lsn = headers[0]["lsn"].as_str().unwrap();
    let op = |at: usize| (headers[at]["operation"].as_str().unwrap(), headers[at]["op_position"].as_u64().unwrap());
    let ops: Vec<_> = (0..5).map(op).collect();
    assert_eq!(ops, [("insert", 0), ("update", 2), ("delete", 4), ("insert", 5), ("delete", 6)]);
    assert_eq!(messages[1]["value"], json!({"id": "1", "title": "b"}), "the key and what changed");
    assert_eq!(messages[2]["value"], json!({"id": "2"}), "the key alone");
    assert_eq!(headers[2]["key_change_to"], "\"public\".\"items\"/\"3\"");
    assert_eq!(headers[3]["key_change_from"], "\"public\".\"items\"/\"2\"");
    assert_eq!(
        headers.iter().map(|headers| headers.get("last").is_some()).collect::<Vec<_>>(),
        [false, false, false, false, true, false]
    );
    assert!(headers[0]["txids"][0].is_u64());
    assert_eq!(*headers[5], json!({"control": "up-to-date", "global_last_seen_lsn": lsn}));
    assert_eq!(offset, format!("{lsn}_6"));

    // Nothing more happens: the answer comes when the time is over, and the offset stays.
    let (nothing, _, same) = session
        .ok(&[
            at[0],
            at[1],
            ("offset", &offset),
            ("live", "true"),
            ("cursor", third.header("electric-cursor").unwrap()),
        ])
        .await;
    assert_eq!(same, offset);
    assert_eq!(nothing.header("electric-has-data"), Some("false"));
    assert_eq!(nothing.json().as_array().unwrap().len(), 1);
    assert_ne!(nothing.header("electric-cursor"), third.header("electric-cursor"), "another URL for the next period");

    // Places that were never given out, but lie in the log.
    let before: u64 = lsn.parse::<u64>().unwrap() - 1;
    let (replayed, ..) = session.ok(&[at[0], at[1], ("offset", &format!("{before}_0"))]).await;
    assert_eq!(replayed.json().as_array().unwrap().len(), 6);
    let (middle, ..) = session.ok(&[at[0], at[1], ("offset", &format!("{lsn}_2"))]).await;
    assert_eq!(middle.json().as_array().unwrap().len(), 4);
    let (end, ..) = session.ok(&[at[0], at[1], ("offset", &format!("{lsn}_inf"))]).await;
    assert_eq!(end.json().as_array().unwrap().len(), 1);

    // The same shape has the same handle.
    let (_, same, _) = session.ok(&[("table", "public.ITEMS"), ("offset", "-1")]).await;
    assert_eq!(same, handle);

    // TRUNCATE ends it.
    let live = [at[0], at[1], ("offset", &offset), ("live", "true")];
    let (gone, ()) = tokio::join!(session.get(&live), async {
        postgres.sql("truncate items").await;
    });
    assert_eq!((gone.status, gone.body.as_str()), (409, r#"[{"headers":{"control":"must-refetch"}}]"#));
    let successor = gone.header("electric-handle").unwrap();
    assert_ne!(successor, handle);
    assert_eq!(gone.header("cache-control"), Some("public, max-age=60, must-revalidate"));
    let (fresh, now, _) = session.ok(&[("table", "items"), ("offset", "-1"), ("handle", successor)]).await;
    assert_eq!(now, successor);
    assert_eq!(fresh.json().as_array().unwrap().len(), 1, "{}", fresh.body);
}

#[tokio::test]
async fn updates_and_deletes_are_told_whole_if_asked_for() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql("create table t (id int primary key, a text, b text, big text); alter table t alter big set storage external").await;
    let big = "x".repeat(5000);
    postgres.sql(&format!("insert into t values (1, 'a', 'b', '{big}')")).await;
    let session = Session::of(&streamer);
    let query = [("table", "t"), ("replica", "full"), ("columns", "id,big,a")];
    let (_, handle, _) = session.ok(&[query[0], query[1], query[2], ("offset", "-1")]).await;
    postgres.sql("update t set b = 'not selected'").await;
    postgres.sql("update t set a = 'c'; delete from t").await;
    let client = postgres.connect().await;
    mark(&client).await;
    let at = [query[0], query[1], query[2], ("handle", &handle), ("offset", "0_inf"), ("live", "true")];
    let messages = session.ok(&at).await.0.json();
    assert_eq!(messages[0]["value"], json!({"id": "1", "a": "c", "big": big}), "what the update did not touch, too");
    assert_eq!(messages[0]["old_value"], json!({"a": "a"}));
    assert_eq!(messages[1]["value"], json!({"id": "1", "a": "c", "big": big}));
    assert_eq!(messages[2]["headers"]["control"], "up-to-date");
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql(&format!("{ITEMS}; create view v as select 1; create table g (id int primary key, a int, b int generated always as (a + 1) stored)")).await;
    let session = Session::of(&streamer);
    let check = async |query: &[(&str, &str)], errors: Value| {
        let answer = session.get(query).await;
        assert_eq!(answer.status, 400, "{query:?}: {answer:?}");
        assert_eq!(answer.json(), json!({"message": "Invalid request", "errors": errors}), "{query:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("surrogate-control"), Some("no-store"));
    };
    let items = ("table", "items");
    let start = ("offset", "-1");
    check(&[start], json!({"table": ["can't be blank"]})).await;
    check(&[items], json!({"offset": ["can't be blank"]})).await;
    check(&[items, ("offset", "x")], json!({"offset": ["has invalid format"]})).await;
    check(&[items, ("offset", "0_0")], json!({"handle": ["can't be blank when offset != -1"]})).await;
    let missing = |name: &str| {
        format!(
            "Table \"public\".\"{name}\" does not exist. If the table name contains capitals or special characters you must quote it."
        )
    };
    check(&[("table", "nope"), start], json!({"table": [missing("nope")]})).await;
    check(&[("table", "\"Items\""), start], json!({"table": [missing("Items")]})).await;
    check(
        &[items, start, ("columns", "title,code")],
        json!({"columns": ["The list of columns must include all primary key columns, missing: id"]}),
    )
    .await;
    check(
        &[items, start, ("columns", "id,x")],
        json!({"columns": ["The following columns are not found on the table: x"]}),
    )
    .await;
    check(
        &[("table", "g"), start],
        json!({"columns": ["The following columns are generated and cannot be included in the shape: b"]}),
    )
    .await;
    let generated = session.get(&[("table", "g"), start, ("columns", "a,id")]).await;
    assert_eq!(generated.status, 200, "{generated:?}");
    for table in ["v", "headwater.event", "pg_catalog.pg_class"] {
        assert_eq!(session.get(&[("table", table), start]).await.status, 400, "{table}");
    }
    // Beyond the end: waited for half the time of a live request, then refused.
    let (_, handle, _) = session.ok(&[items, start]).await;
    let beyond = [items, ("handle", handle.as_str()), ("offset", "99999999999999_0")];
    check(&beyond, json!({"offset": ["out of bounds for this shape"]})).await;
    // A handle of another shape, or of none.
    for wrong in ["nonsense", "00000000000000000000-1", "1-1"] {
        let answer = session.get(&[items, ("handle", wrong), ("offset", "0_0")]).await;
        assert_eq!((answer.status, answer.header("electric-handle")), (409, Some(handle.as_str())));
    }
    let other = session.get(&[items, ("columns", "id"), ("handle", &handle), ("offset", "0_0")]).await;
    assert_eq!(other.status, 409);
    assert_ne!(other.header("electric-handle"), Some(handle.as_str()));
}

#[tokio::test]
async fn every_path_and_method() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql(ITEMS).await;
    let shape = with_query(&streamer.url("/v1/shape"), &[("table", "items"), ("offset", "-1")]);
    for path in ["/v1/shape/", "/v1//shape", "/v1/%73hape", "//v1/shape"] {
        let answer = get(&streamer.url(path), &[("table", "items"), ("offset", "-1")]).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let plain = send(client().get(shape.clone()).header("origin", "https://app.example")).await;
    assert_eq!(plain.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(plain.header("access-control-allow-methods"), Some("GET, POST, HEAD, DELETE, OPTIONS"));
    assert!(plain.header("access-control-expose-headers").unwrap().contains("electric-offset"));
    assert!(plain.header("electric-server").is_some() && plain.header("x-request-id").is_some());
    let head = send(client().head(shape.clone())).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("electric-handle"), plain.header("electric-handle"));
    let preflight = client()
        .request(reqwest::Method::OPTIONS, streamer.url("/v1/shape"))
        .header("origin", "https://app.example")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "If-None-Match, x-other");
    let preflight = send(preflight).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-headers"), Some("if-none-match"));
    assert_eq!(preflight.header("access-control-max-age"), Some("86400"));
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(preflight.header("cache-control"), None);
    let root = get(&streamer.url("/"), &[]).await;
    assert_eq!((root.status, root.body.as_str()), (200, ""));
    let nothing = get(&streamer.url("/v1/other"), &[]).await;
    assert_eq!((nothing.status, nothing.body.as_str()), (404, "Not found"));
    let health = get(&streamer.url("/v1/health"), &[]).await;
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"active"}"#));
    assert_eq!(health.header("cache-control"), Some("no-cache, no-store, must-revalidate"));
    for (body, error) in [("{", "Invalid JSON in request body"), ("[]", "Request body must be a JSON object")] {
        let answer = send(client().post(shape.clone()).body(body)).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!(error)));
    }
    let posted = send(client().post(streamer.url("/v1/shape?offset=-1")).body(r#"{"table":"items"}"#)).await;
    assert_eq!((posted.status, posted.header("cache-control")), (200, Some("no-cache")));
}

#[tokio::test]
async fn a_shape_can_be_deleted() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql(ITEMS).await;
    let session = Session::of(&streamer);
    let delete = async |query: &[(&str, &str)]| send(client().delete(with_query(&session.url, query))).await;
    let items = ("table", "items");
    assert_eq!(delete(&[items]).await.status, 404);
    assert_eq!(delete(&[("handle", "1-1")]).await.json(), json!({"message": "No existing shape found"}));
    assert_eq!(delete(&[]).await.status, 400);
    let (_, first, _) = session.ok(&[items, ("offset", "-1")]).await;
    assert_eq!(delete(&[items, ("handle", "1-1")]).await.status, 400);
    let answer = delete(&[items]).await;
    assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    assert_eq!(session.get(&[items, ("offset", "0_inf"), ("handle", &first)]).await.status, 409);
    let (_, second, _) = session.ok(&[items, ("offset", "-1")]).await;
    assert_ne!(first, second);
    assert_eq!(delete(&[("handle", &second)]).await.status, 202);
    let (_, third, _) = session.ok(&[items, ("offset", "now")]).await;
    assert!(third != first && third != second);
    // Those who wait are told at once.
    let live = [items, ("offset", "0_inf"), ("handle", &third), ("live", "true")];
    let deletion = [items, ("handle", third.as_str())];
    let (gone, _) = tokio::join!(session.get(&live), delete(&deletion));
    assert_eq!(gone.status, 409);

    let strict = Streamer::start(&postgres, &["--replica", "strict"]).await;
    let answer = send(client().delete(with_query(&strict.url("/v1/shape"), &[items]))).await;
    assert_eq!((answer.status, answer.json()), (405, json!({"message": "DELETE not allowed"})));
}

#[tokio::test]
async fn a_client_may_want_no_rows() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql(&format!("{ITEMS}; insert into items (id) values (1)")).await;
    let session = Session::of(&streamer);
    let items = [("table", "items"), ("log", "changes_only")];
    let (empty, handle, _) = session.ok(&[items[0], items[1], ("offset", "-1")]).await;
    assert_eq!(empty.json()[0]["headers"]["control"], "snapshot-end");
    let (_, full, _) = session.ok(&[items[0], ("offset", "-1")]).await;
    assert_ne!(full, handle, "another shape");

    let (now, handle, offset) = session.ok(&[items[0], items[1], ("offset", "now")]).await;
    assert_eq!((now.header("electric-up-to-date"), now.header("electric-has-data")), (Some(""), Some("false")));
    assert!(now.header("electric-schema").is_some());
    assert_eq!(now.json().as_array().unwrap().len(), 1);
    postgres.sql("update items set title = 'x'").await;
    let (changed, ..) =
        session.ok(&[items[0], items[1], ("offset", &offset), ("handle", &handle), ("live", "true")]).await;
    assert_eq!(changed.json()[0]["value"], json!({"id": "1", "title": "x"}));
}

#[tokio::test]
async fn large_shapes_come_in_chunks_that_stay_what_they_are() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql("create table t (id int primary key, a text); insert into t select n, repeat('x', n % 400) from generate_series(1, 1000) n").await;
    let session = Session::of(&streamer);
    let mut client = ShapeClient::new(&streamer.url(""), &[("table", "t")]);
    let (first, handle, _) = session.ok(&[("table", "t"), ("offset", "-1")]).await;
    let mut sizes = vec![first.body.len()];
    let mut offset = "0_0".to_owned();
    loop {
        let at = [("table", "t"), ("handle", handle.as_str()), ("offset", offset.as_str())];
        let (answer, _, next) = session.ok(&at).await;
        if answer.header("electric-up-to-date").is_some() {
            break;
        }
        assert_eq!(session.ok(&at).await.0.body, answer.body, "the same URL, the same answer");
        sizes.push(answer.body.len());
        offset = next;
    }
    let near = |size: &&usize| (8_000..12_000).contains(*size);
    assert!(sizes.len() > 20 && sizes.iter().filter(near).count() >= sizes.len() - 1, "{sizes:?}");

    let postgres_client = postgres.connect().await;
    let expected = select(&postgres_client, "select * from t").await;
    client.catch_up(mark(&postgres_client).await).await;
    assert_eq!(client.table(), expected);
    // The log comes in chunks too, in the middle of a transaction if it is large.
    postgres.sql("update t set a = a || 'y'").await;
    client.catch_up(mark(&postgres_client).await).await;
    assert_eq!(client.table(), select(&postgres_client, "select * from t").await);
    assert_eq!((client.changes, client.refetches), (1000, 0));
}

#[tokio::test]
async fn new_shapes_take_nothing_from_under_a_large_download() {
    let (postgres, streamer) = start(&["--chunk-bytes=8388608"]).await;
    // More than the memory that chunks have.
    postgres
        .sql(
            "create table large (id int primary key, a text); create table small (id int primary key);
             insert into large select n, repeat('x', 80000) from generate_series(1, 1000) n",
        )
        .await;
    let session = Session::of(&streamer);
    let (_, handle, _) = session.ok(&[("table", "large"), ("offset", "-1")]).await;
    let (mut offset, mut chunks) = ("0_0".to_owned(), 1);
    loop {
        // Somebody asks for what nobody has asked for before.
        let filter = format!("id = {chunks}");
        session.ok(&[("table", "small"), ("where", &filter), ("offset", "-1")]).await;
        let at = [("table", "large"), ("handle", handle.as_str()), ("offset", offset.as_str())];
        let (answer, same, next) = session.ok(&at).await;
        assert_eq!(same, handle);
        if answer.header("electric-up-to-date").is_some() {
            break;
        }
        (offset, chunks) = (next, chunks + 1);
    }
    assert!(chunks > 8, "{chunks} chunks are not many");
}
