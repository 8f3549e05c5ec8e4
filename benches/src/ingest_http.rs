//! Batches of clients' events over HTTP, from several clients at once: Headwater stores each event and applies it to its
//! row; Message DB stores it, and plain INSERTs make rows, by SQL without a server in between.

use std::time::Instant;

use futures_util::future::join_all;
use headwater_tests::http;
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;
use serde_json::Value;
use uuid::Uuid;

use crate::ingest::{BATCH, CONNECTIONS, HEADWATER, Parameters, Workload};
use crate::measured::{Measured, turns};
use crate::process::cpu_seconds;
use crate::{Options, ingest, server};

pub(crate) async fn run(options: &Options) -> Vec<Measured> {
    let postgres = server::start(options).await;
    postgres.install().await;
    let orders = ingest::prepare(&postgres, "headwater").await;
    let streamer = Streamer::start(&postgres, &["--replica", "ingest"]).await;
    let mut all = Vec::new();
    for (workload, what) in [
        (Workload::Creates, "100 orders created"),
        (Workload::Lives, "10 orders created, 8 items added to each, closed"),
    ] {
        let what = format!("batches of {BATCH}, {CONNECTIONS} HTTP clients: {what}");
        let mut measured = workload.claims(Measured::new(what.clone(), "events/s"));
        let mut cpu = Measured::new(what, "µs/event of the streamer").fixed(HEADWATER, None, None);
        for round in 0..options.rounds {
            for contender in turns(workload.contenders(), round) {
                let batches = usize::try_from(options.events).unwrap().div_ceil(BATCH * CONNECTIONS);
                let per_second = if contender == HEADWATER {
                    let (per_second, cpu_us) = turn(&postgres, &streamer, workload, batches, &orders).await;
                    cpu.add(contender, cpu_us);
                    per_second
                } else {
                    ingest::turn(&postgres, contender, workload, batches, &orders).await
                };
                eprintln!("    {}, round {round}, {contender}: {per_second:.0} events/s", measured.what);
                measured.add(contender, per_second);
            }
        }
        all.extend([measured, cpu]);
    }
    all
}

/// Events per second of all clients together, and what the streamer takes for one.
async fn turn(
    postgres: &Postgres,
    streamer: &Streamer,
    workload: Workload,
    batches: usize,
    orders: &[Uuid],
) -> (f64, f64) {
    let body = |number| match ingest::parameters(HEADWATER, &ingest::batch(workload, orders, number)) {
        Parameters::Texts(texts) => {
            let mut events: Value = serde_json::from_str(&texts[0]).unwrap();
            for event in events.as_array_mut().unwrap() {
                // Without authentication the caller says whose it is.
                event["tenant_id"] = "tenant".into();
            }
            serde_json::json!({ "events": events }).to_string()
        }
        Parameters::Arrays(_) => unreachable!("Headwater takes texts"),
    };
    let url = streamer.url("/api/v1/events/batch");
    let send = async |client: &reqwest::Client, body: String| {
        let request = client.post(&url).header("content-type", "application/json").body(body);
        let answer = http::send(request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["rejected"], serde_json::json!([]));
    };
    let send = &send;
    let mut workers = Vec::new();
    for worker in 0..CONNECTIONS {
        let client = http::client();
        send(&client, body(CONNECTIONS * batches + worker)).await;
        workers.push((client, (worker * batches..(worker + 1) * batches).map(body).collect::<Vec<_>>()));
    }
    postgres.sql("checkpoint").await;
    let (start, before) = (Instant::now(), cpu_seconds(streamer.pid()));
    join_all(workers.into_iter().map(|(client, bodies)| async move {
        for body in bodies {
            send(&client, body).await;
        }
    }))
    .await;
    let events = f64::from(u32::try_from(CONNECTIONS * batches * BATCH).unwrap());
    let cpu_us = (cpu_seconds(streamer.pid()) - before) * 1e6 / events;
    (events / start.elapsed().as_secs_f64(), cpu_us)
}
