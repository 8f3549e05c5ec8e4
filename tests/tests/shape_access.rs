//! Promise: who may read a shape is asked on every spelling of its path; a token gets its tenant's rows and no others, from
//! snapshots, changes, subsets, through subqueries and with others' handles; excluded columns do not exist.

use headwater_tests::http::{client, with_query};
use headwater_tests::shape::{ShapeClient, active, get, mark, select, send};
use headwater_tests::streamer::Streamer;
use headwater_tests::token;
use serde_json::{Value, json};

use crate::orders;
use crate::shape::start;

#[tokio::test]
async fn the_shared_secret_is_asked_for_on_every_spelling() {
    let (postgres, streamer) = start(&["--shape-secret=hush"]).await;
    postgres.sql("create table t (id int primary key)").await;
    let shape = [("table", "t"), ("offset", "-1")];
    for path in ["/v1/shape", "/v1/shape/", "/v1//shape", "/v1/%73hape", "/%761/shape"] {
        let url = streamer.url(path);
        for wrong in [vec![], vec![("secret", "hus")], vec![("secret", "")], vec![("api_secret", "hush2")]] {
            let query: Vec<(&str, &str)> = shape.iter().copied().chain(wrong).collect();
            let answer = get(&url, &query).await;
            assert_eq!(
                (answer.status, answer.json()),
                (401, json!({"message": "Unauthorized - Invalid API secret"})),
                "{path} {query:?}"
            );
        }
        for name in ["secret", "api_secret"] {
            let answer = get(&url, &[shape[0], shape[1], (name, "hush")]).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        }
    }
    let url = with_query(&streamer.url("/v1/shape"), &shape);
    for request in [client().head(url.clone()), client().post(url.clone()), client().delete(url.clone())] {
        assert_eq!(send(request).await.status, 401);
    }
    assert_eq!(send(client().get(url.clone()).bearer_auth("hush")).await.status, 401, "the secret is no token");
    assert_eq!(send(client().request(reqwest::Method::OPTIONS, url)).await.status, 204);
    for open in ["/", "/v1/health"] {
        assert_eq!(get(&streamer.url(open), &[]).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn a_token_gets_its_tenants_rows_and_no_others() {
    let (postgres, streamer) = orders::start(&token::ARGUMENTS).await;
    postgres
        .sql(
            "create table notes (id int primary key, tenant_id text, note text, hidden text); \
             select headwater.enable('notes', entity => 'note', tenant_column => 'tenant_id', exclude => array['hidden']); \
             insert into notes select n, case n % 3 when 0 then 'cafe' when 1 then 'bar' end, 'n' || n, 'secret' from generate_series(1, 30) n",
        )
        .await;
    active(&streamer.url("")).await;
    let observer = postgres.connect().await;
    let shape = [("table", "notes")];
    let tenants = [Some("cafe"), Some("bar"), None];
    let token = |tenant: Option<&str>| token::of(tenant, "somebody");
    let mut clients: Vec<ShapeClient> =
        tenants.iter().map(|tenant| ShapeClient::new(&streamer.url(""), &shape).with_token(&token(*tenant))).collect();
    for round in 0..3 {
        let end = mark(&observer).await;
        for (client, tenant) in clients.iter_mut().zip(tenants) {
            client.catch_up(end).await;
            let own = tenant.map_or("tenant_id is null".to_owned(), |tenant| format!("tenant_id = '{tenant}'"));
            assert_eq!(
                client.table(),
                select(&observer, &format!("select id, tenant_id, note from notes where {own}")).await
            );
        }
        postgres
            .sql(&format!(
                "update notes set note = 'r{round}'; update notes set tenant_id = 'bar' where id = {0}; \
                 update notes set tenant_id = null where id = {0} + 1; delete from notes where id = {0} + 2",
                3 * round + 3
            ))
            .await;
    }
    // Another's handle is worth nothing, and his rows are in no subset either.
    let own = token(Some("cafe"));
    let url = streamer.url("/v1/shape");
    let ask = async |query: &[(&str, &str)]| send(client().get(with_query(&url, query)).bearer_auth(&own)).await;
    let others = clients[1].handle.clone().unwrap();
    let answer = ask(&[shape[0], ("offset", &clients[1].offset), ("handle", &others)]).await;
    assert_eq!(answer.status, 409);
    let all = ask(&[shape[0], ("offset", "now"), ("subset__where", "true or tenant_id = 'bar'")]).await;
    assert_eq!(all.status, 200, "{all:?}");
    for row in all.json()["data"].as_array().unwrap() {
        assert_eq!(row["value"]["tenant_id"], "cafe");
    }
    let first = ask(&[shape[0], ("offset", "-1")]).await;
    assert!(first.header("cache-control").unwrap().starts_with("private, "), "{first:?}");
    assert_eq!(first.header("vary"), Some("authorization"));
    let schema: Value = serde_json::from_str(first.header("electric-schema").unwrap()).unwrap();
    assert!(schema.get("hidden").is_none() && !first.body.contains("secret"));
    for query in [("columns", "id,hidden"), ("where", "hidden = 'secret'")] {
        assert_eq!(ask(&[shape[0], ("offset", "-1"), query]).await.status, 400, "{query:?}");
    }
    assert_eq!(get(&url, &[shape[0], ("offset", "-1")]).await.status, 401);
    let proxy = Streamer::start(&postgres, &["--replica", "proxy"]).await;
    assert_eq!(get(&proxy.url("/v1/shape"), &[shape[0], ("offset", "-1")]).await.status, 200, "--insecure is open");
}

#[tokio::test]
async fn a_subquery_reads_the_tenants_rows_and_no_others() {
    let (postgres, streamer) = orders::start(&token::ARGUMENTS).await;
    postgres
        .sql(
            "create table teams (id int primary key, tenant_id text, kind text, hidden text); \
             select headwater.enable('teams', entity => 'team', tenant_column => 'tenant_id', exclude => array['hidden']); \
             create table tasks (id int primary key, team_id int, title text); \
             select headwater.publish('tasks'); grant select on tasks to headwater_streamer; \
             create table unpublished (id int primary key); \
             insert into teams select n, case n % 3 when 0 then 'cafe' when 1 then 'bar' end, 'k', 'secret' from generate_series(1, 12) n; \
             insert into tasks select n, n % 12 + 1, 't' || n from generate_series(1, 48) n",
        )
        .await;
    active(&streamer.url("")).await;
    let observer = postgres.connect().await;
    let tenants = [Some("cafe"), Some("bar"), None];
    let shapes = ["team_id in (select id from teams)", "team_id not in (select id from teams where kind = 'k')"];
    let of = |tenant: Option<&str>, condition: &str| {
        let own = tenant.map_or("tenant_id is null".to_owned(), |tenant| format!("tenant_id = '{tenant}'"));
        let condition = match condition.strip_suffix(')').unwrap().split_once(" where ") {
            Some((before, after)) => format!("{before} where {own} and {after})"),
            None => format!("{} where {own})", condition.strip_suffix(')').unwrap()),
        };
        format!("select id, team_id, title from tasks where {condition}")
    };
    let mut clients = Vec::new();
    for tenant in tenants {
        for condition in shapes {
            let client = ShapeClient::new(&streamer.url(""), &[("table", "tasks"), ("where", condition)]);
            clients.push((tenant, condition, client.with_token(&token::of(tenant, "somebody"))));
        }
    }
    for round in 0..4 {
        let end = mark(&observer).await;
        for (tenant, condition, client) in &mut clients {
            client.catch_up(end).await;
            assert_eq!(client.table(), select(&observer, &of(*tenant, condition)).await, "{tenant:?} {condition}");
        }
        postgres
            .sql(&format!(
                "update teams set tenant_id = 'bar' where id = {0}; update teams set kind = 'l' where id = {0} + 1; \
                 update tasks set team_id = {0} where id = {0}; delete from teams where id = {0} + 2",
                3 * round + 1
            ))
            .await;
    }
    let own = token::of(Some("cafe"), "somebody");
    for (wrong, why) in [
        ("team_id in (select id from teams where hidden = 'secret')", "unknown reference hidden"),
        ("team_id in (select id from unpublished)", "does not exist"),
        ("team_id in (select id from nowhere)", "does not exist"),
        ("team_id in (select oid from pg_catalog.pg_class)", "pg_class"),
    ] {
        let query = [("table", "tasks"), ("offset", "-1"), ("where", wrong)];
        let answer = send(client().get(with_query(&streamer.url("/v1/shape"), &query)).bearer_auth(&own)).await;
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
        assert!(answer.json()["errors"]["where"][0].as_str().unwrap().contains(why), "{answer:?}");
    }
}

/// A condition is asked of no foreign row: its errors would tell what those have.
#[tokio::test]
async fn conditions_and_partitions_tell_nothing_of_other_tenants() {
    let (postgres, streamer) = orders::start(&token::ARGUMENTS).await;
    postgres
        .sql(
            "create table vaults (id int primary key, tenant_id char(5), pin text); \
             select headwater.enable('vaults', tenant_column => 'tenant_id'); \
             insert into vaults values (1, 'one', 'SECRET OF ONE'), (2, 'two', '7'); \
             create table docs (id int, tenant_id text, secret text, primary key (id)) partition by range (id); \
             create table docs_1 partition of docs for values from (0) to (1000); \
             select headwater.enable('docs', tenant_column => 'tenant_id', exclude => array['secret'])",
        )
        .await;
    active(&streamer.url("")).await;
    let token = |tenant| token::of(Some(tenant), "somebody");
    let url = streamer.url("/v1/shape");
    let ask = async |tenant, query: &[(&str, &str)]| {
        let query = [&[("table", "vaults")], query].concat();
        send(client().get(with_query(&url, &query)).bearer_auth(token(tenant))).await
    };
    for condition in ["pin::int4 = 7", "pin like 'SECRET\\' or id = 2"] {
        for query in
            [&[("offset", "-1"), ("where", condition)][..], &[("offset", "now"), ("subset__where", condition)][..]]
        {
            if condition.starts_with("pin like") {
                let answers = (ask("two", query).await, ask("three", query).await);
                assert_eq!(
                    (answers.0.status == 200, answers.0.body.contains("SECRET")),
                    (answers.1.status == 200, false)
                );
                continue;
            }
            let answer = ask("two", query).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.body.contains("\"7\"") && !answer.body.contains("SECRET"), "{answer:?}");
            let answer = ask("one", query).await;
            assert_eq!(answer.status, 400);
            assert!(!answer.body.contains("SECRET"), "{answer:?}");
        }
    }
    // `char(n)`: changes follow where the first rows were.
    let mut two = ShapeClient::new(&streamer.url(""), &[("table", "vaults")]).with_token(&token("two"));
    let observer = postgres.connect().await;
    two.catch_up(mark(&observer).await).await;
    postgres.sql("insert into vaults values (3, 'two', '8'), (4, 'one', '9')").await;
    two.catch_up(mark(&observer).await).await;
    assert_eq!(two.rows.len(), 2);
    for offset in ["-1", "now"] {
        let part =
            send(client().get(with_query(&url, &[("table", "docs_1"), ("offset", offset)])).bearer_auth(token("two")))
                .await;
        assert_eq!(part.status, 400, "{part:?}");
    }
}

#[tokio::test]
async fn what_a_header_opens_is_kept_by_no_shared_cache_and_open_to_no_foreign_page() {
    let (postgres, streamer) = start(&token::ARGUMENTS).await;
    postgres.sql("create table t (id int primary key)").await;
    let url = with_query(&streamer.url("/v1/shape"), &[("table", "t"), ("offset", "-1")]);
    let all = send(client().get(url.clone()).bearer_auth(token::ADMIN)).await;
    assert_eq!((all.status, all.header("vary")), (200, Some("authorization")));
    assert!(all.header("cache-control").unwrap().starts_with("private, max-age"), "{all:?}");
    drop(streamer);

    let streamer = Streamer::start(&postgres, &["--replica", "open"]).await;
    active(&streamer.url("")).await;
    let url = with_query(&streamer.url("/v1/shape"), &[("table", "t"), ("offset", "-1")]);
    let page = |origin: &str, site: &str| {
        let request = client().get(url.clone()).header("origin", origin).header("sec-fetch-site", site);
        async { send(request).await.status }
    };
    assert_eq!(page("https://evil.example", "cross-site").await, 403);
    assert_eq!(page("http://localhost:5173", "cross-site").await, 200, "another port of this machine");
    assert_eq!(page("http://127.0.0.1:4000", "same-origin").await, 200);
}

#[tokio::test]
async fn parameters_that_would_be_kept_for_ever_are_bounded() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql("create table t (id int primary key)").await;
    let url = with_query(&streamer.url("/v1/shape"), &[("table", "t"), ("offset", "now"), ("where", "id::text = $1")]);
    let post = |bytes: usize| {
        let body = json!({"params[1]": "x".repeat(bytes)}).to_string();
        let request = client().post(url.clone()).header("content-type", "application/json").body(body);
        async { send(request).await.status }
    };
    assert_eq!(post(60_000).await, 200);
    assert_eq!(post(70_000).await, 400);
    assert_eq!(post(300_000).await, 413);
}

/// Whoever disables a table does not open it: it is served as before where it is published anew, or not at all.
#[tokio::test]
async fn a_disabled_table_keeps_its_tenants_and_excluded_columns() {
    let arguments = [&token::ARGUMENTS[..], &["--auto-publish"]].concat();
    let (postgres, streamer) = orders::start(&arguments).await;
    postgres
        .sql(
            "grant postgres to headwater_streamer; \
             create table notes (id int primary key, tenant_id text, note text, hidden text); \
             select headwater.enable('notes', entity => 'note', tenant_column => 'tenant_id', exclude => array['hidden']); \
             insert into notes values (1, 'cafe', 'n', 'secret'), (2, 'bar', 'n', 'secret'); \
             select headwater.disable('notes')",
        )
        .await;
    active(&streamer.url("")).await;
    let own = token::of(Some("cafe"), "somebody");
    let ask = async |query: &[(&str, &str)]| {
        send(client().get(with_query(&streamer.url("/v1/shape"), query)).bearer_auth(&own)).await
    };
    let first = ask(&[("table", "notes"), ("offset", "-1")]).await;
    assert_eq!(first.status, 200, "it is published anew: {first:?}");
    let all = ask(&[("table", "notes"), ("offset", "now"), ("subset__where", "true")]).await;
    for answer in [&first, &all] {
        assert!(answer.body.contains("cafe") && !answer.body.contains("bar"), "{answer:?}");
        assert!(!answer.body.contains("secret") && !answer.header("electric-schema").unwrap().contains("hidden"));
    }
    let (handle, offset) = (first.header("electric-handle").unwrap(), first.header("electric-offset").unwrap());
    postgres.sql("insert into notes values (3, 'bar', 'n', 'secret'), (4, 'cafe', 'n', 'secret')").await;
    let live = ask(&[("table", "notes"), ("handle", handle), ("offset", offset), ("live", "true")]).await;
    assert!(live.body.contains("\"4\"") && !live.body.contains("\"3\"") && !live.body.contains("secret"), "{live:?}");
}

#[tokio::test]
async fn a_handle_of_another_tenant_deletes_nothing() {
    let arguments = [&token::ARGUMENTS[..], &["--allow-shape-deletion"]].concat();
    let (postgres, streamer) = orders::start(&arguments).await;
    active(&streamer.url("")).await;
    let url = streamer.url("/v1/shape");
    let (own, other) = (token::of(Some("cafe"), "somebody"), token::of(Some("bar"), "somebody"));
    let query = [("table", "orders"), ("offset", "now")];
    let answer = send(client().get(with_query(&url, &query)).bearer_auth(&own)).await;
    let (handle, offset) = (answer.header("electric-handle").unwrap(), answer.header("electric-offset").unwrap());
    let delete = async |token: &str| {
        send(client().delete(with_query(&url, &[("handle", handle)])).bearer_auth(token)).await.status
    };
    let goes_on = async || {
        let query = [("table", "orders"), ("offset", offset), ("handle", handle)];
        send(client().get(with_query(&url, &query)).bearer_auth(&own)).await.status
    };
    assert_eq!((delete(&other).await, goes_on().await), (404, 200), "it is none of the other's");
    assert_eq!((delete(&own).await, goes_on().await), (202, 409));
    drop(postgres);
}
