//! Present states of entities: all of one type, which is how a new device starts; or one, now or at an instant; and its
//! history.
//!
//! The seam is exact: the watermark P is known before the snapshot is taken, so the snapshot has every event up to P;
//! the cursor that is handed out begins behind P. What the snapshot has besides is told entity by entity: `position`
//! is the last of the entity's events that the state contains (P if there is none beyond), and one entity's
//! positions rise in the order of their commits. So a reader drops exactly the events that its states contain.

use super::spool::Spool;
use super::{Events, FRESH_PATIENCE, ReadError, table};
use crate::error::Error;
use crate::identity::Reach;
use crate::log::{put, write_rfc3339};
use bytes::{BufMut, Bytes, BytesMut};
use headwater_model::clock::Micros;
use headwater_model::cursor::{Cursor, Position};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::{IsolationLevel, Row, Transaction};

/// Rows per chunk of the answer.
const CHUNK_ROWS: usize = 500;

/// Chunks that wait for the client in memory; more wait on the disk.
const CHUNKS_AHEAD: usize = 1;

/// Each holds a connection and a snapshot, which keeps vacuum back; for as long as Postgres takes, not as its reader does.
const CONCURRENT_SNAPSHOTS: usize = 4;

/// Of these, the callers of one tenant have so many at a time: however many devices of theirs start, others' start too.
const SNAPSHOTS_OF_A_TENANT: usize = 1;

/// How long a snapshot waits for its turn before the client is told to come back.
const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// How long a chunk waits for a client that does not read. Then the answer breaks off, without its last line. Nobody else
/// waits meanwhile.
const READER_PATIENCE: Duration = Duration::from_secs(30);

const OPEN: &str = "select headwater.open_states('headwater_states', $1, $2, $3, $4, $5)::text";

/// Who may read a snapshot now.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// Of the tenants that have one or wait for one.
    tenants: Mutex<HashMap<Option<Arc<str>>, Arc<Semaphore>>>,
}

/// The turn of one snapshot, and the share of its tenant in all.
type Turn = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl Turns {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(CONCURRENT_SNAPSHOTS)), tenants: Mutex::default() }
    }

    /// None if others take too long.
    async fn take(&self, reach: &Reach, patience: Duration) -> Option<Turn> {
        let deadline = Instant::now() + patience;
        let turn = async {
            let of_tenant = match reach {
                Reach::Everything => None, // trusted
                Reach::Tenant(tenant) => Some(self.of(tenant.as_ref()).acquire_owned().await.ok()?),
            };
            Some((Arc::clone(&self.all).acquire_owned().await.ok()?, of_tenant))
        };
        timeout_at(deadline, turn).await.ok().flatten()
    }

    fn of(&self, tenant: Option<&Arc<str>>) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|_, turns| Arc::strong_count(turns) > 1);
        Arc::clone(tenants.entry(tenant.cloned()).or_insert_with(|| Arc::new(Semaphore::new(SNAPSHOTS_OF_A_TENANT))))
    }
}

impl Events {
    /// The states of all entities of a type within `reach`: lines of JSON, then a line with the cursor to go on from.
    /// An answer that breaks off before that line is to be thrown away. Errors that are known at once come first.
    pub async fn snapshot(
        self: &Arc<Self>,
        entity_type: String,
        reach: Reach,
    ) -> Result<(Bytes, mpsc::Receiver<Result<Bytes, Error>>), ReadError> {
        let cursor = self.certain().await?;
        let turn = self.snapshots.take(&reach, TURN_PATIENCE).await;
        let turn = turn.ok_or(ReadError::NotReady("other snapshots are being read; come back"))?;
        let (sender, mut receiver) = mpsc::channel(CHUNKS_AHEAD);
        let events = Arc::clone(self);
        tokio::spawn(async move {
            let sending = async {
                let spool = events.read_states(&entity_type, &reach, cursor, &sender, turn).await?;
                match spool {
                    Some(spool) => spool.drain(READER_PATIENCE).await.map(drop),
                    None => Ok(()),
                }
            };
            let done = tokio::select! {
                done = sending => done,
                () = sender.closed() => return,
                () = events.shutdown.cancelled() => Err(Error::Timeout("shutting down")),
            };
            if let Err(error) = done {
                let _ = timeout(READER_PATIENCE, sender.send(Err(error))).await;
            }
        });
        match receiver.recv().await {
            Some(Ok(first)) => Ok((first, receiver)),
            Some(Err(error)) => Err(error.into()),
            None => Err(ReadError::NotReady("shutting down")),
        }
    }

    /// Reads them as fast as Postgres gives them; what the reader has not taken by then is left to be sent. None if the
    /// reader has left.
    async fn read_states(
        &self,
        entity_type: &str,
        reach: &Reach,
        cursor: Cursor,
        sender: &mpsc::Sender<Result<Bytes, Error>>,
        _turn: Turn,
    ) -> Result<Option<Spool<Result<Bytes, Error>>>, Error> {
        let mut spool = Spool::new(&self.room, sender, Ok);
        let mut client = self.database.get().await?;
        let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = builder.start().await?;
        open(&transaction, entity_type, reach, cursor.position, None).await?;
        let mut count = 0;
        loop {
            let rows = transaction.query(&format!("fetch forward {CHUNK_ROWS} from headwater_states"), &[]).await?;
            let mut out = BytesMut::new();
            for row in &rows {
                write_state(row, None, &mut out)?;
                out.put_u8(b'\n');
            }
            count += rows.len();
            let last = rows.len() < CHUNK_ROWS;
            if last {
                // What was read under another history than the cursor's must not be joined to it.
                if self.log.tip().epoch != Some(cursor.epoch) {
                    return Err(Error::Timeout("the history changed while the states were read"));
                }
                put(&mut out, format_args!("{{\"cursor\":\"{cursor}\",\"count\":{count}}}\n"));
            }
            if !spool.push(out.freeze()).await? {
                return Ok(None);
            }
            if last {
                return Ok(Some(spool));
            }
        }
    }

    /// The present state of one entity as a JSON object; none if it does not exist within `reach`.
    pub async fn entity(&self, entity_type: &str, entity_id: &str, reach: &Reach) -> Result<Option<Bytes>, ReadError> {
        let cursor = self.certain().await?;
        let mut client = self.database.get().await?;
        let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = builder.start().await.map_err(Error::from)?;
        match open(&transaction, entity_type, reach, cursor.position, Some(entity_id)).await {
            // Data exceptions: the text is no key of this table.
            Err(error) if error.state().is_some_and(|state| state.starts_with("22")) => return Ok(None),
            other => other?,
        }
        let row = transaction.query_opt("fetch forward 1 from headwater_states", &[]).await.map_err(Error::from)?;
        let Some(row) = row else { return Ok(None) };
        let mut out = BytesMut::new();
        write_state(&row, Some(entity_type), &mut out)?;
        Ok(Some(out.freeze()))
    }

    /// An entity's state as it was at `as_of`, by what had happened until then; none if it did not exist.
    pub async fn entity_as_of(
        &self,
        entity_type: &str,
        entity_id: &str,
        reach: &Reach,
        as_of: Micros,
    ) -> Result<Option<String>, ReadError> {
        let mut client = self.database.get().await?;
        let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = builder.start().await.map_err(Error::from)?;
        let shared: Option<bool> = transaction
            .query_opt(
                "select tenant_column is null from headwater.entity where entity_type = $1 and enabled",
                &[&entity_type],
            )
            .await
            .and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(Error::from)?;
        let shared = shared.ok_or(ReadError::UnknownEntity)?;
        let tenant = match reach {
            Reach::Tenant(tenant) if !shared => {
                // Without a tenant `materialize` takes whose the latest event is, which must then be nobody's.
                let sql = "(select tenant_id from headwater.event where entity_type = $1 and entity_id = $2 \
                      order by occurred_at desc, id desc limit 1) \
                     union all (select tenant_id from headwater.snapshot where entity_type = $1 and entity_id = $2) limit 1";
                let latest = transaction.query_opt(sql, &[&entity_type, &entity_id]).await.map_err(Error::from)?;
                let latest: Option<String> = match latest {
                    Some(row) => row.try_get(0).map_err(Error::from)?,
                    None => return Ok(None),
                };
                if tenant.is_none() && latest.is_some() {
                    return Ok(None);
                }
                tenant.as_deref()
            }
            _ => None,
        };
        let sql = "select headwater.materialize($1, $2, $3::text::timestamptz, $4)::text";
        let row = transaction.query_one(sql, &[&entity_type, &entity_id, &as_of.to_string(), &tenant]).await;
        Ok(row.and_then(|row| row.try_get(0)).map_err(Error::from)?)
    }

    /// Events of one entity in the order in which they happened, as the elements of a JSON array, behind `after` (time
    /// and id of an event). Answers where to go on, if there is more.
    pub async fn history(
        &self,
        entity_type: &str,
        entity_id: &str,
        reach: &Reach,
        after: Option<(Micros, String)>,
        limit: usize,
        out: &mut BytesMut,
    ) -> Result<Option<String>, ReadError> {
        let client = self.database.get().await?;
        Ok(table::history(&**client, entity_type, entity_id, reach, after, limit, out).await?)
    }

    /// A cursor at the newest watermark.
    async fn certain(&self) -> Result<Cursor, ReadError> {
        let epoch = self.epoch().await?;
        self.watermark().await.ok_or(ReadError::NotReady(
            "a transaction that wrote events was open when the streamer started; what is certain is known when it has ended",
        ))?;
        self.rounds.fresh(FRESH_PATIENCE).await;
        let position = self.log.tip().watermark.map_or(Position(0), |watermark| watermark.position);
        Ok(Cursor { epoch, position, offset: None })
    }
}

async fn open(
    transaction: &Transaction<'_>,
    entity_type: &str,
    reach: &Reach,
    above: Position,
    entity_id: Option<&str>,
) -> Result<(), Error> {
    let (everything, tenant) = match reach {
        Reach::Everything => (true, None),
        Reach::Tenant(tenant) => (false, tenant.as_deref()),
    };
    transaction.execute(OPEN, &[&entity_type, &above.0, &everything, &tenant, &entity_id]).await?;
    Ok(())
}

/// One row of the cursor of `headwater.open_states`.
fn write_state(row: &Row, entity_type: Option<&str>, out: &mut BytesMut) -> Result<(), Error> {
    let string = |text: &str| serde_json::Value::from(text).to_string();
    let optional = |text: Option<&str>| text.map_or_else(|| "null".to_owned(), string);
    let (id, tenant, state): (&str, Option<&str>, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (position, time, event): (i64, Option<&str>, Option<&str>) =
        (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    out.put_u8(b'{');
    if let Some(entity_type) = entity_type {
        put(out, format_args!("\"entity_type\":{},", string(entity_type)));
    }
    put(out, format_args!("\"entity_id\":{},\"tenant_id\":{},\"state\":{state},", string(id), optional(tenant)));
    put(out, format_args!("\"position\":{position},\"last\":"));
    match time.zip(event) {
        Some((time, event)) => {
            out.put_slice(b"{\"timestamp\":\"");
            write_rfc3339(time, out);
            put(out, format_args!("\",\"id\":\"{event}\"}}}}"));
        }
        None => out.put_slice(b"null}"),
    }
    Ok(())
}
