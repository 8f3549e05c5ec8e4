//! Many entities under their locks: what goes together is written together.
//!
//! The next write of the first entity that has events left, and with it those of all others that one statement can do:
//! of the same table, tenant and columns. So each event has a write of its own, and what many events do to many rows
//! costs a few statements. Whatever is wrong with a row fails the whole; then ingest tries less at a time.

use std::rc::Rc;

use pgrx::pg_sys::Oid;

use super::outcome::Rejection;
use super::record::{Record, record};
use super::touched::{Next, Touched, Write, look_again, not_overtaken};
use super::write;
use crate::capture;

/// Applies the events of all of these; returns what the tables themselves made of the rows, as events.
pub(super) fn apply(
    touched: &mut [Touched<'_>],
    role: Oid,
    claims: Option<&str>,
) -> Result<Vec<Record<'static>>, Rejection> {
    let mut made = Vec::new();
    let mut next: Vec<Option<Next<'_>>> = touched.iter().map(|_| None).collect();
    for touched in &mut *touched {
        touched.events.sort_by_key(|event| event.order());
    }
    while let Some(first) = touched.iter().position(|touched| !touched.events.is_empty()) {
        let captured_before = capture::recorded();
        match next[first].take().unwrap_or_else(|| touched[first].next(role, claims)) {
            Next::FoldAnew => {
                // It folds what is in the table.
                record(made.drain(..));
                made.extend(touched[first].fold_anew(role, claims)?);
            }
            Next::Write(write) => {
                let mut wave = vec![(first, write)];
                for place in first + 1..touched.len() {
                    if !touched[place].events.is_empty() && may_join(&touched[first], &touched[place]) {
                        let planned = next[place].take().unwrap_or_else(|| touched[place].next(role, claims));
                        match planned {
                            Next::Write(write) if go_together(&wave[0].1, &write) => wave.push((place, write)),
                            another => next[place] = Some(another),
                        }
                    }
                }
                made.extend(written(touched, wave, role, claims)?);
            }
        }
        if capture::recorded() != captured_before {
            // Triggers of the user's have changed rows, perhaps some of these.
            let mut left: Vec<_> = touched.iter_mut().filter(|touched| !touched.events.is_empty()).collect();
            look_again(&mut left, role, claims)?;
            next.fill_with(|| None);
        }
    }
    Ok(made)
}

fn may_join(first: &Touched<'_>, other: &Touched<'_>) -> bool {
    Rc::ptr_eq(&first.table, &other.table)
        && first.entity.tenant == other.entity.tenant
        && first.table.policies_judge_alone
}

fn go_together(a: &Write<'_>, b: &Write<'_>) -> bool {
    match (&a.change, &b.change) {
        (None, None) => true,
        (Some(a), Some(b)) => a.goes_with(b),
        _ => false,
    }
}

/// Writes what goes together.
fn written<'e>(
    touched: &mut [Touched<'e>],
    wave: Vec<(usize, Box<Write<'e>>)>,
    role: Oid,
    claims: Option<&str>,
) -> Result<Vec<Record<'static>>, Rejection> {
    let changes: Vec<_> = wave
        .iter()
        .filter_map(|(place, write)| Some((touched[*place].entity.entity_id.as_str(), write.change.as_ref()?)))
        .collect();
    let (table, tenant) = (Rc::clone(&touched[wave[0].0].table), touched[wave[0].0].entity.tenant.clone());
    let mut rows = write::write(&table, tenant.as_deref(), &changes, role, claims)?;
    not_overtaken(&table, tenant.as_deref(), wave.iter().map(|(place, write)| (&touched[*place], &**write)))?;
    let mut made = Vec::new();
    for (place, write) in wave {
        let touched = &mut touched[place];
        let actual = rows.remove(&touched.entity.entity_id);
        made.extend(touched.written(*write, actual));
    }
    Ok(made)
}
