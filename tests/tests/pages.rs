//! Promise: `--static-dir` serves the files of a folder under `/app/`, with nothing from elsewhere allowed, and nothing outside of it.

use headwater_tests::http;
use headwater_tests::place::Scratch;

use crate::orders;

#[tokio::test]
async fn a_folder_is_served_and_nothing_outside_of_it() {
    let scratch = Scratch::new("pages");
    let folder = scratch.path().join("pages");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(scratch.path().join("secret.txt"), "secret").unwrap();
    let (_postgres, streamer) = orders::start(&["--static-dir", folder.to_str().unwrap()]).await;
    http::get(&streamer.url("/app/"), &[]).await.assert_problem(404, "not_found");
    // Filled while it is served, as a build does.
    std::fs::write(folder.join("index.html"), "<h1>Orders</h1>").unwrap();
    for path in ["/app", "/app/", "/app/index.html"] {
        let page = http::get(&streamer.url(path), &[]).await;
        assert_eq!(
            (page.status, page.content_type.as_str(), page.body.as_str()),
            (200, "text/html", "<h1>Orders</h1>")
        );
    }
    let answer = http::client().get(streamer.url("/app/")).send().await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    for path in ["/app/..%2fsecret.txt", "/app/%2e%2e/secret.txt", "/app//etc/passwd", "/app/nothing.js"] {
        let answer = http::get(&streamer.url(path), &[]).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
}
