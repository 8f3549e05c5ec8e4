//! The shapes that were asked for: by what they are, and by what requests say, so that each need not be read anew.
//! Forgetting one costs its next client a snapshot at most.

use super::definition::{Definition, Identity};
use super::live::Shape;
use headwater_model::cursor::Epoch;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Shapes that are remembered; beyond, some that nobody waits for go.
const REMEMBERED_SHAPES: usize = 200_000;

/// Conditions that are remembered, in bytes: one may have 64 KiB, and its parameters as much.
const REMEMBERED_BYTES: usize = 256 << 20;

/// How often rows of snapshots are let go while there is little room: it is a look at all shapes.
const SHED_EVERY: Duration = Duration::from_secs(1);

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    shapes: HashMap<Identity, Arc<Shape>>,
    /// By what tells requests apart: their texts are not kept.
    wanted: HashMap<Identity, Arc<Shape>>,
    /// Of the definitions.
    bytes: usize,
    shed_at: Option<Instant>,
}

impl Known {
    pub(super) fn shapes(&self) -> impl Iterator<Item = &Arc<Shape>> {
        self.shapes.values()
    }

    /// The shape that was meant by this the last time.
    pub(super) fn wanted(&self, request: &Identity) -> Option<Arc<Shape>> {
        self.wanted.get(request).map(Arc::clone)
    }

    /// The shape of a definition, which a request meant.
    pub(super) fn remember(&mut self, request: Identity, definition: Definition, epoch: Epoch) -> Arc<Shape> {
        let identity = definition.identity;
        let known = self.shapes.get(&identity).filter(|shape| !shape.is_stale()).map(Arc::clone);
        let shape = known.unwrap_or_else(|| {
            if self.shapes.len() >= REMEMBERED_SHAPES || self.bytes > REMEMBERED_BYTES {
                self.forget_some();
            }
            self.bytes += definition.bytes();
            let shape = Arc::new(Shape::new(definition, epoch));
            self.shapes.insert(identity, Arc::clone(&shape));
            shape
        });
        if self.wanted.len() >= REMEMBERED_SHAPES {
            self.forget_wanted();
        }
        self.wanted.insert(request, Arc::clone(&shape));
        shape
    }

    /// Makes room: shapes that nobody waits for.
    fn forget_some(&mut self) {
        let mut left = self.shapes.len().div_ceil(10);
        self.shapes.retain(|_, shape| {
            let idle = left > 0 && !shape.has_readers();
            left -= usize::from(idle);
            !idle
        });
        self.forget_wanted();
    }

    fn forget_wanted(&mut self) {
        self.wanted.clear();
        self.bytes = self.shapes.values().map(|shape| shape.definition().bytes()).sum();
    }

    /// First rows take much room: those that nobody is fetching could be read again.
    pub(super) fn shed(&mut self, but: &Arc<Shape>) {
        if self.shed_at.is_some_and(|at| at.elapsed() < SHED_EVERY) {
            return;
        }
        self.shed_at = Some(Instant::now());
        for shape in self.shapes.values().filter(|shape| !Arc::ptr_eq(shape, but)) {
            shape.shed();
        }
    }
}
