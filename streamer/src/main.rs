//! The binary `headwater`.

use clap::Parser;
use headwater_streamer::config::{Cli, Command};
use headwater_streamer::error::Error;
use headwater_streamer::{generate, run};
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
    match cli.command {
        Command::Serve(config) => ended(run::serve(*config).await),
        Command::Generate(config) => generate::run(&config).await,
    }
}

fn ended(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("headwater: {error}");
            ExitCode::FAILURE
        }
    }
}
