//! A request's body as text: limited before, while and after it is unpacked.

use super::problem::Problem;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::io::Read;
use std::time::Duration;
use tokio::time::timeout;

/// How long a whole body may take: enough for the largest over a slow line, and an end to those that stall, each of
/// which holds one of the connections.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// Reads the whole body, at most `limit` bytes on the wire and unpacked.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<String, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let encoding = headers.get(header::CONTENT_ENCODING).map_or(b"".as_slice(), |value| value.as_bytes());
    let packed = match encoding.to_ascii_lowercase().as_slice() {
        b"" | b"identity" => false,
        b"gzip" | b"x-gzip" => true,
        _ => {
            let detail = "content-encoding may be gzip or identity";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail));
        }
    };
    let bytes = collect(body, limit, BODY_PATIENCE).await?;
    let bytes = if packed { unpack(&bytes, limit)? } else { bytes.to_vec() };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::bad_request("not_utf8", format!("the body is not UTF-8 at byte {at}"))
    })
}

async fn collect(body: Body, limit: usize, patience: Duration) -> Result<Bytes, Problem> {
    match timeout(patience, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(_)) => Err(Problem::bad_request("incomplete_body", "the body broke off")),
        Err(_) => {
            let detail = format!("the body took longer than {} seconds: send the batch in parts", patience.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail))
        }
    }
}

fn unpack(bytes: &[u8], limit: usize) -> Result<Vec<u8>, Problem> {
    let mut unpacked = Vec::new();
    // One byte beyond the limit tells that there is more; a gzip bomb is not unpacked any further.
    let mut reader = MultiGzDecoder::new(bytes).take(limit as u64 + 1);
    reader.read_to_end(&mut unpacked).map_err(|_| Problem::bad_request("invalid_gzip", "the body is not gzip"))?;
    if unpacked.len() > limit { Err(too_large(limit)) } else { Ok(unpacked) }
}

fn too_large(limit: usize) -> Problem {
    Problem::too_large(format!("the body may have {limit} bytes (unpacked too): send the batch in parts"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use flate2::{Compression, write::GzEncoder};
    use futures_util::stream;
    use std::convert::Infallible;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[tokio::test]
    async fn bodies() {
        async fn check(headers: &[(&'static str, &str)], body: Vec<u8>, expected: Result<&str, u16>) {
            let map = headers
                .iter()
                .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().expect("a header value")));
            let read = read(&map.collect(), Body::from(body), 100).await;
            let read = read.map_err(|problem| problem.into_response().status().as_u16());
            assert_eq!(read.as_deref(), expected.as_ref().map(|text| *text), "{headers:?}");
        }
        let gz = ("content-encoding", "gzip");
        check(&[], b"{}".to_vec(), Ok("{}")).await;
        check(&[], vec![b'x'; 101], Err(413)).await;
        check(&[("content-length", "101")], b"{}".to_vec(), Err(413)).await;
        check(&[], b"\xff".to_vec(), Err(400)).await;
        check(&[gz], gzip(b"{}"), Ok("{}")).await;
        check(&[("content-encoding", "GZIP")], [gzip(b"{"), gzip(b"}")].concat(), Ok("{}")).await;
        check(&[gz], gzip(&[b'x'; 101]), Err(413)).await;
        check(&[gz], gzip(&vec![b'x'; 10_000_000])[..100].to_vec(), Err(413)).await;
        check(&[gz], b"{}".to_vec(), Err(400)).await;
        check(&[gz], gzip(b"{}")[..15].to_vec(), Err(400)).await;
        check(&[("content-encoding", "br")], b"{}".to_vec(), Err(415)).await;
    }

    #[tokio::test]
    async fn a_body_that_stalls() {
        let stalled = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let problem = collect(stalled, 100, Duration::from_millis(20)).await.expect_err("no end");
        assert_eq!(problem.into_response().status(), StatusCode::REQUEST_TIMEOUT);
    }
}
