//! The tables that shapes are of, as the catalog has them now; asked at most a few times a second, however many clients ask.

use super::catalog::{self, Found};
use super::error::ShapeError;
use super::publish;
use super::shared::Shared;
use super::table::TableSchema;
use crate::database::Database;
use crate::error::Error;
use crate::identity::Reach;
use deadpool_postgres::Object;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How old an answer may be for a client that goes on with a shape. Who starts one is told what is true now.
const FRESH: Duration = Duration::from_millis(250);

/// Whose rows the log has.
const PUBLICATION: &str = "headwater_tables";

/// What is known of tables.
#[derive(Debug)]
pub(super) struct Tables {
    database: Database,
    /// Whether the extension is there, whose registry knows excluded columns and tenants.
    registry: bool,
    /// Whether tables that are not published yet are, when a client asks for them.
    auto_publish: bool,
    known: Mutex<HashMap<(String, String), Arc<Known>>>,
}

/// One table; the lock is held while the catalog is asked, so that those who come meanwhile share the answer.
#[derive(Debug, Default)]
struct Known {
    answer: tokio::sync::Mutex<Option<Answer>>,
    /// What [`Tables::look`] has seen.
    look: Shared<Option<Arc<TableSchema>>>,
}

#[derive(Debug)]
struct Answer {
    /// When the question began.
    asked: Instant,
    table: Arc<TableSchema>,
}

impl Tables {
    pub(super) fn new(database: Database, registry: bool, auto_publish: bool) -> Self {
        Self { database, registry, auto_publish, known: Mutex::default() }
    }

    /// The table, as it is now or was a moment ago.
    pub(super) async fn recent(&self, schema: &str, name: &str) -> Result<Arc<TableSchema>, ShapeError> {
        self.get(schema, name, Instant::now().checked_sub(FRESH).unwrap_or_else(Instant::now)).await
    }

    /// The table, as it is now.
    pub(super) async fn current(&self, schema: &str, name: &str) -> Result<Arc<TableSchema>, ShapeError> {
        self.get(schema, name, Instant::now()).await
    }

    async fn get(&self, schema: &str, name: &str, since: Instant) -> Result<Arc<TableSchema>, ShapeError> {
        let key = (schema.to_owned(), name.to_owned());
        let known = self.known(&key);
        let mut answer = known.answer.lock().await;
        if let Some(answer) = answer.as_ref().filter(|answer| answer.asked >= since) {
            return Ok(Arc::clone(&answer.table));
        }
        let asked = Instant::now();
        match self.ask(schema, name).await {
            Ok(table) => {
                // The same value stays the same allocation, so that what was worked out for it stays good.
                let table = match answer.take() {
                    Some(old) if *old.table == table => old.table,
                    _ => Arc::new(table),
                };
                *answer = Some(Answer { asked, table: Arc::clone(&table) });
                Ok(table)
            }
            Err(error) => {
                *answer = None;
                self.lock().remove(&key);
                Err(error)
            }
        }
    }

    async fn ask(&self, schema: &str, name: &str) -> Result<TableSchema, ShapeError> {
        // No name in Postgres has it, and no text either.
        if schema.contains('\0') || name.contains('\0') {
            return Err(missing(schema, name));
        }
        let client = self.database.get().await?;
        let found = self.load(&client, &[(schema, name)]).await?.pop().flatten();
        let Some(found) = found else { return Err(missing(schema, name)) };
        if !found.servable {
            let message = format!(
                "Table \"{schema}\".\"{name}\" cannot be a shape: only ordinary and partitioned tables that are logged and not Headwater's own have changes in the write-ahead log."
            );
            return Err(ShapeError::invalid("table", message));
        }
        if is_ready(&found) {
            return Ok(found.table);
        }
        if !self.auto_publish {
            let message = format!(
                "Table \"{schema}\".\"{name}\" is not published: select headwater.publish('{}');",
                found.table.quoted().replace('\'', "''")
            );
            return Err(ShapeError::invalid("table", message));
        }
        drop(client);
        let mut client = self.database.get().await?;
        publish::publish(&mut client, &found.table, PUBLICATION).await?;
        match self.load(&client, &[(schema, name)]).await?.pop().flatten() {
            Some(found) if is_ready(&found) => Ok(found.table),
            Some(_) => Err(ShapeError::not_begun(1)),
            None => Err(missing(schema, name)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The catalog's own word of a table, from outside any snapshot, as it is now.
    pub(super) async fn look(&self, table: &TableSchema) -> Result<Option<Arc<TableSchema>>, ShapeError> {
        let known = self.known(&(table.schema.clone(), table.name.clone()));
        let look = async || Ok(self.look_at(&[(&table.schema, &table.name)]).await?.pop().flatten().map(Arc::new));
        known.look.now(look).await
    }

    /// The same of many tables.
    pub(super) async fn look_at(&self, names: &[(&str, &str)]) -> Result<Vec<Option<TableSchema>>, ShapeError> {
        let client = self.database.get().await?;
        let found = self.load(&client, names).await?;
        Ok(found.into_iter().map(|found| found.filter(is_ready).map(|found| found.table)).collect())
    }

    async fn load(&self, client: &Object, names: &[(&str, &str)]) -> Result<Vec<Option<Found>>, Error> {
        catalog::load(client, names, PUBLICATION, self.registry).await
    }

    fn known(&self, name: &(String, String)) -> Arc<Known> {
        Arc::clone(self.lock().entry(name.clone()).or_default())
    }
}

/// Whether the log has its changes, whole.
fn is_ready(found: &Found) -> bool {
    found.servable && found.published && found.table.members.iter().all(|member| member.full_identity)
}

/// Which tables there are, and what is wrong with each, is not every tenant's affair: it stands in our log.
pub(super) fn hidden(error: ShapeError, reach: &Reach, schema: &str, name: &str) -> ShapeError {
    match (reach, error) {
        (Reach::Tenant(_), ShapeError::Invalid(why)) => {
            tracing::info!(%why, "a tenant asks for a table that is not served");
            missing(schema, name)
        }
        (Reach::Tenant(_), ShapeError::Unreadable) => missing(schema, name),
        (_, error) => error,
    }
}

fn missing(schema: &str, name: &str) -> ShapeError {
    ShapeError::invalid(
        "table",
        format!(
            "Table \"{schema}\".\"{name}\" does not exist. If the table name contains capitals or special characters you must quote it."
        ),
    )
}
