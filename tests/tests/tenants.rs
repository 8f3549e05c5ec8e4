//! Promise: nobody sees or changes another tenant's rows, over no endpoint, with no cursor; and everybody gets all that is
//! his. The oracle reads the event table as superuser and knows who may see what.

use std::collections::BTreeSet;

use headwater_tests::deadline::{eventually, while_it_moves};
use headwater_tests::event::{order_event, text};
use headwater_tests::follower::Follower;
use headwater_tests::http::{self, with_query};
use headwater_tests::postgres::Postgres;
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;
use headwater_tests::token;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::orders;

const TENANTS: [Option<&str>; 5] = [Some("cafe"), Some("bar"), Some("caf"), Some(""), None];

/// Orders are tenants'; the menu is everybody's.
async fn start(more: &[&str]) -> (Postgres, Streamer) {
    let arguments: Vec<&str> = token::ARGUMENTS.iter().chain(more).copied().collect();
    let (postgres, streamer) = orders::start(&arguments).await;
    postgres
        .sql("create table menu (id int primary key, dish text); select headwater.enable('menu', entity => 'menu')")
        .await;
    (postgres, streamer)
}

fn literal(tenant: Option<&str>) -> String {
    tenant.map_or_else(|| "null".to_owned(), |tenant| format!("'{tenant}'"))
}

/// What the tenant must see, by the table.
async fn visible(postgres: &Postgres, tenant: Option<&str>) -> BTreeSet<String> {
    let query = "select id::text from headwater.event \
                 where tenant_id is not distinct from $1 or (tenant_id is null and entity_type = 'menu')";
    let rows = postgres.connect().await.query(query, &[&tenant]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn assert_may_see(tenant: Option<&str>, event: &Value) {
    let shared = event["entity_type"] == "menu" && event["tenant_id"].is_null();
    assert!(shared || event["tenant_id"] == json!(tenant), "{tenant:?} sees {event}");
    if !shared {
        let of_payload = &event["payload"]["tenant_id"];
        assert!(of_payload.is_null() || *of_payload == json!(tenant), "{tenant:?} sees {event}");
    }
}

/// Everything that pages give.
async fn pages(streamer: &Streamer, token: &str, query: &[(&str, &str)]) -> (Vec<Value>, String) {
    let (mut events, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut query = query.to_vec();
        if !cursor.is_empty() {
            query.push(("cursor", cursor.as_str()));
        }
        let answer = http::get_as(token, &streamer.url("/api/v1/events/since"), &query).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let page = answer.json();
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        let next = text(&page, "cursor").to_owned();
        if page["has_more"] == false {
            return (events, next);
        }
        cursor = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_sees_anothers_events() {
    // A ring of a few events: everybody goes through table, join and ring.
    let (postgres, streamer) = start(&["--ring-bytes", "32768"]).await;
    let (_, start) = pages(&streamer, token::ADMIN, &[]).await;
    let url = streamer.url("/api/v1/events/stream");
    let tokens: Vec<String> = TENANTS.iter().map(|tenant| token::of(*tenant, "ann")).collect();
    let followers: Vec<Follower> = tokens.iter().map(|token| Follower::start_as(Some(token), &url, &start)).collect();

    for round in 0..30 {
        for (tenant, token) in TENANTS.iter().zip(&tokens) {
            let owner = literal(*tenant);
            postgres
                .sql(&format!(
                    "insert into orders (tenant_id, table_number) select {owner}, {round} from generate_series(1, 3);
                     update orders set status = 'served' where tenant_id is not distinct from {owner} and table_number = {round};
                     delete from orders where ctid = (select ctid from orders where tenant_id is not distinct from {owner} limit 1);"
                ))
                .await;
            let mut event = order_event("order.created", Uuid::now_v7(), &json!({"table_number": round}));
            event.as_object_mut().unwrap().remove("tenant_id");
            let body = json!({"events": [event]}).to_string();
            let answer = http::post_as(token, &streamer.url("/api/v1/events/batch"), body).await;
            assert_eq!(answer.json()["accepted"], json!([event["id"]]), "{}", answer.body);
        }
        postgres.sql(&format!("insert into menu values ({round}, 'soup')")).await;
        // A row that moves to another tenant is deleted here and created there.
        postgres.sql("update orders set tenant_id = 'bar' where ctid = (select ctid from orders where tenant_id = 'cafe' limit 1)").await;
    }

    for ((tenant, token), follower) in TENANTS.iter().zip(&tokens).zip(&followers) {
        let wanted = visible(&postgres, *tenant).await;
        while_it_moves("a tenant's events", || follower.seen().arrived, || follower.seen().distinct() >= wanted.len())
            .await;
        {
            let seen = follower.seen();
            for event in seen.events() {
                assert_may_see(*tenant, event);
            }
            let ids: BTreeSet<String> = seen.events().iter().map(|event| text(event, "id").to_owned()).collect();
            assert_eq!(ids, wanted, "{tenant:?}");
            seen.assert_order_per_entity();
        }
        let paged = eventually("the watermark to pass the last event", || async {
            let (events, _) = pages(&streamer, token, &[("limit", "50")]).await;
            (events.len() == wanted.len()).then_some(events)
        })
        .await;
        for event in &paged {
            assert_may_see(*tenant, event);
        }
    }

    // Cursors are no keys: one that another tenant got, or that was made up, opens nothing.
    let theirs = followers[1].seen().cursor.clone();
    let epoch = theirs.split('-').next().unwrap().to_owned();
    let cafe = &tokens[0];
    for cursor in [theirs.clone(), format!("{epoch}-0"), format!("{epoch}-0-0_0"), format!("{epoch}-7-8_0")] {
        let query = [("cursor", cursor.as_str())];
        let answer = http::get_as(cafe, &streamer.url("/api/v1/events/since"), &query).await;
        for event in answer.json()["events"].as_array().unwrap() {
            assert_may_see(TENANTS[0], event);
        }
        let connection = Connection::open_as(Some(cafe), with_query(&url, &query), None).await;
        let mut connection = connection.unwrap_or_else(|answer| panic!("{answer:?}"));
        insert_and_see_only(&postgres, &mut connection).await;
    }

    for (tenant, token) in TENANTS.iter().zip(&tokens) {
        states_are_the_tenants(&postgres, &streamer, *tenant, token).await;
    }

    // Asking for another's entity gives nothing, and naming another tenant is refused.
    let foreign =
        postgres.connect().await.query_one("select id::text from orders where tenant_id = 'bar' limit 1", &[]).await;
    let foreign: String = foreign.unwrap().get(0);
    let (events, _) = pages(&streamer, &tokens[2], &[("entity_id", &foreign)]).await;
    assert_eq!(events, Vec::<Value>::new());
    for path in ["/api/v1/events/since", "/api/v1/events/stream"] {
        for tenant in ["bar", "", "cafe "] {
            http::get_as(cafe, &streamer.url(path), &[("tenant_id", tenant)]).await.assert_problem(403, "forbidden");
        }
    }

    // A trusted backend sees everything, or one tenant.
    let (all, _) = pages(&streamer, token::ADMIN, &[("limit", "1000")]).await;
    assert_eq!(all.len(), postgres.count("select count(*) from headwater.event").await);
    let (bar, _) = pages(&streamer, token::ADMIN, &[("tenant_id", "bar")]).await;
    for event in &bar {
        assert_may_see(Some("bar"), event);
    }
    assert_eq!(bar.len(), visible(&postgres, Some("bar")).await.len());
}

/// Snapshot, entities and histories show the tenant's rows, all of them, and nobody else's.
async fn states_are_the_tenants(postgres: &Postgres, streamer: &Streamer, tenant: Option<&str>, token: &str) {
    let client = postgres.connect().await;
    let answer = http::get_as(token, &streamer.url("/api/v1/entities/order/snapshot"), &[]).await;
    let mut lines: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.pop();
    for line in &lines {
        assert_eq!((&line["tenant_id"], &line["state"]["tenant_id"]), (&json!(tenant), &json!(tenant)), "{line}");
    }
    let ids: BTreeSet<String> = lines.iter().map(|line| text(line, "entity_id").to_owned()).collect();
    let rows =
        client.query("select id::text from orders where tenant_id is not distinct from $1", &[&tenant]).await.unwrap();
    assert_eq!(ids, rows.iter().map(|row| row.get(0)).collect());
    let menu = http::get_as(token, &streamer.url("/api/v1/entities/menu/snapshot"), &[]).await;
    assert_eq!(menu.body.lines().count(), 31, "the menu is everybody's: {}", menu.body);

    let now = headwater_tests::event::now();
    for row in client.query("select min(id::text), tenant_id from orders group by 2", &[]).await.unwrap() {
        let (id, owner): (String, Option<String>) = (row.get(0), row.get(1));
        let own = owner.as_deref() == tenant;
        let url = streamer.url(&format!("/api/v1/entities/order/{id}"));
        for query in [&[][..], &[("as_of", now.as_str())]] {
            let answer = http::get_as(token, &url, query).await;
            assert_eq!(answer.status, if own { 200 } else { 404 }, "{tenant:?} asks for {owner:?}'s: {answer:?}");
        }
        let history = http::get_as(token, &format!("{url}/history"), &[]).await.json();
        for event in history["events"].as_array().unwrap() {
            assert_may_see(tenant, event);
        }
        // One that moved has a past with its former tenant, which he may see.
        assert!(!own || history["events"] != json!([]), "{history}");
    }
    http::get_as(token, &streamer.url("/api/v1/entities/order/snapshot"), &[("tenant_id", "baz")])
        .await
        .assert_problem(403, "forbidden");
}

/// The stream of the tenant `cafe` passes over what is others' until its own comes.
async fn insert_and_see_only(postgres: &Postgres, connection: &mut Connection) {
    postgres.sql("insert into orders (tenant_id, table_number) values ('bar', -1), (null, -1), ('cafe', -2)").await;
    loop {
        let event = connection.next_event().await.json();
        assert_may_see(TENANTS[0], &event);
        if event["payload"]["table_number"] == -2 {
            return;
        }
    }
}

#[tokio::test]
async fn nobody_writes_as_somebody_else() {
    let (postgres, streamer) = start(&[]).await;
    let url = streamer.url("/api/v1/events/batch");
    let cafe = token::of(Some("cafe"), "ann");
    let order = Uuid::now_v7();
    let event = |tenant: Option<&str>, user: Option<&str>| {
        let mut event = order_event("order.created", Uuid::now_v7(), &json!({"table_number": 1}));
        event["tenant_id"] = json!(tenant);
        event["user_id"] = json!(user);
        event
    };
    for (tenant, user, code) in [
        (Some("bar"), None, Some("forbidden")),
        (Some("cafe"), Some("bob"), Some("forbidden")),
        (Some("cafe"), Some("ann"), None),
        (None, None, None),
    ] {
        let answer = http::post_as(&cafe, &url, json!({"events": [event(tenant, user)]}).to_string()).await.json();
        assert_eq!(answer["rejected"][0]["code"].as_str(), code, "{tenant:?} {user:?}: {answer}");
    }
    assert_eq!(2, postgres.count("select count(*) from orders where tenant_id = 'cafe'").await);
    assert_eq!(
        2,
        postgres.count("select count(*) from headwater.event where user_id = 'ann' and source = 'client'").await
    );

    // A token that says itself that it is trusted is not.
    let forged = token::sign(&json!({"sub": "ann", "tenant_id": "cafe", "trusted": true}));
    let answer = http::post_as(&forged, &url, json!({"events": [event(Some("bar"), None)]}).to_string()).await.json();
    assert_eq!(answer["rejected"][0]["code"], "forbidden", "{answer}");

    // Another's row is as if it were missing: nothing changes.
    let mut created = event(Some("bar"), Some("zoe"));
    created["entity_id"] = json!(order);
    let answer = http::post_as(token::ADMIN, &url, json!({"events": [created]}).to_string()).await.json();
    assert_eq!(answer["accepted"], json!([created["id"]]), "a trusted backend acts for anybody: {answer}");
    let mut deleted = event(None, None);
    deleted["entity_id"] = json!(order);
    deleted["event_type"] = json!("order.deleted");
    deleted["payload"] = json!({});
    http::post_as(&cafe, &url, json!({"events": [deleted]}).to_string()).await;
    assert_eq!(1, postgres.count("select count(*) from orders where tenant_id = 'bar'").await);

    // The role is the token's, and must be one that the streamer may act as.
    let superuser = token::sign(&json!({"sub": "ann", "tenant_id": "cafe", "role": "postgres"}));
    let body = json!({"events": [event(None, None)]}).to_string();
    http::post_as(&superuser, &url, body).await.assert_problem(403, "forbidden");
}

#[tokio::test]
async fn without_a_good_token_nothing_is_served() {
    let (_postgres, streamer) = start(&[]).await;
    let bad = [
        ("no token", None, "unauthenticated"),
        ("nonsense", Some("nonsense".to_owned()), "invalid_token"),
        ("expired", Some(token::sign(&json!({"exp": token::in_seconds(-60)}))), "token_expired"),
        ("another audience", Some(token::sign(&json!({"aud": "others"}))), "invalid_token"),
        ("a tenant that is no text", Some(token::sign(&json!({"tenant_id": 7}))), "invalid_token"),
    ];
    for (name, token, code) in bad {
        for path in [
            "/api/v1/events/since",
            "/api/v1/events/stream",
            "/api/v1/entities/order/snapshot",
            "/api/v1/entities/order/1",
        ] {
            let request = http::client().get(streamer.url(path));
            let request = token.iter().fold(request, reqwest::RequestBuilder::bearer_auth);
            println!("{name} {path}");
            http::send(request).await.assert_problem(401, code);
        }
        let request = http::client().post(streamer.url("/api/v1/events/batch")).body(r#"{"events":[]}"#);
        let request = token.iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        http::send(request).await.assert_problem(401, code);
    }
    assert_eq!(http::get(&streamer.url("/health"), &[]).await.status, 200, "health is for everybody");
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let (postgres, streamer) = start(&[]).await;
    // The leeway is 30 seconds.
    let short = token::sign(&json!({"tenant_id": "cafe", "exp": token::in_seconds(-28)}));
    let url = with_query(&streamer.url("/api/v1/events/stream"), &[]);
    let connection = Connection::open_as(Some(&short), url.clone(), None).await;
    let mut connection = connection.unwrap_or_else(|answer| panic!("{answer:?}"));
    let last = connection.find("the end", |block| block.event.is_some()).await;
    assert_eq!(last.event.as_deref(), Some("headwater.expired"));
    assert_eq!(last.json()["code"], "token_expired");
    assert_eq!(connection.next().await, None, "then it closes");
    // Tokens count whole seconds.
    let refused = eventually("the token to be refused", || async {
        let answer = http::get_as(&short, &streamer.url("/api/v1/events/since"), &[]).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    refused.assert_problem(401, "token_expired");

    postgres.sql("insert into orders (tenant_id, table_number) values ('cafe', 5)").await;
    let fresh = token::of(Some("cafe"), "ann");
    let connection = Connection::open_as(Some(&fresh), url, last.id.as_deref()).await;
    let mut connection = connection.unwrap_or_else(|answer| panic!("{answer:?}"));
    assert_eq!(connection.next_event().await.json()["payload"]["table_number"], 5);
}

/// Whether an event is shared is decided by the registry as it was when the event was written, or later.
#[tokio::test]
async fn what_becomes_shared_or_tenants_is_judged_at_once() {
    let (postgres, streamer) = start(&[]).await;
    let (cafe, nobody) = (token::of(Some("cafe"), "ann"), token::of(None, "bob"));
    let url = with_query(&streamer.url("/api/v1/events/stream"), &[]);
    let mut connections = Vec::new();
    for token in [&cafe, &nobody] {
        let connection = Connection::open_as(Some(token), url.clone(), None).await;
        connections.push(connection.unwrap_or_else(|answer| panic!("{answer:?}")));
    }
    for round in 0..10 {
        let table = format!("later_{round}");
        // Enabled and written in one transaction; then it becomes the tenants', and rows without tenant are theirs who have none.
        postgres
            .sql(&format!(
                "begin; create table {table} (id int primary key, owner text); select headwater.enable('{table}', entity => '{table}');
                 insert into {table} values (1, null); commit;
                 begin; select headwater.enable('{table}', entity => '{table}', tenant_column => 'owner');
                 insert into {table} values (2, null); commit;
                 insert into {table} values (3, 'cafe');
                 insert into menu values ({round}, 'the end of the round')"
            ))
            .await;
        for (connection, expected) in connections.iter_mut().zip([["1", "3"], ["1", "2"]]) {
            let mut seen = Vec::new();
            loop {
                let event = connection.next_event().await.json();
                if event["entity_type"] == "menu" {
                    break;
                }
                seen.push(text(&event, "entity_id").to_owned());
            }
            // The first event was everybody's, unless the second transaction came along with it.
            let late: Vec<&str> = expected.iter().copied().filter(|id| *id != "1").collect();
            assert!(seen == expected || (seen == late), "round {round}: {seen:?}");
            assert!(expected[1] != "3" || !seen.contains(&"2".to_owned()));
        }
    }
}
