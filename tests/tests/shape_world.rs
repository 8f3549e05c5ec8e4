//! What the oracles of shapes have in common: tables that random transactions and upheavals change, two replicas that serve
//! shapes of them and are killed now and then, and clients that go from one to the other. The judge is Postgres: at every
//! check each client has the rows that its shape's query gives.

use std::fmt::{Display, Write as _};

use headwater_tests::deadline::eventually;
use headwater_tests::postgres::Postgres;
use headwater_tests::random::Random;
use headwater_tests::shape::{ShapeClient, active, mark, select};
use headwater_tests::streamer::Streamer;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::shape::{start, start_on};

/// A shape, and the query that it stands for.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    parameters: Vec<(String, String)>,
    query: String,
}

impl Shape {
    pub(crate) fn new(parameters: &[(&str, &str)], query: impl Display) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { parameters: parameters.iter().map(owned).collect(), query: query.to_string() }
    }

    /// The same rows, asked for with one more parameter.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn client(&self, base: &str) -> ShapeClient {
        let parameters: Vec<_> = self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        ShapeClient::new(base, &parameters)
    }

    pub(crate) async fn rows(&self, observer: &Client) -> Vec<headwater_tests::shape::Row> {
        select(observer, &self.query).await
    }
}

/// Tables, and what may happen to them.
pub(crate) trait World {
    fn random(&mut self) -> &mut Random;

    /// Changes some rows.
    fn statement(&mut self) -> String;

    /// A transaction of a few statements; now and then some of them, or all, come to nothing.
    fn transaction(&mut self) -> String {
        let mut script = String::from("begin;");
        for _ in 0..=self.random().below(6) {
            let statement = self.statement();
            let _ = match self.random().below(8) {
                0 => write!(script, "savepoint s; {statement} rollback to s;"),
                1 => write!(script, "savepoint s; {statement} release s;"),
                _ => write!(script, "{statement}"),
            };
        }
        script += if self.random().below(10) == 0 { "rollback" } else { "commit" };
        script
    }

    /// What clients have to start anew for, or must not notice.
    fn upheaval(&mut self) -> String;

    /// Brings an upheaval about.
    async fn overturn(&mut self, writer: &Client) {
        let upheaval = self.upheaval();
        println!("{upheaval}");
        writer.batch_execute(&upheaval).await.unwrap_or_else(|error| panic!("{upheaval}: {error:?}"));
    }
}

/// Two keys that meet, or writers that wait for each other: a transaction that leaves nothing.
pub(crate) async fn write(writer: &Client, transaction: &str) {
    write_unless(writer, transaction, &[]).await;
}

/// The same; it may fail for these reasons, too.
pub(crate) async fn write_unless(writer: &Client, transaction: &str, reasons: &[SqlState]) {
    if let Err(error) = writer.batch_execute(transaction).await {
        let meeting =
            [SqlState::UNIQUE_VIOLATION, SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE];
        let known = error.code().is_some_and(|code| meeting.contains(code) || reasons.contains(code));
        assert!(known, "{transaction}: {error:?}");
        writer.batch_execute("rollback").await.unwrap();
    }
}

/// How much of something a run has, if it is not told otherwise.
pub(crate) fn count(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |count| count.parse().unwrap())
}

/// Two streamers of one database.
pub(crate) struct Replicas {
    pub(crate) postgres: Postgres,
    streamers: [Streamer; 2],
}

impl Replicas {
    /// Of a database with these tables.
    pub(crate) async fn start(tables: &str) -> Self {
        let (postgres, first) = start(&[]).await;
        postgres.sql(tables).await;
        let second = start_on(&postgres, &["--replica", "second"]).await;
        Self { postgres, streamers: [first, second] }
    }

    pub(crate) fn url(&self, which: usize) -> String {
        self.streamers[which].url("")
    }

    pub(crate) fn any_url(&self, random: &mut Random) -> String {
        self.url(random.index(2))
    }

    pub(crate) async fn restart(&mut self, which: usize) {
        let streamer = &mut self.streamers[which];
        streamer.kill().await;
        streamer.resume().await;
        active(&streamer.url("")).await;
    }

    /// Some clients go on with one of the two, perhaps the other.
    pub(crate) fn shuffle(&self, clients: &mut [ShapeClient], random: &mut Random) {
        for client in clients {
            if random.below(3) == 0 {
                client.move_to(&self.any_url(random));
            }
        }
    }

    /// Every client has what its shape's query gives: the first one that of the first shape, and around again.
    pub(crate) async fn check(&self, shapes: &[Shape], clients: &mut [ShapeClient]) {
        let observer = self.postgres.connect().await;
        let end = mark(&observer).await;
        for (client, shape) in clients.iter_mut().zip(shapes.iter().cycle()) {
            // DDL that leaves no trace in the WAL is noticed a moment later.
            eventually(&format!("{shape:?} to be as Postgres has it"), || {
                let mut own = client.clone();
                let observer = &observer;
                async move {
                    own.catch_up(end).await;
                    let (found, expected) = (own.table(), shape.rows(observer).await);
                    if found != expected {
                        println!("{shape:?}: not yet:\n{found:?}\n{expected:?}");
                        return None;
                    }
                    Some(own)
                }
            })
            .await
            .clone_into(client);
        }
    }
}
