//! What a shape's log has behind a place: changes of its table in the ring, judged and rendered for the shape. Pure, but
//! for the log that is read; others get their turn in between, however much there is.

use super::definition::Definition;
use super::mapping::Mapping;
use super::message::{Framing, Place, Row, Writer};
use crate::log::{Log, RowChange, RowKind, RowsRead, Table, Transaction};
use bytes::Bytes;
use headwater_model::cursor::{Epoch, Lsn, Offset};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::yield_now;

/// Row changes looked at in one go, in bytes of the ring, before others get their turn.
const BYTES_PER_READ: usize = 4 << 20;

/// Steps of a condition's evaluation in one go, some milliseconds.
const STEPS_PER_GO: u64 = 1_000_000;

/// What was read.
#[derive(Debug)]
pub(super) enum Part {
    /// The log cannot bring a copy from there up to date.
    Broken,
    /// Everything there is, or as much as fits into a chunk.
    Messages(Messages),
}

/// Rendered messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages {
    /// As the framing asked for has it.
    pub(super) body: Bytes,
    /// The offset of the last one.
    pub(super) last: Option<Offset>,
    /// Where to go on: everything up to here has been looked at.
    pub(super) next: Offset,
    /// Whether everything up to the head has been looked at; else the chunk was full.
    pub(super) complete: bool,
    /// The head at that time.
    pub(super) head: Lsn,
}

/// The transactions that may concern a shape, among all up to a place.
#[derive(Debug)]
pub(super) struct Hits {
    /// Their commits, ascending.
    pub(super) commits: Vec<Lsn>,
    /// Everything committed before it was considered.
    pub(super) upto: Lsn,
}

/// Where to read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct From<'a> {
    /// Transactions to be told first, all of them whole.
    pub(super) missed: &'a [Arc<Transaction>],
    /// Behind which place.
    pub(super) after: Offset,
    /// Which transactions to look at up to a place, if the router has watched since `after`.
    pub(super) hits: Option<&'a Hits>,
}

/// Judges and renders by a shape's definition.
#[derive(Debug)]
pub(super) struct Renderer {
    pub(super) definition: Definition,
    /// The newest LSN that handles have, or must not have.
    newest: AtomicU64,
}

impl Renderer {
    pub(super) fn new(definition: Definition) -> Self {
        Self { definition, newest: AtomicU64::new(0) }
    }

    /// Whether this is newer than the LSN of every handle so far. If so, no other may have it.
    pub(super) fn is_new(&self, lsn: Lsn) -> bool {
        self.newest.fetch_max(lsn.0, Ordering::AcqRel) < lsn.0
    }

    pub(super) fn writer(&self, framing: Framing) -> Writer<'_> {
        Writer::new(&self.definition, framing)
    }

    /// What the log has behind a place, up to about `limit` bytes.
    pub(super) async fn read(&self, log: &Log, epoch: Epoch, place: &From<'_>, limit: usize, framing: Framing) -> Part {
        let From { missed, after, mut hits } = *place;
        let mut writer = self.writer(framing);
        let mut messages = Messages { next: after, ..Messages::default() };
        for transaction in missed {
            match self.transaction(transaction, None, usize::MAX, &mut writer).await {
                Told::Broken => return Part::Broken,
                Told::All(last) => messages.last = last.or(messages.last),
                Told::Some(_) => {}
            }
        }
        loop {
            let members = &self.definition.layout.members;
            let read = match hits.take() {
                Some(hits) => log.rows_at(epoch, members, messages.next, &hits.commits, hits.upto),
                None => log.rows(epoch, members, messages.next, BYTES_PER_READ),
            };
            let RowsRead::Found { transactions, upto, head } = read else { return Part::Broken };
            messages.head = head;
            for transaction in &transactions {
                let behind = (transaction.commit == messages.next.lsn).then_some(messages.next.op);
                if writer.len() >= limit {
                    messages.next = messages.last.map_or(messages.next, |last| last.max(messages.next));
                    messages.body = writer.finish().into();
                    return Part::Messages(messages);
                }
                match self.transaction(transaction, behind, limit, &mut writer).await {
                    Told::Broken => return Part::Broken,
                    Told::All(last) => messages.last = last.or(messages.last),
                    Told::Some(last) => {
                        messages.last = Some(last);
                        messages.next = last;
                        messages.body = writer.finish().into();
                        return Part::Messages(messages);
                    }
                }
            }
            messages.next = messages.next.max(Offset::just_before(upto));
            if upto >= head {
                messages.complete = true;
                messages.body = writer.finish().into();
                return Part::Messages(messages);
            }
            yield_now().await;
        }
    }

    async fn transaction(
        &self,
        transaction: &Transaction,
        behind: Option<u64>,
        limit: usize,
        writer: &mut Writer<'_>,
    ) -> Told {
        let (mut old_row, mut new_row) = (Vec::new(), Vec::new());
        let mut last = None;
        let mut mapping: Option<(&Arc<Table>, Arc<Mapping>)> = None;
        let mut steps = 0;
        for change in transaction.rows.after(behind) {
            if self.definition.layout.members.binary_search(&change.table.oid).is_err() {
                continue;
            }
            if matches!(change.kind, RowKind::Truncate | RowKind::Untold) {
                return Told::Broken;
            }
            if !mapping.as_ref().is_some_and(|(table, _)| Arc::ptr_eq(table, change.table)) {
                let layout = &self.definition.layout;
                let Some(found) = layout.mappings.of(change.table, &layout.table) else { return Told::Broken };
                mapping = Some((change.table, found));
            }
            let Some((_, places)) = &mapping else { continue };
            if steps > STEPS_PER_GO {
                steps = 0;
                yield_now().await;
            }
            let told = self.judge(&change, places, &mut old_row, &mut new_row, &mut steps);
            if told == Verdict::Nothing {
                continue;
            }
            if let Some(last) = last.filter(|_| writer.len() >= limit) {
                return Told::Some(last);
            }
            let place = Place { lsn: transaction.commit, xid: transaction.xid, op: change.op };
            let op = Self::tell(told, place, &old_row, &new_row, writer);
            last = Some(Offset { lsn: transaction.commit, op });
        }
        writer.end_transaction();
        Told::All(last)
    }

    fn judge<'a>(
        &self,
        change: &RowChange<'a>,
        mapping: &Mapping,
        old_row: &mut Vec<Option<&'a str>>,
        new_row: &mut Vec<Option<&'a str>>,
        steps: &mut u64,
    ) -> Verdict {
        let definition = &self.definition;
        let was = change.old.is_some_and(|old| {
            mapping.read(&old, old_row);
            definition.takes(old_row, steps)
        });
        let is = change.new.is_some_and(|new| {
            mapping.read(&new, new_row);
            definition.takes(new_row, steps)
        });
        match (was, is) {
            (false, true) => Verdict::Insert,
            (true, false) => Verdict::Delete,
            (true, true) if definition.layout.key.iter().any(|at| old_row[*at] != new_row[*at]) => Verdict::KeyChange,
            (true, true) if definition.layout.selected.iter().any(|at| old_row[*at] != new_row[*at]) => Verdict::Update,
            _ => Verdict::Nothing,
        }
    }

    /// The op of the last message.
    fn tell(verdict: Verdict, place: Place, old: &Row<'_>, new: &Row<'_>, writer: &mut Writer<'_>) -> u64 {
        match verdict {
            Verdict::Nothing => {}
            Verdict::Insert => writer.insert(place, new, None),
            Verdict::Update => writer.update(place, old, new),
            Verdict::Delete => writer.delete(place, old, None),
            Verdict::KeyChange => {
                writer.delete(place, old, Some(new));
                writer.insert(Place { op: place.op + 1, ..place }, new, Some(old));
                return place.op + 1;
            }
        }
        place.op
    }
}

/// How far a transaction was told.
enum Told {
    /// A copy cannot follow it.
    Broken,
    /// To its end; the offset of the last message, if there was one.
    All(Option<Offset>),
    /// Up to this message, for the chunk is full, and there is more.
    Some(Offset),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    Insert,
    Update,
    Delete,
    KeyChange,
}
