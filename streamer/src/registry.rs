//! Which entities there are, and which of them tenants share.
//!
//! A change of the registry stands in the WAL (a logical message, written by a trigger in the same transaction). The
//! source reads the registry anew before it passes that transaction on, so no event is ever judged by older rules than
//! those it was written under.

use crate::database::Database;
use crate::error::Error;
use crate::log::Snapshot;
use crate::notify::Kind;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// With synchronous replication a commit can be in the WAL long before it is visible.
const VISIBLE_PATIENCE: Duration = Duration::from_secs(30);
const VISIBLE_PAUSE: Duration = Duration::from_millis(50);

/// Refused at the start it would take everything else down with it, so it is said; `doctor` says it too.
const UNSERVED: &str = "an entity asks for a notification backend that this streamer does not have: its events are pushed by the streamer's own, and published nowhere; pass --redis-url, or call headwater.enable again with another notification";

/// One statement, hence one snapshot.
const READ: &str = "select pg_catalog.pg_current_snapshot()::text, (select max(m.epoch) from headwater.meta m), \
     e.entity_type, e.tenant_column is null, e.notification \
     from (values (1)) one (row) left join headwater.entity e on true";

/// The registry as it was read last.
#[derive(Debug)]
pub struct Registry {
    database: Database,
    default: Kind,
    /// Whether there is a Redis to publish to.
    redis: bool,
    entities: RwLock<Arc<Entities>>,
}

/// The entities of one moment.
#[derive(Debug, Default)]
pub struct Entities {
    by_type: HashMap<String, Entity>,
    /// `headwater.meta.epoch`
    pub epoch: i64,
    /// The backend of entities that ask for none, or for one that this version does not know.
    default: Kind,
}

/// What the streamer needs to know of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// Its table has no tenant column: tenants share it.
    pub shared: bool,
    /// The notification backend that it asks for.
    pub notification: Option<String>,
}

impl Entities {
    /// From a list; for tests of what judges by it.
    pub fn new(epoch: i64, list: impl IntoIterator<Item = (String, Entity)>) -> Self {
        Self { by_type: list.into_iter().collect(), epoch, default: Kind::default() }
    }

    /// Which backend an entity has.
    pub fn backend_of(&self, entity_type: &str) -> Kind {
        let own = self.get(entity_type).and_then(|entity| entity.notification.as_deref());
        own.and_then(Kind::parse).unwrap_or(self.default)
    }

    /// The entities of which streams push nothing, in the order of their names.
    pub fn polled(&self) -> Vec<&str> {
        let names = self.by_type.keys().map(String::as_str);
        let mut polled: Vec<&str> = names.filter(|name| !self.backend_of(name).supports_push()).collect();
        polled.sort_unstable();
        polled
    }

    /// The entities that ask for a backend that there is not, and for which.
    pub fn without_their_backend(&self, redis: bool) -> Vec<(String, String)> {
        let lacks = |asked: &str| match Kind::parse(asked) {
            None => true,
            Some(kind) => kind == Kind::Redis && !redis,
        };
        let asked = self.by_type.iter().filter_map(|(name, entity)| Some((name, entity.notification.as_deref()?)));
        let mut found: Vec<_> =
            asked.filter(|(_, asked)| lacks(asked)).map(|(name, asked)| (name.clone(), asked.to_owned())).collect();
        found.sort_unstable();
        found
    }

    /// Whether a stream of these entity types (none: of all) could push anything.
    pub fn push_any(&self, entity_types: &[String]) -> bool {
        let pushes = |name: &str| self.backend_of(name).supports_push();
        if entity_types.is_empty() {
            self.default.supports_push() || self.by_type.keys().any(|name| pushes(name))
        } else {
            entity_types.iter().any(|name| pushes(name))
        }
    }

    /// Whether tenants share this entity. An unknown one is nobody's.
    pub fn is_shared(&self, entity_type: &str) -> bool {
        self.by_type.get(entity_type).is_some_and(|entity| entity.shared)
    }

    /// The entity of that name.
    pub fn get(&self, entity_type: &str) -> Option<&Entity> {
        self.by_type.get(entity_type)
    }
}

impl Registry {
    /// Empty until [`Registry::refresh`] has been called. `default` is the backend of entities that ask for none.
    pub fn new(database: Database, default: Kind, redis: bool) -> Self {
        let entities = RwLock::new(Arc::new(Entities { default, ..Entities::default() }));
        Self { database, default, redis, entities }
    }

    /// What is known now.
    pub fn entities(&self) -> Arc<Entities> {
        Arc::clone(&self.entities.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads it anew, as the committed transaction `xid` (if any) left it or later.
    pub async fn refresh(&self, xid: Option<u32>) -> Result<Arc<Entities>, Error> {
        let deadline = Instant::now() + VISIBLE_PATIENCE;
        loop {
            let (snapshot, entities) = self.read().await?;
            if xid.is_none_or(|xid| snapshot.sees(xid)) {
                let before = self.entities().without_their_backend(self.redis);
                let now = entities.without_their_backend(self.redis);
                for (entity, asked) in now.iter().filter(|one| !before.contains(one)) {
                    tracing::warn!(%entity, %asked, served_by = %self.default, "{UNSERVED}");
                }
                let entities = Arc::new(entities);
                *self.entities.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&entities);
                return Ok(entities);
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout("a change of the registry is in the WAL but does not become visible"));
            }
            sleep(VISIBLE_PAUSE).await;
        }
    }

    async fn read(&self) -> Result<(Snapshot, Entities), Error> {
        let rows = self.database.get().await?.query(READ, &[]).await?;
        let first = rows.first().ok_or_else(|| Error::Protocol("headwater.meta has no row".to_owned()))?;
        let text: String = first.try_get(0)?;
        let snapshot = text.parse().map_err(|_| Error::Protocol(format!("`{text}` is not a snapshot")))?;
        let mut entities = Entities {
            epoch: first.try_get::<_, Option<i64>>(1)?.unwrap_or(0),
            default: self.default,
            ..Entities::default()
        };
        for row in &rows {
            if let Some(entity_type) = row.try_get(2)? {
                let entity = Entity { shared: row.try_get(3)?, notification: row.try_get(4)? };
                entities.by_type.insert(entity_type, entity);
            }
        }
        Ok((snapshot, entities))
    }
}
