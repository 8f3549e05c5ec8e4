//! Plain HTTP requests, and what is true of every answer that is an error.

use serde_json::Value;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The media type, without parameters.
    pub content_type: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    /// Asserts that this is a problem document (RFC 9457) with this status and this stable code.
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {problem}");
        }
    }
}

/// A client that honours no proxy: everything here is on this machine.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// As [`client`], whatever certificate it is shown.
pub fn client_that_trusts_anybody() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap()
}

/// As [`client`], and takes only this certificate (PEM).
pub fn client_that_trusts(certificate: &str) -> reqwest::ClientBuilder {
    let certificate = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([certificate])
}

/// Sends a request and reads the answer to its end.
pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    read(request.send().await.unwrap()).await
}

/// Reads an answer to its end.
pub async fn read(answer: reqwest::Response) -> Answer {
    let status = answer.status().as_u16();
    let content_type = answer.headers().get("content-type").map_or("", |value| value.to_str().unwrap());
    let content_type = content_type.split(';').next().unwrap().trim().to_owned();
    Answer { status, content_type, body: answer.text().await.unwrap() }
}

/// A GET.
pub async fn get(url: &str, query: &[(&str, &str)]) -> Answer {
    send(client().get(with_query(url, query))).await
}

/// A GET with a token.
pub async fn get_as(token: &str, url: &str, query: &[(&str, &str)]) -> Answer {
    send(client().get(with_query(url, query)).bearer_auth(token)).await
}

/// A POST of a JSON body with a token.
pub async fn post_as(token: &str, url: &str, body: impl Into<reqwest::Body>) -> Answer {
    send(client().post(url).header("content-type", "application/json").bearer_auth(token).body(body)).await
}

/// A POST of a JSON body, valid or not.
pub async fn post(url: &str, body: impl Into<reqwest::Body>) -> Answer {
    send(client().post(url).header("content-type", "application/json").body(body)).await
}

/// The address with a query, percent-encoded.
pub fn with_query(url: &str, query: &[(&str, &str)]) -> reqwest::Url {
    let mut url = reqwest::Url::parse(url).unwrap();
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}
