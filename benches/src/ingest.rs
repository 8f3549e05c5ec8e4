//! Batches of clients' events, by SQL, from several connections at once: `headwater.ingest`, which stores each event and
//! applies it to its row; Message DB, which stores it; and plain INSERTs.
//!
//! Message DB has two turns. Its interface is one call a message, and so the peer that bounds are for is called: by
//! pipelined calls within a transaction for each batch, which is kinder than one round trip a message. One statement that
//! calls it for a whole batch is the most that can be had of it. The plain INSERTs are floors: of the rows alone, and of
//! all that ingest leaves behind, without a look at anything.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use headwater_tests::postgres::Postgres;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::measured::{Bound, Measured, turns};
use crate::{Options, message_db, server};

pub(crate) const CONNECTIONS: usize = 8;
pub(crate) const BATCH: usize = 100;
/// Events per second against Message DB's.
const MUST: Bound = Bound::AtLeast(2.0);
const GOAL: Bound = Bound::AtLeast(5.0);

/// Orders that are there before anything is measured.
const ORDERS: usize = 10_000;

/// Headwater's database.
const DATABASE: &str = "headwater_ingest";

pub(crate) const HEADWATER: &str = "headwater";
const PLAIN: &str = "plain INSERT";
/// Rows, events and receipts.
const RECORDS: &str = "plain INSERTs of row, event and receipt";
const AT_ONCE: &str = "message_db, a statement a batch";
const MESSAGE_DB: &str = "message_db";

/// What the batches hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Each event creates an order.
    Creates,
    /// Ten new orders a batch, each created, given eight items and closed.
    Lives,
    /// Each event changes another one of the orders that are there.
    Changes,
}

impl Workload {
    fn what(self) -> String {
        let what = match self {
            Self::Creates => "100 orders created",
            Self::Lives => "10 orders created, 8 items added to each, closed",
            Self::Changes => "100 of 10,000 orders changed",
        };
        format!("batches of {BATCH}, {CONNECTIONS} connections: {what}")
    }

    /// A plain INSERT is the like of creating rows only.
    pub(crate) fn contenders(self) -> &'static [&'static str] {
        if self == Self::Creates {
            &[HEADWATER, PLAIN, RECORDS, AT_ONCE, MESSAGE_DB]
        } else {
            &[HEADWATER, AT_ONCE, MESSAGE_DB]
        }
    }

    /// Headwater over each of the others.
    pub(crate) fn claims(self, measured: Measured) -> Measured {
        let measured = measured.claim(HEADWATER, MESSAGE_DB, Some(MUST), Some(GOAL));
        let others = self.contenders().iter().filter(|name| ![HEADWATER, MESSAGE_DB].contains(name));
        others.fold(measured, |measured, other| measured.claim(HEADWATER, other, None, None))
    }
}

pub(crate) async fn run(options: &Options) -> Vec<Measured> {
    let postgres = server::start(options).await;
    let orders = prepare(&postgres, DATABASE).await;
    let mut all = Vec::new();
    for workload in [Workload::Creates, Workload::Lives, Workload::Changes] {
        let mut measured = workload.claims(Measured::new(workload.what(), "events/s"));
        for round in 0..options.rounds {
            for contender in turns(workload.contenders(), round) {
                let batches = usize::try_from(options.events).unwrap().div_ceil(BATCH * CONNECTIONS);
                let per_second = turn(&postgres, contender, workload, batches, &orders).await;
                eprintln!("    {}, round {round}, {contender}: {per_second:.0} events/s", measured.what);
                measured.add(contender, per_second);
            }
        }
        all.push(measured);
    }
    all
}

/// Makes the databases, `database` for Headwater; returns the ids of the orders in them.
pub(crate) async fn prepare(postgres: &Postgres, database: &str) -> Vec<Uuid> {
    let orders: Vec<Uuid> = (0..ORDERS).map(|_| Uuid::now_v7()).collect();
    let ids: Vec<String> = orders.iter().map(Uuid::to_string).collect();
    let fill =
        "insert into orders (id, tenant_id, table_number) select id::uuid, 'tenant', 1 from unnest($1::text[]) id";

    let enable = "select headwater.enable('orders', entity => 'order', tenant_column => 'tenant_id', events => '{
        \"created\": {\"rule\": \"create\"},
        \"item_added\": {\"rule\": \"append\", \"field\": \"items\", \"value\": \"item\"},
        \"state_changed\": {\"rule\": \"set\", \"fields\": [\"status\"]}}'::jsonb)";
    // The one that a streamer uses is there already.
    if database == DATABASE {
        server::make(postgres, database, &["create extension headwater"]).await;
    }
    let client = server::connect(postgres, database).await;
    client.batch_execute(&format!("{}; {enable}", include_str!("../sql/orders.sql"))).await.unwrap();
    client.execute(fill, &[&ids]).await.unwrap();

    server::make(postgres, "plain", &[include_str!("../sql/orders.sql"), include_str!("../sql/records.sql")]).await;
    server::connect(postgres, "plain").await.execute(fill, &[&ids]).await.unwrap();

    message_db::install(postgres);
    let streams: Vec<_> = ids.iter().map(|id| format!("order-{id}")).collect();
    let message_ids: Vec<_> = ids.iter().map(|_| Uuid::now_v7().to_string()).collect();
    let types = vec!["order.created"; ORDERS];
    let data = vec![r#"{"table_number": 1}"#; ORDERS];
    let client = message_db::connect(postgres).await;
    client.execute(message_db::WRITE, &[&message_ids, &streams, &types, &data]).await.unwrap();

    for database in [database, "plain", "message_db"] {
        server::connect(postgres, database).await.batch_execute("vacuum analyze").await.unwrap();
    }
    orders
}

pub(crate) struct Event {
    id: Uuid,
    order: Uuid,
    name: &'static str,
    payload: Value,
}

/// The events of one batch; each connection changes other orders, in an order of their own.
pub(crate) fn batch(workload: Workload, orders: &[Uuid], number: usize) -> Vec<Event> {
    let event = |order, name, payload| Event { id: Uuid::now_v7(), order, name, payload };
    let created = |order, n: usize| event(order, "created", json!({"table_number": n % 40, "status": "open"}));
    match workload {
        Workload::Creates => (0..BATCH).map(|n| created(Uuid::now_v7(), n)).collect(),
        Workload::Lives => (0..BATCH / 10)
            .flat_map(|n| {
                let order = Uuid::now_v7();
                let items = (0..8).map(move |i| {
                    let item = json!({"id": format!("i{i}"), "name": "espresso", "price": "2.50"});
                    event(order, "item_added", json!({"item": item}))
                });
                let closed = event(order, "state_changed", json!({"status": "closed"}));
                [created(order, n)].into_iter().chain(items).chain([closed]).collect::<Vec<_>>()
            })
            .collect(),
        Workload::Changes => (0..BATCH)
            .map(|n| {
                // 7919 is prime: the batches walk through all orders before they meet one again.
                let order = orders[(number * BATCH + n) * 7919 % orders.len()];
                event(order, "state_changed", json!({"status": format!("status {number}")}))
            })
            .collect(),
    }
}

/// A statement's parameters, each a text or an array of texts.
pub(crate) enum Parameters {
    Texts(Vec<String>),
    Arrays(Vec<Vec<String>>),
}

pub(crate) fn parameters(contender: &str, events: &[Event]) -> Parameters {
    let column = |of: &dyn Fn(&Event) -> String| events.iter().map(of).collect::<Vec<_>>();
    match contender {
        HEADWATER => {
            let now = OffsetDateTime::now_utc();
            let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
            let event = |(n, event): (usize, &Event)| {
                // Before now, in the order of the batch.
                let at = now - time::Duration::microseconds(i64::try_from(events.len() - n).unwrap());
                json!({
                    "id": event.id, "entity_type": "order", "entity_id": event.order, "client_id": "bench",
                    "event_type": format!("order.{}", event.name), "payload": event.payload,
                    "timestamp": at.format(format).unwrap(),
                })
            };
            let batch = events.iter().enumerate().map(event).collect::<Vec<_>>();
            let claims = json!({"sub": "user", "tenant_id": "tenant"});
            Parameters::Texts(vec![json!(batch).to_string(), claims.to_string()])
        }
        PLAIN => Parameters::Arrays(vec![
            column(&|event| event.order.to_string()),
            column(&|event| event.payload["table_number"].to_string()),
            column(&|event| event.payload["status"].as_str().unwrap().to_owned()),
        ]),
        RECORDS => Parameters::Arrays(vec![
            column(&|event| event.order.to_string()),
            column(&|event| event.id.to_string()),
            column(&|event| event.payload.to_string()),
        ]),
        _ => Parameters::Arrays(vec![
            column(&|event| event.id.to_string()),
            column(&|event| format!("order-{}", event.order)),
            column(&|event| format!("order.{}", event.name)),
            column(&|event| event.payload.to_string()),
        ]),
    }
}

async fn connect(postgres: &Postgres, contender: &str) -> Client {
    match contender {
        HEADWATER => server::connect(postgres, DATABASE).await,
        PLAIN | RECORDS => server::connect(postgres, "plain").await,
        _ => message_db::connect(postgres).await,
    }
}

fn statement(contender: &str) -> &'static str {
    match contender {
        // As the streamer calls it.
        HEADWATER => "select headwater.ingest($1::text::jsonb, $2::text::jsonb)::text",
        PLAIN => {
            "with inserted as (
               insert into orders (id, tenant_id, table_number, status)
               select id::uuid, 'tenant', number::int, status
               from unnest($1::text[], $2::text[], $3::text[]) o (id, number, status)
               returning 1)
             select count(*) from inserted"
        }
        RECORDS => {
            "with batch as materialized (
               select order_id, id::uuid as id, payload::jsonb as payload
               from unnest($1::text[], $2::text[], $3::text[]) b (order_id, id, payload)),
             inserted as (
               insert into orders (id, tenant_id, table_number, status)
               select order_id::uuid, 'tenant', (payload->>'table_number')::int, payload->>'status' from batch
               returning 1),
             recorded as (
               insert into event (id, tenant_id, entity_type, entity_id, event_type, payload, schema_version, occurred_at,
                 user_id, client_id, source, applies)
               select id, 'tenant', 'order', order_id, 'order.created', payload, 1, now(), 'user', 'bench', 'client', true
               from batch),
             receipted as (
               insert into receipt (tenant_id, event_id, digest)
               select 'tenant', id, sha256(payload::text::bytea) from batch)
             select count(*) from inserted"
        }
        MESSAGE_DB => message_db::CALL,
        _ => message_db::WRITE,
    }
}

/// Events per second of all connections together.
pub(crate) async fn turn(
    postgres: &Postgres,
    contender: &str,
    workload: Workload,
    batches: usize,
    orders: &[Uuid],
) -> f64 {
    let mut workers = Vec::with_capacity(CONNECTIONS);
    for worker in 0..CONNECTIONS {
        let client = Arc::new(connect(postgres, contender).await);
        let prepared = client.prepare(statement(contender)).await.unwrap();
        let numbers = (worker * batches)..(worker + 1) * batches;
        let work: Vec<_> = numbers.map(|number| parameters(contender, &batch(workload, orders, number))).collect();
        // What a backend loads and plans once.
        let warm_up = parameters(contender, &batch(workload, orders, CONNECTIONS * batches + worker));
        send(contender, &client, &prepared, &warm_up).await;
        workers.push((client, prepared, work));
    }
    workers[0].0.batch_execute("checkpoint").await.unwrap();

    let start = Instant::now();
    join_all(workers.into_iter().map(|(client, prepared, work)| {
        let contender = contender.to_owned();
        async move {
            tokio::spawn(async move {
                for parameters in &work {
                    send(&contender, &client, &prepared, parameters).await;
                }
            })
            .await
            .unwrap();
        }
    }))
    .await;
    let events = u32::try_from(CONNECTIONS * batches * BATCH).unwrap();
    f64::from(events) / start.elapsed().as_secs_f64()
}

/// Sends a batch; every event of it must be taken.
async fn send(contender: &str, client: &Client, statement: &tokio_postgres::Statement, parameters: &Parameters) {
    let row = match parameters {
        Parameters::Arrays(arrays) if contender == MESSAGE_DB => {
            return message_db::call_each(client, statement, arrays).await;
        }
        Parameters::Texts(texts) => client.query_one(statement, &[&texts[0], &texts[1]]).await,
        Parameters::Arrays(arrays) => {
            let arrays: Vec<_> =
                arrays.iter().map(|array| array as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
            client.query_one(statement, &arrays).await
        }
    };
    let row = row.unwrap_or_else(|error| panic!("{contender}: {error:?}"));
    if contender == HEADWATER {
        let answer: String = row.get(0);
        assert!(answer.contains(r#""rejected": []"#), "{answer}");
    } else {
        assert_eq!(row.get::<_, i64>(0), i64::try_from(BATCH).unwrap());
    }
}
