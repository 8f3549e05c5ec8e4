//! The ring against a model that forgets nothing.

use super::*;
use crate::log::{Rows, Touched};
use bytes::Bytes;
use headwater_model::cursor::Lsn;
use proptest::prelude::*;

fn transaction(xid: u32, commit: u64, end: u64, events: usize) -> Transaction {
    let event = |n: usize| Event {
        op: 2 * n as u64,
        entity_type: "order".into(),
        tenant: None,
        block: Bytes::from_static(&[b'x'; 72]), // 200 with its overhead
        id_length: 0,
    };
    let events = (0..events).map(event).collect();
    Transaction {
        xid,
        commit: Lsn(commit),
        end: Lsn(end),
        watermark: Position(0),
        oversize: false,
        lost_events: false,
        registry: false,
        events,
        rows: Rows::default(),
        touched: Box::default(),
        described: false,
    }
}

fn all(head: u64) -> Snapshot {
    let _ = head;
    "1000:1000:".parse().expect("a snapshot")
}

fn offsets(ring: &Ring, after: Offset) -> Vec<Offset> {
    ring.after(after).map(|(transaction, event)| transaction.offset(event)).collect()
}

fn ring(bytes: usize, wal_bytes: u64) -> Ring {
    Ring::new(Limits { bytes, wal_bytes }, Lsn(80))
}

#[test]
fn reads_exactly_what_follows() {
    let mut ring = ring(1 << 20, 1 << 20);
    ring.append(transaction(1, 88, 96, 3));
    ring.append(transaction(2, 96, 104, 0));
    ring.append(transaction(3, 104, 112, 1));
    let check = |lsn: u64, op: u64, expected: &[(u64, u64)]| {
        let expected: Vec<Offset> = expected.iter().map(|(lsn, op)| Offset { lsn: Lsn(*lsn), op: *op }).collect();
        assert_eq!(offsets(&ring, Offset { lsn: Lsn(lsn), op }), expected, "{lsn}_{op}");
    };
    check(79, 0, &[(88, 0), (88, 2), (88, 4), (104, 0)]);
    check(88, 0, &[(88, 2), (88, 4), (104, 0)]);
    check(88, 4, &[(104, 0)]);
    check(103, 0, &[(104, 0)]);
    check(104, 0, &[]);
    check(4000, 0, &[]);
}

#[test]
fn wal_distance_moves_the_start_without_transactions() {
    let mut ring = ring(1 << 20, 100);
    ring.append(transaction(1, 88, 96, 1));
    ring.advance(Lsn(190));
    assert_eq!((ring.start(), ring.confirmed()), (Lsn(88), Lsn(88)), "in the middle of nothing, but before 88");
    ring.advance(Lsn(1000));
    assert_eq!(ring.start(), Lsn(900));
    assert_eq!(ring.confirmed(), Lsn(88), "nobody has seen the transaction yet");
    ring.observe(Lsn(1000), &all(1000));
    assert_eq!(ring.confirmed(), Lsn(900));
    assert!(!ring.holds(Offset { lsn: Lsn(88), op: 0 }) && ring.holds(Offset::just_before(Lsn(900))));
}

#[test]
fn bytes_evict_the_oldest() {
    let mut ring = ring(500, 1 << 20);
    for n in 0..4 {
        ring.append(transaction(n, 88 + u64::from(n) * 8, 96 + u64::from(n) * 8, 1));
    }
    assert_eq!(ring.bytes(), 400);
    assert_eq!(ring.start(), Lsn(104), "the end of the last one that left");
    assert!(!ring.holds(Offset { lsn: Lsn(96), op: 0 }));
    assert!(ring.holds(Offset { lsn: Lsn(104), op: 0 }));
}

#[test]
fn an_oversize_transaction_empties_the_ring() {
    let mut ring = ring(1 << 20, 1 << 20);
    ring.append(transaction(1, 88, 96, 1));
    ring.append(Transaction { oversize: true, lost_events: true, ..transaction(2, 104, 112, 0) });
    assert_eq!((ring.start(), ring.bytes()), (Lsn(112), 0));
    assert!(!ring.holds(Offset { lsn: Lsn(88), op: 0 }));
}

#[test]
fn an_oversize_transaction_of_rows_throws_nobody_out_but_readers_of_its_tables() {
    let mut ring = ring(1 << 20, 1 << 20);
    ring.append(transaction(1, 88, 96, 1));
    let touched = [Touched { table: 7, last: 4, broken: false }].into();
    ring.append(Transaction { oversize: true, touched, ..transaction(2, 104, 112, 0) });
    ring.append(transaction(3, 112, 120, 1));
    let early = Offset { lsn: Lsn(80), op: 0 };
    assert!(ring.holds(early), "who reads events has missed none");
    assert_eq!(offsets(&ring, early), [Offset { lsn: Lsn(88), op: 0 }, Offset { lsn: Lsn(112), op: 0 }]);
    assert!(ring.holds_of(&[8], early) && !ring.holds_of(&[7], early));
    assert!(
        !ring.holds_of(&[7], Offset { lsn: Lsn(104), op: 2 }) && ring.holds_of(&[7], Offset { lsn: Lsn(104), op: 4 })
    );
    // What a snapshot does not see of it is nowhere else.
    let blind: Snapshot = "2:4:2".parse().expect("a snapshot");
    assert!(ring.missed_by(&blind, Lsn(120)).is_none());
    assert!(ring.missed_by(&all(0), Lsn(120)).is_some_and(|missed| missed.is_empty()));
}

#[test]
fn rows_that_fill_the_ring_wake_readers_of_events_before_they_lose_their_place() {
    let log = crate::log::Log::new(Limits { bytes: 10_000, wal_bytes: 1 << 30 });
    let arrivals = log.arrivals();
    let mut at = 88;
    let mut bytes = 0;
    while bytes <= 10_000 / 4 {
        assert!(!arrivals.has_changed().expect("the log is there"), "{bytes} bytes are no reason");
        let touched: Box<[Touched]> = (0..20).map(|table| Touched { table, last: 0, broken: false }).collect();
        let rows = Transaction { oversize: true, touched, ..transaction(1, at, at + 8, 0) };
        bytes += rows.bytes();
        at += 8;
        log.append(vec![rows], Lsn(at));
    }
    assert!(arrivals.has_changed().expect("the log is there"));
}

#[test]
fn what_is_sent_again_is_passed_over() {
    let mut ring = ring(1 << 20, 1 << 20);
    ring.append(transaction(1, 88, 96, 1));
    ring.append(transaction(1, 88, 96, 1));
    assert_eq!(ring.bytes(), 200);
}

#[test]
fn a_join_sees_every_transaction_or_is_told_to_try_again() {
    let mut ring = ring(300, 1 << 20);
    ring.append(transaction(10, 88, 96, 1));
    let pin = ring.pin();
    let blind: Snapshot = "10:20:10,11".parse().expect("a snapshot");
    let missed = ring.missed_by(&blind, Lsn(200)).expect("all are here");
    assert_eq!(missed.iter().map(|t| t.xid).collect::<Vec<_>>(), [10]);
    assert!(
        ring.missed_by(&blind, Lsn(88)).expect("all are here").is_empty(),
        "from the marker on, the offset decides"
    );
    ring.append(transaction(11, 104, 112, 1)); // 10 leaves
    ring.observe(Lsn(112), &all(112)); // others see it by now, the pinned snapshot does not
    assert!(ring.missed_by(&blind, Lsn(200)).is_none());
    ring.unpin(pin);
    ring.observe(Lsn(112), &all(112));
    assert!(ring.missed_by(&"12:20:".parse().expect("a snapshot"), Lsn(200)).expect("seen").is_empty());
}

#[test]
fn watermarks_hold_from_their_marker_on() {
    let mut ring = ring(1, 1);
    for n in 1..40 {
        ring.set_watermark(Watermark { position: Position(n), lsn: Lsn(n.unsigned_abs() * 100) });
    }
    assert_eq!(ring.watermark_at(Lsn(3850)).map(|w| w.position.0), Some(38));
    assert_eq!(ring.watermark_at(Lsn(3800)).map(|w| w.position.0), Some(38));
    assert_eq!(ring.watermark_at(Lsn(100)), None, "long forgotten");
    assert_eq!(ring.watermark().map(|w| w.position.0), Some(39));
}

proptest! {
    #[test]
    fn holds_what_it_says(
        steps in proptest::collection::vec((0_usize..4, 1_u64..30, any::<bool>()), 1..60),
        bytes in 0_usize..3000,
        wal_bytes in 0_u64..2000,
    ) {
        let mut ring = ring(bytes, wal_bytes);
        let (mut every, mut at, mut confirmed, mut start) = (Vec::new(), 80_u64, Lsn(0), Lsn(0));
        for (n, (events, gap, observe)) in steps.into_iter().enumerate() {
            let (commit, end) = (at + gap * 8, at + gap * 8 + 48);
            at = end;
            let xid = u32::try_from(n).expect("few");
            let next = transaction(xid, commit, end, events);
            every.extend(next.events.iter().map(|event| next.offset(event)));
            ring.append(next);
            if observe {
                ring.observe(ring.head(), &all(at));
            }
            prop_assert!(ring.confirmed() <= ring.start() && ring.start() <= ring.head());
            prop_assert!(ring.confirmed() >= confirmed && ring.start() >= start, "they never fall");
            (confirmed, start) = (ring.confirmed(), ring.start());
            prop_assert!(ring.bytes() <= bytes);
            prop_assert_eq!(ring.head(), Lsn(end));
            // From every offset that it holds it gives exactly what follows.
            for offset in every.iter().copied().chain([Offset::just_before(ring.start()), Offset::just_before(ring.head())]) {
                if ring.holds(offset) {
                    let expected: Vec<Offset> = every.iter().copied().filter(|other| *other > offset).collect();
                    prop_assert_eq!(offsets(&ring, offset), expected);
                }
            }
            // And whatever Postgres would send again after a restart covers the ring.
            prop_assert!(every.iter().filter(|offset| offset.lsn >= ring.start()).all(|offset| offset.lsn >= ring.confirmed()));
        }
    }
}

#[test]
fn a_table_that_nobody_changed_is_held_however_old_the_place() {
    let touched = |transaction: Transaction, table: u32| Transaction {
        touched: [Touched { table, last: 0, broken: table == 9 }].into(),
        ..transaction
    };
    let mut ring = ring(200, 1 << 20);
    ring.append(touched(transaction(1, 88, 96, 1), 5));
    ring.append(touched(transaction(2, 104, 112, 1), 6)); // 1 leaves
    ring.append(touched(transaction(4, 112, 120, 0), 9));
    ring.append(Transaction { oversize: true, ..touched(transaction(3, 120, 128, 0), 7) });
    let at = |lsn: u64| Offset { lsn: Lsn(lsn), op: 0 };
    let check = |tables: &[u32], lsn: u64, expected: bool| {
        assert_eq!(ring.holds_of(tables, at(lsn)), expected, "{tables:?} {lsn}");
    };
    check(&[5], 87, false);
    check(&[5], 88, true);
    check(&[6], 88, false);
    check(&[5, 6], 88, false);
    check(&[5, 6], 104, true);
    check(&[7], 104, false);
    check(&[8], 79, true);
    check(&[8], 78, false); // from before the first start: nobody knows
    check(&[7], 127, true);
    check(&[9], 111, false);
    check(&[9], 112, true);
}
