//! Promise: `headwater doctor` finds what keeps a streamer from working and its statements mend it; `headwater tail` shows
//! every event once, whatever happens to the streamer. Run as a person would, by the binary.

use headwater_tests::deadline::{PATIENCE, eventually};
use headwater_tests::place::streamer_binary;
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;
use headwater_tests::token;
use serde_json::Value;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::orders;

fn headwater(arguments: &[&str]) -> Command {
    let mut command = Command::new(streamer_binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEADWATER_") || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Its exit status, and what it wrote to its two outputs.
async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(PATIENCE, headwater(arguments).output()).await.expect("an end").unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Whether a streamer could work, and the findings of these levels.
async fn doctor(url: &str, levels: &[&str]) -> (bool, Vec<Value>) {
    let (status, text, _) = run(&["doctor", "--database-url", url, "--json"]).await;
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(report["ok"] == true, status == Some(0), "{status:?}: {text}");
    let findings = report["findings"].as_array().unwrap().iter();
    let wanted = findings.filter(|finding| levels.contains(&finding["level"].as_str().unwrap())).cloned().collect();
    (report["ok"] == true, wanted)
}

fn of<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check} in {findings:?}"))
}

#[tokio::test]
async fn doctor_finds_what_is_wrong_and_its_statements_mend_it() {
    let postgres = Postgres::start().await;
    postgres.sql(orders::SCHEMA).await;
    let url = postgres.streamer_url();
    let streamer = Streamer::start(&postgres, &[]).await;
    let (ok, errors) = doctor(&url, &["error"]).await;
    assert!(ok, "{errors:?}");
    drop(streamer);
    let (status, text, _) = run(&["doctor", "--database-url", &url]).await;
    assert!(text.contains("wal_level is logical"), "{status:?}: {text}");

    // Each breaks one thing, which the remedy mends.
    for harm in [
        "alter role headwater_streamer noreplication",
        "revoke headwater_writer from headwater_streamer",
        "drop publication headwater_tables",
        "alter table orders disable trigger user",
    ] {
        // The slot of the streamer that is gone is a finding too, until it is dropped.
        postgres.sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active").await;
        assert!(doctor(&url, &[]).await.0, "before {harm}");
        postgres.sql(harm).await;
        let (ok, errors) = doctor(&url, &["error"]).await;
        assert!(!ok, "{harm}");
        for finding in errors {
            postgres.sql(finding["remedy"].as_str().unwrap()).await;
        }
        let (ok, left) = doctor(&url, &["error"]).await;
        assert!(ok, "after the remedies for {harm}: {left:?}");
    }

    let open = postgres.connect().await;
    open.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    let (_, warnings) = doctor(&url, &["warning"]).await;
    let blind = of(&warnings, "long_transaction");
    assert!(blind["message"].as_str().unwrap().contains("cannot be seen"), "{blind}");
    assert!(of(&warnings, "max_slot_wal_keep_size")["remedy"].as_str().unwrap().contains("alter system set"));

    postgres.sql("drop extension headwater cascade").await;
    let (ok, errors) = doctor(&url, &["error"]).await;
    assert!(!ok);
    assert!(of(&errors, "extension")["remedy"].as_str().unwrap().starts_with("create extension headwater;"));
}

#[tokio::test]
async fn doctor_says_why_there_is_no_connection_and_keeps_the_password() {
    let postgres = Postgres::start_bare(&["wal_level=replica"]).await;
    let wrong = postgres.streamer_url().replace("flows-downhill", "flows-uphill");
    let (ok, errors) = doctor(&wrong, &["error"]).await;
    assert!(!ok && of(&errors, "connection")["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{errors:?}");
    assert!(!format!("{errors:?}").contains("flows-uphill"));

    postgres.sql("create role headwater_streamer login replication password 'flows-downhill'").await;
    let (_, errors) = doctor(&postgres.streamer_url(), &["error"]).await;
    assert!(of(&errors, "wal_level")["remedy"].as_str().unwrap().contains("wal_level = 'logical'"));
    assert!(of(&errors, "extension")["message"].as_str().unwrap().contains("does not have"));

    let (status, _, message) = run(&["doctor"]).await;
    assert!(status == Some(1) && message.contains("DATABASE_URL"), "{message}");
    let (ok, errors) = doctor("postgres://me@127.0.0.1:1/none", &["error"]).await;
    assert!(!ok && of(&errors, "connection")["remedy"].as_str().unwrap().contains("start Postgres"), "{errors:?}");
}

/// A running `headwater tail`.
struct Tail {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(arguments: &[&str]) -> Self {
        let mut process = headwater(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { _process: process, lines }
    }

    /// The next line; none at its end.
    async fn next(&mut self) -> Option<String> {
        tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("a line").unwrap()
    }
}

#[tokio::test]
async fn tail_shows_every_event_once_whatever_happens_to_the_streamer() {
    let (postgres, mut streamer) = orders::start(&["--retry", "50ms"]).await;
    let insert = async |number: usize| {
        postgres.sql(&format!("insert into orders (tenant_id, table_number) values ('cafe', {number})")).await;
    };
    let mut tail = Tail::start(&["tail", &streamer.url(""), "--json", "--entity-type", "order", "-n", "6"]);
    eventually("the tail to follow", || async {
        let metrics = headwater_tests::http::get(&streamer.url("/metrics"), &[]).await.body;
        metrics.contains("headwater_clients{transport=\"sse\"} 1").then_some(())
    })
    .await;
    let mut seen = Vec::new();
    for number in 0..6 {
        insert(number).await;
        if number % 2 == 1 {
            streamer.kill().await;
            streamer.resume().await;
        }
        let event: Value = serde_json::from_str(&tail.next().await.expect("a line")).unwrap();
        seen.push(event["payload"]["table_number"].as_u64().unwrap());
    }
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    assert_eq!(tail.next().await, None, "after -n events it ends");

    // The past, as a person reads it.
    let (status, text, _) =
        run(&["tail", &streamer.url(""), "--since", "2026-01-01T00:00:00Z", "--count", "2", "--quiet"]).await;
    let lines: Vec<&str> = text.lines().collect();
    assert!(status == Some(0) && lines.len() == 2, "{status:?}: {text}");
    assert!(lines[0].contains(" order.created ") && lines[0].contains("tenant=cafe"), "{text}");
    assert!(!text.contains('\x1b'), "no colours into a pipe");
}

#[tokio::test]
async fn tail_says_what_is_wrong() {
    let (_postgres, streamer) = orders::start(&token::ARGUMENTS).await;
    let url = streamer.url("");
    for (arguments, words) in [
        (vec!["tail", &url], "--token"),
        (vec!["tail", &url, "--token", "nonsense"], "--token"),
        (vec!["tail", &url, "--token", token::ADMIN, "--cursor", "nonsense"], "cursor"),
        (vec!["tail", &url, "--token", token::ADMIN, "--since", "yesterday"], "RFC 3339"),
        (vec!["tail", "nowhere"], "HEADWATER_URL"),
    ] {
        let (status, _, message) = run(&arguments).await;
        assert!(status == Some(1) && message.contains(words), "{arguments:?}: {message}");
        assert!(!message.contains(token::ADMIN), "{message}");
    }
}

#[tokio::test]
async fn an_entity_whose_backend_there_is_not_is_told_of() {
    let postgres = Postgres::start().await;
    postgres.sql(orders::SCHEMA).await;
    postgres
        .sql("create table note (id int primary key); select headwater.enable('note', notification => 'redis')")
        .await;
    let streamer = Streamer::start(&postgres, &[]).await;
    let says = |asked: &str| {
        streamer.logged().contains(&format!("does not have: its events are pushed by the streamer's own, and published nowhere; pass --redis-url, or call headwater.enable again with another notification entity=note asked={asked}"))
    };
    assert!(says("redis"), "{}", streamer.logged());
    postgres.sql("select headwater.enable('note', notification => 'nats')").await;
    eventually("the change to be told of", || async { says("nats").then_some(()) }).await;

    let url = postgres.streamer_url();
    let (ok, warnings) = doctor(&url, &["warning"]).await;
    assert!(ok && of(&warnings, "notification")["message"].as_str().unwrap().contains("nats"), "{warnings:?}");
    postgres.sql("select headwater.enable('note', notification => 'memory')").await;
    let (_, warnings) = doctor(&url, &["warning"]).await;
    assert!(warnings.iter().all(|finding| finding["check"] != "notification"), "{warnings:?}");
}
