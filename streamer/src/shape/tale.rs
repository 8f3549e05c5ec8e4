//! The log of a shape with subqueries: worked out once for all its readers, and again for whoever comes from further back.
//!
//! A transaction is told in this order: its own changes of rows; `move-in` with values of subqueries that came, and `insert`
//! for each row that comes with them; `delete` for each row that leaves, and `move-out` with values that went. (The client
//! of ElectricSQL leaves `move-out` to whoever uses it, and its `Shape` does nothing about it: with the deletes every client
//! has the same rows.) All of it follows from the WAL alone, so every replica tells the same under the same offsets.

use super::definition::Definition;
use super::error::ShapeError;
use super::inner::rows_at::{Relation, part_since};
use super::inner::selection::{Selection, Sets, Side, Step};
use super::inner::values::Value;
use super::inner::{Go, owned};
use super::message::{FIRST_XID, Framing, Place, Row, Writer, snapshot_end};
use super::reader::{Messages, Renderer};
use super::reasons::{Reasons, hash, normal};
use super::source::Source;
use crate::log::Transaction;
use headwater_model::cursor::{Epoch, Lsn, Offset};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Messages of a shape that are kept for readers that come later: a burst. Who wants older ones has them worked out again. With as
/// many told at a time, what comes behind is left for the next.
const KEPT_BYTES: usize = 4 << 20;

/// Messages of one transaction; with more than this, clients are better off to start anew.
const TOLD_BYTES: usize = 64 << 20;

/// The ops of what follows from subqueries begin here: no transaction has so many changes of its own, and JavaScript's
/// numbers go further.
const MOVED_OPS: u64 = 1 << 40;

/// The log of one shape.
#[derive(Debug)]
pub(super) struct Tale {
    pub(super) selection: Selection,
    state: tokio::sync::Mutex<State>,
    /// [`TOLD_BYTES`].
    pub(super) most: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Everything from behind here is in `kept`, up to `upto`; none if nothing is known.
    from: Option<Offset>,
    upto: Lsn,
    kept: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    offset: Offset,
    /// JSON.
    message: Vec<u8>,
}

impl Tale {
    /// None for a shape without subqueries.
    pub(super) fn of(definition: &Definition, source: &Source, epoch: Epoch) -> Option<Self> {
        let filter = definition.filter.as_ref().filter(|filter| !filter.subqueries().is_empty())?;
        let inners = source.inners.of(filter, epoch);
        let relation = Relation::new(Arc::clone(&definition.layout.table));
        let (filter, tenant) = (Some(filter.clone()), definition.tenant.clone());
        let selection = Selection::new(relation, filter, tenant, inners, &definition.layout.selected);
        Some(Self { selection, state: tokio::sync::Mutex::default(), most: TOLD_BYTES })
    }

    /// What there is behind a place, up to about `limit` bytes.
    pub(super) async fn read(
        &self,
        source: &Source,
        renderer: &Renderer,
        epoch: Epoch,
        after: Offset,
        limit: usize,
        framing: Framing,
    ) -> Result<Messages, ShapeError> {
        let mut state = self.state.lock().await;
        let goes_on = |upto: Lsn| source.log.holds_rows(epoch, &self.selection.watched, Offset::just_before(upto));
        if state.from.is_none_or(|from| after < from) || !goes_on(state.upto) {
            *state = State { from: Some(after), upto: place(after), ..State::default() };
        }
        loop {
            let head = source.log.tip().head;
            let messages = state.messages(after, limit, framing, head);
            if messages.complete || messages.body.len() >= limit {
                state.forget(messages.last.unwrap_or(after));
                return Ok(messages);
            }
            if let Err(error) = self.advance(source, renderer, epoch, head, &mut state).await {
                *state = State::default();
                return Err(error);
            }
        }
    }

    async fn advance(
        &self,
        source: &Source,
        renderer: &Renderer,
        epoch: Epoch,
        head: Lsn,
        state: &mut State,
    ) -> Result<(), ShapeError> {
        let from = state.upto;
        self.selection.reach(source, epoch, from, head).await?;
        let (transactions, next) = part_since(&source.log, epoch, &self.selection.watched, from, head)?;
        let mut moving = self.selection.moving(source, epoch, from, next).await?;
        let (mut told, mut bytes, mut go, mut upto) = (Vec::new(), 0, Go::begin(), next);
        for transaction in &transactions {
            let behind = Lsn(transaction.commit.0 + 1);
            let mut teller = Teller::new(renderer, transaction, self.most);
            self.selection.tell(transaction, &mut moving, &mut go, |step| teller.take(step)).await?;
            let sets = self.selection.sets(transaction.commit, behind)?;
            bytes += teller.finish(&sets, &mut told)?;
            if bytes >= KEPT_BYTES {
                upto = behind;
                break;
            }
        }
        state.bytes += bytes;
        state.kept.extend(told);
        state.upto = upto;
        Ok(())
    }
}

/// Where to begin for what lies behind an offset: a transaction's messages have the ops 1, 2 and so on, but the last one is
/// where nothing of it is left, as `<lsn>_0` is everywhere.
fn place(after: Offset) -> Lsn {
    if after.op == 0 { Lsn(after.lsn.0 + 1) } else { after.lsn }
}

impl State {
    fn messages(&self, after: Offset, limit: usize, framing: Framing, head: Lsn) -> Messages {
        let mut messages = Messages { next: after, head, complete: self.upto >= head, ..Messages::default() };
        let mut body = Vec::new();
        for kept in self.kept.iter().skip(self.kept.partition_point(|kept| kept.offset <= after)) {
            if body.len() >= limit {
                messages.complete = false;
                break;
            }
            match framing {
                Framing::Array if body.is_empty() => {}
                Framing::Array => body.extend_from_slice(b",\n"),
                Framing::Sse => body.extend_from_slice(b"data: "),
            }
            body.extend_from_slice(&kept.message);
            if framing == Framing::Sse {
                body.extend_from_slice(b"\n\n");
            }
            messages.last = Some(kept.offset);
        }
        messages.body = body.into();
        messages.next = messages.last.unwrap_or(after);
        if messages.complete {
            messages.next = messages.next.max(Offset::just_before(self.upto));
        }
        messages
    }

    /// What everybody has had goes when it takes too much room.
    fn forget(&mut self, upto: Offset) {
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.kept.pop_front_if(|kept| kept.offset <= upto)
        {
            self.bytes -= oldest.message.len();
            self.from = Some(oldest.offset);
        }
    }
}

/// Tells one transaction.
struct Teller<'a> {
    renderer: &'a Renderer,
    transaction: &'a Transaction,
    told: Vec<Message<'a>>,
    /// What they take, and may take.
    bytes: usize,
    most: usize,
    /// Rows that left, and that came; with the headers of each.
    left: Vec<(Value, String)>,
    came: Vec<(Value, String)>,
    patterns: Patterns,
    op: u64,
}

/// Positions, and what values are called in tags there.
#[derive(Default)]
struct Patterns {
    /// The condition held, and does not any more.
    gone: BTreeSet<(usize, String)>,
    /// It holds, and did not.
    come: BTreeSet<(usize, String)>,
}

enum Message<'a> {
    /// Still open: the last one of the transaction says so.
    Change(Writer<'a>),
    Whole(String),
}

impl<'a> Teller<'a> {
    fn new(renderer: &'a Renderer, transaction: &'a Transaction, most: usize) -> Self {
        let (left, came, patterns) = (Vec::new(), Vec::new(), Patterns::default());
        Self { renderer, transaction, told: Vec::new(), bytes: 0, most, left, came, patterns, op: MOVED_OPS }
    }

    /// Whether there is more than there may be; then nothing of it is kept.
    fn is_too_much(&self) -> bool {
        self.bytes > self.most
    }

    fn place(&self, op: u64) -> Place {
        Place { lsn: self.transaction.commit, xid: self.transaction.xid, op }
    }

    fn take(&mut self, step: Step<'_>) {
        let definition = &self.renderer.definition;
        let reasons = |side: &Side<'_>| Reasons::of(definition, side);
        match step {
            Step::Moved { before, after } => {
                // More may change than the values that came or went: NOT IN is not true beside a null.
                self.patterns.add_row(definition, &before, &after);
                match (before.is_in, after.is_in) {
                    (true, false) => self.left.push((owned(before.row), reasons(&after).to_string())),
                    (false, true) => self.came.push((owned(after.row), reasons(&after).to_string())),
                    _ => {}
                }
            }
            Step::Changed { op, before, after } => {
                match (before.filter(|side| side.is_in), after.filter(|side| side.is_in)) {
                    (None, None) => {}
                    (None, Some(new)) => {
                        self.change(
                            op,
                            |writer, place| writer.insert(place, new.row, None),
                            &reasons(&new).to_string(),
                        );
                    }
                    (Some(old), None) => {
                        self.change(
                            op,
                            |writer, place| writer.delete(place, old.row, None),
                            &reasons(&old).to_string(),
                        );
                    }
                    (Some(old), Some(new)) => self.update(op, &old, &new),
                }
            }
        }
    }

    fn update(&mut self, op: u64, old: &Side<'_>, new: &Side<'_>) {
        let definition = &self.renderer.definition;
        let (was, is) = (Reasons::of(definition, old), Reasons::of(definition, new));
        if definition.layout.key.iter().any(|at| old.row[*at] != new.row[*at]) {
            self.change(op, |writer, place| writer.delete(place, old.row, Some(new.row)), &was.to_string());
            self.change(op + 1, |writer, place| writer.insert(place, new.row, Some(old.row)), &is.to_string());
        } else if was != is || definition.layout.selected.iter().any(|at| old.row[*at] != new.row[*at]) {
            let headers = format!("{}{is}", is.removed_since(&was));
            self.change(op, |writer, place| writer.update(place, old.row, new.row), &headers);
        }
    }

    fn change(&mut self, op: u64, write: impl FnOnce(&mut Writer<'a>, Place), headers: &str) {
        let mut writer = self.renderer.writer(Framing::Array);
        write(&mut writer, self.place(op));
        writer.more_headers(headers);
        self.tell(writer.len(), Message::Change(writer));
    }

    fn tell(&mut self, bytes: usize, message: Message<'a>) {
        self.bytes += bytes;
        if self.is_too_much() {
            self.told = Vec::new();
        } else {
            self.told.push(message);
        }
    }

    fn moved(&mut self, row: &[Option<String>], write: impl FnOnce(&mut Writer<'a>, Place, &Row<'_>), headers: &str) {
        let row: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
        self.op += 1;
        self.change(self.op, |writer, place| write(writer, place, &row), headers);
    }

    fn whole(&mut self, message: String) {
        self.tell(message.len(), Message::Whole(message));
    }

    /// `sets` are what subqueries have before the transaction and behind it. Answers how many bytes the messages take.
    fn finish(mut self, sets: &Sets<'_>, told: &mut Vec<Kept>) -> Result<usize, ShapeError> {
        let mut patterns = std::mem::take(&mut self.patterns);
        patterns.add_values(&self.renderer.definition, sets, self.transaction.commit);
        // What comes first: a row that loses one reason and gains another stays with who goes by events alone.
        if !patterns.come.is_empty() {
            self.whole(event("move-in", &patterns.come, self.transaction.xid));
        }
        let came = std::mem::take(&mut self.came);
        for (row, headers) in &came {
            let headers = format!(",\"is_move_in\":true{headers}");
            self.moved(row, |writer, place, row| writer.insert(place, row, None), &headers);
        }
        if !came.is_empty() {
            // The rows are as of this transaction, not as of any snapshot: what is seen is what the log has told.
            self.whole(snapshot_end(FIRST_XID, FIRST_XID, &[]));
        }
        for (row, headers) in std::mem::take(&mut self.left) {
            self.moved(&row, |writer, place, row| writer.delete(place, row, None), &headers);
        }
        if !patterns.gone.is_empty() {
            self.whole(event("move-out", &patterns.gone, self.transaction.xid));
        }
        if self.is_too_much() {
            tracing::warn!(
                "what a shape is told of transactions at a time is more than {} bytes; its clients start anew",
                self.most
            );
            return Err(ShapeError::Refetch(None));
        }
        let mut bytes = 0;
        let last = self.told.iter().rposition(|message| matches!(message, Message::Change(_)));
        let (count, commit) = (self.told.len(), self.transaction.commit);
        for (at, message) in self.told.into_iter().enumerate() {
            let message = match message {
                Message::Whole(text) => text.into_bytes(),
                Message::Change(mut writer) => {
                    if Some(at) == last {
                        writer.end_transaction();
                    }
                    writer.finish()
                }
            };
            let offset = if at + 1 == count {
                Offset { lsn: Lsn(commit.0 + 1), op: 0 }
            } else {
                Offset { lsn: commit, op: at as u64 + 1 }
            };
            bytes += message.len();
            told.push(Kept { offset, message });
        }
        Ok(bytes)
    }
}

impl Patterns {
    fn add(&mut self, was: bool, is: bool, pattern: impl FnOnce() -> (usize, String)) {
        match (was, is) {
            (true, false) => self.gone.insert(pattern()),
            (false, true) => self.come.insert(pattern()),
            _ => false,
        };
    }

    /// A row that is what it was, but for what subqueries have.
    fn add_row(&mut self, definition: &Definition, before: &Side<'_>, after: &Side<'_>) {
        let Some((filter, dnf)) = normal(definition) else { return };
        for (subquery, (was, is)) in
            before.atoms.iter().zip(&after.atoms).enumerate().filter(|(_, (was, is))| was != is)
        {
            let columns = &filter.subqueries()[subquery].columns;
            for (position, negated) in dnf.positions_of(subquery) {
                self.add(*was == Some(!negated), *is == Some(!negated), || {
                    let value: Value = columns.iter().map(|at| before.row[*at].map(str::to_owned)).collect();
                    (position, hash(definition, position, &value))
                });
            }
        }
    }

    /// What came or went, whether any row has it or not.
    fn add_values(&mut self, definition: &Definition, sets: &Sets<'_>, commit: Lsn) {
        let Some((filter, dnf)) = normal(definition) else { return };
        for subquery in 0..filter.subqueries().len() {
            for value in sets.changed(filter, subquery, commit).values {
                let cells: Vec<Option<&str>> = value.iter().map(Option::as_deref).collect();
                let was = sets.contains(subquery, &cells, commit);
                let is = sets.contains(subquery, &cells, Lsn(commit.0 + 1));
                for (position, negated) in dnf.positions_of(subquery) {
                    let pattern = || (position, hash(definition, position, &value));
                    self.add(was == Some(!negated), is == Some(!negated), pattern);
                }
            }
        }
    }
}

fn event(name: &str, patterns: &BTreeSet<(usize, String)>, xid: u32) -> String {
    let patterns: Vec<String> =
        patterns.iter().map(|(position, value)| format!("{{\"pos\":{position},\"value\":\"{value}\"}}")).collect();
    format!("{{\"headers\":{{\"event\":\"{name}\",\"patterns\":[{}],\"txids\":[{xid}]}}}}", patterns.join(","))
}
