//! The rows that a shape with subqueries begins with: as of the log's head, so that they and what subqueries have are of the
//! same place.

use super::rows_at::Seen;
use super::selection::{Side, Told};
use crate::shape::definition::LogMode;
use crate::shape::error::ShapeError;
use crate::shape::initial::{Initial, Joint};
use crate::shape::message::{FIRST_XID, Framing, Writer, snapshot_end};
use crate::shape::reader::Renderer;
use crate::shape::reasons::Reasons;
use crate::shape::source::Source;
use crate::shape::tale::Tale;
use headwater_model::cursor::Epoch;

/// Reads them.
pub(in crate::shape) async fn first_rows(
    source: &Source,
    initial: &Initial,
    renderer: &Renderer,
    tale: &Tale,
    epoch: Epoch,
) -> Result<(), ShapeError> {
    let place = source.place(renderer).await?;
    let whole = renderer.definition.log == LogMode::Full;
    if whole {
        tale.selection.reach(source, epoch, place, place).await?;
    }
    initial.joins(Joint { lsn: place, missed: Vec::new() });
    let writer = renderer.writer(Framing::Array);
    let mut reading = Reading { initial, renderer, writer, chunk_bytes: source.chunk_bytes, full: false };
    let end = if whole {
        let seen = tale.selection.rows(source, epoch, place, &mut reading).await?;
        let Seen { xmin, xmax, running } = seen;
        snapshot_end(xmin, xmax, &running)
    } else {
        // Nobody has seen anything.
        snapshot_end(FIRST_XID, FIRST_XID, &[])
    };
    let Reading { mut writer, .. } = reading;
    writer.control(&end);
    initial.add(writer.finish()).await
}

/// Writes rows into chunks.
struct Reading<'a> {
    initial: &'a Initial,
    renderer: &'a Renderer,
    writer: Writer<'a>,
    chunk_bytes: usize,
    full: bool,
}

impl Told for Reading<'_> {
    fn told(&mut self, side: &Side<'_>) -> Result<(), ShapeError> {
        self.writer.row(side.row, &Reasons::of(&self.renderer.definition, side).to_string());
        self.full = self.writer.len() >= self.chunk_bytes;
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), ShapeError> {
        if std::mem::take(&mut self.full) {
            self.initial.add(self.writer.take()).await?;
        }
        Ok(())
    }
}
