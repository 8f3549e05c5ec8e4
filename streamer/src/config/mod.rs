//! Flags and environment. Every flag has a variable; the help is meant to be read.
#![expect(clippy::doc_markdown, reason = "the doc comments are the help text of a terminal")]

mod serve;
mod values;

pub use serve::{LogFormat, Serve};
pub(crate) use values::parse_duration;

use crate::database::Target;
use crate::error::Error;
use crate::generate::Generate;
use clap::{Args, Parser, Subcommand};
use values::{parse_at_least, parse_replica};

/// Event-sourced sync for Postgres.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read the write-ahead log of a database and serve its events over HTTP
    ///
    /// The database needs wal_level=logical and the extension headwater. The role in the URL needs LOGIN, REPLICATION
    /// and membership in headwater_writer:
    ///
    ///   create role headwater_streamer login replication in role headwater_writer;
    ///
    /// Nothing is kept on disk: stop it, kill it, run several of them (each with its own --replica).
    #[command(verbatim_doc_comment)]
    Serve(Box<Serve>),

    /// Write a typed TypeScript client of the entities that sync
    ///
    ///   headwater generate http://127.0.0.1:4000/openapi.json --output src/generated
    ///
    /// writes event types, schemas, materializers, an event store, a sync engine and React hooks, with the runtime beside
    /// them; the application needs dexie, and react for the hooks. The same document gives the same files. In CI:
    ///
    ///   headwater generate openapi.json --output src/generated --check
    ///
    /// exits 1 when the files are stale, or when a change would break events that devices still hold.
    #[command(verbatim_doc_comment)]
    Generate(Box<Generate>),

    /// Look at everything that `serve` stands on, and say how to mend what is wrong
    ///
    /// Checks the database (wal_level, slots, senders, role, extension and its version, clock, long and prepared
    /// transactions, headwater.check()) and this machine (open files). It changes nothing. Each finding comes with the
    /// statement or command that mends it:
    ///
    ///   headwater doctor --database-url postgres://headwater_streamer:…@127.0.0.1:5432/app
    ///
    /// Exit status: 0 if a streamer can work (there may be warnings), 1 if something keeps it from working.
    #[command(verbatim_doc_comment)]
    Doctor(Doctor),

    /// Show events as they happen, one a line
    ///
    ///   headwater tail                                            everything, from now on
    ///   headwater tail --entity-type order --entity-id 17         one entity
    ///   headwater tail --since 2026-01-02T03:04:05Z --json        what was recorded since, then what comes, as JSON
    ///   headwater tail --json | jq -r .payload.status             for scripts
    ///
    /// It reconnects by itself and goes on where it was: no event is left out. Ctrl-C ends it.
    #[command(verbatim_doc_comment)]
    Tail(Tail),
}

/// Flags of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// postgres://role:password@host:5432/database, the one that `serve` gets [env: also DATABASE_URL]
    #[arg(long, env = "HEADWATER_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,

    /// Trusted certificates (PEM) for TLS to Postgres [env: also ELECTRIC_DATABASE_CA_CERTIFICATE_FILE]
    #[arg(long, env = "HEADWATER_DATABASE_CA_FILE", value_name = "FILE")]
    pub database_ca_file: Option<String>,

    /// The Redis that `serve` gets, if any: entities may ask for it
    #[arg(long, env = "HEADWATER_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,

    /// Name of the streamer whose slot is looked at
    #[arg(long, env = "HEADWATER_REPLICA", default_value = "default", value_parser = parse_replica)]
    pub replica: String,

    /// How many clients the open files must do for
    #[arg(long, env = "HEADWATER_MAX_CONNECTIONS", default_value_t = 19_000, value_name = "N",
          value_parser = parse_at_least::<1>)]
    pub max_connections: usize,

    /// Print JSON: {"ok": …, "findings": [{"check", "level", "message", "remedy"}]}
    #[arg(long)]
    pub json: bool,
}

/// Flags of `tail`.
#[derive(Args, Clone, Debug)]
pub struct Tail {
    /// Address of the streamer
    #[arg(env = "HEADWATER_URL", default_value = "http://127.0.0.1:4000")]
    pub url: String,

    /// A token (JWT), or the administrators' secret
    #[arg(long, env = "HEADWATER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Only these entities (comma-separated)
    #[arg(long, value_name = "NAME")]
    pub entity_type: Option<String>,

    /// Only this entity
    #[arg(long, value_name = "ID")]
    pub entity_id: Option<String>,

    /// Only this tenant, for callers who see all
    #[arg(long, value_name = "ID")]
    pub tenant_id: Option<String>,

    /// First what was recorded since this time (RFC 3339), then what comes
    #[arg(long, value_name = "TIME", conflicts_with = "cursor")]
    pub since: Option<String>,

    /// Go on from this cursor
    #[arg(long)]
    pub cursor: Option<String>,

    /// End after so many events
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,

    /// Print each event as a line of JSON
    #[arg(long)]
    pub json: bool,

    /// Say nothing about connections
    #[arg(long, short)]
    pub quiet: bool,
}

/// The database from flags and their variables, ElectricSQL's included.
pub(crate) fn target(url: Option<&String>, ca_file: Option<&String>) -> Result<Target, Error> {
    let given = |own: Option<&String>, variable: &str| {
        own.cloned()
            .filter(|text| !text.is_empty())
            .or_else(|| std::env::var(variable).ok())
            .filter(|text| !text.is_empty())
    };
    let url = given(url, "DATABASE_URL").ok_or_else(|| {
        Error::setup(
            "there is no database URL",
            "pass --database-url postgres://role:password@host:5432/database (or set DATABASE_URL)",
        )
    })?;
    let ca_file = given(ca_file, "ELECTRIC_DATABASE_CA_CERTIFICATE_FILE");
    Target::parse(&url, ca_file.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_sound() {
        Cli::command().debug_assert();
    }
}
