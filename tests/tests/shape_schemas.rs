//! Promise: shapes are right whatever the tables are: names that need quotes, columns of all types, keys of several columns
//! in any order or none, partitions, generated columns, values stored out of line. Oracle: Postgres, for every client, after
//! each batch of random transactions, DDL, restarts and changes of replica; and the client itself, which fails on a row that
//! comes twice and on a change of a row that it does not have.
//!
//! Each seed is another schema: `HEADWATER_TEST_SEED`; `HEADWATER_TEST_SCHEMAS` for more of them in a run.

mod condition;
mod schema;

use headwater_tests::random::{Random, seed};
use headwater_tests::shape::ShapeClient;
use tokio_postgres::error::SqlState;

use crate::shape_world::{Replicas, Shape, World, count, write_unless};
use condition::condition;
use schema::{TYPES, Table, literal, quoted, value};

/// In `make test`.
const SCHEMAS: usize = 3;
const SHAPES: usize = 20;
const BATCHES: usize = 6;
const TRANSACTIONS_PER_BATCH: usize = 8;

struct Schema {
    random: Random,
    tables: Vec<Table>,
    /// Of a table, columns that came later and that no shape names.
    added: Vec<Vec<String>>,
    /// Numbers of rows without keys, and of columns.
    unique: u64,
    /// What puts a partition back that was taken off.
    attach: Option<String>,
}

impl Schema {
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
            let mut shape = Vec::new();
            let mut columns = "*".to_owned();
            if table.has_generated() || (n >= self.tables.len() && random.below(3) == 0) {
                let all = table.has_generated() && random.below(2) == 0;
                let chosen =
                    table.stored().filter(|at| table.key.contains(at) || *at == 0 || all || random.below(2) == 0);
                columns = table.names(chosen.collect::<Vec<_>>().into_iter());
                shape.push(("columns", columns.replace(", ", ",")));
            }
            let mut query = format!("select {columns} from {}", table.name);
            if n >= self.tables.len() && random.below(4) > 0 {
                let filter = condition(random, table, 3);
                query = format!("{query} where {filter}");
                shape.push(("where", filter));
            }
            let shape = shape
                .iter()
                .fold(Shape::new(&[("table", &table.name)], query), |all, (name, value)| all.with(name, value));
            shapes.push(if random.below(3) == 0 { shape.with("replica", "full") } else { shape });
        }
        shapes
    }
}

impl World for Schema {
    fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn statement(&mut self) -> String {
        let table = self.random.one_of(&self.tables).clone();
        table.statement(&mut self.random, &mut self.unique)
    }

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

/// Replicas of one database, and clients that go from one to another.
async fn follow(seed: u64, batches: usize, shapes: usize) {
    println!("schema of seed {seed}");
    let mut world = Schema::made_up(seed);
    let definitions: Vec<String> = world.tables.iter().map(Table::definition).collect();
    println!("{}", definitions.join("\n"));
    let mut script = TYPES.to_owned() + &definitions.concat();
    for table in world.tables.clone() {
        for _ in 0..6 {
            script += &table.insert(&mut world.random, &mut world.unique);
        }
    }
    let mut replicas = Replicas::start(&script).await;
    let shapes = world.shapes(shapes);
    let mut clients: Vec<ShapeClient> = (0..2)
        .flat_map(|replica| shapes.iter().map(move |shape| (replica, shape)))
        .map(|(replica, shape)| shape.client(&replicas.url(replica)))
        .collect();
    replicas.check(&shapes, &mut clients).await;
    let writer = replicas.postgres.connect().await;
    for batch in 0..batches {
        for _ in 0..TRANSACTIONS_PER_BATCH {
            // Rows whose partition is away have no place.
            let homeless = world.attach.as_ref().map(|_| SqlState::CHECK_VIOLATION);
            write_unless(&writer, &world.transaction(), homeless.as_slice()).await;
        }
        if batch % 2 == 1 {
            world.overturn(&writer).await;
        }
        if batch % 3 == 1 {
            replicas.restart(world.random.index(2)).await;
        }
        replicas.shuffle(&mut clients, &mut world.random);
        replicas.check(&shapes, &mut clients).await;
    }
    let changes: usize = clients.iter().map(|client| client.changes).sum();
    let refetches: usize = clients.iter().map(|client| client.refetches).sum();
    println!("{} clients of {} shapes: {changes} changes, {refetches} times anew", clients.len(), shapes.len());
    assert!(changes > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shapes_of_any_table_are_what_select_gives() {
    let (batches, shapes) = (count("HEADWATER_TEST_SHAPE_BATCHES", BATCHES), count("HEADWATER_TEST_SHAPES", SHAPES));
    let first = seed();
    for seed in (first..).take(count("HEADWATER_TEST_SCHEMAS", SCHEMAS)) {
        follow(seed, batches, shapes).await;
    }
}
