//! What follows the log, without a Postgres: the ring alone is enough as long as no values come or go.

use super::*;
use crate::database::{Database, Target};
use crate::decode::decode;
use crate::identity::Reach;
use crate::log::written::{begin, commit, insert, relation_of};
use crate::log::{Assembler, Limits, Log};
use crate::shape::definition::{Definition, Wanted};
use crate::shape::layout::Layouts;
use crate::shape::message::Framing;
use crate::shape::reader::Renderer;
use crate::shape::table::{Collation, Column, Letters, Member, TableSchema, TypeRef};
use crate::shape::tables::Tables;
use crate::shape::tale::Tale;
use futures_util::poll;
use rows_at::overlay;
use std::pin::pin;

const INT4: u32 = 23;
const CHILDREN: u32 = 1;
const PARENTS: u32 = 2;

/// To follow so many changes takes several times as long as one may go on without a pause …
const ROWS: u64 = 200_000;
/// … whether they are in one transaction or in many.
const TRANSACTIONS: [u64; 2] = [1, 4_000];

#[test]
fn values_beyond_their_memory_are_not_loaded() {
    let mut loading = Loading { selected: &[0], values: Values::new(Lsn(1)), most: 100_000 };
    let mut told = |value: &str| loading.told(&Side { row: &[Some(value)], atoms: Vec::new(), is_in: true }).is_ok();
    assert!((0..1000).all(|_| told("the same value takes its room once")));
    let taken = (0..100_000).take_while(|n| told(&n.to_string())).count();
    assert!((300..10_000).contains(&taken), "{taken} values in 100 kB");
}

fn epoch() -> Epoch {
    "00000000000000ff".parse().expect("an epoch")
}

/// Two integers, of which the first is the key.
fn table(oid: u32, name: &str, columns: [&str; 2]) -> Arc<TableSchema> {
    let column = |(at, name): (usize, &str)| Column {
        name: name.to_owned(),
        type_oid: INT4,
        type_name: "int4".to_owned(),
        type_mod: -1,
        dims: 0,
        not_null: at == 0,
        pk_index: (at == 0).then_some(0),
        collation: Collation::None,
        letters: Letters::Unknown,
        generated: false,
        composite: false,
        enum_labels: Vec::new(),
        base: TypeRef { oid: INT4, name: "int4".to_owned() },
        element: None,
    };
    Arc::new(TableSchema {
        oid,
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: columns.into_iter().enumerate().map(column).collect(),
        members: vec![Member { oid, storage: Some(oid), full_identity: true }],
        excluded: Vec::new(),
        unreadable: Vec::new(),
        tenant_column: None,
        default_collation: Collation::Bytes,
        default_letters: Letters::Ascii,
    })
}

/// A shape with a subquery, over a log.
struct Followed {
    source: Source,
    renderer: Renderer,
    inner: Arc<Inner>,
}

impl Followed {
    /// The log has [`ROWS`] inserts into the table with this OID, in so many transactions.
    fn new(oid: u32, transactions: u64) -> Self {
        let log = Arc::new(Log::new(Limits { bytes: 1 << 30, wal_bytes: 1 << 40 }));
        log.open(epoch(), Lsn(1));
        let mut assembler = Assembler::new(epoch(), 1 << 30);
        let mut write = |message: &[u8]| {
            let written = assembler.push(&decode(message).expect("a message"), |_| None).expect("it is well formed");
            log.append(written.into_iter().collect(), Lsn(0));
        };
        write(&relation_of("public", oid, "any", &[("id", INT4), ("parent_id", INT4)]));
        for transaction in 0..transactions {
            let (place, rows) = (10 * (transaction + 1), ROWS / transactions);
            write(&begin(place));
            for row in 0..rows {
                write(&insert(oid, &[&(transaction * rows + row).to_string(), "1"]));
            }
            write(&commit(place, place + 10));
        }
        let target = Target::parse("postgres://nobody@localhost:1/none", None).expect("a URL");
        let database = Database::new(&target, 1).expect("it connects to nothing before it must");
        let tables = Arc::new(Tables::new(database.clone(), false, false));
        let source = Source::new(log, database, tables, 0, 1 << 20);
        let children = table(CHILDREN, "children", ["id", "parent_id"]);
        let parents = table(PARENTS, "parents", ["id", "parent_id"]);
        let wanted = Wanted {
            table: "children".to_owned(),
            filter: Some("parent_id in (select id from parents)".to_owned()),
            ..Wanted::default()
        };
        let reach = Reach::Everything;
        let definition = Definition::new(&wanted, &children, &[parents], &reach, epoch(), &Layouts::default());
        let renderer = Renderer::new(definition.expect("a shape"));
        let filter = renderer.definition.filter.as_ref().expect("a condition");
        let inner = source.inners.of(filter, epoch()).remove(0);
        *inner.values.write().expect("nobody panicked") = Some(Values::new(Lsn(1)));
        Self { source, renderer, inner }
    }

    fn head(&self) -> Lsn {
        self.source.log.tip().head
    }
}

#[tokio::test]
async fn others_have_their_turn_while_values_are_followed() {
    for transactions in TRANSACTIONS {
        let followed = Followed::new(PARENTS, transactions);
        let (source, inner, head) = (&followed.source, &followed.inner, followed.head());
        let mut following = inner.reach(source, epoch(), Lsn(1), head);
        assert!(poll!(&mut following).is_pending(), "{transactions} transactions in one go");
        following.await.expect("it is followed");
        let all = read(&inner.values, |values| values.at(head).count());
        assert_eq!(all, usize::try_from(ROWS).ok());
    }
}

/// The shape's log; what the subquery gives has been followed before.
fn tale_of(followed: &Followed) -> Tale {
    let Followed { source, renderer, inner } = followed;
    write(&inner.values, |values| {
        values.begin_with(&vec![Some("1".to_owned())]);
        values.advance(followed.head());
    });
    Tale::of(&renderer.definition, source, epoch()).expect("it has a subquery")
}

#[tokio::test]
async fn others_have_their_turn_while_a_shape_with_subqueries_is_told() {
    for transactions in TRANSACTIONS {
        let followed = Followed::new(CHILDREN, transactions);
        let (Followed { source, renderer, .. }, tale) = (&followed, tale_of(&followed));
        let after = Offset::just_before(Lsn(1));
        let mut telling = pin!(tale.read(source, renderer, epoch(), after, usize::MAX, Framing::Array));
        assert!(poll!(&mut telling).is_pending(), "{transactions} transactions in one go");
        let messages = telling.await.expect("it is told");
        let inserts = messages.body.windows(8).filter(|window| *window == b"\"insert\"").count();
        assert!(messages.complete && inserts as u64 == ROWS, "{inserts} rows");
    }
}

/// What is told of a transaction is held as a whole; many small ones are told some at a time.
#[tokio::test]
async fn who_would_be_told_more_than_memory_may_hold_begins_anew() {
    for transactions in TRANSACTIONS {
        let followed = Followed::new(CHILDREN, transactions);
        let (Followed { source, renderer, .. }, mut tale) = (&followed, tale_of(&followed));
        tale.most = 1 << 20;
        let after = Offset::just_before(Lsn(1));
        let told = tale.read(source, renderer, epoch(), after, usize::MAX, Framing::Array).await;
        match (transactions, told) {
            (1, Err(ShapeError::Refetch(None))) => {}
            (2.., Ok(messages)) => assert!(messages.complete && messages.body.len() > tale.most),
            (_, told) => panic!("{transactions} transactions: {told:?}"),
        }
    }
}

#[tokio::test]
async fn others_have_their_turn_while_changes_are_taken_back() {
    for transactions in TRANSACTIONS {
        let followed = Followed::new(CHILDREN, transactions);
        let (log, head) = (&followed.source.log, followed.head());
        let relation = Relation::new(Arc::clone(&followed.renderer.definition.layout.table));
        let (undone, _) = part_since(log, epoch(), &relation.members, Lsn(1), head).expect("the ring has it");
        let mut taking_back = pin!(overlay(&relation, &undone, &[]));
        assert!(poll!(&mut taking_back).is_pending(), "{transactions} transactions in one go");
        let overlay = taking_back.await.expect("they are told whole");
        assert!(overlay.len() as u64 > ROWS / 100 && overlay.values().all(Option::is_none));
    }
}
