//! `make bench`: Headwater and its peers, measured by turns in one run. Prints a table, writes `benches/results.json`.
//!
//! A section is a module here: it starts a private Postgres, runs every contender once a round, in an order that turns
//! from round to round, and states what must hold as a ratio of two contenders' figures. Absolute figures drift from
//! machine to machine and from hour to hour; ratios within a run drift far less.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures are good for three digits, and counts are far from the ends of their types"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a measurement has no caller to report to: what fails here ends the run with its reason"
)]

mod capture_bulk;
mod capture_single;
mod client;
mod contenders;
mod decode;
mod event_indexes;
mod fanout;
mod ingest;
mod ingest_http;
mod machine;
mod measured;
mod message_db;
mod nchan;
mod node;
mod peers;
mod process;
mod readers;
mod report;
mod restart;
mod server;
mod shapes;
mod sse;

use std::path::PathBuf;

use clap::Parser;
use measured::Measured;

/// Measures Headwater beside its peers.
#[derive(Debug, Parser)]
#[command(name = "headwater-bench")]
struct Options {
    /// Sections to run; all if none is named.
    #[arg(value_enum)]
    sections: Vec<Section>,
    /// Rounds: how often each contender has its turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Rows of a bulk statement.
    #[arg(long, default_value_t = 100_000)]
    rows: u32,
    /// Seconds of one turn where turns are measured in transactions.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Events of one turn of ingest.
    #[arg(long, default_value_t = 24_000)]
    events: u32,
    /// Rows of one turn from Postgres to 100 clients.
    #[arg(long, default_value_t = 50_000)]
    sse_rows: u32,
    /// Deliveries (messages times clients) of one turn of fan-out.
    #[arg(long, default_value_t = 2_000_000)]
    deliveries: u64,
    /// Rows of the table that is synced for the first time.
    #[arg(long, default_value_t = 1_000_000)]
    shape_rows: u32,
    /// Changes of one turn through shapes.
    #[arg(long, default_value_t = 50_000)]
    shape_changes: u32,
    /// How many shapes there are beside those that get the changes, turn by turn; the first is what the others are held against.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000,100000")]
    shape_counts: Vec<usize>,
    /// Whether Postgres flushes to the disk.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    fsync: bool,
    /// Where the results go; what other sections left there is kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results.json"))]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    /// One statement that changes very many rows: no trigger, Headwater, audit triggers.
    CaptureBulk,
    /// Many transactions of one row, with pgbench: the same contenders.
    CaptureSingle,
    /// The generated client in Chromium: recording, storing, folding, opening, syncing.
    Client,
    /// What each index of the event table costs in a bulk insert.
    EventIndexes,
    /// From the WAL to events in the log: Headwater, `pg_recvlogical`.
    Decode,
    /// From Postgres to 100 SSE clients, in bulk and one by one: Headwater, a node server on `pg-logical-replication`.
    Sse,
    /// Very many SSE clients of one channel: Headwater, nginx + nchan, plain axum, raw writes.
    Fanout,
    /// Batches of clients' events by SQL: Headwater, plain INSERT, Message DB.
    Ingest,
    /// The same over HTTP.
    IngestHttp,
    /// Changes through 10 to 100,000 shapes, 1,000 clients of one, a million first rows beside COPY.
    Shapes,
    /// From a restart to the first event of a resumed client.
    Restart,
}

impl Section {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).expect("no section is hidden").get_name().to_owned()
    }

    async fn run(self, options: &Options) -> Vec<Measured> {
        match self {
            Self::CaptureBulk => capture_bulk::run(options).await,
            Self::CaptureSingle => capture_single::run(options).await,
            Self::Client => client::run(options),
            Self::EventIndexes => event_indexes::run(options).await,
            Self::Decode => decode::run(options).await,
            Self::Sse => sse::run(options).await,
            Self::Fanout => fanout::run(options).await,
            Self::Ingest => ingest::run(options).await,
            Self::IngestHttp => ingest_http::run(options).await,
            Self::Shapes => shapes::run(options).await,
            Self::Restart => restart::run(options).await,
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    peers::serve_if_asked().await;
    let options = Options::parse();
    let mut sections = options.sections.clone();
    if sections.is_empty() {
        sections = <Section as clap::ValueEnum>::value_variants().to_vec();
    }
    for section in sections {
        eprintln!("==> {}", section.name());
        let measured = section.run(&options).await;
        report::print(&section.name(), &measured);
        report::write(&options, &section.name(), &measured);
    }
}
