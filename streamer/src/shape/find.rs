//! Which shape a request means, on its table as it is now; and which handles of it are good, or come next.

use super::definition::{Definition, Wanted};
use super::error::ShapeError;
use super::live::Shape;
use super::table::TableSchema;
use super::{Shapes, name, tables};
use crate::identity::Reach;
use crate::seam;
use headwater_model::cursor::{Epoch, Lsn, Offset};
use std::sync::Arc;

/// How often a table may turn out to be another one while its new handle is made.
const SUCCESSOR_ATTEMPTS: usize = 3;

impl Shapes {
    /// The shape that is wanted, and its table as it is now (or was a moment ago).
    pub(super) async fn find(
        &self,
        wanted: &Wanted,
        reach: &Reach,
        epoch: Epoch,
        current: bool,
    ) -> Result<(Arc<Shape>, Arc<TableSchema>), ShapeError> {
        let (schema, name) = name::table(&wanted.table).map_err(|message| ShapeError::invalid("table", message))?;
        let look = async |schema: &str, name: &str| {
            let looked =
                if current { self.tables.current(schema, name).await } else { self.tables.recent(schema, name).await };
            looked.map_err(|error| tables::hidden(error, reach, schema, name))
        };
        let table = look(&schema, &name).await?;
        let request = wanted.identity(reach);
        let known = self.known().wanted(&request);
        let names = match &known {
            Some(shape) => shape.definition().inner_names(),
            None => wanted.inner_tables()?,
        };
        let mut inner = Vec::with_capacity(names.len());
        for (schema, name) in &names {
            inner.push(look(schema, name).await.map_err(of_subquery)?);
        }
        if let Some(shape) = known
            && Arc::ptr_eq(&shape.definition().layout.table, &table)
            && (shape.definition().layout.inner.iter().zip(&inner)).all(|(known, now)| Arc::ptr_eq(known, now))
            && shape.epoch == epoch
            && !shape.is_stale()
        {
            return Ok((shape, table));
        }
        let definition = Definition::new(wanted, &table, &inner, reach, epoch, &self.layouts);
        let definition = definition.map_err(|error| match error {
            ShapeError::Unreadable => tables::hidden(error, reach, &schema, &name),
            other => other,
        })?;
        let mut known = self.known();
        let shape = known.remember(request, definition, epoch);
        if self.source.room.is_tight() {
            known.shed(&shape);
        }
        Ok((shape, table))
    }

    /// The handle must be of this very shape; else the client starts anew, with the handle that there is.
    pub(super) async fn check_handle(
        &self,
        shape: Arc<Shape>,
        handle: &str,
        wanted: &Wanted,
        reach: &Reach,
        epoch: Epoch,
    ) -> Result<(Arc<Shape>, Lsn), ShapeError> {
        let good = |shape: &Shape| shape.definition().snapshot_of(handle).filter(|lsn| shape.honours(*lsn));
        if let Some(lsn) = good(&shape) {
            return Ok((shape, lsn));
        }
        // Another replica may know more of the table than we did a moment ago.
        let (shape, _) = self.find(wanted, reach, epoch, true).await?;
        match good(&shape) {
            Some(lsn) => Ok((shape, lsn)),
            None => Err(ShapeError::Refetch(None)),
        }
    }

    /// 409, with the handle to start with if there is one.
    pub(super) async fn successor(&self, wanted: &Wanted, reach: &Reach) -> ShapeError {
        match self.until_stop(self.newest_handle(wanted, reach)).await {
            Ok(handle) => ShapeError::Refetch(Some(handle)),
            // Its next request is told what is wrong.
            Err(ShapeError::Invalid(_) | ShapeError::Refetch(_)) => ShapeError::Refetch(None),
            Err(error) => error,
        }
    }

    async fn newest_handle(&self, wanted: &Wanted, reach: &Reach) -> Result<String, ShapeError> {
        let epoch = self.ready().await?;
        let _admitted = self.admit(true, reach)?;
        let mut attempts = 1;
        loop {
            let (shape, _) = self.find(wanted, reach, epoch, true).await?;
            let initial = shape.initial(&self.source, reach);
            match initial.promise().await {
                Ok(joint) => return Ok(shape.definition().handle(joint.lsn)),
                // A commit is in the WAL, and with it in the log, a moment before the catalog shows it.
                Err(ShapeError::Refetch(_)) if attempts < SUCCESSOR_ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// An LSN for handles that come without rows.
    pub(super) async fn mint(&self, shape: &Shape) -> Result<Lsn, ShapeError> {
        if let Some(lsn) = shape.mint(&self.log) {
            return Ok(lsn);
        }
        // It was deleted just now, and nothing was written since: a new handle needs a place of its own.
        let marker = seam::mark(&self.source.database).await?;
        self.await_head(Offset::just_before(marker)).await?;
        shape.mint(&self.log).ok_or_else(|| ShapeError::not_begun(1))
    }
}

/// What is wrong with a table that a subquery names is wrong with the condition.
fn of_subquery(error: ShapeError) -> ShapeError {
    match error {
        ShapeError::Invalid(errors) => {
            let message = errors.pointer("/table/0").and_then(|message| message.as_str());
            ShapeError::invalid("where", message.unwrap_or("a subquery's table cannot be read"))
        }
        other => other,
    }
}
