//! Pages of the event table, in the order of positions, bounded in rows and in memory.

use super::Filter;
use crate::error::Error;
use crate::identity::Reach;
use crate::log::{EventRow, write_rfc3339};
use bytes::BytesMut;
use futures_util::TryStreamExt;
use headwater_model::clock::Micros;
use headwater_model::cursor::Position;
use std::pin::pin;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};

/// A page ends behind the row that brings it to this size: a thousand events may carry a megabyte each.
pub(super) const PAGE_BYTES: usize = 1024 * 1024;

/// How much a page may hold: it ends behind the row that fills it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Size {
    /// What waits for a stream's reader, however many of them read nothing: so much for each.
    pub(super) const WRITE: Self = Self { rows: 200, bytes: 64 * 1024 };

    /// An answer of at most so many rows.
    pub(super) fn answer(rows: usize) -> Self {
        Self { rows, bytes: PAGE_BYTES }
    }
}

/// What the table gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The position of the last event taken.
    pub last: Option<Position>,
    /// Set if there is more; then that is where to go on.
    pub more: Option<Position>,
    /// Retention has dropped events up to here: a reader that was not there yet has missed some.
    pub dropped: Position,
}

/// Events that a page looks at. A reader who wants few of very many comes back with a cursor that has moved, instead of
/// keeping a connection to Postgres busy until some are found.
const PAGE_EVENTS: i64 = 50_000;

/// Planned anew each time with the values at hand, so that conditions that were not asked for fall away.
const PAGE: &str = "select position, id::text, tenant_id, entity_type, entity_id, event_type, payload::text, \
     schema_version, occurred_at::text, recorded_at::text, user_id, client_id, source, applies \
     from (select * from headwater.event where position > $1 and position <= $2 and ($5 is null or entity_id = $5) \
       order by position limit $9) event \
     where ($4 is null or entity_type = any ($4)) \
       and ($6 is null or recorded_at >= $6::timestamptz) \
       and ($7 or tenant_id is not distinct from $8 or (tenant_id is null and exists ( \
         select from headwater.entity e where e.entity_type = event.entity_type and e.tenant_column is null))) \
     order by position limit $3";

/// Where a page ends that has looked at all it may.
const LOOKED_AT: &str = "select position from headwater.event where position > $1 and position <= $2 and ($4 is null or entity_id = $4) \
     order by position offset $3 - 1 limit 1";

const DROPPED: &str = "select dropped_position from headwater.meta";

/// Reads events with `after < position <= upto`, as many as `size` allows. In a snapshot of its own, unless the reader is told what
/// retention drops. `take` gets each and answers how many bytes the page
/// has by now.
pub(super) async fn page(
    client: &impl GenericClient,
    after: Position,
    upto: Position,
    filter: &Filter,
    size: Size,
    mut take: impl FnMut(&EventRow<'_>) -> usize,
) -> Result<Page, Error> {
    // One row beyond the limit tells whether there is more.
    let rows_asked = i64::try_from(size.rows.saturating_add(1)).unwrap_or(i64::MAX);
    let entity_types = (!filter.entity_types.is_empty()).then_some(&filter.entity_types);
    let recorded_since = filter.recorded_since.map(|time| time.to_string());
    let (everything, tenant) = match &filter.reach {
        Reach::Everything => (true, None),
        Reach::Tenant(tenant) => (false, tenant.as_deref()),
    };
    let entity_id = filter.entity_id();
    let parameters: [(&(dyn ToSql + Sync), Type); 9] = [
        (&after.0, Type::INT8),
        (&upto.0, Type::INT8),
        (&rows_asked, Type::INT8),
        (&entity_types, Type::TEXT_ARRAY),
        (&entity_id, Type::TEXT),
        (&recorded_since, Type::TEXT),
        (&everything, Type::BOOL),
        (&tenant, Type::TEXT),
        (&PAGE_EVENTS, Type::INT8),
    ];
    let mut page = Page { last: None, more: None, dropped: Position(0) };
    {
        // Rows are taken as they come in: the connection holds no more than its buffer.
        let mut rows = pin!(client.query_typed_raw(PAGE, parameters).await?);
        let mut count = 0;
        let mut full = false;
        while let Some(row) = rows.try_next().await? {
            if full {
                page.more = page.last;
                break;
            }
            let bytes = with_event(&row, &mut take)?;
            page.last = Some(Position(row.try_get(0)?));
            count += 1;
            full = count == size.rows || bytes >= size.bytes;
        }
    }
    // Within so short a way there cannot be more.
    if page.more.is_none() && upto.0.saturating_sub(after.0) > PAGE_EVENTS {
        let parameters: [(&(dyn ToSql + Sync), Type); 4] =
            [(&after.0, Type::INT8), (&upto.0, Type::INT8), (&PAGE_EVENTS, Type::INT8), (&entity_id, Type::TEXT)];
        if let Some(row) = client.query_typed(LOOKED_AT, &parameters).await?.first() {
            page.more = Some(Position(row.try_get(0)?));
        }
    }
    // After the rows: what was dropped before they were read shows here.
    if let Some(row) = client.query_typed(DROPPED, &[]).await?.first() {
        page.dropped = Position(row.try_get(0)?);
    }
    Ok(page)
}

/// Served by the index over entity, time and id.
const HISTORY: &str = "select position, id::text, tenant_id, entity_type, entity_id, event_type, payload::text, \
     schema_version, occurred_at::text, recorded_at::text, user_id, client_id, source, applies \
     from headwater.event where entity_type = $1 and entity_id = $2 \
       and ($3 is null or (occurred_at, id) > ($3::timestamptz, $4::uuid)) \
       and ($6 or tenant_id is not distinct from $7 or (tenant_id is null and exists ( \
         select from headwater.entity e where e.entity_type = event.entity_type and e.tenant_column is null))) \
     order by occurred_at, event.id limit $5";

/// One entity's events as the elements of a JSON array, in the order of the fold, behind the event `after` (its time
/// and id). Answers the place of the last one, as `<time>_<id>`, if there is more.
pub(super) async fn history(
    client: &impl GenericClient,
    entity_type: &str,
    entity_id: &str,
    reach: &Reach,
    after: Option<(Micros, String)>,
    limit: usize,
    out: &mut BytesMut,
) -> Result<Option<String>, Error> {
    let rows_asked = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let (time, id) = after.map(|(time, id)| (time.to_string(), id)).unzip();
    let (everything, tenant) = match reach {
        Reach::Everything => (true, None),
        Reach::Tenant(tenant) => (false, tenant.as_deref()),
    };
    let parameters: [(&(dyn ToSql + Sync), Type); 7] = [
        (&entity_type, Type::TEXT),
        (&entity_id, Type::TEXT),
        (&time, Type::TEXT),
        (&id, Type::TEXT),
        (&rows_asked, Type::INT8),
        (&everything, Type::BOOL),
        (&tenant, Type::TEXT),
    ];
    let mut rows = pin!(client.query_typed_raw(HISTORY, parameters).await?);
    let (first, mut count, mut last) = (out.len(), 0, None);
    while let Some(row) = rows.try_next().await? {
        if count == limit || out.len() - first >= PAGE_BYTES {
            return Ok(last);
        }
        last = with_event(&row, |event| {
            if count > 0 {
                out.extend_from_slice(b",");
            }
            event.write_json(out);
            let mut place = BytesMut::new();
            write_rfc3339(event.occurred_at, &mut place);
            Some(format!("{}_{}", String::from_utf8_lossy(&place), event.id))
        })?;
        count += 1;
    }
    Ok(None)
}

fn with_event<T>(row: &Row, take: impl FnOnce(&EventRow<'_>) -> T) -> Result<T, Error> {
    Ok(take(&EventRow {
        position: row.try_get(0)?,
        id: row.try_get(1)?,
        tenant_id: row.try_get(2)?,
        entity_type: row.try_get(3)?,
        entity_id: row.try_get(4)?,
        event_type: row.try_get(5)?,
        payload: row.try_get(6)?,
        schema_version: row.try_get(7)?,
        occurred_at: row.try_get(8)?,
        recorded_at: row.try_get(9)?,
        user_id: row.try_get(10)?,
        client_id: row.try_get(11)?,
        source: row.try_get(12)?,
        applies: row.try_get(13)?,
    }))
}
