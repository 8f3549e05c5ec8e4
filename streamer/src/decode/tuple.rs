//! A row on the wire: checked once when read, then walked without allocation.

use super::{DecodeError, reader::Reader};

/// The cells of a row, in the order of the relation's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    cells: &'a [u8],
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
        for _ in 0..count {
            read_cell(reader)?;
        }
        let (cells, _) = all.split_at(all.len() - reader.remaining());
        Ok(Self { count, cells })
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
