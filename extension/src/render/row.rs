//! A row of datums as an entity: its id, its state, what changed in it.

use std::borrow::Cow;
use std::ffi::CStr;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum};

use super::print::Detoasted;
use super::{Column, Writer, key_order};
use crate::raise::raise;

/// A row's values.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    values: &'a [Datum],
    nulls: &'a [bool],
    /// The attribute number of each value; without it they stand by their numbers, less one.
    numbers: Option<&'a [i16]>,
}

impl<'a> Row<'a> {
    /// # Safety
    /// The values are of the types that the columns have which are asked of this row.
    pub(crate) unsafe fn new(values: &'a [Datum], nulls: &'a [bool]) -> Self {
        Self { values, nulls, numbers: None }
    }

    /// A row of selected columns, of these numbers.
    ///
    /// # Safety
    /// As for `new`.
    pub(crate) unsafe fn selected(values: &'a [Datum], nulls: &'a [bool], numbers: &'a [i16]) -> Self {
        Self { values, nulls, numbers: Some(numbers) }
    }

    fn get(&self, column: &Column) -> Option<Datum> {
        let place = match self.numbers {
            None => usize::try_from(column.number - 1).expect("ordinary columns count from one"),
            Some(numbers) => numbers.iter().position(|number| *number == column.number).expect("it was selected"),
        };
        if self.nulls[place] { None } else { Some(self.values[place]) }
    }

    /// The column's value as text.
    pub(crate) fn text(&self, column: &Column) -> Option<Vec<u8>> {
        // SAFETY: the promise of `new`.
        self.get(column).map(|datum| unsafe { column.text.with(datum, <[u8]>::to_vec) })
    }
}

/// Renders the rows of one table.
pub(crate) struct RowRenderer {
    /// In the order of an object's keys.
    columns: Vec<Column>,
    key: Vec<Column>,
    tenant: Option<Column>,
    /// Settings make a difference to what it renders.
    pub(crate) depends_on_settings: bool,
}

impl RowRenderer {
    /// For rows of these columns, known by `key` and `tenant`; `user` is read beside it, as text.
    pub(crate) fn new(columns: &[Column], key: &[Column], tenant: Option<&Column>, user: Option<&Column>) -> Self {
        let mut columns = columns.to_vec();
        columns.sort_by(|a, b| key_order(&a.name, &b.name));
        let depends_on_settings = columns.iter().any(|column| column.form.depends_on_settings())
            || key.iter().chain(tenant).chain(user).any(|column| column.text.depends_on_settings());
        Self { columns, key: key.to_vec(), tenant: tenant.cloned(), depends_on_settings }
    }

    /// The entity id; see `headwater_model::key`.
    pub(crate) fn entity_id(&self, row: &Row<'_>, into: &mut Vec<u8>) {
        into.clear();
        for (place, column) in self.key.iter().enumerate() {
            if place > 0 {
                into.push(b'/');
            }
            let datum = row.get(column).unwrap_or_else(|| no_key(column));
            // SAFETY: the promise of `Row::new`.
            unsafe {
                column.text.with(datum, |text| {
                    if self.key.len() > 1 && column.needs_escape {
                        into.extend_from_slice(&escaped(text));
                    } else {
                        into.extend_from_slice(text);
                    }
                });
            }
        }
    }

    /// Whose row it is.
    pub(crate) fn tenant(&self, row: &Row<'_>) -> Option<Vec<u8>> {
        self.tenant.as_ref().and_then(|column| row.text(column))
    }

    /// Whether the two rows belong to one entity: the same key and tenant.
    pub(crate) fn same_entity(&self, old: &Row<'_>, new: &Row<'_>) -> bool {
        self.key.iter().chain(&self.tenant).all(|column| !differs(column, old, new))
            || (self.key.iter().all(|column| old.text(column) == new.text(column))
                && self.tenant(old) == self.tenant(new))
    }

    /// The row as jsonb.
    pub(crate) fn state<'w>(&self, row: &Row<'_>, out: &'w mut Writer) -> &'w [u8] {
        object(self.columns.iter(), self.columns.len(), row, out)
    }

    /// The key's columns as jsonb.
    pub(crate) fn key<'w>(&self, row: &Row<'_>, out: &'w mut Writer) -> &'w [u8] {
        let is_key = |column: &&Column| self.key.iter().any(|key| key.number == column.number);
        object(self.columns.iter().filter(is_key), self.key.len(), row, out)
    }

    /// What differs from the old row in the new, as jsonb.
    pub(crate) fn changes<'w>(&self, old: &Row<'_>, new: &Row<'_>, out: &'w mut Writer) -> &'w [u8] {
        let changed: Vec<_> = self.columns.iter().filter(|column| differs(column, old, new)).collect();
        let count = changed.len();
        object(changed.into_iter(), count, new, out)
    }
}

fn object<'c, 'w>(
    columns: impl Iterator<Item = &'c Column> + Clone,
    count: usize,
    row: &Row<'_>,
    out: &'w mut Writer,
) -> &'w [u8] {
    let mut object = out.object(count);
    for column in columns.clone() {
        out.text(&mut object, column.name.as_bytes());
    }
    for column in columns {
        match row.get(column) {
            None => out.null(&mut object),
            // SAFETY: the promise of `Row::new`.
            Some(datum) => unsafe { column.form.write(out, &mut object, datum) },
        }
    }
    out.finish(object)
}

/// Whether a column's value differs between two rows: in its image, for 1.0 and 1.00 are equal numbers but other texts.
fn differs(column: &Column, old: &Row<'_>, new: &Row<'_>) -> bool {
    match (old.get(column), new.get(column)) {
        (None, None) => false,
        (Some(old), Some(new)) => {
            // SAFETY: two values of the column's type.
            old != new && unsafe { !same_image(old, new, column.by_value, column.length) }
        }
        _ => true,
    }
}

/// # Safety
/// Two values of a type that is not passed by value, if `by_value` says so, and has this length (`pg_type.typlen`).
unsafe fn same_image(a: Datum, b: Datum, by_value: bool, length: i16) -> bool {
    if by_value {
        return a == b;
    }
    // SAFETY: the caller's promise says what stands behind the pointers.
    unsafe {
        if length == -2 {
            return CStr::from_ptr(a.cast_mut_ptr()) == CStr::from_ptr(b.cast_mut_ptr());
        }
        if let Ok(length) = usize::try_from(length) {
            return std::slice::from_raw_parts(a.cast_mut_ptr::<u8>(), length)
                == std::slice::from_raw_parts(b.cast_mut_ptr::<u8>(), length);
        }
        // As they are stored first: a toasted value that an update leaves alone keeps its pointer.
        let (a, b) = (a.cast_mut_ptr::<pg_sys::varlena>(), b.cast_mut_ptr::<pg_sys::varlena>());
        let stored = |varlena: *mut pg_sys::varlena| {
            std::slice::from_raw_parts(varlena.cast::<u8>(), pgrx::varsize_any(varlena))
        };
        stored(a) == stored(b)
            || (pg_sys::toast_raw_datum_size(Datum::from(a)) == pg_sys::toast_raw_datum_size(Datum::from(b))
                && Detoasted::new(Datum::from(a)).bytes() == Detoasted::new(Datum::from(b)).bytes())
    }
}

/// A part of a composite key: `~` as `~0`, `/` as `~1`.
fn escaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'~' | b'/')) {
        return Cow::Borrowed(text);
    }
    let mut escaped = Vec::with_capacity(text.len() + 8);
    for byte in text {
        match byte {
            b'~' => escaped.extend_from_slice(b"~0"),
            b'/' => escaped.extend_from_slice(b"~1"),
            byte => escaped.push(*byte),
        }
    }
    Cow::Owned(escaped)
}

/// A column of the key that lost its NOT NULL: a row without a key is no entity.
fn no_key(column: &Column) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
        format!("null value in column \"{}\", which is the key of a synced entity", column.name),
        "Give the row a key, or end capture: select headwater.disable(…).",
    )
}
