//! Histories for `fold-generated.json`: few fields and few instants, so that rules meet, lives end and begin
//! again, and places in the order are contested.

use std::fmt::Write as _;

use headwater_model::rules::Rules;
use serde_json::{Map, Value, json};

/// How many histories the file holds.
pub(crate) const CASES: usize = 300;
const SEED: u64 = 0x4EAD;
const MOST_EVENTS: u64 = 14;

/// What gives a history's state.
pub(crate) type StateOf<'a> = &'a dyn Fn(&Rules, Option<&Value>, &[Value]) -> Value;

/// The file's text.
pub(crate) fn file(state_of: StateOf<'_>) -> String {
    let declared = rules();
    let rules = Rules::parse(&declared).expect("rules");
    let mut random = Random(SEED);
    let mut out = format!(
        "{{\n\"about\": \"Histories from a generator, seed {SEED}. See README.md.\",\n\"rules\": {declared},\n\"cases\": [\n"
    );
    for number in 0..CASES {
        let baseline = (random.below(4) == 0).then(|| Value::Object(fields(&mut random)));
        let count = random.below(MOST_EVENTS);
        let mut events: Vec<Value> = Vec::new();
        for _ in 0..count {
            let again = random.below(12) == 0 && !events.is_empty();
            events.push(if again { random.one_of(&events).clone() } else { event(&mut random, &events) });
        }
        let state = state_of(&rules, baseline.as_ref(), &events);
        let mut case = format!("{{\"name\": \"generated {number}\"");
        if let Some(baseline) = baseline {
            let _ = write!(case, ", \"baseline\": {baseline}");
        }
        let lines: Vec<_> = events.iter().map(|event| format!("\n   {event}")).collect();
        let _ = write!(case, ",\n \"events\": [{}],\n \"state\": {state}}}", lines.join(","));
        out.push_str(&case);
        out.push_str(if number + 1 < CASES { ",\n" } else { "\n]}\n" });
    }
    out
}

fn rules() -> Value {
    json!({
        "created": {"rule": "create"},
        "named": {"rule": "set", "fields": ["name", "status"]},
        "changed": {"rule": "set"},
        "cleared": {"rule": "unset", "fields": ["name", "tip"]},
        "item_added": {"rule": "append", "field": "items", "value": "item"},
        "item_removed": {"rule": "remove", "field": "items", "where": {"id": "item_id", "size": "size"}},
        "tag_added": {"rule": "append", "field": "tags", "value": "tag"},
        "tag_removed": {"rule": "remove", "field": "tags", "value": "tag"},
        "tipped": {"rule": "increment", "field": "tip", "by": "amount"},
        "printed": {"rule": "ignore"},
        "replaced": {"rule": "custom", "function": "vectors.replace"},
        "noted": {"rule": "custom", "function": "vectors.note"},
        "closed": {"rule": "custom", "function": "vectors.close"},
        "deleted": {"rule": "delete"}
    })
}

fn event(random: &mut Random, before: &[Value]) -> Value {
    let (mut source, mut version) = (["client", "client", "client", "sql"][random.index(4)], 7);
    let (name, payload) = match random.below(20) {
        0..=3 => ("created", fields(random)),
        4 => ("deleted", Map::new()),
        5 => ("named", fields(random)),
        6 => ("changed", fields(random)),
        7 => ("cleared", Map::new()),
        8..=9 => ("item_added", object(json!({"item": item(random)}))),
        10 => (
            "item_removed",
            object(item(random))
                .into_iter()
                .map(|(key, value)| (if key == "id" { "item_id".into() } else { key }, value))
                .collect(),
        ),
        11 => ("tag_added", object(json!({"tag": scalar(random)}))),
        12 => ("tag_removed", object(json!({"tag": scalar(random)}))),
        13..=14 => ("tipped", object(json!({"amount": amount(random)}))),
        15 => [("printed", fields(random)), ("unknown", fields(random))][random.index(2)].clone(),
        16 => ("noted", object(json!({"note": scalar(random)}))),
        17 => match random.below(3) {
            0 => ("replaced", fields(random)),
            really => ("closed", object(json!({"really": really == 1}))),
        },
        18 => {
            source = "capture";
            [("created", fields(random)), ("updated", fields(random)), ("deleted", Map::new())][random.index(3)].clone()
        }
        _ => {
            (source, version) = ("capture", 8);
            ("updated", fields(random))
        }
    };
    let at = random.below(16);
    let timestamp = format!("2026-01-01T00:00:{:02}.{:06}Z", at / 8, at % 8);
    let id = loop {
        let id = format!("01990000-0000-{version}000-8000-0000000000{:02x}", random.below(64));
        if !before.iter().any(|other| other["id"] == *id) {
            break id;
        }
    };
    let mut event = json!({
        "id": id, "timestamp": timestamp, "event_type": format!("order.{name}"), "source": source, "payload": payload
    });
    if random.below(15) == 0 {
        event["applies"] = json!(false);
    }
    event
}

fn fields(random: &mut Random) -> Map<String, Value> {
    let mut fields = Map::new();
    for _ in 0..random.below(4) {
        let (name, value) = match random.below(6) {
            0 => ("name", scalar(random)),
            1 => ("status", scalar(random)),
            2 => ("items", Value::Array((0..random.below(4)).map(|_| item(random)).collect())),
            3 => ("tags", Value::Array((0..random.below(4)).map(|_| scalar(random)).collect())),
            4 => ("tip", amount(random)),
            _ => ([("items", Value::Null), ("tip", json!("free")), ("tags", json!({})), ("__proto__", json!(1))])
                [random.index(4)]
            .clone(),
        };
        fields.insert(name.to_owned(), value);
    }
    fields
}

fn item(random: &mut Random) -> Value {
    match random.below(8) {
        0 => json!({"id": scalar(random)}),
        _ => json!({"id": random.below(3), "size": random.one_of(&["S", "L"])}),
    }
}

fn scalar(random: &mut Random) -> Value {
    [json!(null), json!(true), json!(1), json!(1.5), json!("1"), json!("é"), json!({"a": [1]}), json!("a")]
        [random.index(8)]
    .clone()
}

fn amount(random: &mut Random) -> Value {
    let texts = ["1", "-1", "0.10", "2.50", "9007199254740993", "-0.001", "1e3", "x"];
    let numbers = [json!(1), json!(-2), json!(0.1), json!(0.25)];
    if random.below(3) == 0 { random.one_of(&numbers).clone() } else { json!(random.one_of(&texts)) }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("smaller than bound")
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }
}
