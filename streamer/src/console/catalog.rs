//! What is enabled and how it fares: entities, slots, problems of the set-up. Each as JSON, made by Postgres.

use super::Console;
use super::session::Role;
use crate::error::Error;
use serde_json::value::RawValue;

/// Pages of the event table that are counted, some 64 MiB; of a larger one a sample of about as many, scaled up.
const COUNTED_PAGES: i64 = 8192;

/// How far back from the newest event an entity's last one is looked for.
const LATEST_EVENTS: i64 = 10_000;

const PAGES: &str = "select pg_relation_size('headwater.event'::regclass) / current_setting('block_size')::int8";

/// `$1`: the share of pages to look at, in percent. `$2`: what to multiply by. `$3`: [`LATEST_EVENTS`].
const ENTITIES: &str = "with counted as ( \
       select e.entity_type, (count(*) * $2::float8)::int8 as events \
       from headwater.event e tablesample system ($1) group by 1 \
     ), latest as ( \
       select l.entity_type, max(l.recorded_at) as recorded_at \
       from (select e.entity_type, e.recorded_at from headwater.event e order by e.position desc limit $3) l group by 1 \
     ), progress as ( \
       select p.relation, sum(p.next_page) as done, sum(p.pages) as pages, sum(p.written) as written \
       from headwater.backfill_progress p group by 1 \
     ) \
     select coalesce(jsonb_agg(jsonb_build_object( \
       'entity_type', e.entity_type, \
       'table', case when c.oid is null then null else e.relation::text end, \
       'key_columns', e.key_columns, 'tenant_column', e.tenant_column, 'user_column', e.user_column, \
       'excluded', e.excluded, 'rules', e.rules, 'schema_version', e.schema_version, \
       'notification', e.notification, 'enabled', e.enabled, 'enabled_at', e.enabled_at, 'horizon', e.horizon, \
       'rows', case when c.oid is not null then \
         (select coalesce(sum(pg_stat_get_live_tuples(m.relation)), 0)::int8 from headwater.members(e.relation) m (relation)) end, \
       'events', coalesce(n.events, 0), 'last_event_at', l.recorded_at, \
       'backfilled', e.backfilled, \
       'backfill', case when p.relation is not null \
         then jsonb_build_object('pages_done', p.done, 'pages', p.pages, 'written', p.written) end \
     ) order by e.enabled desc, e.entity_type), '[]')::text \
     from headwater.entity e \
     left join pg_class c on c.oid = e.relation \
     left join counted n on n.entity_type = e.entity_type \
     left join latest l on l.entity_type = e.entity_type \
     left join progress p on p.relation = e.relation";

const SLOTS: &str = "select coalesce(jsonb_agg(jsonb_build_object( \
       'name', s.slot_name, 'type', s.slot_type, 'database', s.database, 'active', s.active, \
       'wal_status', s.wal_status, \
       'retained_bytes', pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::int8, \
       'behind_bytes', pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn)::int8, \
       'safe_bytes', s.safe_wal_size, \
       'headwater', s.slot_name like 'headwater\\_%' and s.database = current_database() \
     ) order by s.slot_name), '[]')::text \
     from pg_replication_slots s";

const PROBLEMS: &str = "select coalesce(jsonb_agg(jsonb_build_object('problem', c.problem, 'statement', c.statement)), '[]')::text \
     from headwater.check() c";

impl Console {
    /// The registry, with counts. Rows are Postgres' estimates; events are counted, or `exact` is false.
    pub async fn entities(&self) -> Result<(Box<RawValue>, bool), Error> {
        let mut session = self.session().await?;
        let transaction = session.read(Role::Reader).await?;
        let pages: i64 = transaction.query_one(PAGES, &[]).await?.try_get(0)?;
        let exact = pages <= COUNTED_PAGES;
        #[expect(clippy::cast_precision_loss, reason = "a share of pages; the result is an estimate")]
        let times = if exact { 1.0 } else { pages as f64 / COUNTED_PAGES as f64 };
        #[expect(clippy::cast_possible_truncation, reason = "tablesample takes a real")]
        let percent = (100.0 / times) as f32;
        let row = transaction.query_one(ENTITIES, &[&percent, &times, &LATEST_EVENTS]).await?;
        Ok((json(row.try_get(0)?)?, exact))
    }

    /// All replication slots: whoever keeps WAL, everybody's disk is full.
    pub async fn slots(&self) -> Result<Box<RawValue>, Error> {
        self.list(SLOTS).await
    }

    /// What `headwater.check()` finds, each with the statement that mends it.
    pub async fn problems(&self) -> Result<Box<RawValue>, Error> {
        self.list(PROBLEMS).await
    }

    async fn list(&self, query: &str) -> Result<Box<RawValue>, Error> {
        let mut session = self.session().await?;
        let transaction = session.read(Role::Reader).await?;
        let row = transaction.query_one(query, &[]).await?;
        json(row.try_get(0)?)
    }
}

/// JSON that Postgres has made.
pub(super) fn json(text: String) -> Result<Box<RawValue>, Error> {
    RawValue::from_string(text).map_err(|error| Error::Protocol(format!("not JSON: {error}")))
}
