//! Promise: shapes are right whatever the tables are: names that need quotes, columns of all types, keys of several columns
//! in any order or none, partitions, generated columns, values stored out of line. Oracle: Postgres, for every client, after
//! each batch of random transactions, DDL, restarts and changes of replica; and the client itself, which fails on a row that
//! comes twice and on a change of a row that it does not have.
//!
//! Each seed is another schema: `HEADWATER_TEST_SEED`; `HEADWATER_TEST_SCHEMAS` for more of them in a run.

mod condition;
mod schema;

use headwater_tests::deadline::eventually;
use headwater_tests::postgres::Postgres;
use headwater_tests::random::{Random, seed};
use headwater_tests::shape::{ShapeClient, active, mark, select};
use headwater_tests::streamer::Streamer;
use tokio_postgres::error::SqlState;

use crate::shape::{start, start_on};
use condition::condition;
use schema::{TYPES, Table, literal, quoted, value};

/// In `make test`.
const SCHEMAS: u64 = 3;
const BATCHES: usize = 6;
const TRANSACTIONS_PER_BATCH: usize = 8;

struct World {
    random: Random,
    tables: Vec<Table>,
    /// Of a table, columns that came later and that no shape names.
    added: Vec<Vec<String>>,
    /// Numbers of rows without keys, and of columns.
    unique: u64,
    /// What puts a partition back that was taken off.
    attach: Option<String>,
}

/// A shape, and the query that it stands for.
struct Shape {
    parameters: Vec<(&'static str, String)>,
    query: String,
}

impl World {
    fn made_up(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let tables: Vec<Table> = (0..3 + random.index(3)).map(|n| Table::made_up(&mut random, n)).collect();
        Self { random, added: vec![Vec::new(); tables.len()], tables, unique: 0, attach: None }
    }

    /// All of each table, then others.
    fn shapes(&mut self, count: usize) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for n in 0..count.max(self.tables.len()) {
            let at = if n < self.tables.len() { n } else { self.random.index(self.tables.len()) };
            let (random, table) = (&mut self.random, &self.tables[at]);
            let mut parameters = vec![("table", table.name.clone())];
            let mut columns = "*".to_owned();
            if table.has_generated() || (n >= self.tables.len() && random.below(3) == 0) {
                let all = table.has_generated() && random.below(2) == 0;
                let chosen =
                    table.stored().filter(|at| table.key.contains(at) || *at == 0 || all || random.below(2) == 0);
                columns = table.names(chosen.collect::<Vec<_>>().into_iter());
                parameters.push(("columns", columns.replace(", ", ",")));
            }
            let mut query = format!("select {columns} from {}", table.name);
            if n >= self.tables.len() && random.below(4) > 0 {
                let filter = condition(random, table, 3);
                query = format!("{query} where {filter}");
                parameters.push(("where", filter));
            }
            if random.below(3) == 0 {
                parameters.push(("replica", "full".to_owned()));
            }
            shapes.push(Shape { parameters, query });
        }
        shapes
    }

    fn transaction(&mut self) -> String {
        let mut script = String::from("begin;");
        for _ in 0..=self.random.below(6) {
            let table = self.random.one_of(&self.tables).clone();
            let statement = table.statement(&mut self.random, &mut self.unique);
            let (before, after) = match self.random.below(8) {
                0 => ("savepoint s;", "rollback to s;"),
                1 => ("savepoint s;", "release s;"),
                _ => ("", ""),
            };
            script += &[before, &statement, after].join(" ");
        }
        script += if self.random.below(10) == 0 { "rollback" } else { "commit" };
        script
    }

    /// DDL: what clients have to start anew for, or must not notice.
    fn upheaval(&mut self) -> String {
        if let Some(attach) = self.attach.take() {
            return attach;
        }
        self.unique += 1;
        let at = self.random.index(self.tables.len());
        let (name, unique) = (self.tables[at].name.clone(), self.unique);
        let other = self.random.one_of(&self.tables).name.clone();
        let random = &mut self.random;
        match random.below(13) {
            0 => format!("truncate {name}"),
            1 if other != name => format!("truncate {name}, {other}"),
            2 | 3 => {
                let kind = *random.one_of(&["int4", "text", "numeric", "jsonb", "date", "mood"]);
                let default = literal(&value(random, kind));
                let column = quoted(&format!("new {unique}"));
                self.added[at].push(column.clone());
                format!("alter table {name} add {column} {kind} default {default}")
            }
            4 => match self.added[at].pop() {
                Some(column) => format!("alter table {name} drop {column}"),
                None => format!("vacuum full {name}"),
            },
            5 => match self.added[at].last_mut() {
                Some(column) => {
                    let old = std::mem::replace(column, quoted(&format!("renamed {unique}")));
                    format!("alter table {name} rename {old} to {column}")
                }
                None => format!("analyze {name}"),
            },
            6 => match self.added[at].last() {
                Some(column) => {
                    format!(
                        "alter table {name} alter {column} drop default, alter {column} type text using {column}::text || '!'"
                    )
                }
                None => format!("vacuum full {name}"),
            },
            7 => {
                self.added[at].clear();
                let table = self.tables[at].clone();
                let filled = table.insert(&mut self.random, &mut self.unique);
                format!("begin; drop table {name}; {} {filled} commit", table.definition())
            }
            8 => self.tables[at].renamed_and_back(),
            9 => format!("alter type mood add value 'mood {unique}'"),
            10 => match self.tables[at].a_partition() {
                Some(partition) => format!("truncate {partition}"),
                None => format!("truncate {name}"),
            },
            11 => match self.tables[at].detached_and_attached() {
                Some((detach, attach)) => {
                    self.attach = Some(attach);
                    detach
                }
                None => format!("vacuum full {name}"),
            },
            _ => format!("comment on table {name} is 'comment {unique}'; analyze {name}"),
        }
    }
}

async fn check(postgres: &Postgres, shapes: &[Shape], clients: &mut [ShapeClient]) {
    let observer = postgres.connect().await;
    let end = mark(&observer).await;
    for (client, shape) in clients.iter_mut().zip(shapes.iter().cycle()) {
        let Shape { parameters, query } = shape;
        // DDL that leaves no trace in the WAL is noticed a moment later.
        let what = format!("{parameters:?} to be as Postgres has it");
        eventually(&what, || {
            let mut own = client.clone();
            let observer = &observer;
            async move {
                own.catch_up(end).await;
                let expected = select(observer, query).await;
                if own.table() != expected {
                    println!("{parameters:?}: not yet:\n{:?}\n{expected:?}", own.table());
                    return None;
                }
                Some(own)
            }
        })
        .await
        .clone_into(client);
    }
}

/// Replicas of one database, and clients that go from one to another.
async fn run(seed: u64, batches: usize, count: usize) {
    println!("schema of seed {seed}");
    let mut world = World::made_up(seed);
    let (postgres, first) = start(&[]).await;
    postgres.sql(TYPES).await;
    let writer = postgres.connect().await;
    for table in world.tables.clone() {
        let definition = table.definition();
        println!("{definition}");
        writer.batch_execute(&definition).await.unwrap_or_else(|error| panic!("{definition}: {error:?}"));
        for _ in 0..6 {
            let insert = table.insert(&mut world.random, &mut world.unique);
            writer.batch_execute(&insert).await.unwrap_or_else(|error| panic!("{insert}: {error:?}"));
        }
    }
    let second = start_on(&postgres, &["--replica", "second"]).await;
    let mut replicas: [Streamer; 2] = [first, second];
    let shapes = world.shapes(count);
    let mut clients: Vec<ShapeClient> = Vec::new();
    for replica in &replicas {
        for shape in &shapes {
            let parameters: Vec<(&str, &str)> =
                shape.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
            clients.push(ShapeClient::new(&replica.url(""), &parameters));
        }
    }
    check(&postgres, &shapes, &mut clients).await;
    for batch in 0..batches {
        for _ in 0..TRANSACTIONS_PER_BATCH {
            let transaction = world.transaction();
            match writer.batch_execute(&transaction).await {
                Ok(()) => {}
                // Two rows that were given one key, or one whose partition is away: a transaction that leaves nothing.
                Err(error)
                    if error.code() == Some(&SqlState::UNIQUE_VIOLATION)
                        || (error.code() == Some(&SqlState::CHECK_VIOLATION) && world.attach.is_some()) =>
                {
                    writer.batch_execute("rollback").await.unwrap();
                }
                Err(error) => panic!("{transaction}: {error:?}"),
            }
        }
        if batch % 2 == 1 {
            let upheaval = world.upheaval();
            println!("batch {batch}: {upheaval}");
            writer.batch_execute(&upheaval).await.unwrap_or_else(|error| panic!("{upheaval}: {error:?}"));
        }
        if batch % 3 == 1 {
            let replica = &mut replicas[world.random.index(2)];
            replica.kill().await;
            replica.resume().await;
            active(&replica.url("")).await;
        }
        for client in &mut clients {
            if world.random.below(3) == 0 {
                client.move_to(&replicas[world.random.index(2)].url(""));
            }
        }
        check(&postgres, &shapes, &mut clients).await;
    }
    let changes: usize = clients.iter().map(|client| client.changes).sum();
    let refetches: usize = clients.iter().map(|client| client.refetches).sum();
    println!("{} clients of {} shapes: {changes} changes, {refetches} times anew", clients.len(), shapes.len());
    assert!(changes > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shapes_of_any_table_are_what_select_gives() {
    let number = |name: &str, usual: usize| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let batches = number("HEADWATER_TEST_SHAPE_BATCHES", BATCHES);
    let shapes = number("HEADWATER_TEST_SHAPES", 20);
    let schemas = u64::try_from(number("HEADWATER_TEST_SCHEMAS", usize::try_from(SCHEMAS).unwrap())).unwrap();
    let first = seed();
    for seed in first..first + schemas {
        run(seed, batches, shapes).await;
    }
}
