//! An entity under its lock: its row is brought to what the fold says, step by step where events build on what the table
//! makes of them.
//!
//! The row in the user's table equals the fold after every commit. An event that is its entity's newest applies straight
//! to the row, for the row is the fold of all before it; a late one folds the entity anew.
//!
//! What the table itself made of the row is recorded as a captured `updated`, of the same instant as the event that it
//! belongs to, with an id shortly behind:
//! 1. what defaults filled in: behind the event that began the entity, as a fill that yields to events which arrive late;
//! 2. what the table made of a value that an event brought, its own spelling for one: behind that event;
//! 3. what else triggers and generated columns changed: behind the last event.
//!
//! A late event on which later ones build (see [`reach`]) is written first, as it would have been in time, so that its
//! record stands before they are folded. That is why the order of arrival makes no difference.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use headwater_model::clock::Micros;
use headwater_model::event::{Code, Reject, StoredEvent, id_behind, id_of_fill, name_of};
use headwater_model::fold::{self, State};
use headwater_model::rules::{Rule, Rules};
use headwater_model::{json, reach};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use serde_json::Value;

use super::apply::{Prepared, too_late};
use super::outcome::Rejection;
use super::record::{Record, Source, record};
use super::row;
use super::write::{self, Change};
use crate::capture;
use crate::clock;
use crate::custom::Runner;
use crate::head::{self, Entity, Folded, Folding, Order, Until};
use crate::options;
use crate::table::Table;

/// An entity under its lock, with the events that came for it.
pub(super) struct Touched<'e> {
    pub(super) entity: Entity,
    pub(super) table: Rc<Table>,
    /// Those that are left, in their order.
    pub(super) events: Vec<&'e Prepared>,
    /// The row's state.
    pub(super) row: Option<State>,
    /// The last applying event.
    pub(super) head: Option<Order>,
}

/// A write of the row, and the events that it stands for.
pub(super) struct Write<'e> {
    folded: Folded,
    /// The events as far as they are folded, in order.
    events: Vec<StoredEvent>,
    /// Those that came now.
    new: Vec<&'e Prepared>,
    /// Where what nobody brought is recorded.
    last: Order,
    /// What it does to the row; nothing, if there is nothing to do.
    pub(super) change: Option<Change>,
    /// The fill of a life that ended in the same instant would make the row its user's, for it stands before the fill of
    /// this one. So whose the row is is recorded behind the event that began it, which is the last of these.
    contested: bool,
}

impl<'e> Write<'e> {
    /// The newest of the events that came now.
    fn newest(&self) -> &'e Prepared {
        self.new.last().expect("an entity is touched by an event")
    }
}

/// How an entity goes on.
pub(super) enum Next<'e> {
    /// All of its events that are left belong before others, or build on what the table makes of one another.
    FoldAnew,
    /// The next of them make this write.
    Write(Box<Write<'e>>),
}

impl<'e> Touched<'e> {
    /// Optimistic concurrency. Several events in one batch are judged one by one: each moves the position.
    pub(super) fn expect_position(&self, client: &mut SpiClient<'_>) -> Result<(), Reject> {
        let Some(expected) = self.events.iter().find_map(|event| event.event.expected_position) else { return Ok(()) };
        let latest = head::latest_position(client, &self.entity);
        if latest == expected && self.events.len() == 1 {
            return Ok(());
        }
        let reason = format!("expected_position is {expected}, but the entity's latest event stands at {latest}");
        Err(Reject::new(Code::VersionConflict, reason))
    }

    /// What comes next, the events in their order: a write for each, so that constraints and policies judge each; but one
    /// for those of the same instant, among which what the table made of the first could sort behind the second.
    ///
    /// # Panics
    /// There is an event left.
    pub(super) fn next(&self, role: Oid, claims: Option<&str>) -> Next<'e> {
        let step = self.events.chunk_by(|a, b| a.occurred_at == b.occurred_at).next().expect("an event is left");
        let late = self.head.is_some_and(|head| step[0].order() <= head);
        let mut events: Vec<_> = step.iter().map(|event| event.stored()).collect();
        if late || self.build_on_each_other(&events) {
            return Next::FoldAnew;
        }
        let folded = head::fold(self.row.clone(), &mut events, &self.table.rules, Runner::Role(role, claims));
        let last = step.last().expect("a step has events").order();
        Next::Write(Box::new(self.planned(folded, events, step.to_vec(), last)))
    }

    /// A write that was made: the events that it stands for are done, and the table made `actual` of the row. Returns
    /// what the table itself made, as events.
    pub(super) fn written(&mut self, write: Write<'e>, actual: Option<State>) -> Vec<Record<'static>> {
        self.events.drain(..write.new.len());
        self.settle(write, actual)
    }

    fn build_on_each_other(&self, step: &[StoredEvent]) -> bool {
        (0..step.len()).any(|at| reach::is_built_on(step, at, true, true, self.table.reach(), &self.table.rules))
    }

    /// For events that come late, all that are left: the state from the beginning. They are in the table already.
    pub(super) fn fold_anew(&mut self, role: Oid, claims: Option<&str>) -> Result<Vec<Record<'static>>, Rejection> {
        let new = std::mem::take(&mut self.events);
        let table = Rc::clone(&self.table);
        let runner = Runner::Role(role, claims);
        let new_orders: BTreeSet<_> = new.iter().map(|event| event.order()).collect();
        let last = new.last().expect("an entity is touched by an event").order();
        let was_absent = self.row.is_none();
        let mut written = BTreeSet::new();
        let mut budget = Budget::of(new.len());
        let read = |entity: &Entity| {
            Spi::connect_mut(|client| head::folding_of(client, entity, Until::Now, &table.upcasts, runner))
        };
        let Folding { base: mut baseline, folded, events: mut all, doubled } = read(&self.entity);
        // What has come since the entity was locked, if its row is absent, is folded too.
        self.head = self.head.max(all.last().map(StoredEvent::order));
        budget.spend(all.len())?;
        if doubled.iter().any(|order| new_orders.contains(order)) {
            return Err(Reject::new(Code::Conflict, "another event of the entity has this id").into());
        }
        if folded.is_some_and(|folded| new_orders.iter().any(|order| *order <= folded)) {
            return Err(too_late(&self.entity.entity_type).into());
        }
        // The events before the first new one stay as they are, and so does what they fold to.
        let mut before = Prefix::none(baseline.clone());
        loop {
            all.sort_by_key(StoredEvent::order);
            let first_new = all.iter().position(|event| new_orders.contains(&event.order())).unwrap_or(all.len());
            if before.length == 0 {
                before = before.fold_to(first_new, &mut all, &table.rules, runner);
            }
            budget.spend(all.len() - before.length)?;
            let folded = before.clone().fold_to(all.len(), &mut all, &table.rules, runner).folded;
            let deleted = || all.iter().any(|event| ends(event, &table.rules));
            if folded.state.is_none() && self.row.is_some() && !deleted() {
                // A row is never deleted because its history does not reach back to its beginning.
                let reason =
                    "the entity's history does not explain its row; an operator can mend that: headwater.check()";
                return Err(Reject::new(Code::ConstraintViolation, reason).into());
            }
            let begun = folded.begun_by;
            let first = all.iter().position(|event| Some(event.order()) == begun).unwrap_or(0);
            // What had no effect as long as the entity was absent has it now.
            let all_new = was_absent || begun.is_some_and(|begun| new_orders.contains(&begun));
            let stop = (first..all.len()).find(|&at| {
                let order = all[at].order();
                let (is_new, begins) = (all_new || new_orders.contains(&order), begun == Some(order));
                (is_new || begins)
                    && folded.state.is_some()
                    && !written.contains(&order)
                    && (reach::is_built_on(&all, at, is_new, begins, table.reach(), &table.rules)
                        || begins && self.anothers_fill(&all, at, &new).is_some())
            });
            let Some(stop) = stop else {
                let last = self.head.map_or(last, |head| head.max(last));
                return self.write(self.planned(folded, all, new, last), role, claims);
            };
            let order = all[stop].order();
            written.insert(order);
            if stop < before.length {
                before = Prefix::none(baseline.clone());
            }
            before = before.fold_to(stop + 1, &mut all, &table.rules, runner);
            let folded = before.folded.clone();
            let captured_before = capture::recorded();
            let mut write = self.planned(folded, all[..=stop].to_vec(), new.clone(), order);
            write.contested = begun == Some(order)
                && self
                    .anothers_fill(&all, stop, &new)
                    .is_some_and(|fill| id_of_fill(order.1, 0).is_none_or(|own| fill.order() < (order.0, own)));
            let made = self.write(write, role, claims)?;
            let stored: Vec<_> = made.iter().map(Record::stored).collect();
            record(made);
            if capture::recorded() == captured_before {
                if stored.iter().any(|made| made.order() <= order) {
                    before = Prefix::none(baseline.clone());
                }
                all.extend(stored);
            } else {
                look_again(&mut [&mut *self], role, claims)?;
                Folding { base: baseline, events: all, .. } = read(&self.entity);
                self.head = self.head.max(all.last().map(StoredEvent::order));
                budget.spend(all.len())?;
                before = Prefix::none(baseline.clone());
            }
        }
    }

    fn planned(&self, folded: Folded, events: Vec<StoredEvent>, new: Vec<&'e Prepared>, last: Order) -> Write<'e> {
        let user = self.beginner(folded.begun_by, &new);
        let mut wanted = folded.state.as_ref().map(Cow::Borrowed);
        if let (Some(wanted), Some(column), Some(user)) = (&mut wanted, self.shared_user_column(), &user)
            && !wanted.contains_key(&column)
        {
            // Whoever began this life of the entity, not the one before.
            wanted.to_mut().insert(column, Value::String(user.clone()));
        }
        let change = Change::between(&self.table, &self.entity, self.row.as_ref(), wanted, user.as_deref());
        Write { folded, events, new, last, change, contested: false }
    }

    fn write(&mut self, write: Write<'e>, role: Oid, claims: Option<&str>) -> Result<Vec<Record<'static>>, Rejection> {
        let Entity { entity_id, tenant, .. } = &self.entity;
        let actual = match &write.change {
            Some(change) => {
                write::write(&self.table, tenant.as_deref(), &[(entity_id, change)], role, claims)?.remove(entity_id)
            }
            None => None,
        };
        not_overtaken(&self.table, tenant.as_deref(), [(&*self, &write)])?;
        Ok(self.settle(write, actual))
    }

    /// Afterwards `row` and `head` are what they are with the events of the write.
    fn settle(&mut self, write: Write<'e>, written: Option<State>) -> Vec<Record<'static>> {
        let newest = write.newest().order();
        let before = self.row.take();
        self.row = match &write.change {
            None => before.clone(),
            Some(change) if change.ends() => None,
            Some(_) => written,
        };
        self.head = Some(self.head.map_or(newest, |head| head.max(newest)));
        self.made(write, before.as_ref())
    }

    /// What the table itself made of the row, which was `before`.
    fn made(&self, write: Write<'e>, before: Option<&State>) -> Vec<Record<'static>> {
        let newest = write.newest();
        let Write { folded, events, last, contested, .. } = write;
        let (Some(after), Some(actual)) = (&folded.state, &self.row) else { return Vec::new() };
        let own = self.shared_user_column().filter(|_| contested);
        let (changed, filled): (State, State) = fold::difference(after, actual)
            .into_iter()
            .partition(|(name, _)| after.contains_key(name) || own.as_ref() == Some(name));
        let mut made = Vec::new();
        if !filled.is_empty() {
            let begun = folded.begun_by.unwrap_or(last);
            made.push(self.updated(begun.0, id_of_fill(begun.1, clock::random()), filled, newest));
        }
        let mut behind: BTreeMap<Order, State> = BTreeMap::new();
        for (field, value) in changed {
            let writes = |event: &&StoredEvent| !event.fills() && reach::writes(event, &field, &self.table.rules);
            // A value that stood in the row before was changed by the table alone.
            let stood = before.and_then(|before| before.get(&field));
            let brought = !stood.zip(after.get(&field)).is_some_and(|(stood, after)| json::equal(stood, after));
            let bringer = events.iter().rev().filter(|_| brought).find(writes).map(StoredEvent::order);
            let bringer = bringer.filter(|_| own.as_ref() != Some(&field)).unwrap_or(last);
            behind.entry(bringer).or_default().insert(field, value);
        }
        for ((at, id), changed) in behind {
            let gap = u32::try_from(clock::random() >> 96).expect("32 bits");
            made.push(self.updated(at, id_behind(id, gap), changed, newest));
        }
        made
    }

    /// The fill from which the life that `events[at]` begins has its user, where that is another life's and another user.
    fn anothers_fill<'s>(&self, events: &'s [StoredEvent], at: usize, new: &[&Prepared]) -> Option<&'s StoredEvent> {
        let column = self.shared_user_column()?;
        let writer = events[at..].iter().find(|event| reach::writes(event, &column, &self.table.rules));
        let fill = writer.filter(|event| event.fills())?;
        let beginner = self.beginner(Some(events[at].order()), new)?;
        (fill.payload[&column].as_str() != Some(&beginner)).then_some(fill)
    }

    fn shared_user_column(&self) -> Option<String> {
        let user = self.table.user.as_ref()?;
        self.table.columns.iter().any(|column| column.name == user.name).then(|| user.name.clone())
    }

    /// Who began this life of the entity, where a column wants to know.
    fn beginner(&self, begun_by: Option<Order>, new: &[&Prepared]) -> Option<String> {
        self.table.user.as_ref()?;
        let begun = begun_by?;
        match new.iter().find(|event| event.order() == begun) {
            Some(event) => event.user_id.clone(),
            None => Spi::connect(|client| head::user_of(client, &self.entity, begun)),
        }
    }

    /// Without an id that sorts behind the cause's, the event stands one microsecond behind.
    fn updated(&self, at: Micros, id: Option<uuid::Uuid>, difference: State, cause: &Prepared) -> Record<'static> {
        let (occurred_at, id) = id.map_or_else(|| (at.plus(1), clock::new_id()), |id| (at, id));
        Record {
            id,
            tenant: self.entity.tenant.clone().map(Cow::Owned),
            entity_type: Cow::Owned(self.entity.entity_type.clone()),
            entity_id: Cow::Owned(self.entity.entity_id.clone()),
            event_type: Cow::Owned(format!("{}.updated", self.entity.entity_type)),
            payload: Cow::Owned(difference),
            schema_version: self.table.schema_version,
            occurred_at,
            user_id: cause.user_id.clone().map(Cow::Owned),
            client_id: None,
            source: Source::Capture,
            applies: true,
        }
    }
}

/// The first events of a history, folded once and not again.
#[derive(Clone)]
struct Prefix {
    /// How many events that is.
    length: usize,
    folded: Folded,
}

impl Prefix {
    fn none(baseline: Option<State>) -> Self {
        Self { length: 0, folded: Folded { state: baseline, begun_by: None } }
    }

    /// The first `length` events, of which these are folded. Events are in their order.
    fn fold_to(self, length: usize, events: &mut [StoredEvent], rules: &Rules, runner: Runner<'_>) -> Self {
        let folded = head::fold_on(self.folded, &mut events[self.length..length], rules, runner);
        Self { length, folded }
    }
}

thread_local! {
    /// How many events the batch at hand has had folded anew.
    static FOLDED: Cell<usize> = const { Cell::new(0) };
}

/// Begins a batch, which has folded nothing yet.
pub(crate) fn begin_batch() {
    FOLDED.set(0);
}

/// How many events an entity's late ones may have folded: while that lasts, their row is locked.
struct Budget {
    left: usize,
}

impl Budget {
    /// Several events that are too much at once are tried less at a time, so they must leave something for that.
    fn of(events: usize) -> Self {
        let whole = options::max_folded_events();
        let share = if events > 1 { whole / 4 } else { whole };
        Self { left: share.min(whole.saturating_sub(FOLDED.get())) }
    }

    fn spend(&mut self, events: usize) -> Result<(), Reject> {
        FOLDED.set(FOLDED.get().saturating_add(events));
        self.left = self.left.checked_sub(events).ok_or_else(|| {
            let reason =
                "it comes late, and its entity's history is too long to be folded anew; headwater.compact shortens it";
            Reject::new(Code::TooLate, reason)
        })?;
        Ok(())
    }
}

/// Of rows that were just inserted, whether the fold still is what they were made from.
///
/// An absent row cannot be locked. Between the look at it and its insert other transactions may have created it and
/// deleted it again: then the insert does not fail, and yet the event belongs before theirs. From the insert on they wait.
pub(super) fn not_overtaken<'w>(
    table: &Table,
    tenant: Option<&str>,
    written: impl IntoIterator<Item = (&'w Touched<'w>, &'w Write<'w>)>,
) -> Result<(), Rejection> {
    let begun = written.into_iter().filter(|(_, write)| write.change.as_ref().is_some_and(Change::begins));
    let known = |(touched, write): (&'w Touched<'w>, &Write<'_>)| {
        (touched.entity.entity_id.as_str(), touched.head.map_or(write.last, |head| head.max(write.last)))
    };
    let places: Vec<_> = begun.map(known).collect();
    if places.is_empty() {
        return Ok(());
    }
    match Spi::connect_mut(|client| head::overtaken(client, &table.entity_type, tenant, &places)) {
        None => Ok(()),
        Some(entity_id) => Err(Rejection::overtaken(&entity_id)),
    }
}

/// Reads rows and heads anew, after triggers of the user's have changed rows, perhaps these.
pub(super) fn look_again(touched: &mut [&mut Touched<'_>], role: Oid, claims: Option<&str>) -> Result<(), Reject> {
    // In the order of locking.
    touched.sort_by(|a, b| a.entity.cmp(&b.entity));
    for group in
        touched.chunk_by_mut(|a, b| a.entity.entity_type == b.entity.entity_type && a.entity.tenant == b.entity.tenant)
    {
        let ids: Vec<_> = group.iter().map(|touched| touched.entity.entity_id.clone()).collect();
        let (table, tenant) = (Rc::clone(&group[0].table), group[0].entity.tenant.clone());
        let mut rows = row::lock(&table, tenant.as_deref(), &ids, |_| true, role, claims)?;
        let heads = Spi::connect_mut(|client| head::heads(client, &table.entity_type, tenant.as_deref(), &ids));
        for (touched, head) in group.iter_mut().zip(heads) {
            touched.row = rows.remove(&touched.entity.entity_id);
            touched.head = touched.head.max(head.last);
        }
    }
    Ok(())
}

impl Record<'_> {
    /// As the fold reads it.
    fn stored(&self) -> StoredEvent {
        StoredEvent {
            occurred_at: self.occurred_at,
            id: self.id,
            name: name_of(&self.event_type, &self.entity_type).unwrap_or_default().to_owned(),
            captured: self.source == Source::Capture,
            payload: self.payload.clone().into_owned(),
        }
    }
}

/// Whether an event can end its entity.
fn ends(event: &StoredEvent, rules: &Rules) -> bool {
    let custom = |rule: &Rule| matches!(rule, Rule::Delete | Rule::Custom { .. });
    if event.captured {
        event.name == "deleted" || event.name == "erased"
    } else {
        rules.get(&event.name).is_some_and(custom)
    }
}
