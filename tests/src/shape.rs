//! A client of shapes that follows the protocol as ElectricSQL's do, and forgives nothing: a row that comes twice, an
//! update of a row that it does not have, an answer without what the protocol promises.

use std::collections::BTreeMap;

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::deadline::eventually;
use crate::http::{client, with_query};

/// A row: values in Postgres' text form.
pub type Row = BTreeMap<String, Option<String>>;

/// An answer, with its headers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A header, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }
}

/// Sends a request and reads the answer to its end.
pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Answer { status, headers, body: answer.text().await.unwrap() }
}

/// A GET.
pub async fn get(url: &str, query: &[(&str, &str)]) -> Answer {
    send(client().get(with_query(url, query))).await
}

/// The headers of a row of a shape with subqueries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasons {
    /// A tag is an alternative: a slot for each condition, empty if that is not part of it.
    pub tags: Vec<Vec<String>>,
    /// Whether each condition holds.
    pub active: Vec<bool>,
}

impl Reasons {
    fn hold(&self) -> bool {
        let all = |tag: &Vec<String>| tag.iter().zip(&self.active).all(|(slot, active)| slot.is_empty() || *active);
        self.tags.iter().any(all)
    }
}

/// The positions of what follows from subqueries begin here.
const MOVED_OPS: u64 = 1 << 40;

/// A client of one shape.
#[derive(Clone, Debug)]
pub struct ShapeClient {
    http: reqwest::Client,
    url: String,
    parameters: Vec<(String, String)>,
    bearer: Option<String>,
    /// The incarnation.
    pub handle: Option<String>,
    /// Where it stands.
    pub offset: String,
    cursor: Option<String>,
    /// What it has, by key.
    pub rows: BTreeMap<String, Row>,
    /// Why each row of a shape with subqueries is in, by key: what somebody has who goes by tags, conditions and events
    /// alone, and not by the deletes beside them.
    pub reasons: BTreeMap<String, Reasons>,
    /// How many events it got since it began.
    pub events: usize,
    /// How often it had to start anew.
    pub refetches: usize,
    /// How many change messages it got since it began.
    pub changes: usize,
    /// Whether it has everything up to this LSN.
    pub seen: u64,
}

impl ShapeClient {
    /// A client of the service at `base`, for the shape that these parameters define.
    pub fn new(base: &str, parameters: &[(&str, &str)]) -> Self {
        Self {
            http: client(),
            url: format!("{base}/v1/shape"),
            parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            bearer: None,
            handle: None,
            offset: "-1".to_owned(),
            cursor: None,
            rows: BTreeMap::new(),
            reasons: BTreeMap::new(),
            events: 0,
            refetches: 0,
            changes: 0,
            seen: 0,
        }
    }

    /// The same with a token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.bearer = Some(token.to_owned());
        self
    }

    /// The same client, talking to another replica from now on.
    pub fn move_to(&mut self, base: &str) {
        self.url = format!("{base}/v1/shape");
    }

    fn request(&self, live: bool) -> reqwest::RequestBuilder {
        let mut query: Vec<(&str, &str)> =
            self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        query.push(("offset", &self.offset));
        if let Some(handle) = &self.handle {
            query.push(("handle", handle));
        }
        if live {
            query.push(("live", "true"));
            if let Some(cursor) = &self.cursor {
                query.push(("cursor", cursor));
            }
        }
        let request = self.http.get(with_query(&self.url, &query));
        match &self.bearer {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// One request. None if the service could not be reached, or asked to come back later; else whether the client is up
    /// to date.
    pub async fn step(&mut self, live: bool) -> Option<bool> {
        let answer = self.request(live).send().await.ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.text().await.ok()?;
        let answer = Answer { status, headers, body };
        match status {
            200 => Some(self.take(&answer, live)),
            409 => {
                assert_eq!(answer.body, r#"[{"headers":{"control":"must-refetch"}}]"#);
                self.handle = answer.header("electric-handle").map(str::to_owned);
                "-1".clone_into(&mut self.offset);
                self.rows.clear();
                self.reasons.clear();
                self.cursor = None;
                self.refetches += 1;
                Some(false)
            }
            503 => {
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                None
            }
            _ => panic!("{answer:?} to {:?}", self.request(live)),
        }
    }

    fn take(&mut self, answer: &Answer, live: bool) -> bool {
        let required = |name: &str| answer.header(name).unwrap_or_else(|| panic!("no {name}: {answer:?}")).to_owned();
        let (handle, offset) = (required("electric-handle"), required("electric-offset"));
        if live {
            self.cursor = Some(required("electric-cursor"));
        } else {
            let schema: Value = serde_json::from_str(&required("electric-schema")).unwrap();
            assert!(schema.is_object(), "{schema}");
        }
        if self.offset != "-1" {
            assert_eq!(self.handle.as_deref(), Some(handle.as_str()), "an incarnation does not change in its middle");
        }
        let messages = answer.json();
        let before = self.offset.clone();
        let mut up_to_date = false;
        for message in messages.as_array().expect("an array") {
            up_to_date |= self.message(message);
        }
        assert_eq!(up_to_date, answer.header("electric-up-to-date").is_some(), "{answer:?}");
        assert!(live || up_to_date || before != offset, "neither progress nor up to date: {answer:?}");
        (self.handle, self.offset) = (Some(handle), offset);
        up_to_date
    }

    fn message(&mut self, message: &Value) -> bool {
        let headers = &message["headers"];
        if let Some(control) = headers["control"].as_str() {
            if control == "up-to-date" {
                self.seen = headers["global_last_seen_lsn"].as_str().unwrap().parse().unwrap();
                return true;
            }
            assert_eq!(control, "snapshot-end", "{message}");
            return false;
        }
        if headers.get("event").is_some() {
            self.events += 1;
            self.event(headers);
            return false;
        }
        let key = message["key"].as_str().unwrap().to_owned();
        self.reason(&key, headers);
        let value: Row = (message["value"].as_object().unwrap().iter())
            .map(|(name, value)| (name.clone(), value.as_str().map(str::to_owned)))
            .collect();
        if headers.get("lsn").is_some() {
            self.changes += 1;
        }
        match headers["operation"].as_str().unwrap() {
            "insert" => {
                let old = self.rows.insert(key, value);
                assert!(old.is_none(), "the row was there already: {message}");
            }
            "update" => {
                let row = self.rows.get_mut(&key).unwrap_or_else(|| panic!("no such row: {message}"));
                row.extend(value);
            }
            "delete" => {
                assert!(self.rows.remove(&key).is_some(), "no such row: {message}");
            }
            other => panic!("{other}"),
        }
        false
    }

    /// A row's tags and conditions.
    fn reason(&mut self, key: &str, headers: &Value) {
        let Some(tags) = headers["tags"].as_array() else { return };
        let tags: Vec<Vec<String>> =
            tags.iter().map(|tag| tag.as_str().unwrap().split('/').map(str::to_owned).collect()).collect();
        let active: Vec<bool> =
            headers["active_conditions"].as_array().unwrap().iter().map(|one| one.as_bool().unwrap()).collect();
        assert!(tags.iter().all(|tag| tag.len() == active.len()), "{headers}");
        if headers["operation"] != "delete" {
            let reasons = Reasons { tags, active };
            assert!(reasons.hold(), "a row that is not in: {headers}");
            let old = self.reasons.insert(key.to_owned(), reasons);
            let removed: Vec<Vec<String>> = headers["removed_tags"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|tag| tag.as_str().unwrap().split('/').map(str::to_owned).collect())
                .collect();
            let now = &self.reasons[key].tags;
            if let Some(old) = old.filter(|_| headers["operation"] == "update") {
                let gone: Vec<Vec<String>> = old.tags.into_iter().filter(|tag| !now.contains(tag)).collect();
                assert_eq!(removed, gone, "{headers}");
            }
        } else if headers["op_position"].as_u64().unwrap() < MOVED_OPS {
            self.reasons.remove(key);
        }
    }

    fn event(&mut self, headers: &Value) {
        let holds = match headers["event"].as_str().unwrap() {
            "move-in" => true,
            "move-out" => false,
            other => panic!("{other}"),
        };
        assert!(headers["txids"].as_array().is_some_and(|all| all.len() == 1), "{headers}");
        for pattern in headers["patterns"].as_array().unwrap() {
            let at = usize::try_from(pattern["pos"].as_u64().unwrap()).unwrap();
            let value = pattern["value"].as_str().unwrap();
            for reasons in self.reasons.values_mut() {
                if reasons.tags.iter().any(|tag| tag[at] == value) {
                    reasons.active[at] = holds;
                }
            }
        }
        self.reasons.retain(|_, reasons| reasons.hold());
    }

    /// Until it has everything up to this LSN.
    pub async fn catch_up(&mut self, lsn: u64) {
        // A step borrows the client, so the loop is ours.
        let deadline = std::time::Instant::now() + crate::deadline::PATIENCE;
        loop {
            let up_to_date = self.step(false).await == Some(true);
            if up_to_date && self.seen >= lsn {
                let by_reasons: Vec<&String> = self.reasons.keys().collect();
                assert!(
                    by_reasons.is_empty() && self.events == 0 || by_reasons == self.rows.keys().collect::<Vec<_>>(),
                    "{self:?}"
                );
                return;
            }
            assert!(std::time::Instant::now() < deadline, "the client does not get to {lsn}: {self:?}");
            if up_to_date {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    }

    /// Its rows without their keys, ordered.
    pub fn table(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.rows.values().cloned().collect();
        rows.sort();
        rows
    }
}

/// What a query gives, in the text form that the WAL has, ordered.
pub async fn select(postgres: &tokio_postgres::Client, query: &str) -> Vec<Row> {
    postgres
        .batch_execute(
            "set timezone = 'UTC'; set datestyle = 'ISO'; set intervalstyle = 'iso_8601'; set bytea_output = 'hex'; set extra_float_digits = 1",
        )
        .await
        .unwrap();
    let mut rows = Vec::new();
    for message in postgres.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}")) {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            let value = |(at, column): (usize, &tokio_postgres::SimpleColumn)| {
                (column.name().to_owned(), row.get(at).map(str::to_owned))
            };
            rows.push(row.columns().iter().enumerate().map(value).collect());
        }
    }
    rows.sort();
    rows
}

/// The end of the WAL, behind a commit of its own: everything committed before lies before it.
pub async fn mark(postgres: &tokio_postgres::Client) -> u64 {
    let text: String =
        postgres.query_one("select pg_logical_emit_message(true, 'test', '')::text", &[]).await.unwrap().get(0);
    let (high, low) = text.split_once('/').unwrap();
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}

/// Waits until `/v1/health` says that shapes are served.
pub async fn active(base: &str) {
    eventually("shapes to be served", || async {
        let answer = get(&format!("{base}/v1/health"), &[]).await;
        (answer.body == r#"{"status":"active"}"#).then_some(())
    })
    .await;
}
