//! A request's body as text: limited before, while and after it is unpacked, and in what all bodies take together.

use super::problem::Problem;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a whole body may take: enough for the largest over a slow line, and an end to those that stall, each of
/// which holds one of the connections.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// How many of the largest bodies may be in memory at a time; smaller ones accordingly more.
const LARGEST_AT_A_TIME: usize = 32;

/// Bodies are counted in units of this many bytes: a semaphore's permits are.
const UNIT: usize = 1024;

/// The memory that bodies take, from their first byte until they are answered.
#[derive(Debug)]
pub struct Bodies {
    largest: usize,
    units: Arc<Semaphore>,
}

/// A body, and its part of the memory.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    _held: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// Each of at most `largest` bytes.
    pub fn new(largest: usize) -> Self {
        let units = largest.div_ceil(UNIT).saturating_mul(LARGEST_AT_A_TIME).min(Semaphore::MAX_PERMITS);
        Self { largest, units: Arc::new(Semaphore::new(units)) }
    }

    /// Takes memory as it is needed, so that who only announces much holds nothing.
    fn hold(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Problem> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.units).try_acquire_many_owned(units);
        let more = more.map_err(|_| Problem::busy("too many bodies are being read just now"))?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

/// Reads the whole body, within its limit on the wire and unpacked.
pub(super) async fn read(headers: &HeaderMap, body: Body, bodies: &Bodies) -> Result<Text, Problem> {
    read_within(headers, body, bodies, bodies.largest).await
}

/// The same within a limit of its own.
pub(super) async fn read_within(
    headers: &HeaderMap,
    body: Body,
    bodies: &Bodies,
    limit: usize,
) -> Result<Text, Problem> {
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
    let mut held = None;
    let mut bytes = collect(body, bodies, limit, &mut held, BODY_PATIENCE).await?;
    if packed {
        let unpacked = unpack(&bytes, limit)?;
        bodies.hold(&mut held, unpacked.len().saturating_sub(bytes.len()))?;
        bytes = unpacked;
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::bad_request("not_utf8", format!("the body is not UTF-8 at byte {at}"))
    })?;
    Ok(Text { text, _held: held })
}

async fn collect(
    body: Body,
    bodies: &Bodies,
    limit: usize,
    held: &mut Option<OwnedSemaphorePermit>,
    patience: Duration,
) -> Result<Vec<u8>, Problem> {
    let mut body = Limited::new(body, limit);
    let mut bytes = Vec::new();
    let collected = timeout(patience, async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let broken = || Problem::bad_request("incomplete_body", "the body broke off");
                if error.is::<LengthLimitError>() { too_large(limit) } else { broken() }
            })?;
            let Ok(data) = frame.into_data() else { continue };
            // Of the whole each time: parts of a unit do not add up.
            let before = bytes.len().div_ceil(UNIT);
            bytes.extend_from_slice(&data);
            bodies.hold(held, (bytes.len().div_ceil(UNIT) - before) * UNIT)?;
        }
        Ok(())
    });
    collected.await.unwrap_or_else(|_| {
        let detail = format!("the body took longer than {} seconds: send the batch in parts", patience.as_secs());
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail))
    })?;
    Ok(bytes)
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
    use bytes::Bytes;
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
            let read = read(&map.collect(), Body::from(body), &Bodies::new(100)).await;
            let read = read.map_err(|problem| problem.into_response().status().as_u16());
            assert_eq!(
                read.as_ref().map(|read| read.text.as_str()),
                expected.as_ref().map(|text| *text),
                "{headers:?}"
            );
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
        let within = read_within(&HeaderMap::new(), Body::from(vec![b'x'; 51]), &Bodies::new(100), 50).await;
        assert!(within.is_err(), "a limit of its own");
    }

    #[tokio::test]
    async fn bodies_together_have_a_limit_and_give_it_back() {
        let bodies = Bodies::new(1000);
        let one = async || read(&HeaderMap::new(), Body::from(vec![b'x'; 1000]), &bodies).await;
        let mut held = Vec::new();
        for _ in 0..LARGEST_AT_A_TIME {
            held.push(one().await.expect("there is room"));
        }
        assert_eq!(one().await.expect_err("no room").code(), "busy");
        held.pop();
        assert!(one().await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_stalls() {
        let stalled = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let problem =
            collect(stalled, &Bodies::new(100), 100, &mut None, Duration::from_millis(20)).await.expect_err("no end");
        assert_eq!(problem.into_response().status(), StatusCode::REQUEST_TIMEOUT);
    }
}
