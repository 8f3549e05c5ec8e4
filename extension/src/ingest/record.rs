//! Events that ingest and emit write down: a batch's own, and what the table made of their rows.

use std::borrow::Cow;

use headwater_model::clock::Micros;
use headwater_model::fold::State;

use crate::append::{Appender, NewEvent};
use crate::clock;
use crate::render::Writer;

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `POST /events/batch`
    Client,
    /// `headwater.emit`
    Sql,
    /// The table itself.
    Capture,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Sql => "sql",
            Self::Capture => "capture",
        }
    }
}

/// A row of the event table, but for its position and `recorded_at`.
pub(crate) struct Record<'a> {
    pub(crate) id: uuid::Uuid,
    pub(crate) tenant: Option<Cow<'a, str>>,
    pub(crate) entity_type: Cow<'a, str>,
    pub(crate) entity_id: Cow<'a, str>,
    pub(crate) event_type: Cow<'a, str>,
    pub(crate) payload: Cow<'a, State>,
    pub(crate) schema_version: i32,
    pub(crate) occurred_at: Micros,
    pub(crate) user_id: Option<Cow<'a, str>>,
    pub(crate) client_id: Option<Cow<'a, str>>,
    pub(crate) source: Source,
    pub(crate) applies: bool,
}

/// Inserts events; their positions rise in the order given.
pub(crate) fn record<'a>(records: impl IntoIterator<Item = Record<'a>>) {
    let mut records = records.into_iter().peekable();
    if records.peek().is_none() {
        return;
    }
    let recorded_at = clock::now();
    let mut writer = Writer::default();
    let mut appender = Appender::open();
    for record in records {
        appender.append(&NewEvent {
            id: record.id,
            tenant: bytes(record.tenant.as_ref()),
            entity_type: record.entity_type.as_bytes(),
            entity_id: record.entity_id.as_bytes(),
            event_type: record.event_type.as_bytes(),
            payload: writer.members(&record.payload),
            schema_version: record.schema_version,
            occurred_at: record.occurred_at,
            recorded_at,
            user: bytes(record.user_id.as_ref()),
            client: bytes(record.client_id.as_ref()),
            source: record.source.as_str(),
            applies: record.applies,
        });
    }
    appender.close();
}

fn bytes<'a>(text: Option<&'a Cow<'_, str>>) -> Option<&'a [u8]> {
    text.map(|text| text.as_bytes())
}
