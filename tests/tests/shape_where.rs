//! Promise: a shape has the rows that its `where` takes, and a change wakes the clients of the shapes that it concerns,
//! found by an index; a subset is what the same query gives at one moment, joined exactly to the stream. Oracle: SELECT.

use headwater_tests::deadline::eventually;
use headwater_tests::http::{client, with_query};
use headwater_tests::shape::{ShapeClient, get, mark, select, send};
use serde_json::{Value, json};

use crate::shape::start;

const TENANTS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_shape_of_many_gets_its_changes_and_no_others() {
    let (postgres, streamer) = start(&["--long-poll-timeout=20000"]).await;
    postgres
        .sql("create table t (id int primary key, tenant text, kind int, v int, tags text[]); \
             insert into t select n, 't' || n % 50, n % 3, 0, array['t' || n % 50, 'all', 'a \"b\",{' || n % 3] from generate_series(1, 500) n")
        .await;
    let observer = postgres.connect().await;
    let base = streamer.url("");
    let mut clients = Vec::new();
    for n in 0..TENANTS {
        let filter = match n % 7 {
            0 => format!("tenant = 't{n}'"),
            1 => format!("tenant in ('t{n}', 't{}') and v >= 0", n + 1),
            2 => format!("'t{n}' = tenant and kind <> 1"),
            3 => format!("tags @> '{{t{n},all}}'"),
            4 => format!("'t{n}' = any (tags) and v >= 0"),
            5 => format!("tags @> array['t{n}', 'a \"b\",{{1']"),
            _ => format!("tenant = 't{n}' or v = -{n}"),
        };
        let mut client = ShapeClient::new(&base, &[("table", "t"), ("where", &filter)]);
        client.catch_up(0).await;
        clients.push((filter, client));
    }
    // Each waits for its own change; the changes of others do not wake it.
    for round in 1..=5 {
        let waiting: Vec<_> = clients
            .into_iter()
            .map(|(filter, mut client)| {
                tokio::spawn(async move {
                    assert_eq!(client.step(true).await, Some(true));
                    (filter, client)
                })
            })
            .collect();
        // A row that comes, one that moves from a tenant to another, one that only passes its filter by.
        postgres
            .sql(&format!(
                "update t set v = v + 1 where id % 7 = {round}; update t set tenant = 't' || (id % 37), tags = array['t' || (id % 37), 'all', null] where id % 11 = {round}; \
                 insert into t select 1000 * {round} + n, 't' || n, n % 3, {round}, array['t' || n, 'all', 'a \"b\",{{1'] from generate_series(0, 49) n; \
                 delete from t where id % 13 = {round}; update t set v = -id % 40 where id % 17 = {round}"
            ))
            .await;
        clients = Vec::new();
        for waiting in waiting {
            clients.push(waiting.await.unwrap());
        }
        let end = mark(&observer).await;
        for (filter, client) in &mut clients {
            client.catch_up(end).await;
            assert_eq!(client.table(), select(&observer, &format!("select * from t where {filter}")).await, "{filter}");
            assert_eq!(client.refetches, 0, "{filter}");
        }
    }
}

#[tokio::test]
async fn parameters_and_wrong_filters() {
    let (postgres, streamer) = start(&[]).await;
    postgres
        .sql("create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b''c'), (3, null)")
        .await;
    let shape = streamer.url("/v1/shape");
    let rows = async |query: &[(&str, &str)]| {
        let all: Vec<(&str, &str)> =
            [("table", "t"), ("offset", "-1")].into_iter().chain(query.iter().copied()).collect();
        let answer = get(&shape, &all).await;
        assert_eq!(answer.status, 200, "{query:?}: {answer:?}");
        answer
            .json()
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|row| row["value"]["id"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&[("where", "v = $1"), ("params[1]", "b'c")]).await, ["2"]);
    assert_eq!(rows(&[("where", "v IS NULL OR id = $1"), ("params[1]", "1")]).await, ["1", "3"]);
    assert!(rows(&[("where", "v = $1"), ("params[1]", "'; drop table t; --")]).await.is_empty());
    let wrong = async |filter: &str| {
        let answer = get(&shape, &[("table", "t"), ("offset", "-1"), ("where", filter)]).await;
        assert_eq!(answer.status, 400, "{filter}: {answer:?}");
        answer.json()["errors"]["where"][0].as_str().unwrap().to_owned()
    };
    assert_eq!(wrong("1 x 1").await, "At location 17: syntax error at or near \"x\"");
    assert!(wrong("nope = 1").await.contains("unknown reference nope"));
    wrong("id").await;
    wrong("v = $1").await;
    wrong("id = 1; drop table t").await;
    wrong("pg_sleep(1) is null").await;
    assert_eq!(rows(&[]).await.len(), 3);
}

#[tokio::test]
async fn a_subset_is_a_page_of_the_shape_at_one_moment() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql("create table t (id int primary key, n int, v text); insert into t select i, i % 10, 'v' || i from generate_series(1, 100) i").await;
    let url = streamer.url("/v1/shape");
    let shape = [("table", "t"), ("where", "n < 8"), ("log", "changes_only")];
    let ask = async |body: Value| {
        let query: Vec<(&str, &str)> = shape.iter().copied().chain([("offset", "now")]).collect();
        send(client().post(with_query(&url, &query)).body(body.to_string())).await
    };
    let page =
        ask(json!({"where": "id > $1", "params": {"1": 20}, "order_by": "n DESC, id", "limit": 3, "offset": 1})).await;
    assert_eq!(page.status, 200, "{page:?}");
    for (name, expected) in [("electric-snapshot", "true"), ("cache-control", "no-cache")] {
        assert_eq!(page.header(name), Some(expected), "{page:?}");
    }
    assert!(
        page.header("electric-handle").is_some()
            && page.header("electric-schema").is_some()
            && page.header("etag").is_none()
    );
    let body = page.json();
    let ids: Vec<&str> =
        body["data"].as_array().unwrap().iter().map(|row| row["value"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["37", "47", "57"]);
    let mark_of = body["metadata"]["snapshot_mark"].as_u64().unwrap();
    assert!(mark_of < 1 << 31);
    assert_eq!(
        body["data"][0]["headers"],
        json!({"operation": "insert", "snapshot_mark": mark_of, "relation": ["public", "t"]})
    );
    for name in ["xmin", "xmax", "database_lsn"] {
        assert!(body["metadata"][name].as_str().unwrap().parse::<u64>().is_ok(), "{body}");
    }
    assert!(body["metadata"]["xip_list"].is_array());
    // The stream goes on from before the page: nothing falls between.
    let offset = page.header("electric-offset").unwrap().to_owned();
    let before: u64 = offset.split('_').next().unwrap().parse().unwrap();
    assert!(before <= body["metadata"]["database_lsn"].as_str().unwrap().parse().unwrap());
    postgres.sql("update t set v = 'changed' where id = 37").await;
    let query: Vec<(&str, &str)> = shape
        .iter()
        .copied()
        .chain([("offset", offset.as_str()), ("handle", page.header("electric-handle").unwrap()), ("live", "true")])
        .collect();
    let change = get(&url, &query).await.json();
    assert_eq!(change[0]["value"], json!({"id": "37", "v": "changed"}));
    assert!(
        change[0]["headers"]["txids"][0].as_u64().unwrap()
            >= body["metadata"]["xmax"].as_str().unwrap().parse().unwrap()
    );

    let nested = ask(json!({"subset": {"where": "id = 1"}})).await;
    assert_eq!(nested.json()["data"].as_array().unwrap().len(), 1);
    let query: Vec<(&str, &str)> = shape
        .iter()
        .copied()
        .chain([("offset", "now"), ("subset__where", "id <= 2"), ("subset__order_by", "v desc nulls first")])
        .collect();
    assert_eq!(get(&url, &query).await.json()["data"][0]["value"]["id"], "2");
    let wrong = async |body: Value, field: &str| {
        let answer = ask(body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let errors = answer.json()["errors"]["subset"].clone();
        errors[field][0].as_str().unwrap_or_else(|| panic!("no {field}: {errors}")).to_owned()
    };
    assert_eq!(wrong(json!({"limit": 1}), "order_by").await, "order_by is required when limit or offset is present");
    assert_eq!(wrong(json!({"limit": 0, "order_by": "id"}), "limit").await, "must be greater than 0");
    assert_eq!(wrong(json!({"offset": -1, "order_by": "id"}), "offset").await, "must be greater than or equal to 0");
    for order in ["id + 1", "lower(v)", "(select 1)", "1", "id; drop table t", "v collate \"C\"", "$1", "id::text"] {
        wrong(json!({"order_by": order}), "order_by").await;
    }
    wrong(json!({"where": "nope = 1"}), "where").await;
    wrong(json!({"where": format!("v = '{}'", "x".repeat(70_000))}), "where").await;
}

/// Labels that an enum gets later, and letters of another collation, change what a condition says: its shape is another one.
#[tokio::test]
async fn a_condition_follows_its_types() {
    let (postgres, streamer) = start(&[]).await;
    postgres
        .sql(
            "create type mood as enum ('sad', 'ok'); \
             create collation plain (provider = libc, locale = 'C'); \
             create table t (id int primary key, m mood, v text); insert into t values (1, 'ok', 'É'), (2, 'sad', 'é')",
        )
        .await;
    let observer = postgres.connect().await;
    let filters = ["m <> 'sad'", "m > 'sad'", "v ilike 'é'"];
    let mut clients: Vec<ShapeClient> = (filters.iter())
        .map(|filter| ShapeClient::new(&streamer.url(""), &[("table", "t"), ("where", filter)]))
        .collect();
    let mut id = 10;
    for change in [
        "",
        "alter type mood add value 'new'",
        "alter type mood add value 'first' before 'sad'",
        "alter table t alter v type text collate plain",
    ] {
        postgres.sql(change).await;
        let labels: Vec<String> = (observer.query("select unnest(enum_range(null::mood))::text", &[]).await.unwrap())
            .iter()
            .map(|row| row.get(0))
            .collect();
        for label in labels {
            id += 2;
            postgres.sql(&format!("insert into t values ({id}, '{label}', 'É'), ({id} + 1, null, 'é')")).await;
        }
        let end = mark(&observer).await;
        for (client, filter) in clients.iter_mut().zip(filters) {
            // DDL that leaves no trace in the WAL is noticed a moment later.
            eventually(&format!("{filter} to be as Postgres has it after {change:?}"), || {
                let mut own = client.clone();
                let observer = &observer;
                async move {
                    own.catch_up(end).await;
                    let expected = select(observer, &format!("select * from t where {filter}")).await;
                    (own.table() == expected).then_some(own)
                }
            })
            .await
            .clone_into(client);
        }
    }
}
