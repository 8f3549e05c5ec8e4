//! Promise: a client of a shape with subqueries has the rows that the same SELECT gives, whatever happens to any of the
//! tables that it names, on whatever replica. Oracle: Postgres, after each batch of random transactions and at the end of
//! concurrent ones; and the client itself, which fails on a row that comes twice or leaves twice, and which keeps a second
//! account by tags, conditions and `move-in`/`move-out` alone that has to come to the same rows.

mod made_up;

use headwater_tests::deadline::eventually;
use headwater_tests::postgres::connect;
use headwater_tests::random::{Random, seed};
use headwater_tests::shape::{ShapeClient, get, mark};
use serde_json::Value;

use crate::shape::start;
use crate::shape_world::{Replicas, Shape, World, count, write};

const TABLES: &str = "
    create type mood as enum ('calm', 'odd \"\\,', 'wild');
    create table regions (name text primary key, open bool, mood mood);
    create table grands (id int primary key, region text, mood mood);
    create table parents (id int primary key, grand_id int, kind text);
    create table children (id int primary key, parent_id int, kind text, v text);
    create table links (a int, b text, primary key (a, b)) partition by list (b);
    create table links_x partition of links for values in ('x', 'y');
    create table links_z partition of links default;
    create table pairs (n int primary key, a int, b text);
    create table notes (n int, parent_id int);";

/// Conditions, with the table and columns that each is of.
const SHAPES: &[(&str, &str, &str)] = &[
    ("children", "id,parent_id,kind,v", "parent_id in (select id from parents where kind = 'x')"),
    ("children", "id,parent_id,kind,v", "parent_id in (select id from parents)"),
    ("children", "id,v", "parent_id not in (select id from parents where kind = 'y')"),
    (
        "children",
        "id,parent_id,kind,v",
        "parent_id in (select id from parents where grand_id in (select id from grands where region = 'r1'))",
    ),
    (
        "children",
        "id,parent_id,kind,v",
        "parent_id in (select id from parents where grand_id in (select id from grands where region in (select name from regions where open)))",
    ),
    (
        "children",
        "id,parent_id",
        "parent_id in (select id from parents where grand_id not in (select id from grands where region not in (select name from regions where open)))",
    ),
    (
        "children",
        "id,parent_id,kind,v",
        "kind = 'x' and parent_id in (select id from parents where kind = 'x') or kind = 'y' and (id, kind) not in (select a, b from links)",
    ),
    // A value that leaves one set may enter the other at once.
    (
        "children",
        "id,parent_id",
        "parent_id in (select id from parents where kind = 'x') or parent_id not in (select id from parents where kind = 'x' or kind = 'y')",
    ),
    (
        "children",
        "id,parent_id,kind,v",
        "not (parent_id in (select id from parents where kind = 'y') or id in (select n from pairs where a > 3)) or v is null",
    ),
    ("children", "id,kind", "(id, kind) in (select a, b from links)"),
    ("children", "id,kind,v", "(parent_id, kind) not in (select a, b from pairs)"),
    ("children", "id,parent_id,v", "parent_id not in (select a from pairs)"),
    ("children", "id,parent_id,kind,v", "parent_id in (select id from children where kind = 'x')"),
    ("notes", "n,parent_id", "parent_id in (select id from parents where kind = 'x')"),
    ("grands", "id,region,mood", "mood in (select mood from regions where open)"),
    ("links", "a,b", "a in (select a from pairs where b = 'x') or b in (select b from pairs where a = 1)"),
];

/// Enough for changes, and for events of most shapes.
const BATCHES: usize = 10;

/// The shapes above, then others.
fn shapes(random: &mut Random, count: usize) -> Vec<Shape> {
    let mut all: Vec<Shape> = SHAPES.iter().map(shape).collect();
    while all.len() < count {
        all.push(made_up::shape(random));
    }
    all
}

fn shape((table, columns, condition): &(&str, &str, &str)) -> Shape {
    let query = format!("select {columns} from {table} where {condition}");
    Shape::new(&[("table", table), ("columns", columns), ("where", condition)], query)
}

struct Tables {
    random: Random,
    unique: u64,
}

impl Tables {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), unique: seed % 1000 * 1_000_000 }
    }

    fn number(&mut self, bound: u64) -> String {
        if self.random.below(8) == 0 { "null".to_owned() } else { self.random.below(bound).to_string() }
    }

    fn kind(&mut self) -> &'static str {
        ["'x'", "'x'", "'y'", "'z'", "null"][self.random.index(5)]
    }

    fn region(&mut self) -> &'static str {
        ["'r1'", "'r2'", "'r\"3\\{},'", "null"][self.random.index(4)]
    }

    fn mood(&mut self) -> &'static str {
        ["'calm'", "'odd \"\\,'", "'wild'", "null"][self.random.index(4)]
    }
}

impl World for Tables {
    fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn statement(&mut self) -> String {
        let (id, small) = (self.random.below(24), self.random.below(8));
        let (kind, region, mood) = (self.kind(), self.region(), self.mood());
        let (parent, grand) = (self.number(10), self.number(6));
        match self.random.below(22) {
            0..=2 => format!(
                "insert into children values ({id}, {parent}, {kind}, 'v{small}') on conflict (id) do update set v = excluded.v, parent_id = excluded.parent_id;"
            ),
            3 => format!("update children set parent_id = {parent} where id = {id};"),
            4 => format!("update children set kind = {kind}, v = 'w{small}' where id % 8 = {small};"),
            5 => format!(
                "update children set id = id + 24 where id = {id} and not exists (select from children where id = {id} + 24);"
            ),
            6 => format!("delete from children where id in ({id}, {id} + 24);"),
            7 | 8 => format!(
                "insert into parents values ({small}, {grand}, {kind}) on conflict (id) do update set kind = excluded.kind;"
            ),
            9 => format!("update parents set grand_id = {grand} where id = {small};"),
            10 => format!("update parents set kind = {kind} where id % 3 = {small} % 3;"),
            11 => format!(
                "update parents set id = id + 1 where id = {small} and not exists (select from parents where id = {small} + 1);"
            ),
            12 => format!("delete from parents where id = {small};"),
            13 => format!(
                "insert into grands values ({small} % 6, {region}, {mood}) on conflict (id) do update set region = excluded.region, mood = excluded.mood;"
            ),
            14 => format!("delete from grands where id = {small};"),
            15 => format!(
                "insert into regions values (coalesce({region}, 'r4'), {small} < 5, {mood}) on conflict (name) do update set open = excluded.open, mood = excluded.mood;"
            ),
            16 => format!("update regions set open = not open where name = {region};"),
            17 => format!("insert into links values ({id}, coalesce({kind}, 'q')) on conflict do nothing;"),
            18 => format!(
                "update links set b = case b when 'x' then 'z' else 'x' end where a = {id} and (select count(*) from links where a = {id}) = 1; delete from links where a = {small};"
            ),
            19 => format!(
                "insert into pairs values ({small}, {parent}, {kind}) on conflict (n) do update set a = excluded.a, b = excluded.b;"
            ),
            20 => format!("delete from pairs where n = {small} or a is null or b is null;"),
            _ => {
                self.unique += 1;
                format!(
                    "insert into notes values ({}, {parent}); update notes set parent_id = {parent} where n % 7 = {small}; delete from notes where n % 11 = {small};",
                    self.unique
                )
            }
        }
    }

    fn upheaval(&mut self) -> String {
        self.unique += 1;
        match self.random.below(7) {
            0 => "truncate parents".to_owned(),
            1 => "truncate children, pairs".to_owned(),
            2 => "truncate links".to_owned(),
            3 => format!("alter table parents add column new_{} int default 7", self.unique),
            4 => "drop table regions; create table regions (name text primary key, open bool, mood mood); insert into regions values ('r1', true, 'calm')".to_owned(),
            5 => "vacuum full parents".to_owned(),
            _ => format!("create table links_{0} partition of links for values in ('k{0}'); insert into links values (3, 'k{0}')", self.unique),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_has_what_select_with_subqueries_gives() {
    let batches = count("HEADWATER_TEST_SHAPE_BATCHES", BATCHES);
    let mut world = Tables::new(seed());
    let mut replicas = Replicas::start(TABLES).await;
    let shapes = shapes(&mut world.random, count("HEADWATER_TEST_SHAPES", SHAPES.len() + 6));
    let mut clients: Vec<ShapeClient> = shapes.iter().map(|shape| shape.client(&replicas.url(0))).collect();
    clients.extend(shapes.iter().map(|shape| shape.clone().with("replica", "full").client(&replicas.url(1))));
    replicas.check(&shapes, &mut clients).await;
    let writer = replicas.postgres.connect().await;
    let (mut expected, mut upheavals) = (0, 0);
    for batch in 0..batches {
        for _ in 0..8 {
            write(&writer, &world.transaction()).await;
        }
        if batch % 5 == 4 {
            upheavals += 1;
            world.overturn(&writer).await;
        }
        if batch % 3 == 1 {
            replicas.restart(world.random.index(2)).await;
        }
        replicas.shuffle(&mut clients, &mut world.random);
        replicas.check(&shapes, &mut clients).await;
        if upheavals == 0 {
            expected = clients.iter().map(|client| client.refetches).sum();
        }
    }
    assert_eq!(expected, 0, "restarts and other replicas are not noticed");
    let (changes, events): (Vec<usize>, Vec<usize>) =
        clients.iter().map(|client| (client.changes, client.events)).unzip();
    println!("{upheavals} upheavals; changes {changes:?}, events {events:?}");
    if batches < BATCHES {
        return; // a few bring little about
    }
    assert!(changes.iter().sum::<usize>() > 10 * clients.len() && events.iter().sum::<usize>() > 0);
}

/// As many transactions as clients can follow in a test's time.
async fn write_many(port: u16, seed: u64) {
    let writer = connect(port).await;
    let mut world = Tables::new(seed);
    for _ in 0..150 {
        write(&writer, &world.transaction()).await;
    }
}

/// Shapes begin and are followed while others write: nothing is missed at their seams, and nothing comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seams_are_exact_under_concurrent_writes() {
    let rounds = count("HEADWATER_TEST_SHAPE_ROUNDS", 1);
    let seed = seed();
    let replicas = Replicas::start(TABLES).await;
    let port = replicas.postgres.port();
    let mut random = Random::new(seed);
    let observer = replicas.postgres.connect().await;
    for round in 0..rounds {
        let writer = |n: u64| tokio::spawn(write_many(port, seed ^ (round as u64 * 4 + n)));
        let writers: Vec<_> = (0..4).map(writer).collect();
        let mut clients: Vec<ShapeClient> = Vec::new();
        for (table, columns, condition) in SHAPES {
            // A shape of its own, so that it has a snapshot of its own.
            let condition = format!("({condition}) and $1 = $1::text");
            let own = shape(&(table, columns, &condition)).with("params[1]", &round.to_string());
            let mut one = own.client(&replicas.any_url(&mut random));
            one.catch_up(0).await;
            clients.push(one);
            for client in &mut clients {
                if random.below(3) == 0 {
                    client.move_to(&replicas.any_url(&mut random));
                    client.catch_up(0).await;
                }
            }
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let end = mark(&observer).await;
        for (client, one) in clients.iter_mut().zip(SHAPES) {
            client.catch_up(end).await;
            assert_eq!(client.table(), shape(one).rows(&observer).await, "{one:?}");
            assert_eq!(client.refetches, 0, "{one:?}");
        }
    }
}

/// Messages as the protocol has them.
#[tokio::test]
async fn values_that_come_and_go_bring_rows_and_take_them_along() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql(TABLES).await;
    postgres
        .sql("insert into parents values (1, null, 'x'), (2, null, 'y'); insert into children values (10, 1, 'x', 'a'), (20, 2, 'x', 'b')")
        .await;
    let url = streamer.url("/v1/shape");
    let shape =
        [("table", "children"), ("where", "parent_id in (select id from parents where kind = 'x') or kind = 'y'")];
    let first = get(&url, &[shape[0], shape[1], ("offset", "-1")]).await;
    assert_eq!(first.status, 200, "{first:?}");
    let rows = first.json();
    let row = &rows[0];
    assert_eq!(row["value"]["id"], "10");
    let tags: Vec<&str> = row["headers"]["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
    assert_eq!(tags.len(), 2);
    let value = tags[0].strip_suffix('/').unwrap();
    assert!(value.len() == 32 && tags[1] == "/1", "{tags:?}");
    assert_eq!(row["headers"]["active_conditions"], serde_json::json!([true, false]));
    let handle = first.header("electric-handle").unwrap().to_owned();
    let offset = "0_0".to_owned();
    let next = async |script: &str, offset: &str| -> (Vec<Value>, String) {
        postgres.sql(script).await;
        eventually("an answer", || async {
            let asked = [shape[0], shape[1], ("handle", handle.as_str()), ("offset", offset)];
            let answer = get(&url, &asked).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let messages = answer.json().as_array().unwrap().clone();
            (messages.len() > 1).then(|| (messages, answer.header("electric-offset").unwrap().to_owned()))
        })
        .await
    };
    let headers = |messages: &[Value]| -> Vec<String> {
        let name = |headers: &Value| {
            let name = ["operation", "event", "control"].into_iter().find_map(|name| headers[name].as_str());
            format!("{}{}", name.unwrap(), if headers["is_move_in"] == true { "*" } else { "" })
        };
        messages.iter().map(|message| name(&message["headers"])).collect()
    };
    let (left, offset) = next("update parents set kind = 'z' where id = 1", &offset).await;
    assert_eq!(headers(&left), ["delete", "move-out", "up-to-date"]);
    assert_eq!(left[1]["headers"]["patterns"], serde_json::json!([{"pos": 0, "value": value}]));
    let (came, offset) = next("update parents set kind = 'x'", &offset).await;
    assert_eq!(headers(&came), ["move-in", "insert*", "insert*", "snapshot-end", "up-to-date"]);
    assert_eq!(came[1]["value"], serde_json::json!({"id": "10", "parent_id": "1", "kind": "x", "v": "a"}));
    let (both, offset) = next(
        "begin; insert into parents values (3, null, 'x'); insert into children values (30, 3, 'q', 'c'); commit",
        &offset,
    )
    .await;
    assert_eq!(headers(&both), ["insert", "move-in", "up-to-date"]);
    let (other, offset) = next("update children set kind = 'y' where id = 10", &offset).await;
    assert_eq!(headers(&other), ["update", "up-to-date"]);
    assert_eq!(other[0]["headers"]["active_conditions"], serde_json::json!([true, true]));
    let (kept, offset) = next("delete from parents where id = 1", &offset).await;
    assert_eq!(headers(&kept), ["move-out", "up-to-date"], "it is in for another reason");
    let (moved, _) = next("update children set parent_id = 2 where id = 10", &offset).await;
    assert_eq!(moved[0]["headers"]["removed_tags"], serde_json::json!([tags[0]]));
}

/// Each takes several readings from Postgres, and more of them begin at once than may read at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_begin_at_once_than_may_read_at_a_time() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql(TABLES).await;
    postgres
        .sql("insert into parents select n, null, 'x' from generate_series(1, 9) n; insert into children select n, n % 12, 'x', 'v' from generate_series(1, 99) n")
        .await;
    let follow = |n: usize| {
        let base = streamer.url("");
        tokio::spawn(async move {
            let condition = format!("parent_id in (select id from parents where id > {})", n % 9);
            let shape = shape(&("children", "id,parent_id", &condition));
            let mut client = shape.client(&base);
            client.catch_up(0).await;
            (shape, client)
        })
    };
    let clients: Vec<_> = (0..30).map(follow).collect();
    let observer = postgres.connect().await;
    for one in clients {
        let (shape, client) = one.await.unwrap();
        assert_eq!(client.table(), shape.rows(&observer).await);
    }
}
