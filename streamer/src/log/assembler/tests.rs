//! Transactions as pgoutput sends them.

use super::*;
use crate::decode::decode;
use crate::log::written::{begin, commit, insert, relation_of};
use crate::log::{RowChange, Rows, Touched};
use proptest::prelude::*;

fn relation(oid: u32, name: &str, columns: &[&str]) -> Vec<u8> {
    relation_of("headwater", oid, name, &columns.iter().map(|column| (*column, 0)).collect::<Vec<_>>())
}

fn event(position: &str) -> Vec<u8> {
    let now = "2026-01-02 03:04:05+00";
    insert(1, &[position, "id", "t", "order", "e", "order.created", "{}", "1", now, now, "u", "c", "sql", "t"])
}

fn assemble(
    limit: usize,
    messages: &[Vec<u8>],
    watermark: Option<Watermark>,
) -> Result<Vec<Transaction>, AssembleError> {
    let epoch = "00000000000000ff".parse().expect("an epoch");
    let mut assembler = Assembler::new(epoch, limit);
    let mut transactions = Vec::new();
    for message in messages {
        let message = decode(message).expect("a message");
        transactions.extend(assembler.push(&message, |lsn| watermark.filter(|w| w.lsn <= lsn))?);
    }
    Ok(transactions)
}

#[test]
fn ops_count_every_change_of_the_transaction() {
    let logical = b"M\x01\0\0\0\0\0\0\0\0p\0\0\0\0\0".to_vec();
    let outside = b"M\0\0\0\0\0\0\0\0\0p\0\0\0\0\0".to_vec();
    let truncate = [b"T".as_slice(), &[0, 0, 0, 0, 0]].concat();
    let messages = [
        begin(80),
        relation(1, "event", &NAMES),
        event("1"),
        logical,
        relation(2, "other", &["a"]),
        insert(2, &["x"]),
        truncate,
        event("2"),
        commit(80, 96),
        outside,
        begin(104),
        event("3"),
        commit(104, 120),
    ];
    let watermark = Watermark { position: Position(2), lsn: Lsn(100) };
    let transactions = assemble(1 << 20, &messages, Some(watermark)).expect("they are well formed");
    let ops: Vec<Vec<u64>> = transactions.iter().map(|t| t.events.iter().map(|e| e.op).collect()).collect();
    assert_eq!(ops, [vec![0, 8], vec![0]]);
    assert_eq!(transactions.iter().map(|t| t.watermark.0).collect::<Vec<_>>(), [0, 2], "not before its marker");
    let block = std::str::from_utf8(&transactions[1].events[0].block).expect("text");
    assert!(
        block.starts_with("id: 00000000000000ff-2-104_0\nevent: order.created\ndata: {\"id\":\"id\",\"position\":3,"),
        "{block}"
    );
}

#[test]
fn columns_are_found_by_name() {
    let mut names = NAMES.to_vec();
    names.push("added_later");
    names.reverse();
    let now = "2026-01-02 03:04:05+00";
    let mut cells = vec!["9", "id", "t", "order", "e", "order.created", "{}", "1", now, now, "u", "c", "sql", "t", "x"];
    cells.reverse();
    let messages = [begin(80), relation(1, "event", &names), insert(1, &cells), commit(80, 96)];
    let transactions = assemble(1 << 20, &messages, None).expect("it is well formed");
    assert!(std::str::from_utf8(&transactions[0].events[0].block).expect("text").contains("\"position\":9,"));

    let missing =
        assemble(1, &[begin(80), relation(1, "event", &["position"])], None).expect_err("columns are missing");
    assert!(missing.to_string().contains("no column `id`"), "{missing}");
}

#[test]
fn a_transaction_larger_than_the_ring_keeps_nothing() {
    let messages = [begin(80), relation(1, "event", &NAMES), event("1"), event("2"), event("3"), commit(80, 96)];
    let transactions = assemble(600, &messages, None).expect("they are well formed");
    assert!(transactions[0].oversize && transactions[0].lost_events && transactions[0].events.is_empty());
}

#[test]
fn nonsense_is_an_error() {
    for messages in [
        vec![commit(80, 96)],
        vec![event("1")],
        vec![begin(80), relation(1, "event", &NAMES), event("x")],
        vec![begin(80), relation(1, "event", &NAMES), insert(1, &["1"])],
    ] {
        assert!(assemble(1 << 20, &messages, None).is_err());
    }
}

/// A row on the wire: `None` null, `Some("=")` unchanged, else text.
fn cells(values: &[Option<&str>]) -> Vec<u8> {
    let mut bytes = u16::try_from(values.len()).expect("few").to_be_bytes().to_vec();
    for value in values {
        match value {
            None => bytes.push(b'n'),
            Some("=") => bytes.push(b'u'),
            Some(text) => {
                bytes.push(b't');
                bytes.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
    }
    bytes
}

fn change(kind: u8, oid: u32, rows: &[(u8, &[Option<&str>])]) -> Vec<u8> {
    let mut bytes = [[kind].as_slice(), &oid.to_be_bytes()].concat();
    for (kind, values) in rows {
        bytes.push(*kind);
        bytes.extend(cells(values));
    }
    bytes
}

fn seen(rows: &Rows, after: Option<u64>) -> Vec<String> {
    let text = |tuple: Option<Tuple<'_>>| {
        let cell = |cell| match cell {
            Cell::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        };
        tuple.map(|tuple| tuple.cells().map(cell).collect::<Vec<_>>().join(","))
    };
    let line = |change: RowChange<'_>| {
        let (old, new) = (text(change.old).unwrap_or_default(), text(change.new).unwrap_or_default());
        format!("{} {:?} {} {old}>{new}", change.op, change.kind, change.table.oid)
    };
    rows.after(after).map(line).collect()
}

#[test]
fn rows_are_kept_whole() {
    let truncate = [b"T".as_slice(), &[0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 9]].concat();
    let messages = [
        begin(80),
        relation(2, "other", &["a", "b"]),
        change(b'I', 2, &[(b'N', &[Some("1"), None])]),
        event_of_unpublished(),
        change(b'U', 2, &[(b'O', &[Some("1"), Some("long")]), (b'N', &[Some("2"), Some("=")])]),
        change(b'U', 2, &[(b'N', &[Some("2"), Some("x")])]),
        change(b'U', 2, &[(b'K', &[Some("2"), None]), (b'N', &[Some("3"), Some("x")])]),
        change(b'D', 2, &[(b'O', &[Some("3"), Some("x")])]),
        change(b'D', 2, &[(b'K', &[Some("3"), None])]),
        truncate,
        commit(80, 96),
        begin(104),
        commit(104, 112),
    ];
    let transactions = assemble(1 << 20, &messages, None).expect("they are well formed");
    let all = [
        "0 Insert 2 >1,Null",
        "4 Update 2 1,long>2,long",
        "6 Untold 2 >",
        "8 Untold 2 >",
        "10 Delete 2 3,x>",
        "12 Untold 2 >",
        "14 Truncate 2 >",
    ];
    assert_eq!(seen(&transactions[0].rows, None), all);
    assert_eq!(seen(&transactions[0].rows, Some(4)), all[2..]);
    assert_eq!(seen(&transactions[0].rows, Some(5)), all[2..]);
    assert_eq!(*transactions[0].touched, [Touched { table: 2, last: 14, broken: true }]);
    assert!(transactions[0].described && !transactions[1].described);
    assert!(transactions[1].is_empty() && transactions[1].touched.is_empty());
}

/// A change of a table that was never described: none of ours, but it has a number.
fn event_of_unpublished() -> Vec<u8> {
    change(b'I', 77, &[(b'N', &[Some("1")])])
}

#[test]
fn of_a_transaction_larger_than_the_ring_it_is_known_what_it_touched() {
    let long = "x".repeat(100);
    let row: &[Option<&str>] = &[Some(&long)];
    let messages = [
        begin(80),
        relation(2, "other", &["a"]),
        relation(3, "third", &["a"]),
        change(b'I', 2, &[(b'N', row)]),
        change(b'I', 2, &[(b'N', row)]),
        change(b'I', 2, &[(b'N', row)]),
        change(b'I', 3, &[(b'N', row)]),
        commit(80, 96),
        begin(104),
        change(b'I', 3, &[(b'N', row)]),
        commit(104, 112),
    ];
    let transactions = assemble(300, &messages, None).expect("they are well formed");
    assert!(transactions[0].oversize && !transactions[0].lost_events && transactions[0].rows.is_empty());
    let touched = |table, last| Touched { table, last, broken: false };
    assert_eq!(*transactions[0].touched, [touched(2, 4), touched(3, 6)]);
    assert!(!transactions[1].oversize);
    assert_eq!(seen(&transactions[1].rows, None), [format!("0 Insert 3 >{long}")]);
}

/// What happens to a good stream on its way.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Grow(prop::sample::Index, Vec<u8>),
    Drop,
    Twice,
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = proptest::collection::vec(any::<u8>(), 1..20);
    prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        any::<prop::sample::Index>().prop_map(Damage::Cut),
        (any::<prop::sample::Index>(), bytes).prop_map(|(at, bytes)| Damage::Grow(at, bytes)),
        Just(Damage::Drop),
        Just(Damage::Twice),
    ]
}

fn good_stream() -> Vec<Vec<u8>> {
    let columns = [
        "position",
        "id",
        "tenant_id",
        "entity_type",
        "entity_id",
        "event_type",
        "payload",
        "schema_version",
        "occurred_at",
        "recorded_at",
        "user_id",
        "client_id",
        "source",
        "applies",
    ];
    let mut stream = Vec::new();
    for number in 1..4_u64 {
        stream.extend([begin(number * 10), relation(1, "event", &columns), relation(2, "orders", &["id", "status"])]);
        stream.extend([event("7"), insert(2, &["1", "open"]), event("8"), commit(number * 10, number * 10 + 5)]);
    }
    stream
}

proptest! {
    #[test]
    fn no_damaged_stream_makes_it_panic_or_hold_more_than_it_was_sent(
        damages in proptest::collection::vec((any::<prop::sample::Index>(), damage()), 0..6)
    ) {
        let mut stream = good_stream();
        for (which, damage) in damages {
            let which = which.index(stream.len());
            let message = &mut stream[which];
            match damage {
                Damage::Flip(at, byte) if !message.is_empty() => {
                    let at = at.index(message.len());
                    message[at] ^= byte;
                }
                Damage::Cut(at) => message.truncate(at.index(message.len() + 1)),
                Damage::Grow(at, bytes) => {
                    let at = at.index(message.len() + 1);
                    message.splice(at..at, bytes);
                }
                Damage::Twice => {
                    let again = message.clone();
                    stream.insert(which, again);
                }
                Damage::Flip(..) | Damage::Drop => message.clear(),
            }
        }
        let epoch = "00000000000000ff".parse().expect("an epoch");
        let mut assembler = Assembler::new(epoch, 1 << 20);
        // The connection ends with the first error.
        for bytes in &stream {
            let Ok(message) = decode(bytes) else { break };
            let Ok(transaction) = assembler.push(&message, |_| None) else { break };
            let blocks = transaction.iter().flat_map(|transaction| &transaction.events).map(|event| event.block.len());
            // A frame repeats some cells and escapes them, six bytes for one at worst.
            let sent: usize = stream.iter().map(Vec::len).sum();
            prop_assert!(blocks.sum::<usize>() <= 20 * sent, "more than was sent");
        }
    }
}
