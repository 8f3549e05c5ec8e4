//! From the WAL to decoded events in the log, against Postgres' own client, which throws away what it reads: each gets
//! the same rows from a slot of its own.

use std::time::Instant;

use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;

use crate::measured::{Bound, Measured, turns};
use crate::process::cpu_seconds;
use crate::{Options, server};

const HEADWATER: &str = "headwater";
const RECVLOGICAL: &str = "pg_recvlogical";
const ALL: [&str; 2] = [HEADWATER, RECVLOGICAL];
const ROWS_PER_TRANSACTION: u32 = 1_000;

pub(crate) async fn run(options: &Options) -> Vec<Measured> {
    let postgres = server::start(options).await;
    postgres.install().await;
    postgres.sql("create table message (id bigint primary key, body text); select headwater.enable('message')").await;
    let rows = options.rows * 5;
    let what = |what: &str, unit| Measured::new(format!("{rows} events: {what}"), unit);
    let mut speed = what("rows/s", "rows/s").claim(HEADWATER, RECVLOGICAL, Some(Bound::AtLeast(1.0)), None);
    let mut cpu = what("CPU of a row", "ns").claim(HEADWATER, RECVLOGICAL, Some(Bound::AtMost(1.0)), None);
    for round in 0..options.rounds {
        load(&postgres, rows, round == 0).await;
        for contender in turns(&ALL, round) {
            let (seconds, cpu_seconds) =
                if contender == HEADWATER { headwater(&postgres).await } else { recvlogical(&postgres).await };
            let (per_second, ns) = (f64::from(rows) / seconds, cpu_seconds * 1e9 / f64::from(rows));
            eprintln!("    round {round}, {contender}: {per_second:.0} rows/s, {ns:.0} ns/row");
            speed.add(contender, per_second);
            cpu.add(contender, ns);
        }
    }
    vec![speed, cpu]
}

/// Makes both slots and fills the WAL behind them.
async fn load(postgres: &Postgres, rows: u32, first: bool) {
    if !first {
        postgres.sql("select pg_drop_replication_slot('recvlogical')").await;
    }
    postgres.sql("truncate message").await;
    postgres.sql("select pg_create_logical_replication_slot('recvlogical', 'pgoutput')").await;
    // The streamer makes its own, and confirms what is in it by now.
    let mut streamer = Streamer::start(postgres, &["--replica", "decode", "--ring-bytes", "1MiB"]).await;
    assert!(streamer.terminate().await.success());
    let client = postgres.connect().await;
    for from in (1..=rows).step_by(ROWS_PER_TRANSACTION as usize) {
        let to = i64::from(from + ROWS_PER_TRANSACTION - 1);
        let insert = "insert into message select n, repeat('x', 80) from generate_series($1::bigint, $2::bigint) n";
        client.execute(insert, &[&i64::from(from), &to]).await.unwrap();
    }
    client.batch_execute("checkpoint").await.unwrap();
}

/// Until the log has reached the end of the WAL, as `/health` tells; start-up included.
async fn headwater(postgres: &Postgres) -> (f64, f64) {
    let start = Instant::now();
    let mut streamer = Streamer::start(postgres, &["--replica", "decode"]).await;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds(streamer.pid());
    streamer.kill().await;
    (seconds, cpu)
}

async fn recvlogical(postgres: &Postgres) -> (f64, f64) {
    let client = postgres.connect().await;
    let end: String = client.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let mut command = postgres.program("pg_recvlogical");
    command.args(["--start", "--no-loop", "-S", "recvlogical", "-d", "headwater", "-f", "/dev/null", "-E", &end]);
    command.args([
        "-o",
        "proto_version=1",
        "-o",
        "publication_names=headwater_events,headwater_tables",
        "-o",
        "messages=true",
    ]);
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    // The shell tells what its child took when that has ended.
    let mut shell = headwater_tests::place::as_server_user("bash".as_ref());
    shell.args(["-c", "TIMEFORMAT='%R %U %S'; time \"$@\"", "bash"]).arg(program).args(arguments);
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = tokio::task::spawn_blocking(move || shell.output()).await.unwrap().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    let times: Vec<f64> = message.lines().last().unwrap().split(' ').map(|text| text.parse().unwrap()).collect();
    (times[0], times[1] + times[2])
}
