//! Messages as Postgres writes them (pgoutput, protocol 1), for tests.

fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// A table with columns of these names and types.
pub(crate) fn relation_of(schema: &str, oid: u32, name: &str, columns: &[(&str, u32)]) -> Vec<u8> {
    let mut bytes = [b"R".as_slice(), &oid.to_be_bytes(), &cstr(schema), &cstr(name), b"d"].concat();
    bytes.extend(u16::try_from(columns.len()).expect("few").to_be_bytes());
    for (column, type_oid) in columns {
        bytes.extend([&[0], cstr(column).as_slice(), &type_oid.to_be_bytes(), &(-1_i32).to_be_bytes()].concat());
    }
    bytes
}

pub(crate) fn insert(oid: u32, cells: &[&str]) -> Vec<u8> {
    let mut bytes = [b"I".as_slice(), &oid.to_be_bytes(), b"N"].concat();
    bytes.extend(u16::try_from(cells.len()).expect("few").to_be_bytes());
    for cell in cells {
        bytes.extend(
            [b"t".as_slice(), &u32::try_from(cell.len()).expect("short").to_be_bytes(), cell.as_bytes()].concat(),
        );
    }
    bytes
}

pub(crate) fn begin(commit: u64) -> Vec<u8> {
    [b"B".as_slice(), &commit.to_be_bytes(), &[0; 8], &7_u32.to_be_bytes()].concat()
}

pub(crate) fn commit(commit: u64, end: u64) -> Vec<u8> {
    [b"C\0".as_slice(), &commit.to_be_bytes(), &end.to_be_bytes(), &[0; 8]].concat()
}
