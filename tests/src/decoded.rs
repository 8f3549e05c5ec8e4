//! What Postgres' own `test_decoding` sees of the tables: the oracle that knows nothing of Headwater.

use serde_json::{Map, Value};
use tokio_postgres::Client;

/// A row: integers and booleans as JSON's, json as what it holds, everything else as text; null where there is none.
pub type Row = Map<String, Value>;

/// One change of one row.
#[derive(Clone, Debug)]
pub struct Change {
    /// With its schema.
    pub table: String,
    /// All columns, where the table has REPLICA IDENTITY FULL, else none; of a deleted row those that are not null.
    pub old: Option<Row>,
    /// All columns.
    pub new: Option<Row>,
}

/// A committed transaction.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Its id.
    pub xid: String,
    /// In the order in which they were made.
    pub changes: Vec<Change>,
}

/// A logical slot of its own.
#[derive(Debug)]
pub struct Decoded;

/// How many lines are read at a time; a transaction is never cut.
const PAGE: i32 = 2000;

impl Decoded {
    /// Everything that commits from now on will be seen.
    pub async fn begin(client: &Client) {
        client.query("select pg_create_logical_replication_slot('oracle', 'test_decoding')", &[]).await.unwrap();
    }

    /// The next transactions in commit order; `None` when there are no more.
    pub async fn next(client: &Client) -> Option<Vec<Transaction>> {
        client.batch_execute("set timezone = 'UTC'; set datestyle = 'ISO'").await.unwrap();
        let lines = client
            .query(
                "select data from pg_logical_slot_get_changes('oracle', null, $1, 'skip-empty-xacts', '1')",
                &[&PAGE],
            )
            .await
            .unwrap();
        let mut transactions: Vec<Transaction> = Vec::new();
        for line in &lines {
            let line: &str = line.get(0);
            if let Some(xid) = line.strip_prefix("BEGIN ") {
                transactions.push(Transaction { xid: xid.to_owned(), changes: Vec::new() });
            } else if !line.starts_with("COMMIT ") {
                transactions.last_mut().expect("a change stands in a transaction").changes.push(change(line));
            }
        }
        (!lines.is_empty()).then_some(transactions)
    }
}

/// `table public.t: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:2 name[text]:'it''s'`
fn change(line: &str) -> Change {
    let (table, rest) =
        line.strip_prefix("table ").and_then(|rest| rest.split_once(": ")).expect("a change of a table");
    let (kind, rest) = rest.split_once(": ").expect("a kind of change");
    let (old, new) = match kind {
        "INSERT" => (None, Some(row(rest))),
        "DELETE" => (Some(row(rest)), None),
        "UPDATE" => match rest.strip_prefix("old-key: ").and_then(|rest| rest.split_once(" new-tuple: ")) {
            Some((old, new)) => (Some(row(old)), Some(row(new))),
            None => (None, Some(row(rest))),
        },
        other => panic!("{other}: {line}"),
    };
    let (mut old, mut new) = (old, new);
    // Nulls of old rows are left out.
    if let (Some(old), Some(new)) = (&mut old, &mut new) {
        for name in new.keys() {
            old.entry(name.clone()).or_insert(Value::Null);
        }
    }
    Change { table: table.to_owned(), old, new }
}

fn row(mut text: &str) -> Row {
    let mut row = Row::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once('[').expect("a column");
        let (sql_type, rest) = rest.split_once("]:").expect("a type");
        let (value, rest) = literal(rest);
        row.insert(name.trim_matches('"').to_owned(), json(sql_type, value));
        text = rest.trim_start_matches(' ');
    }
    row
}

/// The value that the text begins with, and what stands behind it.
fn literal(text: &str) -> (Option<String>, &str) {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (value, rest) = text.split_once(' ').unwrap_or((text, ""));
        return ((value != "null").then(|| value.to_owned()), rest);
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (part, behind) = rest.split_once('\'').expect("a closing quote");
        value.push_str(part);
        match behind.strip_prefix('\'') {
            Some(behind) => {
                value.push('\'');
                rest = behind;
            }
            None => return (Some(value), behind),
        }
    }
}

fn json(sql_type: &str, value: Option<String>) -> Value {
    let Some(value) = value else { return Value::Null };
    match sql_type {
        "integer" | "smallint" | "jsonb" | "json" | "boolean" => serde_json::from_str(&value).expect("JSON"),
        _ => Value::String(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_read() {
        let update = "table public.t: UPDATE: old-key: id[integer]:1 name[text]:'a' new-tuple: id[integer]:-2 \
                      name[character varying]:'it''s [x]: ''' note[text]:null j[jsonb]:'{\"a\": [1]}' n[numeric]:1.50";
        let update = change(update);
        assert_eq!(update.table, "public.t");
        assert_eq!(
            Value::Object(update.old.unwrap()),
            json!({"id": 1, "name": "a", "note": null, "j": null, "n": null})
        );
        assert_eq!(
            Value::Object(update.new.unwrap()),
            json!({"id": -2, "name": "it's [x]: '", "note": null, "j": {"a": [1]}, "n": "1.50"})
        );
    }
}
