//! `headwater doctor`: looks at everything that `headwater serve` stands on, and says how to mend what is wrong.
//!
//! It changes nothing, and needs no running streamer.

mod finding;
mod machine;
mod postgres;

use crate::config::{Doctor, target};
use crate::database::{Database, Target};
use crate::error::Error;
use finding::{Finding, Level};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Its connections at a time.
const CONNECTIONS: usize = 1;

/// Looks, prints what it found, and fails if something would keep the streamer from working.
pub async fn run(config: Doctor) -> Result<ExitCode, Error> {
    let target = target(config.database_url.as_ref(), config.database_ca_file.as_ref())?;
    let mut findings = machine::look(config.max_connections);
    findings.extend(examine(&target, &format!("headwater_{}", config.replica), config.redis_url.is_some()).await);
    let bad = findings.iter().any(|finding| finding.level == Level::Error);
    let mut out = std::io::stdout().lock();
    let written = if config.json {
        let list: Vec<_> = findings.iter().map(Finding::json).collect();
        writeln!(out, "{:#}", serde_json::json!({ "ok": !bad, "findings": list }))
    } else {
        let colours = out.is_terminal();
        findings.iter().try_for_each(|finding| write!(out, "{}", finding.text(colours)))
    };
    written.map_err(Error::io("write to standard output"))?;
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(target: &Target, slot: &str, redis: bool) -> Vec<Finding> {
    let user = target.config.get_user().unwrap_or_default();
    let connected = async { Database::new(target, CONNECTIONS)?.dedicated("headwater doctor").await };
    match connected.await {
        Ok(client) => postgres::look(&client, user, slot, redis).await,
        Err(error) => vec![postgres::no_connection(&error, user)],
    }
}
