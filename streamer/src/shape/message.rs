//! Messages of a shape's log: rows of a snapshot, changes, control messages, as JSON for an array or as SSE. Pure.

use super::definition::{Definition, Replica};
use super::json;
use super::table::{Column, TableSchema};
use headwater_model::cursor::Lsn;

/// How messages stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Framing {
    /// Elements of a JSON array; its brackets are not part of it.
    Array,
    /// `data:` blocks.
    Sse,
}

/// What is the same in all messages of a shape.
#[derive(Debug)]
pub(super) struct Template {
    /// The key's beginning, `"schema"."table"`, escaped for a JSON string.
    key: Vec<u8>,
    /// `"relation":["schema","table"]`
    relation: Vec<u8>,
    /// For each column of the table, `"name":`.
    names: Vec<Vec<u8>>,
}

impl Template {
    pub(super) fn new(table: &TableSchema) -> Self {
        let mut key = Vec::new();
        let part = |name: &str| format!("\"{}\"", name.replace('/', "//").replace('.', ".."));
        json::escape(&format!("{}.{}", part(&table.schema), part(&table.name)), &mut key);
        let relation = format!("\"relation\":[{},{}]", json::text(&table.schema), json::text(&table.name)).into_bytes();
        let name = |column: &Column| format!("{}:", json::text(&column.name)).into_bytes();
        Self { key, relation, names: table.columns.iter().map(name).collect() }
    }
}

/// A change's place, told in its headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) lsn: Lsn,
    pub(super) xid: u32,
    pub(super) op: u64,
}

/// The values of a row, by their columns' place in the table.
pub(super) type Row<'a> = [Option<&'a str>];

/// Writes messages.
#[derive(Debug)]
pub(super) struct Writer<'d> {
    definition: &'d Definition,
    framing: Framing,
    out: Vec<u8>,
    /// The last change of the transaction is not known yet; its message is still open.
    open: bool,
}

impl<'d> Writer<'d> {
    pub(super) fn new(definition: &'d Definition, framing: Framing) -> Self {
        Self { definition, framing, out: Vec::new(), open: false }
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// A row of a snapshot, with more headers.
    pub(super) fn row(&mut self, row: &Row<'_>, more: &str) {
        self.begin();
        self.key(row);
        self.value(&self.definition.layout.selected, row);
        self.out.extend_from_slice(b",\"headers\":{\"operation\":\"insert\",");
        self.out.extend_from_slice(&self.definition.layout.template.relation);
        self.out.extend_from_slice(more.as_bytes());
        self.out.extend_from_slice(b"}}");
        self.end();
    }

    /// A row of a subset.
    pub(super) fn marked_row(&mut self, row: &Row<'_>, mark: u64) {
        self.begin();
        self.key(row);
        self.value(&self.definition.layout.selected, row);
        self.out.extend_from_slice(b",\"headers\":{\"operation\":\"insert\",\"snapshot_mark\":");
        json::write_number(mark, &mut self.out);
        self.out.push(b',');
        self.out.extend_from_slice(&self.definition.layout.template.relation);
        self.out.extend_from_slice(b"}}");
        self.end();
    }

    /// A new row; `from`: the row that it was before its key changed.
    pub(super) fn insert(&mut self, place: Place, new: &Row<'_>, from: Option<&Row<'_>>) {
        self.begin();
        self.key(new);
        self.value(&self.definition.layout.selected, new);
        self.headers("insert", place);
        if let Some(old) = from {
            self.other_key("key_change_from", old);
        }
        self.open = true;
    }

    /// A changed row, of the same key.
    pub(super) fn update(&mut self, place: Place, old: &Row<'_>, new: &Row<'_>) {
        let definition = self.definition;
        let changed = |at: &usize| old[*at] != new[*at];
        self.begin();
        self.key(new);
        if definition.replica == Replica::Full {
            self.value(&definition.layout.selected, new);
            self.out.extend_from_slice(b",\"old_value\":{");
            self.columns(definition.layout.selected.iter().filter(|at| changed(at)), old);
            self.out.push(b'}');
        } else {
            self.out.extend_from_slice(b",\"value\":{");
            let told = |at: &&usize| changed(at) || definition.layout.key.contains(at);
            self.columns(definition.layout.selected.iter().filter(told), new);
            self.out.push(b'}');
        }
        self.headers("update", place);
        self.open = true;
    }

    /// A row that is gone; `to`: the row that it became, with another key.
    pub(super) fn delete(&mut self, place: Place, old: &Row<'_>, to: Option<&Row<'_>>) {
        let definition = self.definition;
        self.begin();
        self.key(old);
        let whole = definition.replica == Replica::Full || !definition.layout.has_primary_key;
        self.value(if whole { &definition.layout.selected } else { &definition.layout.key }, old);
        self.headers("delete", place);
        if let Some(new) = to {
            self.other_key("key_change_to", new);
        }
        self.open = true;
    }

    /// More headers of the change that was written last: JSON members, each behind a comma.
    pub(super) fn more_headers(&mut self, members: &str) {
        if self.open {
            self.out.extend_from_slice(members.as_bytes());
        }
    }

    /// The transaction has nothing more for this shape.
    pub(super) fn end_transaction(&mut self) {
        if self.open {
            self.out.extend_from_slice(b",\"last\":true}}");
            self.end();
        }
    }

    /// The next message does not continue the open one's transaction, or there is none.
    fn close(&mut self) {
        if self.open {
            self.out.extend_from_slice(b"}}");
            self.end();
        }
    }

    /// A control message, given whole.
    pub(super) fn control(&mut self, message: &str) {
        self.close();
        self.separate();
        self.out.extend_from_slice(message.as_bytes());
        self.end();
    }

    /// What was written.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.close();
        self.out
    }

    /// What was written so far; goes on with an empty buffer.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.close();
        std::mem::take(&mut self.out)
    }

    fn separate(&mut self) {
        match self.framing {
            Framing::Array if self.out.is_empty() => {}
            Framing::Array => self.out.extend_from_slice(b",\n"),
            Framing::Sse => self.out.extend_from_slice(b"data: "),
        }
    }

    fn begin(&mut self) {
        self.close();
        self.separate();
        self.out.extend_from_slice(b"{\"key\":\"");
    }

    fn end(&mut self) {
        self.open = false;
        if self.framing == Framing::Sse {
            self.out.extend_from_slice(b"\n\n");
        }
    }

    fn key(&mut self, row: &Row<'_>) {
        self.write_key(row);
        self.out.push(b'"');
    }

    fn write_key(&mut self, row: &Row<'_>) {
        self.out.extend_from_slice(&self.definition.layout.template.key);
        for at in &self.definition.layout.key {
            self.out.push(b'/');
            match row[*at] {
                None => self.out.push(b'_'),
                Some(value) => {
                    self.out.extend_from_slice(b"\\\"");
                    if value.contains('/') {
                        json::escape(&value.replace('/', "//"), &mut self.out);
                    } else {
                        json::escape(value, &mut self.out);
                    }
                    self.out.extend_from_slice(b"\\\"");
                }
            }
        }
    }

    fn other_key(&mut self, header: &str, row: &Row<'_>) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(header.as_bytes());
        self.out.extend_from_slice(b"\":\"");
        self.write_key(row);
        self.out.push(b'"');
    }

    fn value(&mut self, columns: &[usize], row: &Row<'_>) {
        self.out.extend_from_slice(b",\"value\":{");
        self.columns(columns.iter(), row);
        self.out.push(b'}');
    }

    fn columns<'a>(&mut self, columns: impl Iterator<Item = &'a usize>, row: &Row<'_>) {
        for (count, at) in columns.enumerate() {
            if count > 0 {
                self.out.push(b',');
            }
            self.out.extend_from_slice(&self.definition.layout.template.names[*at]);
            json::write_text(row[*at], &mut self.out);
        }
    }

    fn headers(&mut self, operation: &str, place: Place) {
        self.out.extend_from_slice(b",\"headers\":{\"operation\":\"");
        self.out.extend_from_slice(operation.as_bytes());
        self.out.extend_from_slice(b"\",");
        self.out.extend_from_slice(&self.definition.layout.template.relation);
        self.out.extend_from_slice(b",\"lsn\":\"");
        json::write_number(place.lsn.0, &mut self.out);
        self.out.extend_from_slice(b"\",\"op_position\":");
        json::write_number(place.op, &mut self.out);
        self.out.extend_from_slice(b",\"txids\":[");
        json::write_number(place.xid.into(), &mut self.out);
        self.out.push(b']');
    }
}

/// `up-to-date`, as of everything before `lsn`.
pub(super) fn up_to_date(lsn: Lsn) -> String {
    format!("{{\"headers\":{{\"control\":\"up-to-date\",\"global_last_seen_lsn\":\"{}\"}}}}", lsn.0)
}

/// `FirstNormalTransactionId` (`src/include/access/transam.h`): a snapshot up to here has seen nobody's rows.
pub(super) const FIRST_XID: u64 = 3;

/// A control message: these transactions are in the rows.
pub(super) fn snapshot_end(xmin: u64, xmax: u64, running: &[u64]) -> String {
    let running: Vec<String> = running.iter().map(|xid| format!("\"{xid}\"")).collect();
    format!(
        "{{\"headers\":{{\"control\":\"snapshot-end\",\"xmin\":\"{xmin}\",\"xmax\":\"{xmax}\",\"xip_list\":[{}]}}}}",
        running.join(",")
    )
}

/// The only message of a 409.
pub const MUST_REFETCH: &str = r#"[{"headers":{"control":"must-refetch"}}]"#;
