//! The binary `headwater`.

use clap::Parser;
use headwater_streamer::config::{Cli, Command};
use headwater_streamer::{doctor, generate, run, tail};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Scripts tell one kind of failure only: 1, whatever was wrong with the set-up.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let ended = match cli.command {
        Command::Serve(config) => run::serve(*config).await.map(|()| ExitCode::SUCCESS),
        Command::Generate(config) => Ok(generate::run(&config).await),
        Command::Doctor(config) => doctor::run(config).await,
        Command::Tail(config) => tail::run(config).await.map(|()| ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("headwater: {error}");
        ExitCode::FAILURE
    })
}
