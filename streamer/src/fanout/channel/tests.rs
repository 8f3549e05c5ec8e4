//! The index against the plain filter: whatever readers want, each channel gets the frames that its filter takes, in the
//! order of the log, and nothing else.

use super::*;
use crate::log::{EventRow, Rows};
use crate::registry::Entity;
use bytes::BytesMut;
use headwater_model::cursor::{Cursor, Lsn, Position};
use proptest::prelude::*;

const TYPES: [&str; 3] = ["order", "menu", "note"];
const TENANTS: [Option<&str>; 4] = [None, Some("a"), Some("b"), Some("")];
const IDS: [&str; 4] = ["1", "2", "1/2", "ü\"\\"];

#[derive(Clone, Debug)]
struct Made {
    kind: usize,
    tenant: usize,
    id: usize,
    /// Begins a new transaction, whose watermark is so much newer.
    begins: Option<i64>,
}

fn epoch() -> Epoch {
    "00000000000000ff".parse().expect("an epoch")
}

fn entities() -> Entities {
    let entity = |shared| Entity { shared, notification: None };
    Entities::new(1, TYPES.map(|name| (name.to_owned(), entity(name == "menu"))))
}

fn transactions(events: &[Made]) -> Vec<Transaction> {
    let mut all: Vec<Transaction> = Vec::new();
    for made in events {
        if all.is_empty() || made.begins.is_some() {
            let commit = 1000 + 8 * all.len() as u64;
            let before = all.last().map_or(0, |last| last.watermark.0);
            all.push(Transaction {
                xid: 1,
                commit: Lsn(commit),
                end: Lsn(commit + 8),
                watermark: Position(before + made.begins.unwrap_or(0)),
                oversize: false,
                lost_events: false,
                registry: false,
                events: Vec::new(),
                rows: Rows::default(),
                touched: Box::default(),
                described: false,
            });
        }
        let transaction = all.last_mut().expect("one was pushed");
        let op = 2 * transaction.events.len() as u64;
        let offset = Some(Offset { lsn: transaction.commit, op });
        let row = EventRow {
            position: 7,
            id: "0190b0a0-0000-7000-8000-000000000001",
            tenant_id: TENANTS[made.tenant],
            entity_type: TYPES[made.kind],
            entity_id: IDS[made.id],
            event_type: "x.y",
            payload: r#"{"entity_id":"1"}"#,
            schema_version: 1,
            occurred_at: "2026-01-02 03:04:05+00",
            recorded_at: "2026-01-02 03:04:05+00",
            user_id: None,
            client_id: None,
            source: "sql",
            applies: true,
        };
        let mut block = BytesMut::new();
        let cursor = Cursor { epoch: epoch(), position: transaction.watermark, offset };
        let id_length = row.write_block(cursor, &mut block);
        transaction.events.push(Event {
            op,
            entity_type: row.entity_type.into(),
            tenant: row.tenant_id.map(Into::into),
            block: block.freeze(),
            id_length,
        });
    }
    all
}

fn filters() -> impl Strategy<Value = Filter> {
    let reach = prop_oneof![
        Just(Reach::Everything),
        (0..TENANTS.len()).prop_map(|tenant| Reach::Tenant(TENANTS[tenant].map(Into::into))),
    ];
    let kinds = proptest::option::of(0..TYPES.len());
    let ids = proptest::option::of(0..IDS.len());
    (reach, kinds, ids).prop_map(|(reach, kind, id)| {
        Filter::new(reach).of_types(kind.map(|kind| TYPES[kind])).of_entity(id.map(|id| IDS[id].to_owned()))
    })
}

fn events() -> impl Strategy<Value = Vec<Made>> {
    let one = (0..TYPES.len(), 0..TENANTS.len(), 0..IDS.len(), proptest::option::of(0_i64..3))
        .prop_map(|(kind, tenant, id, begins)| Made { kind, tenant, id, begins });
    proptest::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn the_index_agrees_with_the_filter(
        filters in proptest::collection::vec(filters(), 1..12),
        events in events(),
        rounds in 1_usize..5,
        position in 0_i64..4,
    ) {
        let entities = entities();
        let transactions = transactions(&events);
        let start = Mark { offset: Offset::default(), position: Position(position) };
        let mut channels = Channels::default();
        let mut got: HashMap<usize, (Filter, Vec<u8>)> = HashMap::new();
        for filter in &filters {
            let channel = channels.open(filter.clone(), start);
            channels.get_mut(channel).members.push(0);
            got.insert(channel, (filter.clone(), Vec::new()));
        }
        let mut at = start;
        let mut last_of: HashMap<usize, Mark> = HashMap::new();
        let all: Vec<_> = transactions.iter().flat_map(|one| one.events.iter().map(move |event| (one, event))).collect();
        for round in all.chunks(all.len().div_ceil(rounds).max(1)) {
            for (transaction, event) in round {
                channels.route(epoch(), transaction, event, at, &entities);
                at = Mark { offset: transaction.offset(event), position: at.position.max(transaction.watermark) };
            }
            for channel in std::mem::take(&mut channels.dirty) {
                for chunk in channels.cut(channel) {
                    let last = last_of.insert(channel, chunk.to).unwrap_or(start);
                    prop_assert_eq!(chunk.from, last.offset, "a chunk goes on where the last one ended");
                    prop_assert!(chunk.first > chunk.from && chunk.to.offset >= chunk.first);
                    got.get_mut(&channel).expect("a channel of ours").1.extend_from_slice(&chunk.bytes);
                }
            }
        }
        for (filter, bytes) in got.values() {
            let mut expected = Vec::new();
            let mut position = start.position;
            for (transaction, event) in &all {
                if filter.takes(event, &entities) {
                    event.write_block(epoch(), transaction, position, &mut expected);
                }
                position = position.max(transaction.watermark);
            }
            prop_assert_eq!(String::from_utf8_lossy(bytes), String::from_utf8_lossy(&expected), "{:?}", filter);
        }
        for channel in got.into_keys() {
            channels.get_mut(channel).members.clear();
            channels.close_if_empty(channel);
        }
        prop_assert!(channels.everything.is_empty() && channels.of_tenant.is_empty() && channels.of_entity.is_empty());
        prop_assert!(channels.by_filter.is_empty() && channels.all.is_empty());
    }
}

#[test]
fn who_lags_behind_shares_chunks_while_they_are_kept() {
    let events: Vec<_> = (0..6).map(|_| Made { kind: 0, tenant: 0, id: 0, begins: Some(1) }).collect();
    let transactions = transactions(&events);
    let start = Mark { offset: Offset::default(), position: Position(0) };
    let mut channels = Channels::default();
    let channel = channels.open(Filter::new(Reach::Everything), start);
    channels.get_mut(channel).lagging = 1;
    let mut chunks = Vec::new();
    for transaction in &transactions {
        channels.route(epoch(), transaction, &transaction.events[0], start, &entities());
        channels.dirty.clear();
        let cut = channels.cut(channel);
        chunks.extend(cut.clone());
        channels.keep(channel, cut);
    }
    let after = |channels: &Channels, offset| channels.get(channel).after(offset).map(|chunk| chunk.first);
    assert_eq!(after(&channels, start.offset), Some(chunks[0].first));
    for pair in chunks.windows(2) {
        assert_eq!(after(&channels, pair[0].to.offset), Some(pair[1].first));
    }
    assert_eq!(after(&channels, chunks[5].to.offset), None, "nothing follows");
    channels.forget(channel, 3);
    assert_eq!(after(&channels, chunks[1].to.offset), None, "it was dropped: a reader makes its own");
    assert_eq!(after(&channels, chunks[2].to.offset), Some(chunks[3].first));
    channels.get_mut(channel).lagging = 0;
    channels.keep(channel, Vec::new());
    assert_eq!((after(&channels, chunks[4].to.offset), channels.recent_bytes), (None, 0), "nobody lags behind");
}
