//! Against DNS rebinding: a page whose name suddenly resolves to 127.0.0.1 is of the same origin for the browser, so
//! neither CORS nor a preflight stops it. The `Host` header still has the page's name.

use super::problem::Problem;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;

pub(super) async fn require_local(request: Request, next: Next) -> Result<Response, Problem> {
    // HTTP/2 has the name in the URI, and so may a request of HTTP/1.1 to a proxy.
    if is_local(request.headers()) && request.uri().authority().is_none_or(is_local_name) {
        return Ok(next.run(request).await);
    }
    let detail = "without authentication this service answers only to an address, as 127.0.0.1, or to localhost";
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden_host", detail))
}

/// Browsers always send the header; HTTP/1.0 tools need not.
fn is_local(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::HOST)
        .iter()
        .all(|value| Authority::try_from(value.as_bytes()).is_ok_and(|authority| is_local_name(&authority)))
}

fn is_local_name(authority: &Authority) -> bool {
    let host = authority.host().to_ascii_lowercase();
    // An address cannot be rebound, and browsers resolve names below localhost themselves.
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok() || host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |hosts: &[&str], expected: bool| {
            let header = |host: &&str| (header::HOST, host.parse().expect("a header value"));
            let headers = hosts.iter().map(header).fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            });
            assert_eq!(is_local(&headers), expected, "{hosts:?}");
        };
        check(&[], true);
        for good in ["localhost", "LocalHost:4000", "app.localhost:4000", "127.0.0.1", "127.0.0.1:4000", "[::1]:4000"] {
            check(&[good], true);
        }
        for bad in [
            "evil.example",
            "evil.example:4000",
            "localhost.evil.example",
            "xlocalhost",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "",
        ] {
            check(&[bad], false);
        }
        check(&["localhost", "evil.example"], false);
    }
}
