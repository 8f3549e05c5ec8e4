//! `make bench`: Headwater and its peers, measured by turns in one run. Prints a table, writes `benches/results.json`.
//!
//! A section is a module here: it starts a private Postgres, runs every contender once a round, in an order that turns
//! from round to round, and states what must hold as a ratio of two contenders' figures. Absolute figures drift from
//! machine to machine and from hour to hour; ratios within a run drift far less.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement has no caller to report to: what fails here ends the run with its reason"
)]

mod capture_bulk;
mod capture_single;
mod contenders;
mod event_indexes;
mod ingest;
mod machine;
mod measured;
mod message_db;
mod report;
mod server;

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
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
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
    /// What each index of the event table costs in a bulk insert.
    EventIndexes,
    /// Batches of clients' events by SQL: Headwater, plain INSERT, Message DB.
    Ingest,
}

impl Section {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).expect("no section is hidden").get_name().to_owned()
    }

    async fn run(self, options: &Options) -> Vec<Measured> {
        match self {
            Self::CaptureBulk => capture_bulk::run(options).await,
            Self::CaptureSingle => capture_single::run(options).await,
            Self::EventIndexes => event_indexes::run(options).await,
            Self::Ingest => ingest::run(options).await,
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
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
