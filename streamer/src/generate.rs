//! `headwater generate`: a document, from a server or a file, becomes a typed client on the disk. The generator itself is a crate of
//! its own and knows no network.
#![expect(clippy::doc_markdown, reason = "the doc comments are the help text of a terminal")]

use clap::{Args, ValueEnum};
use headwater_generate::{Imports, Options, Output, generate, tree};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::sleep;

/// How long a server may take for its document.
const FETCH_PATIENCE: Duration = Duration::from_secs(30);

/// How often `--watch` looks: soon enough for a person who saves and looks up, and no burden for a server.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Flags of `generate`.
#[derive(Args, Clone, Debug)]
pub struct Generate {
    /// An OpenAPI 3.1 document with x-sync, JSON or YAML: http(s)://… or a file
    #[arg(value_name = "URL|FILE")]
    pub source: String,

    /// Folder for the generated files; it may hold others, which are left alone
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,

    /// Write nothing; exit 1 if the files on the disk are stale, or if the document would break events that devices hold
    #[arg(long, conflicts_with = "watch")]
    pub check: bool,

    /// Go on, and write again whenever the document changes
    #[arg(long)]
    pub watch: bool,

    /// Leave the React hooks out
    #[arg(long)]
    pub without_react: bool,

    /// What the paths of imports end in: js suits TypeScript, Vite, esbuild and Node; none suits webpack and Metro
    #[arg(long, value_name = "END", default_value = "js")]
    pub imports: ImportsEnd,

    /// Presented to the server, as authorization: Bearer …
    #[arg(long, env = "HEADWATER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
}

/// The values of `--imports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImportsEnd {
    /// ./order.js
    Js,
    /// ./order.ts
    Ts,
    /// ./order
    None,
}

impl Generate {
    fn options(&self) -> Options {
        let mut command =
            format!("headwater generate {} --output {}", quoted(&self.source), quoted(&self.output.to_string_lossy()));
        if self.without_react {
            command.push_str(" --without-react");
        }
        let imports = match self.imports {
            ImportsEnd::Js => Imports::Js,
            ImportsEnd::Ts => Imports::Ts,
            ImportsEnd::None => Imports::None,
        };
        if let Some(value) = self.imports.to_possible_value().filter(|_| imports != Imports::Js) {
            command = format!("{command} --imports {}", value.get_name());
        }
        Options { command, react: !self.without_react, imports }
    }
}

/// Runs the command. What it did goes to standard output, what is wrong to standard error.
pub async fn run(config: &Generate) -> ExitCode {
    if config.watch {
        return watch(config).await;
    }
    let done = match read(config).await {
        Ok(document) => once(config, &document),
        Err(error) => Err(error),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("headwater: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Generates again whenever the document says something else, until Ctrl-C.
async fn watch(config: &Generate) -> ExitCode {
    println!("watching {}; Ctrl-C ends that", config.source);
    let mut last: Option<Result<String, String>> = None;
    let looking = async {
        loop {
            let now = read(config).await;
            if last.as_ref() != Some(&now) {
                let done = now.clone().and_then(|document| once(config, &document));
                if let Err(error) = done {
                    eprintln!("headwater: {error}");
                }
                last = Some(now);
            }
            sleep(WATCH_EVERY).await;
        }
    };
    tokio::select! {
        () = looking => ExitCode::FAILURE,
        _ = tokio::signal::ctrl_c() => ExitCode::SUCCESS,
    }
}

/// Writes or checks. False: the check found something.
fn once(config: &Generate, document: &str) -> Result<bool, String> {
    let output = generate(document, &config.options()).map_err(|error| error.to_string())?;
    for note in &output.notes {
        eprintln!("note: {note}");
    }
    let former = tree::former_contract(&config.output).map_err(|error| error.to_string())?;
    let breaks = former.map(|former| output.contract.breaks(&former)).unwrap_or_default();
    for broken in &breaks {
        eprintln!(
            "{}: {broken}",
            if config.check { "breaks stored events" } else { "warning: this breaks stored events" }
        );
    }
    if config.check { check(config, &output, &breaks) } else { write(config, &output) }
}

fn check(config: &Generate, output: &Output, breaks: &[String]) -> Result<bool, String> {
    let differences = tree::differences(&config.output, output).map_err(|error| error.to_string())?;
    for difference in &differences {
        eprintln!("stale: {difference}");
    }
    let folder = config.output.display();
    if differences.is_empty() && breaks.is_empty() {
        println!("{folder} is up to date");
        return Ok(true);
    }
    if !differences.is_empty() {
        eprintln!("headwater: {folder} is stale\n  to mend it: {}", config.options().command);
    }
    Ok(false)
}

fn write(config: &Generate, output: &Output) -> Result<bool, String> {
    let is_first = !config.output.join(headwater_generate::contract::FILE).exists();
    let written = tree::write(&config.output, output).map_err(|error| error.to_string())?;
    let folder = config.output.display();
    println!(
        "{folder}: {} written, {} removed, {} unchanged",
        written.written.len(),
        written.removed.len(),
        written.unchanged
    );
    if is_first {
        let packages = if config.without_react { "dexie" } else { "dexie react" };
        println!(
            "  next: npm install {packages}; then import {{ configure }} from {folder}/index.js and give it the server's address"
        );
    }
    Ok(true)
}

async fn read(config: &Generate) -> Result<String, String> {
    let source = &config.source;
    if !source.starts_with("http://") && !source.starts_with("https://") {
        return std::fs::read_to_string(source).map_err(|error| {
            format!("cannot read {source}: {error}\n  to mend it: give the path of a file, or an address, as http://127.0.0.1:4000/openapi.json")
        });
    }
    let unreachable = |error: reqwest::Error| {
        format!(
            "cannot fetch {source}: {error:#}\n  to mend it: is headwater serve running there? Its document is at /openapi.json"
        )
    };
    let client = reqwest::Client::builder().timeout(FETCH_PATIENCE).build().map_err(unreachable)?;
    let mut request = client.get(source);
    if let Some(token) = &config.token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.map_err(unreachable)?;
    let status = answer.status();
    let text = answer.text().await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(text);
    }
    let remedy = match status.as_u16() {
        401 => "pass --token, or set HEADWATER_TOKEN",
        404 => "a streamer's document is at /openapi.json",
        503 => "the streamer is starting, or its database is away: try again",
        _ => "the answer says what is wrong",
    };
    Err(format!("{source} answers {status}: {}\n  to mend it: {remedy}", text.trim()))
}

/// A word of a command line.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,~?&".contains(c);
    let shell = |c: char| "?&~".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.contains(shell) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
