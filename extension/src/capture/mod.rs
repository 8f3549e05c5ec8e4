//! Capture: what a statement changed in an enabled table becomes events, in the same transaction.
//!
//! Statement-level AFTER triggers with transition tables. Rows are rendered here and go straight into the event table
//! (`append`), without a statement of their own. The rows are locked by the statement before the trigger runs, so the
//! positions of an entity rise in commit order.
//!
//! 1. Each changed row is one event: `created` with the row, `updated` with what changed, `deleted` with the key.
//! 2. A row whose key or tenant changed is `deleted` under the old and `created` under the new. All deletes of a
//!    statement come before its creates, so that keys that are handed on end with the row that has them now.
//! 3. Ingest's own write of a row is passed over, nothing else that it sets off (see [`own_write`]).
//! 4. A subscription's apply worker fires no statement triggers: there, and only there, a row trigger captures.
//! 5. Rows are rendered and appended as whoever changed them: nothing of that asks for privileges or looks a name up in the
//!    `search_path`. What does acts as the function's owner ([`Definer`]).

mod baseline;
mod nesting;
pub(crate) mod own_write;
mod rows;

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::CStr;
use std::hash::{DefaultHasher, Hasher};

use headwater_model::clock::Micros;
use headwater_model::event::MAX_TEXT_BYTES;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;

use crate::append::{Appender, NewEvent};
use crate::clock;
use crate::head;
use crate::raise::raise;
use crate::render::{Row, Writer};
use crate::session::{ActingAs, Definer};
use crate::settings::{self, Settings};
use crate::table::{self, Table};
use nesting::{Ended, Fingerprint, Verdict};
use own_write::Operation;
use rows::{TransitionTable, Tuple};

thread_local! {
    static RECORDED: Cell<i64> = const { Cell::new(0) };
    static WRITER: Cell<Option<Writer>> = const { Cell::new(None) };
}

/// How many events this backend has captured so far.
pub(crate) fn recorded() -> i64 {
    RECORDED.get()
}

#[unsafe(no_mangle)]
#[doc(hidden)]
extern "C-unwind" fn pg_finfo_capture_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// By hand: it reads tuples where they are, which pgrx's triggers would copy.
#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
unsafe extern "C-unwind" fn capture_wrapper(call: pg_sys::FunctionCallInfo) -> Datum {
    #[expect(clippy::cast_ptr_alignment, reason = "the tag says that it is one")]
    // SAFETY: Postgres calls; whether as a trigger, the node's tag says.
    let (data, definer) = unsafe {
        let context = (*call).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            raise(
                PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "headwater.capture is a trigger's function",
                "headwater.enable makes the triggers.",
            );
        }
        (&*context.cast::<pg_sys::TriggerData>(), Definer::of(call))
    };
    capture(data, definer);
    Datum::from(0)
}

fn capture(data: &pg_sys::TriggerData, definer: Definer) {
    // SAFETY: attach_member gives the entity's name as the only argument; the trigger lives as long as its relation is
    // open, which it is.
    let (entity_type, relid) = unsafe {
        let trigger = &*data.tg_trigger;
        if trigger.tgnargs != 1 {
            raise(
                PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "a trigger of headwater.capture does not name its entity",
                "Drop it; headwater.enable makes the triggers.",
            );
        }
        (CStr::from_ptr(*trigger.tgargs).to_str().unwrap_or_default(), (*data.tg_relation).rd_id)
    };
    let depth = own_write::trigger_depth();
    let event = data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
    let for_row = data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
    let before = data.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE;

    if before && event != pg_sys::TRIGGER_EVENT_TRUNCATE {
        nesting::begin(depth, relid, entity_type);
    } else if !for_row {
        let ended = if before { Ended::default() } else { nesting::end(depth, relid) };
        let fired = Fired { data, table: table::of_trigger(relid, entity_type, definer), depth, definer };
        fired.statement(event, ended);
    } else if !nesting::is_open(depth, entity_type) {
        let fired = Fired { data, table: table::of_trigger(relid, entity_type, definer), depth, definer };
        fired.row(event);
    }
}

/// A trigger that fired for changed rows of a table.
struct Fired<'d> {
    data: &'d pg_sys::TriggerData,
    table: std::rc::Rc<Table>,
    depth: i32,
    definer: Definer,
}

impl Fired<'_> {
    /// The transition tables hold what changed; before a TRUNCATE, the table itself does.
    fn statement(self, event: u32, ended: Ended) {
        let table = &*self.table;
        let _rendering = self.for_rendering();
        match event {
            pg_sys::TRIGGER_EVENT_INSERT => {
                let own = own_write::take(table.relid, Operation::Insert);
                let mut new = self.transition(self.data.tg_newtable);
                let mut record = Record::new(&self, own, ended);
                while let Some(row) = new.next() {
                    record.created(&row);
                }
                record.end();
                new.close();
            }
            pg_sys::TRIGGER_EVENT_UPDATE => {
                let own = own_write::take(table.relid, Operation::Update);
                let mut old = self.transition(self.data.tg_oldtable);
                if old.len() > 0 {
                    baseline::of_old_rows(table, self.data, self.definer);
                }
                let mut new = self.transition(self.data.tg_newtable);
                let mut record = Record::new(&self, own, ended);
                let mut moved = 0_u64;
                if old.len() != new.len() {
                    // A row that went to another partition, where a trigger swallowed it: nothing says which it was.
                    record.unpaired(&mut old, &mut new);
                }
                // Both hold the rows in the same order.
                while let (Some(old), Some(new)) = (old.next(), new.next()) {
                    if table.renderer.same_entity(&old, &new) {
                        record.updated(&old, &new);
                    } else {
                        moved += 1;
                        record.deleted(&old);
                    }
                }
                if moved > 0 {
                    old.rewind();
                    new.rewind();
                    while let (Some(old), Some(new)) = (old.next(), new.next()) {
                        if !table.renderer.same_entity(&old, &new) {
                            record.moved_to(&new);
                        }
                    }
                }
                record.end();
                old.close();
                new.close();
            }
            pg_sys::TRIGGER_EVENT_DELETE => {
                let own = own_write::take(table.relid, Operation::Delete);
                let mut old = self.transition(self.data.tg_oldtable);
                if old.len() > 0 {
                    baseline::of_old_rows(table, self.data, self.definer);
                }
                let mut record = Record::new(&self, own, ended);
                while let Some(row) = old.next() {
                    record.deleted(&row);
                }
                record.end();
                old.close();
            }
            _ => {
                // SAFETY: a TRUNCATE holds the table's strongest lock.
                unsafe { rows::for_each(self.data.tg_relation, |row| baseline::of_row(table, row, self.definer)) };
                let mut record = Record::new(&self, None, ended);
                // SAFETY: as above.
                unsafe { rows::for_each(self.data.tg_relation, |row| record.deleted(row)) };
                record.end();
            }
        }
    }

    /// One row, in a subscription's apply worker.
    fn row(self, event: u32) {
        let table = &*self.table;
        let _rendering = self.for_rendering();
        // SAFETY: a row trigger has the tuples of its event, of the table's description.
        let tuple = |tuple: pg_sys::HeapTuple| unsafe { Tuple::of(tuple, (*self.data.tg_relation).rd_att) };
        let first = tuple(self.data.tg_trigtuple);
        if event != pg_sys::TRIGGER_EVENT_INSERT {
            baseline::of_row(table, &first.row(), self.definer);
        }
        let mut record = Record::new(&self, None, Ended::default());
        match event {
            pg_sys::TRIGGER_EVENT_INSERT => record.created(&first.row()),
            pg_sys::TRIGGER_EVENT_DELETE => record.deleted(&first.row()),
            _ => {
                let second = tuple(self.data.tg_newtuple);
                let (old, new) = (first.row(), second.row());
                if table.renderer.same_entity(&old, &new) {
                    record.updated(&old, &new);
                } else {
                    record.deleted(&old);
                    record.moved_to(&new);
                }
            }
        }
        record.end();
    }

    /// Where values do not print the same under all settings, the path is one of those: names that it finds print without their
    /// schema. Types of the application's are among them, whose functions have always printed as the owner.
    fn for_rendering(&self) -> Option<(Settings, ActingAs)> {
        let depends = self.table.renderer.depends_on_settings;
        depends.then(|| {
            let acting = self.definer.act();
            (Settings::for_rendering(), acting)
        })
    }

    fn transition(&self, store: *mut pg_sys::Tuplestorestate) -> TransitionTable {
        // SAFETY: the trigger asked for this transition table.
        unsafe { TransitionTable::new(store, (*self.data.tg_relation).rd_att) }
    }
}

/// The events of one firing.
struct Record<'t> {
    table: &'t Table,
    depth: i32,
    /// The entities whose changes are ingest's own.
    own: Option<own_write::Entities>,
    now: Micros,
    ended: Ended,
    /// Entities whose changes within the statement do not show their order.
    to_look_at: Vec<String>,
    /// A statement on the same entity is around this one.
    within_another: bool,
    clock_is_behind: bool,
    definer: Definer,
    /// While indexes that the administrator has made call functions.
    acting: Option<ActingAs>,
    user: Option<String>,
    created: String,
    updated: String,
    deleted: String,
    writer: Writer,
    entity_id: Vec<u8>,
    /// Opened with the first event: a statement that changed nothing takes no lock.
    appender: Option<Appender>,
    /// What rendering a row leaves behind.
    memory: pg_sys::MemoryContext,
    outer_memory: pg_sys::MemoryContext,
}

impl<'t> Record<'t> {
    fn new(fired: &'t Fired<'_>, own: Option<own_write::Entities>, ended: Ended) -> Self {
        let (table, depth, definer) = (&*fired.table, fired.depth, fired.definer);
        let within_another = nesting::keep_instants(depth, &table.entity_type);
        let now = clock::now();
        // SAFETY: deleted at `end`; before that by its parent, if an error comes first.
        let memory = unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurrentMemoryContext,
                c"headwater row".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        Self {
            table,
            depth,
            own,
            now,
            ended,
            to_look_at: Vec::new(),
            within_another,
            clock_is_behind: clock::is_behind(now, || definer.act()),
            definer,
            acting: None,
            user: acting_user(),
            created: format!("{}.created", table.entity_type),
            updated: format!("{}.updated", table.entity_type),
            deleted: format!("{}.deleted", table.entity_type),
            writer: WRITER.take().unwrap_or_default(),
            entity_id: Vec::new(),
            appender: None,
            memory,
            // SAFETY: a variable of the backend.
            outer_memory: unsafe { pg_sys::CurrentMemoryContext },
        }
    }

    fn created(&mut self, row: &Row<'_>) {
        let user = || self.table.user.as_ref().and_then(|column| row.text(column));
        let user = self.user.as_ref().map(|user| user.clone().into_bytes()).or_else(user);
        self.add(Kind::Created, None, Some(row), user.as_deref(), |table, writer| {
            table.renderer.state(row, writer);
        });
    }

    /// A row that had another key or tenant.
    fn moved_to(&mut self, row: &Row<'_>) {
        let user = self.user.clone();
        self.add(Kind::Created, None, Some(row), user.as_deref().map(str::as_bytes), |table, writer| {
            table.renderer.state(row, writer);
        });
    }

    fn updated(&mut self, old: &Row<'_>, new: &Row<'_>) {
        let user = self.user.clone();
        self.add(Kind::Updated, Some(old), Some(new), user.as_deref().map(str::as_bytes), |table, writer| {
            table.renderer.changes(old, new, writer);
        });
    }

    fn deleted(&mut self, row: &Row<'_>) {
        let user = self.user.clone();
        self.add(Kind::Deleted, Some(row), None, user.as_deref().map(str::as_bytes), |table, writer| {
            table.renderer.key(row, writer);
        });
    }

    /// Rows before and after, of which some went without coming again: told apart by whose they are. Reads both to the end.
    fn unpaired(&mut self, old: &mut TransitionTable, new: &mut TransitionTable) {
        let renderer = &self.table.renderer;
        let entity = |row: &Row<'_>| {
            let mut entity_id = Vec::new();
            renderer.entity_id(row, &mut entity_id);
            (entity_id, renderer.tenant(row))
        };
        let (mut before, mut after) = (HashSet::new(), HashSet::new());
        while let Some(row) = old.next() {
            before.insert(entity(&row));
        }
        while let Some(row) = new.next() {
            after.insert(entity(&row));
        }
        old.rewind();
        while let Some(row) = old.next() {
            if !after.contains(&entity(&row)) {
                self.deleted(&row);
            }
        }
        new.rewind();
        while let Some(row) = new.next() {
            if before.contains(&entity(&row)) {
                let user = self.user.clone();
                // What it was is not at hand: all of it counts as changed.
                self.add(Kind::Updated, Some(&row), Some(&row), user.as_deref().map(str::as_bytes), |table, writer| {
                    table.renderer.state(&row, writer);
                });
            } else {
                self.moved_to(&row);
            }
        }
    }

    fn add(
        &mut self,
        kind: Kind,
        old: Option<&Row<'_>>,
        new: Option<&Row<'_>>,
        user: Option<&[u8]>,
        payload: impl FnOnce(&Table, &mut Writer),
    ) {
        let table = self.table;
        let Some(row) = new.or(old) else { return };
        // SAFETY: set back below; an error sets back too.
        unsafe { pg_sys::MemoryContextSwitchTo(self.memory) };
        table.renderer.entity_id(row, &mut self.entity_id);
        if self.own.as_ref().is_none_or(|own| !own.contains(&self.entity_id)) {
            let tenant = table.renderer.tenant(row);
            payload(table, &mut self.writer);
            let occurred_at = self.instant(tenant.as_deref(), old, new);
            if self.within_another {
                let (found, left) = (fingerprint(table, old), fingerprint(table, new));
                nesting::changed(self.depth, &table.entity_type, &self.entity_id, found, left);
            }
            // SAFETY: the appender's own memory is a child of the statement's.
            unsafe { pg_sys::MemoryContextSwitchTo(self.outer_memory) };
            if self.ended.another_follows {
                nesting::changed_beside(self.depth, table.relid, &self.entity_id);
            }
            let event_type = match kind {
                Kind::Created => &self.created,
                Kind::Updated => &self.updated,
                Kind::Deleted => &self.deleted,
            };
            let appender = self.appender.get_or_insert_with(|| {
                let appender = Appender::open();
                self.acting = appender.calls_functions().then(|| self.definer.act());
                appender
            });
            appender.append(&NewEvent {
                id: clock::new_id(),
                tenant: tenant.as_deref(),
                entity_type: table.entity_type.as_bytes(),
                entity_id: &self.entity_id,
                event_type: event_type.as_bytes(),
                payload: self.writer.bytes(),
                schema_version: table.schema_version,
                occurred_at,
                recorded_at: self.now,
                user,
                client: None,
                source: "capture",
                applies: true,
            });
        }
        // SAFETY: nothing of the row is used any more.
        unsafe {
            pg_sys::MemoryContextSwitchTo(self.outer_memory);
            pg_sys::MemoryContextReset(self.memory);
        }
    }

    /// When the change of the row at hand happened: now, but below what changed it within this statement behind it, and
    /// above all that stands in its history.
    fn instant(&mut self, tenant: Option<&[u8]>, old: Option<&Row<'_>>, new: Option<&Row<'_>>) -> Micros {
        if !self.ended.earlier.is_empty() {
            let table = self.table;
            let fingerprints = || (fingerprint(table, old), fingerprint(table, new));
            let verdict = self.ended.earlier.judge(&self.entity_id, fingerprints);
            if let Verdict::Look(_) = verdict {
                self.to_look_at.push(String::from_utf8_lossy(&self.entity_id).into_owned());
            }
            if let Verdict::At(instant) | Verdict::Look(Some(instant)) = verdict {
                return instant;
            }
        }
        if !self.clock_is_behind {
            return self.now;
        }
        let entity_id = String::from_utf8_lossy(&self.entity_id).into_owned();
        let tenant = tenant.map(String::from_utf8_lossy);
        let _acting = self.definer.act();
        let head =
            Spi::connect_mut(|client| head::heads(client, &self.table.entity_type, tenant.as_deref(), &[entity_id]));
        head.into_iter().find_map(|head| head.last).map_or(self.now, |(at, _)| self.now.max(at.plus(1)))
    }

    fn end(self) {
        if let Some(appender) = self.appender {
            RECORDED.set(RECORDED.get() + appender.close());
        }
        drop(self.acting);
        if self.writer.kept_bytes() <= MAX_KEPT_BYTES {
            WRITER.set(Some(self.writer));
        }
        // SAFETY: made in `new`.
        unsafe { pg_sys::MemoryContextDelete(self.memory) };
        if !self.to_look_at.is_empty() {
            let _acting = self.definer.act();
            look_at(self.table, self.to_look_at);
        }
    }
}

/// What a row is, told from what else it could be.
fn fingerprint(table: &Table, row: Option<&Row<'_>>) -> Fingerprint {
    let mut writer = Writer::default();
    row.map(|row| {
        let mut hasher = DefaultHasher::new();
        hasher.write(table.renderer.state(row, &mut writer));
        hasher.finish()
    })
}

/// Records where the rows of these entities, which this transaction has locked, are not what was recorded of them.
fn look_at(table: &Table, entity_ids: Vec<String>) {
    Spi::connect_mut(|client| {
        let sql = "select headwater.record_entities($1, $2)";
        let statement = table.statement("record_entities", || sql.to_owned());
        let recorded = statement.run(client, &[table.entity_type.as_str().into(), entity_ids.into()]).first().get_one();
        RECORDED.set(RECORDED.get() + recorded.expect("a count").unwrap_or(0));
    });
}

/// How large a buffer is kept for the next statement; one that a huge row has grown is not.
const MAX_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// What happened to a row.
#[derive(Clone, Copy)]
enum Kind {
    Created,
    Updated,
    Deleted,
}

/// Who acts, where the application says so the way PostgREST and ingest do: `sub` of the token's claims.
fn acting_user() -> Option<String> {
    let claims = settings::current(c"request.jwt.claims").map(CStr::to_string_lossy)?;
    let claims: serde_json::Value = serde_json::from_str(&claims).ok()?;
    // What no text of Postgres' can hold, or no event may, is nobody.
    let user = claims.get("sub")?.as_str().filter(|user| user.len() <= MAX_TEXT_BYTES && !user.contains('\0'))?;
    Some(user.to_owned())
}
