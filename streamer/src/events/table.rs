//! Pages of the event table, in the order of positions, bounded in rows and in memory.

use super::Filter;
use crate::error::Error;
use crate::identity::Reach;
use crate::log::EventRow;
use futures_util::TryStreamExt;
use headwater_model::cursor::Position;
use std::pin::pin;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};

/// A page ends behind the row that brings it to this size: a thousand events may carry a megabyte each.
pub(super) const PAGE_BYTES: usize = 1024 * 1024;

/// What the table gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The last position read.
    pub last: Option<Position>,
    /// Set if there is more; then that is where to go on.
    pub more: Option<Position>,
}

/// Planned anew each time with the values at hand, so that conditions that were not asked for fall away.
const PAGE: &str = "select position, id::text, tenant_id, entity_type, entity_id, event_type, payload::text, \
     schema_version, occurred_at::text, recorded_at::text, user_id, client_id, source, applies \
     from headwater.event where position > $1 and position <= $2 \
       and ($4 is null or entity_type = any ($4)) \
       and ($5 is null or entity_id = $5) \
       and ($6 is null or recorded_at >= $6::timestamptz) \
       and ($7 or tenant_id is not distinct from $8 or (tenant_id is null and exists ( \
         select from headwater.entity e where e.entity_type = event.entity_type and e.tenant_column is null))) \
     order by position limit $3";

/// Reads events with `after < position <= upto`, at most `limit`. `take` gets each and answers how many bytes the page
/// has by now.
pub(super) async fn page(
    client: &impl GenericClient,
    after: Position,
    upto: Position,
    filter: &Filter,
    limit: usize,
    mut take: impl FnMut(&EventRow<'_>) -> usize,
) -> Result<Page, Error> {
    // One row beyond the limit tells whether there is more.
    let rows_asked = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let entity_types = (!filter.entity_types.is_empty()).then_some(&filter.entity_types);
    let recorded_since = filter.recorded_since.map(|time| time.to_string());
    let (everything, tenant) = match &filter.reach {
        Reach::Everything => (true, None),
        Reach::Tenant(tenant) => (false, tenant.as_deref()),
    };
    let entity_id = filter.entity_id();
    let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
        (&after.0, Type::INT8),
        (&upto.0, Type::INT8),
        (&rows_asked, Type::INT8),
        (&entity_types, Type::TEXT_ARRAY),
        (&entity_id, Type::TEXT),
        (&recorded_since, Type::TEXT),
        (&everything, Type::BOOL),
        (&tenant, Type::TEXT),
    ];
    // Rows are taken as they come in: the connection holds no more than its buffer.
    let mut rows = pin!(client.query_typed_raw(PAGE, parameters).await?);
    let mut page = Page { last: None, more: None };
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
        full = count == limit || bytes >= PAGE_BYTES;
    }
    Ok(page)
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
