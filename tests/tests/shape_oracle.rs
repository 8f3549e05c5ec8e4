//! Promise: whatever happens to the tables and to the streamers, a client that follows a shape has the rows that the same
//! SELECT gives. Oracle: Postgres, after each batch of random transactions, for every client; and the client itself, which
//! fails on a row that comes twice and on a change of a row that it does not have.

use headwater_tests::random::{Random, seed};
use headwater_tests::shape::ShapeClient;

use crate::shape_world::{Replicas, Shape, World, count, write};

const TABLES: &str = "
    create table a (id int primary key, t text, n numeric, b bool, j jsonb, big text, ts timestamptz, x bytea, f float8);
    alter table a alter big set storage external;
    create table b (x text, y int, v text, primary key (y, x));
    create table c (id int, region text, v int, primary key (id, region)) partition by list (region);
    create table c_eu partition of c for values in ('eu');
    create table c_us (v int, region text not null, dropped int, id int not null);
    alter table c_us drop column dropped;
    alter table c attach partition c_us for values in ('us', 'ca');
    create table d (n int, v text);
    create schema \"Other\"; create table \"Other\".\"T.x/y\" (\"Id\" uuid primary key default gen_random_uuid(), v text);";

/// A shape, and the query that it stands for.
const SHAPES: &[(&[(&str, &str)], &str)] = &[
    (&[("table", "a")], "select * from a"),
    (&[("table", "a"), ("columns", "id,n,t")], "select id, n, t from a"),
    (&[("table", "a"), ("replica", "full")], "select * from a"),
    (
        &[("table", "a"), ("where", "id < 25 and (t like '%a%' or b) and n is distinct from 0")],
        "select * from a where id < 25 and (t like '%a%' or b) and n is distinct from 0",
    ),
    (
        &[("table", "a"), ("where", "id in (3, 5, 7, 35)"), ("replica", "full")],
        "select * from a where id in (3, 5, 7, 35)",
    ),
    (&[("table", "b")], "select * from b"),
    (&[("table", "b"), ("where", "y = $1 and x > v"), ("params[1]", "1")], "select * from b where y = 1 and x > v"),
    (&[("table", "c")], "select * from c"),
    (&[("table", "c_us"), ("columns", "id,region,v")], "select id, region, v from c_us"),
    (&[("table", "c"), ("where", "region <> 'eu' or v > 10")], "select * from c where region <> 'eu' or v > 10"),
    (&[("table", "d")], "select * from d"),
    (&[("table", "d"), ("where", "v ilike '%A%'")], "select * from d where v ilike '%A%'"),
    (&[("table", "\"Other\".\"T.x/y\"")], "select * from \"Other\".\"T.x/y\""),
];

/// Enough for every one of [`SHAPES`] to see changes.
const BATCHES: usize = 30;

fn fixed() -> Vec<Shape> {
    SHAPES.iter().map(|(parameters, query)| Shape::new(parameters, query)).collect()
}

/// Conditions that never fail, over the columns of one table.
fn condition(random: &mut Random, table: &str, depth: u32) -> String {
    if depth > 0 && random.below(3) > 0 {
        let (left, right) = (condition(random, table, depth - 1), condition(random, table, depth - 1));
        return match random.below(4) {
            0 => format!("not ({left})"),
            1 => format!("({left} or {right})"),
            2 => format!("(({left}) is not true and {right})"),
            _ => format!("({left} and {right})"),
        };
    }
    let n = random.below(40);
    let id = if table == "b" { "y" } else { "id" };
    let text = if table == "a" { "t" } else { "v" };
    match (table, random.below(12)) {
        (_, 0) => format!("{id} = {n}"),
        (_, 1) => format!("{id} in ({n}, {}, {}, {}, {})", n + 1, n + 3, n + 7, n + 30),
        (_, 2) => format!("{id} not in ({n}, {}, 5, 6, 7, 8, null)", n + 1),
        (_, 3) => format!("{id} between {} and {}", n / 2, n),
        (_, 4) => format!("{id} % {} = 1", n % 5 + 2),
        (_, 5) => format!("{id} = any ('{{{n},1,2,3}}')"),
        ("a", 6) => format!("n > {n} or n is null"),
        ("a", 7) => "b is not false".to_owned(),
        ("a", 8) => format!("ts < timestamptz '20{n:02}-01-01 00:00:00+00'"),
        ("a", 9) => format!("f::int4 % 2 = {} or f is null", n % 2),
        ("c", 6..=8) => {
            format!("region {} '{}'", ["=", "<>", "like"][random.index(3)], ["eu", "us", "ca"][random.index(3)])
        }
        ("c", _) => format!("v > {n}"),
        (_, 10) => format!("{text} like '%{}%'", ["a", "/", ".", "ü", "_"][random.index(5)]),
        _ => format!("{text} is {}null", ["", "not "][random.index(2)]),
    }
}

/// `count` shapes: the ones above, then others.
fn shapes(random: &mut Random, count: usize) -> Vec<Shape> {
    let mut all = fixed();
    while all.len() < count {
        let table = ["a", "b", "c"][random.index(3)];
        let filter = condition(random, table, 3);
        let query = format!("select * from {table} where {filter}");
        let shape = Shape::new(&[("table", table), ("where", &filter)], query);
        all.push(if random.below(3) == 0 { shape.with("replica", "full") } else { shape });
    }
    all
}

struct Tables {
    random: Random,
    /// Rows of `d` have no key: each gets a value of its own.
    unique: u64,
    columns: u64,
}

impl Tables {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), unique: 0, columns: 0 }
    }

    fn text(&mut self) -> String {
        const PARTS: [&str; 8] = ["a", "/", "\\\\", "\"", "''", "ü\u{1f600}", "\n\t", "."];
        (0..self.random.below(6)).map(|_| *self.random.one_of(&PARTS)).collect()
    }

    fn nullable(&mut self, value: String) -> String {
        if self.random.below(5) == 0 { "null".to_owned() } else { value }
    }

    fn row_of_a(&mut self) -> String {
        let text = self.text();
        let values = [
            format!("'{text}'"),
            ["1.50", "0", "-12345678901234567890.123", "'NaN'"][self.random.index(4)].to_owned(),
            ["true", "false"][self.random.index(2)].to_owned(),
            "'{\"a\": [1, 2.50, null]}'".to_owned(),
            format!("repeat('{}', {})", self.random.below(10), 1000 + self.random.below(9000)),
            format!("to_timestamp({}.5)", self.random.below(2_000_000_000)),
            "'\\xdeadbeef'".to_owned(),
            format!("{} / 3.0", self.random.below(1000)),
        ];
        let types = ["text", "numeric", "bool", "jsonb", "text", "timestamptz", "bytea", "float8"];
        let cast = values.into_iter().zip(types).map(|(value, name)| format!("({})::{name}", self.nullable(value)));
        cast.collect::<Vec<_>>().join(", ")
    }
}

impl World for Tables {
    fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn statement(&mut self) -> String {
        let id = self.random.below(30);
        let text = self.text();
        match self.random.below(16) {
            0 | 1 => format!("insert into a values ({id}, {}) on conflict do nothing;", self.row_of_a()),
            2 => format!("update a set (t, n, b, j, big, ts, x, f) = (select {}) where id = {id};", self.row_of_a()),
            3 => format!("update a set t = '{text}' where id > {id};"),
            4 => format!(
                "update a set id = {} where id = {id} and not exists (select from a where id = {});",
                id + 30,
                id + 30
            ),
            5 => format!("delete from a where id in ({id}, {});", id + 30),
            6 => format!("insert into b values ('{text}', {}, '{text}') on conflict do nothing;", id % 3),
            7 => format!("update b set x = x || '/' where y = {} and length(x) < 20;", id % 3),
            8 => format!("update b set v = '{text}'; delete from b where length(x) > 15;"),
            9 => format!(
                "insert into c values ({id}, '{}', {id}) on conflict do nothing;",
                ["eu", "us", "ca"][self.random.index(3)]
            ),
            10 => format!(
                "update c set region = 'ca', v = v + 1 where id = {id} and region = 'eu' and not exists (select from c where id = {id} and region = 'ca');"
            ),
            11 => format!("delete from c where id = {id};"),
            12 | 13 => {
                self.unique += 1;
                let n = self.unique;
                format!(
                    "insert into d values ({n}, '{text}'), ({n}, null); update d set v = '{text}x' where n = {n} and v is null;"
                )
            }
            14 => format!("delete from d where n % 30 = {id};"),
            _ => format!(
                "insert into \"Other\".\"T.x/y\" (v) values ('{text}'); update \"Other\".\"T.x/y\" set v = '{text}' where random() < 0.2; \
                 delete from \"Other\".\"T.x/y\" where random() < 0.1;"
            ),
        }
    }

    fn upheaval(&mut self) -> String {
        self.columns += 1;
        match self.random.below(10) {
            0 => "truncate a".to_owned(),
            1 => "truncate c".to_owned(),
            2 => "truncate b, d".to_owned(),
            3 => format!("alter table a add column new_{} int default 7", self.columns),
            4 => format!(
                "alter table b rename column v to v_{0}; update b set v_{0} = 'renamed'; alter table b rename column v_{0} to v",
                self.columns
            ),
            5 => "drop table d; create table d (n int, v text); insert into d values (-1, 'made anew')".to_owned(),
            6 => format!(
                "create table c_{0} partition of c for values in ('r{0}'); insert into c values (99, 'r{0}', 1) on conflict do nothing",
                self.columns
            ),
            7 => "alter table a alter n type text using n::text; alter table a alter n type numeric using n::numeric"
                .to_owned(),
            8 => "alter table a alter n type numeric using n + 1".to_owned(),
            _ => "vacuum full a".to_owned(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_has_what_select_gives() {
    let batches = count("HEADWATER_TEST_SHAPE_BATCHES", BATCHES);
    let mut world = Tables::new(seed());
    let mut replicas = Replicas::start(TABLES).await;
    let shapes = shapes(&mut world.random, count("HEADWATER_TEST_SHAPES", SHAPES.len() + 7));
    let mut clients: Vec<ShapeClient> = Vec::new();
    for replica in 0..2 {
        clients.extend(shapes.iter().map(|shape| shape.client(&replicas.url(replica))));
    }
    replicas.check(&shapes, &mut clients).await;
    let writer = replicas.postgres.connect().await;
    for batch in 0..batches {
        for _ in 0..10 {
            write(&writer, &world.transaction()).await;
        }
        if batch % 3 == 2 {
            world.overturn(&writer).await;
        }
        if batch % 4 == 1 {
            replicas.restart(world.random.index(2)).await;
        }
        replicas.shuffle(&mut clients, &mut world.random);
        replicas.check(&shapes, &mut clients).await;
    }
    let (changes, refetches): (Vec<usize>, Vec<usize>) =
        clients.iter().map(|client| (client.changes, client.refetches)).unzip();
    println!("changes {changes:?}, refetches {refetches:?}");
    if batches < BATCHES {
        return; // in a few, not every table need be written
    }
    // Of those that were made up, some take nothing.
    let fixed = (clients.iter().zip((0..shapes.len()).cycle())).filter(|(_, shape)| *shape < SHAPES.len());
    assert!(fixed.map(|(client, _)| client.changes).all(|changes| changes > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_and_other_replicas_are_not_noticed() {
    let mut world = Tables::new(seed());
    let mut replicas = Replicas::start(TABLES).await;
    let shapes = fixed();
    let mut clients: Vec<ShapeClient> = shapes.iter().map(|shape| shape.client(&replicas.url(0))).collect();
    replicas.check(&shapes, &mut clients).await;
    let writer = replicas.postgres.connect().await;
    for round in 0..4 {
        for _ in 0..10 {
            write(&writer, &world.transaction()).await;
        }
        replicas.restart(round % 2).await;
        for client in &mut clients {
            client.move_to(&replicas.any_url(&mut world.random));
        }
        replicas.check(&shapes, &mut clients).await;
    }
    let refetches: Vec<usize> = clients.iter().map(|client| client.refetches).collect();
    assert!(refetches.iter().all(|refetches| *refetches == 0), "{refetches:?}");
}
