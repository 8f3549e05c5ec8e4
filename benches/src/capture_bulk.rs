//! One statement that changes very many rows. Every turn has a fresh copy of the same database; before every statement
//! comes a checkpoint; the connection has run one small statement of the kind before.

use std::time::Instant;

use headwater_tests::postgres::Postgres;
use tokio_postgres::Client;

use crate::contenders::{self, ALL, Contender};
use crate::measured::{Bound, Measured, turns};
use crate::{Options, server};

/// What an INSERT may cost at most, and what it should.
const MUST: Bound = Bound::AtMost(2.2);
const GOAL: Bound = Bound::AtMost(1.6);

struct Table {
    name: &'static str,
    key: &'static str,
    definition: &'static str,
    source: &'static str,
    /// What follows the table among the arguments of `enable`.
    enable_arguments: &'static str,
    /// What the UPDATE sets.
    set: &'static str,
}

const TABLES: [Table; 2] = [
    Table {
        name: "orders",
        key: "id",
        definition: include_str!("../sql/orders.sql"),
        source: include_str!("../sql/orders_source.sql"),
        enable_arguments: ", tenant_column => 'tenant_id'",
        set: "status = 'paid', updated_at = updated_at + interval '1 hour'",
    },
    Table {
        name: "narrow",
        key: "id",
        definition: include_str!("../sql/narrow.sql"),
        source: include_str!("../sql/narrow_source.sql"),
        enable_arguments: "",
        set: "amount = amount + 1",
    },
];

pub(crate) async fn run(options: &Options) -> Vec<Measured> {
    let postgres = server::start(options).await;
    let mut all = Vec::new();
    for table in &TABLES {
        for contender in ALL {
            prepare(&postgres, table, contender, options.rows).await;
        }
        let (rows, name) = (options.rows, table.name);
        let mut insert =
            contenders::claims(Measured::new(format!("INSERT of {rows} {name}"), "ms"), Some(MUST), Some(GOAL));
        let mut update = contenders::claims(Measured::new(format!("UPDATE of {rows} {name}"), "ms"), None, None);
        let mut delete = contenders::claims(Measured::new(format!("DELETE of {rows} {name}"), "ms"), None, None);
        for round in 0..options.rounds {
            for contender in turns(&ALL, round) {
                let [inserted, updated, deleted] = turn(&postgres, table, contender).await;
                eprintln!(
                    "    {name}, round {round}, {}: insert {inserted:.0} ms, update {updated:.0} ms, delete {deleted:.0} ms",
                    contender.name()
                );
                insert.add(contender.name(), inserted);
                update.add(contender.name(), updated);
                delete.add(contender.name(), deleted);
            }
        }
        all.extend([insert, update, delete]);
    }
    all
}

fn template(table: &Table, contender: Contender) -> String {
    format!("template_{}_{}", table.name, contender.slug())
}

async fn prepare(postgres: &Postgres, table: &Table, contender: Contender, rows: u32) {
    let source = table.source.replace("ROWS", &rows.to_string());
    // VACUUM stands alone.
    let statements: Vec<&str> = source.split_inclusive(';').filter(|statement| !statement.trim().is_empty()).collect();
    let attach = contender.attach(table.name, table.key, table.enable_arguments);
    let setup: Vec<&str> = [table.definition, contender.install(), &attach].into_iter().chain(statements).collect();
    server::make(postgres, &template(table, contender), &setup).await;
}

/// Milliseconds of the INSERT, the UPDATE and the DELETE.
async fn turn(postgres: &Postgres, table: &Table, contender: Contender) -> [f64; 3] {
    let name = table.name;
    server::copy(postgres, &template(table, contender), "turn").await;
    let client = server::connect(postgres, "turn").await;
    // What a backend loads and plans once, and the source's pages, are not what a bulk statement costs.
    let warm_up = format!(
        "select count(*) from source;
         insert into {name} select * from source limit 2;
         update {name} set {};
         delete from {name};",
        table.set
    );
    client.batch_execute(&warm_up).await.unwrap();
    let inserted = timed(&client, &format!("insert into {name} select * from source")).await;
    let updated = timed(&client, &format!("update {name} set {}", table.set)).await;
    let deleted = timed(&client, &format!("delete from {name}")).await;
    server::drop(postgres, "turn").await;
    [inserted, updated, deleted]
}

async fn timed(client: &Client, statement: &str) -> f64 {
    client.batch_execute("checkpoint").await.unwrap();
    let start = Instant::now();
    client.batch_execute(statement).await.unwrap();
    start.elapsed().as_secs_f64() * 1000.0
}
