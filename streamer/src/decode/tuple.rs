//! A row on the wire: checked once when read, then walked without allocation.

use super::{DecodeError, reader::Reader};

/// The cells of a row, in the order of the relation's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    cells: &'a [u8],
    /// Whether one of the cells is [`Cell::Unchanged`].
    partial: bool,
}

/// One column's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// SQL null.
    Null,
    /// A large value that the update did not touch, and that the WAL therefore does not carry.
    Unchanged,
    /// The value's text form, as its type's output function wrote it.
    Text(&'a [u8]),
    /// The value's binary form (only if `binary` was asked for).
    Binary(&'a [u8]),
}

impl<'a> Tuple<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u16()?;
        let all = reader.rest();
        let mut partial = false;
        for _ in 0..count {
            partial |= read_cell(reader)? == Cell::Unchanged;
        }
        let (cells, _) = all.split_at(all.len() - reader.remaining());
        Ok(Self { count, cells, partial })
    }

    /// A row that was kept as [`Tuple::bytes`]; `columns` as many as it had.
    pub fn kept(columns: usize, cells: &'a [u8]) -> Self {
        Self { count: u16::try_from(columns).unwrap_or(u16::MAX), cells, partial: false }
    }

    /// The cells as they stand on the wire.
    pub fn bytes(&self) -> &'a [u8] {
        self.cells
    }

    /// Whether values are missing that the update did not touch.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Appends the cells as they stand on the wire; what is missing is taken from the row before.
    pub fn write_whole(&self, old: &Tuple<'_>, out: &mut Vec<u8>) {
        for (new, old) in self.cells().zip(old.cells()) {
            match if new == Cell::Unchanged { old } else { new } {
                Cell::Null => out.push(b'n'),
                Cell::Unchanged => out.push(b'u'),
                Cell::Text(text) => write_value(b't', text, out),
                Cell::Binary(value) => write_value(b'b', value, out),
            }
        }
    }

    /// The cells from first to last.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'a>> + use<'a> {
        let mut reader = Reader::new(self.cells);
        (0..self.count).map_while(move |_| read_cell(&mut reader).ok())
    }

    /// How many cells.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether the row has no columns at all.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

fn write_value(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    // It came with a length of four bytes.
    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

fn read_cell<'a>(reader: &mut Reader<'a>) -> Result<Cell<'a>, DecodeError> {
    let kind = reader.u8()?;
    match kind {
        b'n' => Ok(Cell::Null),
        b'u' => Ok(Cell::Unchanged),
        b't' | b'b' => {
            let length = usize::try_from(reader.u32()?).map_err(|_| DecodeError::CutOff)?;
            let value = reader.bytes(length)?;
            Ok(if kind == b't' { Cell::Text(value) } else { Cell::Binary(value) })
        }
        byte => Err(DecodeError::Unknown { what: "kind of cell", byte }),
    }
}
