//! Many transactions of one row, with `pgbench -c 2 -M prepared`: a one-row INSERT, a one-row UPDATE, and the script
//! "TPC-B (sort of)", each with synchronous commit on and off.

use std::io::Write;
use std::process::{Command, Stdio};

use headwater_tests::postgres::Postgres;

use crate::contenders::{self, ALL, Contender};
use crate::measured::{Bound, Measured, turns};
use crate::{Options, server};

/// What must be left of the transactions per second without a trigger.
const MUST: Bound = Bound::AtLeast(0.84);

/// Rows of the table that the UPDATE picks from.
const ROWS: u32 = 100_000;

#[derive(Clone, Copy)]
struct Workload {
    name: &'static str,
    /// A script of pgbench; its own if there is none.
    script: Option<&'static str>,
}

const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "INSERT of one order",
        script: Some(
            "\\set n random(1, 40)\ninsert into orders (tenant_id, table_number, updated_at) values ('tenant-1', :n, now());\n",
        ),
    },
    Workload {
        name: "UPDATE of one row",
        script: Some("\\set id random(1, 100000)\nupdate narrow set amount = amount + 1 where id = :id;\n"),
    },
    Workload { name: "TPC-B", script: None },
];

pub(crate) async fn run(options: &Options) -> Vec<Measured> {
    let postgres = server::start(options).await;
    for contender in ALL {
        eprintln!("    {}: filling the tables", contender.name());
        prepare(&postgres, contender).await;
    }
    let mut all = Vec::new();
    for synchronous in ["on", "off"] {
        for workload in WORKLOADS {
            let what = format!("{}, synchronous_commit {synchronous}", workload.name);
            // Without waiting for the disk there is little in a transaction but what a trigger adds: for scale.
            let must = (synchronous == "on").then_some(MUST);
            let mut measured = contenders::claims(Measured::new(what, "tps"), must, None);
            for round in 0..options.rounds {
                for contender in turns(&ALL, round) {
                    let tps = turn(&postgres, workload, contender, synchronous, options.seconds);
                    eprintln!("    {}, round {round}, {}: {tps:.0} tps", measured.what, contender.name());
                    measured.add(contender.name(), tps);
                }
            }
            all.push(measured);
        }
    }
    all
}

async fn prepare(postgres: &Postgres, contender: Contender) {
    let database = &database(contender);
    server::make(
        postgres,
        database,
        &[
            include_str!("../sql/orders.sql"),
            include_str!("../sql/narrow.sql"),
            &format!("insert into narrow select n, 'name of ' || n, 0 from generate_series(1, {ROWS}) n"),
        ],
    )
    .await;
    postgres.run("pgbench", &["--initialize", "--quiet", "--scale=4", database.as_str()]).await;
    let client = server::connect(postgres, database).await;
    client.batch_execute(contender.install()).await.unwrap();
    // The key of pgbench_history is there for table_log and Headwater, and so for all.
    client
        .batch_execute("alter table pgbench_history add column id bigint generated always as identity primary key")
        .await
        .unwrap();
    let tables = [
        ("orders", "id", ", tenant_column => 'tenant_id'"),
        ("narrow", "id", ""),
        ("pgbench_accounts", "aid", ", entity => 'account'"),
        ("pgbench_branches", "bid", ", entity => 'branch'"),
        ("pgbench_tellers", "tid", ", entity => 'teller'"),
        ("pgbench_history", "id", ", entity => 'history'"),
    ];
    for (table, key, arguments) in tables {
        client.batch_execute(&contender.attach(table, key, arguments)).await.unwrap();
        if contender == Contender::Headwater {
            client.batch_execute(&format!("call headwater.backfill('{table}')")).await.unwrap();
        }
    }
    client.batch_execute("vacuum analyze").await.unwrap();
}

/// Transactions per second.
fn turn(postgres: &Postgres, workload: Workload, contender: Contender, synchronous: &str, seconds: u32) -> f64 {
    let mut command: Command = postgres.program("pgbench");
    command.env("PGOPTIONS", format!("-c synchronous_commit={synchronous}")).args([
        "--client=2",
        "--jobs=2",
        "--protocol=prepared",
        "--no-vacuum",
        "--time",
        &seconds.to_string(),
    ]);
    if workload.script.is_some() {
        command.arg("--file=-").stdin(Stdio::piped());
    }
    let mut running =
        command.arg(database(contender)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pgbench runs");
    if let Some((script, mut input)) = workload.script.zip(running.stdin.take()) {
        input.write_all(script.as_bytes()).unwrap();
    }
    let output = running.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    let tps = printed.lines().find_map(|line| line.strip_prefix("tps = ")).expect("pgbench prints its tps");
    tps.split(' ').next().unwrap().parse().unwrap()
}

fn database(contender: Contender) -> String {
    format!("with_{}", contender.slug())
}
