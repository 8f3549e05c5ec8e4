//! Promise: behind a cache, many clients of a shape cost what one costs, and nobody is left with what is no more. With a
//! real nginx, configured as docs/scaling.md shows it. Oracle: the streamer's own count of requests.

use headwater_tests::deadline::eventually;
use headwater_tests::http::{self, with_query};
use headwater_tests::nginx::Nginx;
use headwater_tests::streamer::Streamer;

use crate::orders;

const CLIENTS: usize = 50;

/// An answer, with what a client of shapes goes by.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    handle: String,
    offset: String,
    etag: Option<String>,
    body: String,
}

async fn ask(nginx: &Nginx, query: &[(&str, &str)], etag: Option<&str>) -> Answer {
    let mut request = http::client().get(with_query(&nginx.url("/v1/shape"), query));
    if let Some(etag) = etag {
        request = request.header("if-none-match", etag);
    }
    let answer = request.send().await.unwrap();
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, etag) = (answer.status().as_u16(), header("etag"));
    let of = |name: &str| header(name).unwrap_or_default();
    let (handle, offset) = (of("electric-handle"), of("electric-offset"));
    Answer { status, handle, offset, etag, body: answer.text().await.unwrap() }
}

/// So many clients at once.
async fn ask_all(nginx: &Nginx, query: &[(&str, &str)]) -> Vec<Answer> {
    futures_util::future::join_all((0..CLIENTS).map(|_| ask(nginx, query, None))).await
}

/// How many requests for shapes the streamer has answered, with this status.
async fn reached(streamer: &Streamer, status: u16) -> usize {
    let text = http::get(&streamer.url("/metrics"), &[]).await.body;
    let series = format!(r#"headwater_http_requests_total{{method="GET",route="/v1/shape",status="{status}"}} "#);
    text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_behind_a_cache_cost_one_and_get_nothing_stale() {
    let (postgres, streamer) = orders::start(&["--cache-max-age", "1", "--cache-stale-age", "0"]).await;
    postgres.sql("insert into orders (table_number) select generate_series(1, 100)").await;
    let page = include_str!("../../docs/scaling.md");
    let configuration = page.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(configuration.contains("location /v1/shape"), "{configuration}");
    let nginx = Nginx::start(configuration, streamer.port()).await;

    // Those who ask for the same at the same time are asked for once.
    let start = [("table", "orders"), ("offset", "-1")];
    let first = ask_all(&nginx, &start).await;
    assert!(first.iter().all(|answer| answer.status == 200 && answer.body == first[0].body), "{:?}", first[0]);
    assert_eq!(first[0].body.matches(r#""operation":"insert""#).count(), 100);
    assert_eq!(1, reached(&streamer, 200).await);

    // Who has it already is told so, by the cache alone.
    let known = ask(&nginx, &start, first[0].etag.as_deref()).await;
    assert_eq!((known.status, known.body.as_str()), (304, ""), "{known:?}");
    assert_eq!(1, reached(&streamer, 200).await);

    // What has become too old is asked for by its ETag.
    let (handle, offset) = (first[0].handle.as_str(), first[0].offset.as_str());
    let next = [("table", "orders"), ("offset", offset), ("handle", handle)];
    let tip = ask(&nginx, &next, None).await;
    assert_eq!(tip.status, 200, "{tip:?}");
    eventually("the cache to ask again", || async {
        let answer = ask(&nginx, &next, None).await;
        assert_eq!(answer.body, tip.body, "{answer:?}");
        (reached(&streamer, 304).await > 0).then_some(())
    })
    .await;

    // Live clients wait as one.
    let before = reached(&streamer, 200).await;
    let live = [("table", "orders"), ("offset", tip.offset.as_str()), ("handle", handle), ("live", "true")];
    let (answers, ()) = tokio::join!(ask_all(&nginx, &live), async {
        postgres.sql("insert into orders (table_number) values (4711)").await;
    });
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body.contains("4711")), "{:?}", answers[0]);
    assert_eq!(before + 1, reached(&streamer, 200).await, "each of them waited at the streamer");

    // The handle is no more: whoever comes with it is told, and led to what there is now.
    postgres.sql("truncate orders; insert into orders (table_number) values (1)").await;
    let at = answers[0].offset.as_str();
    let old = [("table", "orders"), ("offset", at), ("handle", handle)];
    let refused = eventually("the old handle to be refused", || async {
        Some(ask(&nginx, &old, None).await).filter(|answer| answer.status == 409)
    })
    .await;
    assert_ne!(refused.handle, handle, "{refused:?}");
    let anew = [("table", "orders"), ("offset", "-1"), ("handle", refused.handle.as_str())];
    let fresh = ask(&nginx, &anew, None).await;
    assert_eq!((fresh.status, fresh.body.matches(r#""operation":"insert""#).count()), (200, 1), "{fresh:?}");
    assert_eq!(fresh.handle, refused.handle, "{fresh:?}");
}
