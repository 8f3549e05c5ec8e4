//! Every message kind, then anything at all.

use super::*;
use proptest::prelude::*;

fn row(cells: &[Option<&[u8]>]) -> Vec<u8> {
    let mut bytes = u16::try_from(cells.len()).expect("few cells").to_be_bytes().to_vec();
    for cell in cells {
        match cell {
            None => bytes.push(b'n'),
            Some(value) => {
                bytes.push(b't');
                bytes.extend(u32::try_from(value.len()).expect("short").to_be_bytes());
                bytes.extend(*value);
            }
        }
    }
    bytes
}

fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn texts<'a>(tuple: &Tuple<'a>) -> Vec<Option<&'a [u8]>> {
    tuple.cells().map(|cell| if let Cell::Text(text) = cell { Some(text) } else { None }).collect()
}

#[test]
fn control_messages() {
    let check = |bytes: &[u8], expected: Result<Message<'_>, DecodeError>| assert_eq!(decode(bytes), expected);
    let lsn = |n: u64| n.to_be_bytes();
    check(&cat(&[b"B", &lsn(9), &lsn(0), &[0, 0, 2, 1]]), Ok(Message::Begin { commit: Lsn(9), xid: 513 }));
    check(&cat(&[b"C\0", &lsn(9), &lsn(40), &lsn(0)]), Ok(Message::Commit { commit: Lsn(9), end: Lsn(40) }));
    check(&cat(&[b"O", &lsn(1), b"node\0"]), Ok(Message::Origin));
    check(&cat(&[b"Y", &[0, 0, 0, 7], b"public\0mood\0"]), Ok(Message::Type));
    check(
        &cat(&[b"M\x01", &lsn(1), b"p\0", &[0, 0, 0, 2], b"hi"]),
        Ok(Message::Logical { transactional: true, prefix: "p" }),
    );
    check(&cat(&[b"M\0", &lsn(1), b"p\0", &[0, 0, 0, 0]]), Ok(Message::Logical { transactional: false, prefix: "p" }));
    check(
        &[b'T', 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 2],
        Ok(Message::Truncate { relations: Oids(&[0, 0, 0, 1, 0, 0, 0, 2]) }),
    );
    assert!(Oids(&[0, 0, 0, 1, 0, 0, 1, 2]).iter().eq([1, 258]));
    check(&[b'T', 255, 255, 255, 255, 0, 1], Err(DecodeError::CutOff));
    check(&cat(&[b"C\0", &lsn(9), &lsn(40), &lsn(0), b"!"]), Err(DecodeError::TooLong(1)));
    check(b"", Err(DecodeError::CutOff));
    check(b"?", Err(DecodeError::Unknown { what: "message", byte: b'?' }));
    check(&cat(&[b"O", &lsn(1), b"\xff\0"]), Err(DecodeError::NotUtf8));
}

#[test]
fn relations() {
    let bytes = cat(&[
        b"R",
        &[0, 0, 64, 1],
        b"headwater\0event\0d",
        &[0, 2],
        &[1],
        b"position\0",
        &[0, 0, 0, 20, 255, 255, 255, 255],
        &[0],
        b"id\0",
        &[0, 0, 11, 134, 255, 255, 255, 255],
    ]);
    let column = |name, type_oid| RelationColumn { name, type_oid, type_mod: -1 };
    let columns = vec![column("position", 20), column("id", 2950)];
    let expected = Relation { oid: 16_385, schema: "headwater", name: "event", columns };
    assert_eq!(decode(&bytes), Ok(Message::Relation(expected)));
    // A count far beyond what follows asks for no memory and is refused.
    assert_eq!(decode(b"R\0\0\0\x01a\0b\0d\xff\xff"), Err(DecodeError::CutOff));
}

#[test]
fn rows() {
    let new = row(&[Some(b"1"), None, Some(b"")]);
    let insert = cat(&[b"I", &[0, 0, 0, 5], b"N", &new]);
    let Ok(Message::Insert { relation: 5, new: tuple }) = decode(&insert) else { panic!("{:?}", decode(&insert)) };
    assert_eq!(texts(&tuple), [Some(b"1".as_slice()), None, Some(b"")]);

    let key = row(&[Some(b"0"), None]);
    let update = cat(&[b"U", &[0, 0, 0, 5], b"K", &key, b"N", &new]);
    let Ok(Message::Update { old: Some(OldRow::Key(old)), new, .. }) = decode(&update) else { panic!() };
    assert_eq!((texts(&old).len(), new.len()), (2, 3));

    let plain = cat(&[b"U", &[0, 0, 0, 5], b"N", &row(&[])]);
    assert!(matches!(decode(&plain), Ok(Message::Update { old: None, new, .. }) if new.is_empty()));

    let delete = cat(&[b"D", &[0, 0, 0, 5], b"O", &key]);
    assert!(matches!(decode(&delete), Ok(Message::Delete { relation: 5, old: OldRow::Full(_) })));
    let wrong = cat(&[b"D", &[0, 0, 0, 5], b"N", &key]);
    assert_eq!(decode(&wrong), Err(DecodeError::Unknown { what: "kind of old row", byte: b'N' }));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_damaged_message_makes_it_panic(kind in prop::sample::select(b"BCORYIUDTM".to_vec()), bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = decode(&cat(&[&[kind], &bytes]));
    }

    #[test]
    fn rows_come_back(cells in proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)), 0..20), cut in any::<prop::sample::Index>()) {
        let cells: Vec<Option<&[u8]>> = cells.iter().map(Option::as_deref).collect();
        let bytes = cat(&[b"I\0\0\0\x01N", &row(&cells)]);
        let Ok(Message::Insert { new, .. }) = decode(&bytes) else { panic!() };
        prop_assert_eq!(texts(&new), cells);
        let cut = cut.index(bytes.len());
        prop_assert_eq!(decode(&bytes[..cut]), Err(DecodeError::CutOff));
    }
}
