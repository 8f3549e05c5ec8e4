//! Promise: the order of arrival does not matter. The same events, delivered in whatever order, in whatever batches, some
//! of them again and again, give the same row; and that row is the fold.
//!
//! Provoked by histories from a seed: every rule, lives that end and begin anew, ties of time, values that the table
//! spells otherwise, columns with defaults on which events build, several users. Each history is delivered to entities of
//! its own in three orders: as it happened, and twice at random. Some have events of the future, which are stamped when
//! they arrive, or plain SQL in between: those differ by their arrival, but their rows equal their folds too.
//!
//! Oracles: the rows of one history among each other; `headwater.materialize`; and the fold of `headwater_model` in this
//! process over the events as they stand in the table.

use std::collections::BTreeMap;

use headwater_model::clock::Micros;
use headwater_model::event::{StoredEvent, name_of};
use headwater_model::fold::{self, State};
use headwater_model::json;
use headwater_model::rules::Rules;
use headwater_tests::postgres::Postgres;
use headwater_tests::random::{Random, seed};
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

/// `HEADWATER_TEST_HISTORIES=10000` for the long campaign.
const HISTORIES: usize = 100;
/// Delivered together, so that batches hold events of many entities.
const ROUND: usize = 20;
const ORDERS: usize = 3;
const MOST_EVENTS: u64 = 12;
const WORKERS: usize = 2;

const SCHEMA: &str = r#"
    create schema app;
    create function app.note(state jsonb, event jsonb) returns jsonb immutable language sql as $$
      select case when event -> 'payload' ? 'note'
        then jsonb_set(state, '{notes}', coalesce(nullif(state -> 'notes', 'null'), '[]') || jsonb_build_array(event -> 'payload' -> 'note'))
        else state end $$;
    create function app.close(state jsonb, event jsonb) returns jsonb immutable language sql as $$
      select case when event -> 'payload' ->> 'really' = 'true' then null else state end $$;
    create table app.cart (
      shop text not null, number int not null, tenant_id text, owner text,
      name text default 'unnamed', status text not null default 'open', note text,
      items jsonb default '[{"id": 0, "size": "S"}]', tags text[] default array['new'], notes jsonb default '["first"]',
      tip numeric(10, 2) default 5, points bigint default 7, seen int default 1, due timestamptz default '2026-01-01 00:00:00Z',
      primary key (shop, number)
    );"#;

/// A row as the state that it is, but for its instant: a number, however states spell it.
const ROW: &str = "jsonb_build_object('owner', owner, 'name', name, 'status', status, 'note', note, 'items', items,
    'tags', to_jsonb(tags), 'notes', notes, 'tip', tip::text, 'points', points::text, 'seen', seen,
    'due', (extract(epoch from due) * 1e6)::bigint)";

fn rules() -> Value {
    json!({
        "created": {"rule": "create"},
        "named": {"rule": "set", "fields": ["name", "status"]},
        "changed": {"rule": "set"},
        "cleared": {"rule": "unset", "fields": ["name", "tip", "items"]},
        "item_added": {"rule": "append", "field": "items", "value": "item"},
        "item_removed": {"rule": "remove", "field": "items", "where": {"id": "id", "size": "size"}},
        "tag_added": {"rule": "append", "field": "tags", "value": "tag"},
        "tag_removed": {"rule": "remove", "field": "tags", "value": "tag"},
        "tipped": {"rule": "increment", "field": "tip", "by": "amount"},
        "scored": {"rule": "increment", "field": "points", "by": "amount"},
        "viewed": {"rule": "increment", "field": "seen", "by": "amount"},
        "printed": {"rule": "ignore"},
        "noted": {"rule": "custom", "function": "app.note"},
        "closed": {"rule": "custom", "function": "app.close"},
        "deleted": {"rule": "delete"}
    })
}

/// What makes a history differ by its arrival.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Disturbance {
    None,
    FutureEvents,
    Sql,
}

#[derive(Debug)]
struct History {
    number: usize,
    disturbance: Disturbance,
    /// In the order of the fold, without entity and tenant.
    events: Vec<Value>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_of_arrival_gives_the_same_row() {
    let postgres = Postgres::start_bare(&["fsync=off"]).await;
    postgres.sql("create extension headwater").await;
    postgres.sql(SCHEMA).await;
    let enable =
        "select headwater.enable('app.cart', entity => 'cart', events => $1::jsonb, tenant_column => 'tenant_id',
                                          user_column => 'owner')";
    postgres.connect().await.query(enable, &[&rules()]).await.unwrap();

    let seed = seed();
    let histories = std::env::var("HEADWATER_TEST_HISTORIES").map_or(HISTORIES, |count| count.parse().unwrap());
    let workers = (0..WORKERS).map(|worker| {
        let rounds = (0..histories).step_by(ROUND).skip(worker).step_by(WORKERS);
        let rounds: Vec<_> = rounds.map(|first| first..histories.min(first + ROUND)).collect();
        let (port, mut random) = (postgres.port(), Random::new(seed ^ ((worker as u64 + 1) << 40)));
        tokio::spawn(async move {
            let client = headwater_tests::postgres::connect(port).await;
            for round in rounds {
                let histories: Vec<_> = round.map(|number| history(number, &mut random)).collect();
                for order in 0..ORDERS {
                    deliver(&client, &histories, order, &mut random).await;
                }
                for history in &histories {
                    check(&client, history).await;
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    println!("{histories} histories, each in {ORDERS} orders");
}

fn entity_id(history: &History, order: usize) -> String {
    format!("~0h~1{} 'é\"/{order}", history.number)
}

fn history(number: usize, random: &mut Random) -> History {
    let disturbance = match random.below(6) {
        0 => Disturbance::FutureEvents,
        1 => Disturbance::Sql,
        _ => Disturbance::None,
    };
    let mut events: Vec<Value> = Vec::new();
    for i in 0..=random.below(MOST_EVENTS) {
        let (name, payload) = event(random);
        let at = if disturbance == Disturbance::FutureEvents && random.below(4) == 0 {
            // At most four minutes ahead: more would be refused.
            now_micros() + i64::try_from(random.below(240_000_000)).unwrap()
        } else {
            Micros::parse("2026-02-01T00:00:00Z").unwrap().0 + i64::try_from(random.below(12)).unwrap()
        };
        let id = u128::from(0x0190_a0a0_0000_7000_u64) << 64 | (0x8000 + u128::from(random.below(0x1000))) << 48;
        events.push(json!({
            "id": uuid::Uuid::from_u128(id | (u128::try_from(number).unwrap() << 8) | u128::from(i)),
            "timestamp": Micros(at).to_string(), "event_type": format!("cart.{name}"), "entity_type": "cart",
            "user_id": random.one_of(&["ann", "bob"]), "payload": payload,
        }));
    }
    let order =
        |event: &Value| (event["timestamp"].as_str().unwrap().to_owned(), event["id"].as_str().unwrap().to_owned());
    events.sort_by_key(order);
    History { number, disturbance, events }
}

fn now_micros() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

fn event(random: &mut Random) -> (&'static str, Value) {
    match random.below(22) {
        0..=4 => ("created", fields(random)),
        5 => ("deleted", json!({})),
        6 => ("named", json!({"name": random.one_of(&["x", "y", "z"]), "why": 1})),
        7..=8 => ("changed", fields(random)),
        9 => ("cleared", json!({})),
        10..=11 => ("item_added", json!({"item": item(random)})),
        12 => ("item_removed", item(random)),
        13 => ("tag_added", json!({"tag": random.one_of(&["new", "old", "é"])})),
        14 => ("tag_removed", json!({"tag": random.one_of(&["new", "old"])})),
        15 => ("tipped", json!({"amount": random.one_of(&["1.50", "-0.25", "2.00"])})),
        16 => ("scored", json!({"amount": random.one_of(&["9007199254740993", "-3"])})),
        17 => ("viewed", json!({"amount": random.one_of(&[2, -1])})),
        18 => ("printed", json!({"copies": 2})),
        19..=20 => ("noted", json!({"note": random.below(9)})),
        _ => ("closed", json!({"really": random.below(2) == 0})),
    }
}

/// Values of all spellings: the table has one for each. (Amounts to be added only as their columns spell them: see
/// ARCHITECTURE.md, Known gaps.)
fn fields(random: &mut Random) -> Value {
    let mut fields = Map::new();
    for _ in 0..random.below(5) {
        let (name, value) = match random.below(9) {
            0 => ("name", json!(random.one_of(&["a", "b"]))),
            1 => ("note", random.one_of(&[json!("n"), json!(null)]).clone()),
            2 => ("items", Value::Array((0..random.below(3)).map(|_| item(random)).collect())),
            3 => ("tags", random.one_of(&[json!(["old"]), json!([]), json!(null)]).clone()),
            4 => ("tip", random.one_of(&[json!("1"), json!(2.5), json!("0.50"), json!("1e1"), json!(null)]).clone()),
            5 => ("points", random.one_of(&[json!(42), json!("42"), json!("042"), json!(null)]).clone()),
            6 => ("seen", random.one_of(&[json!(3), json!("3")]).clone()),
            7 => ("due", random.one_of(&[json!("2026-05-01T10:00:00+02:00"), json!("2026-05-01 08:00Z")]).clone()),
            _ => ("status", json!(random.one_of(&["open", "paid"]))),
        };
        fields.insert(name.to_owned(), value);
    }
    Value::Object(fields)
}

fn item(random: &mut Random) -> Value {
    json!({"id": random.below(3), "size": random.one_of(&["S", "L"])})
}

/// Sends the events of all these histories, for their entities of this order.
async fn deliver(client: &Client, histories: &[History], order: usize, random: &mut Random) {
    let addressed = |history: &History| {
        let mut events = history.events.clone();
        for event in &mut events {
            event["entity_id"] = json!(entity_id(history, order));
            // Ids are accepted once a tenant: each order is a tenant of its own.
            event["tenant_id"] = json!(format!("tenant {order}"));
        }
        events
    };
    let mut left: Vec<Value> = histories.iter().flat_map(addressed).collect();
    if order == 0 {
        left.sort_by_key(|event| (event["timestamp"].to_string(), event["id"].to_string()));
    } else {
        random.shuffle(&mut left);
    }
    let mut sent: Vec<Value> = Vec::new();
    while !left.is_empty() {
        let size = [1, 3, 40][random.index(3)].min(left.len());
        let mut batch: Vec<_> = left.drain(..size).collect();
        for _ in 0..random.below(3) {
            if !sent.is_empty() {
                batch.push(random.one_of(&sent).clone());
            }
        }
        let answer: Value = client
            .query_one(r#"select headwater.ingest($1, '{"trusted": true}')"#, &[&Value::Array(batch.clone())])
            .await
            .unwrap()
            .get(0);
        assert_eq!(answer["rejected"], json!([]), "{batch:#?}");
        sent.extend(batch);
        let disturbed: Vec<_> = histories.iter().filter(|history| history.disturbance == Disturbance::Sql).collect();
        if !disturbed.is_empty() && random.below(3) == 0 {
            let history = disturbed[random.index(disturbed.len())];
            by_sql(client, &entity_id(history, order), order, random).await;
        }
    }
}

async fn by_sql(client: &Client, entity_id: &str, order: usize, random: &mut Random) {
    let key = headwater_model::key::split(entity_id, 2).unwrap();
    let (shop, number): (&str, i32) = (&key[0], key[1].parse().unwrap());
    let tenant = format!("tenant {order}");
    let row = "shop = $1 and number = $2 and tenant_id = $3";
    let sql = match random.below(4) {
        0 => format!("delete from app.cart where {row}"),
        1 => format!("update app.cart set tip = tip + 1, tags = array['sql'], name = 'sql' where {row}"),
        2 => format!("update app.cart set items = '[]', points = null, owner = 'sql' where {row}"),
        _ => "insert into app.cart (shop, number, tenant_id) values ($1, $2, $3)
              on conflict (shop, number) do update set due = excluded.due, note = 'upserted'"
            .to_owned(),
    };
    client.execute(&sql, &[&shop, &number, &tenant]).await.unwrap();
}

/// Row, `materialize` and the model's fold are one state, the same for every order.
async fn check(client: &Client, history: &History) {
    let rules = Rules::parse(&rules()).unwrap();
    let mut states: BTreeMap<usize, Value> = BTreeMap::new();
    for order in 0..ORDERS {
        let (id, tenant) = (entity_id(history, order), format!("tenant {order}"));
        let key = headwater_model::key::split(&id, 2).unwrap();
        let row = format!("select {ROW} from app.cart where shop = $1 and number = $2::text::int");
        let row = client.query(&row, &[&key[0], &key[1]]).await.unwrap();
        let row: Value = row.first().map_or(Value::Null, |row| row.get(0));
        let materialized: Option<Value> = client
            .query_one("select headwater.materialize('cart', $1, null, $2)", &[&id, &tenant])
            .await
            .unwrap()
            .get(0);
        let events = client
            .query(
                "select to_jsonb(e) - 'occurred_at' || jsonb_build_object('micros', (extract(epoch from occurred_at) * 1e6)::bigint)
                 from headwater.event e where entity_type = 'cart' and entity_id = $1 and tenant_id = $2 order by position",
                &[&id, &tenant],
            )
            .await
            .unwrap();
        let events: Vec<Value> = events.iter().map(|row| row.get(0)).collect();
        let mut stored: Vec<_> = events.iter().map(stored).collect();
        let folded = fold::fold(None, &mut stored, &rules, &mut custom).map_or(Value::Null, Value::Object);
        let shared = |state: &Value| {
            let mut state = state.clone();
            if let Some(state) = state.as_object_mut() {
                state.retain(|name, _| !["shop", "number", "tenant_id"].contains(&name.as_str()));
                if let Some(due) = state.get_mut("due").filter(|due| due.is_string()) {
                    *due = json!(Micros::parse(due.as_str().unwrap()).unwrap().0);
                }
            }
            state
        };
        let lines = |events: &[Value]| events.iter().map(|event| format!("  {event}")).collect::<Vec<_>>().join("\n");
        let story = || {
            let History { number, disturbance, events: sent } = history;
            format!(
                "history {number}, {disturbance:?}, order {order}\nsent\n{}\nstored\n{}\n",
                lines(sent),
                lines(&events)
            )
        };
        assert!(
            json::equal(&folded, materialized.as_ref().unwrap_or(&Value::Null)),
            "{}: fold {folded}, materialize {materialized:?}",
            story()
        );
        assert!(json::equal(&shared(&folded), &row), "{}: fold {folded}, row {row}", story());
        if let Some(first) = states.get(&0).filter(|_| history.disturbance == Disturbance::None) {
            assert!(json::equal(first, &row), "{}: as it happened {first}, row {row}", story());
        }
        states.insert(order, row);
    }
}

fn stored(event: &Value) -> StoredEvent {
    StoredEvent {
        occurred_at: Micros(event["micros"].as_i64().unwrap()),
        id: event["id"].as_str().unwrap().parse().unwrap(),
        name: name_of(event["event_type"].as_str().unwrap(), "cart").unwrap().to_owned(),
        captured: event["source"] == "capture",
        payload: event["payload"].as_object().unwrap().clone(),
    }
}

/// What `app.note` and `app.close` do.
fn custom(function: &str, state: &State, event: &StoredEvent) -> Option<State> {
    let mut state = state.clone();
    match function {
        "app.note" => {
            if let Some(note) = event.payload.get("note") {
                let notes = state.entry("notes").or_insert(Value::Null);
                let mut all = notes.as_array().cloned().unwrap_or_default();
                all.push(note.clone());
                *notes = Value::Array(all);
            }
        }
        "app.close" if event.payload["really"] == true => return None,
        "app.close" => {}
        other => panic!("no rule names {other}"),
    }
    Some(state)
}
