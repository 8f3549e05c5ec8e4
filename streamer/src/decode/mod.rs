//! pgoutput protocol 1: bytes in, one message out. Pure: no state, no I/O, no panic on any input, and no allocation
//! larger than the input itself.
//!
//! Formats: "Logical Replication Message Formats" in the Postgres manual; `src/backend/replication/logical/proto.c`.

mod reader;
mod tuple;

pub use tuple::{Cell, Tuple};

use headwater_model::cursor::Lsn;
use reader::Reader;

/// One pgoutput message. What it borrows is the payload of one `CopyData`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A committed transaction starts; everything up to `Commit` belongs to it.
    Begin {
        /// LSN of the commit record, known already now.
        commit: Lsn,
        /// Low 32 bits of the top-level transaction id.
        xid: u32,
    },
    /// The transaction is complete.
    Commit {
        /// LSN of the commit record, as in `Begin`.
        commit: Lsn,
        /// The first byte after the commit record.
        end: Lsn,
    },
    /// The transaction came here by replication from elsewhere.
    Origin,
    /// The shape of a table, sent before its first change and whenever it is different.
    Relation(Relation<'a>),
    /// The name of a type that is not built in.
    Type,
    /// A new row.
    Insert {
        /// OID of the table.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A changed row.
    Update {
        /// OID of the table.
        relation: u32,
        /// The row before, if REPLICA IDENTITY gives it.
        old: Option<OldRow<'a>>,
        /// The row after.
        new: Tuple<'a>,
    },
    /// A row that is gone.
    Delete {
        /// OID of the table.
        relation: u32,
        /// What REPLICA IDENTITY tells of it.
        old: OldRow<'a>,
    },
    /// Tables emptied at once.
    Truncate {
        /// Which.
        relations: Oids<'a>,
    },
    /// A logical message (`pg_logical_emit_message`).
    Logical {
        /// Whether it belongs to the transaction around it.
        transactional: bool,
        /// Whose it is.
        prefix: &'a str,
    },
}

/// The shape of a published table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// OID of the table.
    pub oid: u32,
    /// Schema, empty for `pg_catalog`.
    pub schema: &'a str,
    /// Table.
    pub name: &'a str,
    /// The columns in the order of the cells of a [`Tuple`].
    pub columns: Vec<RelationColumn<'a>>,
}

/// A column of a published table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Name.
    pub name: &'a str,
    /// OID of its type.
    pub type_oid: u32,
    /// Type modifier, -1 for none.
    pub type_mod: i32,
}

/// OIDs of tables, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oids<'a>(&'a [u8]);

impl<'a> Oids<'a> {
    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (oids, _) = self.0.as_chunks::<4>();
        oids.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}

/// The row before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldRow<'a> {
    /// Only the columns of the replica identity's index; the others read as null.
    Key(Tuple<'a>),
    /// The whole row (REPLICA IDENTITY FULL).
    Full(Tuple<'a>),
}

/// The bytes are not a pgoutput message that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends in the middle.
    #[error("the message is cut off")]
    CutOff,
    /// The message goes on behind its end.
    #[error("{0} bytes too many")]
    TooLong(usize),
    /// A name is not UTF-8.
    #[error("a name is not UTF-8")]
    NotUtf8,
    /// A byte that says what follows is not one that we know.
    #[error("unknown {what} {byte:#04x}")]
    Unknown {
        /// What the byte stands for.
        what: &'static str,
        /// The byte.
        byte: u8,
    },
}

/// Reads one message.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = match reader.u8()? {
        b'B' => {
            let commit = reader.lsn()?;
            reader.skip(8)?; // commit time
            Message::Begin { commit, xid: reader.u32()? }
        }
        b'C' => {
            reader.skip(1)?; // flags, none defined
            let message = Message::Commit { commit: reader.lsn()?, end: reader.lsn()? };
            reader.skip(8)?; // commit time
            message
        }
        b'O' => {
            reader.skip(8)?;
            reader.text()?;
            Message::Origin
        }
        b'R' => Message::Relation(relation(&mut reader)?),
        b'Y' => {
            reader.skip(4)?;
            reader.text()?;
            reader.text()?;
            Message::Type
        }
        b'I' => {
            let relation = reader.u32()?;
            expect_new(reader.u8()?)?;
            Message::Insert { relation, new: Tuple::read(&mut reader)? }
        }
        b'U' => {
            let relation = reader.u32()?;
            let mut kind = reader.u8()?;
            let old = old_row(kind, &mut reader)?;
            if old.is_some() {
                kind = reader.u8()?;
            }
            expect_new(kind)?;
            Message::Update { relation, old, new: Tuple::read(&mut reader)? }
        }
        b'D' => {
            let relation = reader.u32()?;
            let kind = reader.u8()?;
            let unknown = DecodeError::Unknown { what: "kind of old row", byte: kind };
            Message::Delete { relation, old: old_row(kind, &mut reader)?.ok_or(unknown)? }
        }
        b'T' => {
            let relations = reader.u32()?;
            reader.skip(1)?; // CASCADE, RESTART IDENTITY
            let oids = reader.bytes(usize::try_from(relations).unwrap_or(usize::MAX).saturating_mul(4))?;
            Message::Truncate { relations: Oids(oids) }
        }
        b'M' => {
            let transactional = reader.u8()? & 1 == 1;
            reader.skip(8)?; // LSN of the message
            let prefix = reader.text()?;
            let length = reader.u32()?;
            reader.skip(usize::try_from(length).unwrap_or(usize::MAX))?;
            Message::Logical { transactional, prefix }
        }
        byte => return Err(DecodeError::Unknown { what: "message", byte }),
    };
    reader.end()?;
    Ok(message)
}

fn relation<'a>(reader: &mut Reader<'a>) -> Result<Relation<'a>, DecodeError> {
    let oid = reader.u32()?;
    let schema = reader.text()?;
    let name = reader.text()?;
    reader.skip(1)?; // replica identity
    let count = usize::from(reader.u16()?);
    // A column takes at least ten bytes, so this never asks for more than the message holds.
    let mut columns = Vec::with_capacity(count.min(reader.remaining() / 10));
    for _ in 0..count {
        reader.skip(1)?; // part of the key
        let name = reader.text()?;
        columns.push(RelationColumn { name, type_oid: reader.u32()?, type_mod: reader.i32()? });
    }
    Ok(Relation { oid, schema, name, columns })
}

fn old_row<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<Option<OldRow<'a>>, DecodeError> {
    match kind {
        b'K' => Ok(Some(OldRow::Key(Tuple::read(reader)?))),
        b'O' => Ok(Some(OldRow::Full(Tuple::read(reader)?))),
        _ => Ok(None),
    }
}

fn expect_new(byte: u8) -> Result<(), DecodeError> {
    if byte == b'N' { Ok(()) } else { Err(DecodeError::Unknown { what: "kind of new row", byte }) }
}

#[cfg(test)]
mod tests;
