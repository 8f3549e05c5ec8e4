//! What happened: the newest events, an entity's timeline, and its state at any instant. Of all tenants.

use super::Console;
use super::catalog::json;
use super::session::Role;
use crate::error::Error;
use headwater_model::clock::Micros;
use serde_json::value::RawValue;

/// What is asked of the newest events; what is none is not asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Of this entity type.
    pub entity_type: Option<String>,
    /// Of this entity.
    pub entity_id: Option<String>,
    /// `client`, `sql` or `capture`.
    pub source: Option<String>,
    /// Of this tenant.
    pub tenant_id: Option<String>,
    /// Before this position.
    pub before: Option<i64>,
}

/// As everywhere on the wire. `e` is a row of `headwater.event`.
macro_rules! wire {
    () => {
        "jsonb_build_object('id', e.id, 'position', e.position, 'entity_type', e.entity_type, 'entity_id', e.entity_id, \
           'event_type', e.event_type, 'payload', e.payload, 'schema_version', e.schema_version, \
           'timestamp', to_char(e.occurred_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
           'recorded_at', to_char(e.recorded_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
           'user_id', e.user_id, 'client_id', e.client_id, 'tenant_id', e.tenant_id, 'source', e.source, 'applies', e.applies)"
    };
}

const NEWEST: &str = concat!(
    "select coalesce(jsonb_agg(",
    wire!(),
    " order by e.position desc), '[]')::text from ( \
       select * from headwater.event e \
       where ($1::text is null or e.entity_type = $1) and ($2::text is null or e.entity_id = $2) \
         and ($3::text is null or e.source = $3) and ($4::int8 is null or e.position < $4) \
         and ($6::text is null or e.tenant_id = $6) \
       order by e.position desc limit $5) e"
);

const TIMELINE: &str = concat!(
    "select coalesce(jsonb_agg(",
    wire!(),
    " order by e.occurred_at, e.id), '[]')::text \
     from headwater.history($1, $2, $3::text::timestamptz, $4, $5::text::uuid, $6) e"
);

const STATE: &str = "select coalesce(headwater.materialize($1, $2, $3::text::timestamptz, $4), 'null')::text";

impl Console {
    /// The newest events, newest first.
    pub async fn newest(&self, asked: &Asked, limit: i64) -> Result<Box<RawValue>, Error> {
        let mut session = self.session().await?;
        let transaction = session.read(Role::Reader).await?;
        let Asked { entity_type, entity_id, source, tenant_id, before } = asked;
        let row = transaction.query_one(NEWEST, &[entity_type, entity_id, source, before, &limit, tenant_id]).await?;
        json(row.try_get(0)?)
    }

    /// An entity's events in the order in which they happened, behind the event `after` (its time and id).
    pub async fn timeline(
        &self,
        entity_type: &str,
        entity_id: &str,
        after: Option<&(Micros, String)>,
        tenant: Option<&str>,
        limit: i32,
    ) -> Result<Box<RawValue>, Error> {
        let mut session = self.session().await?;
        let transaction = session.read(Role::Reader).await?;
        let (time, id) = after.map(|(time, id)| (time.to_string(), id)).unzip();
        let row = transaction.query_one(TIMELINE, &[&entity_type, &entity_id, &time, &limit, &id, &tenant]).await?;
        json(row.try_get(0)?)
    }

    /// An entity's state at an instant, or now; `null` where it did not exist.
    pub async fn state(
        &self,
        entity_type: &str,
        entity_id: &str,
        as_of: Option<Micros>,
        tenant: Option<&str>,
    ) -> Result<Box<RawValue>, Error> {
        let mut session = self.session().await?;
        let transaction = session.read(Role::Reader).await?;
        let as_of = as_of.map(|time| time.to_string());
        let row = transaction.query_one(STATE, &[&entity_type, &entity_id, &as_of, &tenant]).await?;
        json(row.try_get(0)?)
    }
}
