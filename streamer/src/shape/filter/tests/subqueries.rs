//! Subqueries: rendered anew, refused where they must be, and what they make of a row: its tags, its conditions, the normal form.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::shape::inner::values::Values;
use headwater_model::cursor::Lsn;

fn with_subqueries(text: &str) -> Result<Filter, WhereError> {
    parse_with(text, &params(&["7", "x"]), &table(), &Tables(Arc::new(table())))
}

impl Members for Vec<Values> {
    fn contains(&self, subquery: usize, value: &[Option<&str>]) -> Option<bool> {
        self[subquery].contains(value, Lsn(0))
    }
}

#[test]
fn subqueries_are_rendered_anew() {
    let filter = with_subqueries("id NOT IN (select \"id\" from Users where t = $2 and id in (select id from items)) AND (id, t) IN (SELECT id, t FROM public.items)").unwrap();
    assert_eq!(
        filter.to_sql(),
        "((NOT ((\"id\") IN (SELECT \"id\" FROM \"public\".\"items\" WHERE ((\"t\" OPERATOR(pg_catalog.=) 'x'::pg_catalog.text) AND \
         ((\"id\") IN (SELECT \"id\" FROM \"public\".\"items\")))))) AND ((\"id\", \"t\") IN (SELECT \"id\", \"t\" FROM \"public\".\"items\")))"
    );
    let tables = inner_tables("id IN (SELECT id FROM a WHERE b IN (SELECT c FROM s.\"D\")) OR x").unwrap();
    let named = |schema: &str, name: &str| (schema.to_owned(), name.to_owned());
    assert_eq!(tables, BTreeSet::from([named("public", "a"), named("s", "D")]));
    assert!(parse("id IN (SELECT id FROM items)", &no_params(), &table()).is_err());
}

#[test]
fn what_subqueries_cannot_be_is_refused() {
    for text in [
        "id + 1 IN (SELECT id FROM items)",
        "id IN (SELECT id + 1 FROM items)",
        "id IN (SELECT t FROM items)",
        "id IN (SELECT DISTINCT id FROM items)",
        "id IN (SELECT id FROM items ORDER BY id)",
        "id IN (SELECT id FROM items LIMIT 1)",
        "id IN (SELECT id FROM items i)",
        "id IN (SELECT id FROM items, users)",
        "id IN (SELECT nope FROM items)",
        "id IN (SELECT id FROM nope)",
        "id IN (SELECT id FROM items WHERE items.id = 1)",
        "id IN (SELECT id, t FROM items)",
        "EXISTS (SELECT 1 FROM items)",
        "id = (SELECT id FROM items)",
        "id = ALL (SELECT id FROM items)",
        "n IN (SELECT n FROM items)",
        "(id IN (SELECT id FROM items)) IS TRUE",
        "id IN (SELECT id FROM items) OR id NOT IN (SELECT id FROM items)",
        "id IN (WITH x AS (SELECT 1) SELECT id FROM items)",
        "id IN (SELECT id FROM items GROUP BY id)",
        "id IN (SELECT * FROM items)",
        "id IN (SELECT id FROM items UNION SELECT id FROM items)",
        "id = $1 AND t IN (SELECT t FROM items WHERE t = $1)",
    ] {
        assert!(with_subqueries(text).is_err(), "{text}");
    }
}

/// `members` are the values of each subquery; the row has id 1, t x.
#[track_caller]
fn check_subqueries(
    text: &str,
    members: &[&[&[Option<&str>]]],
    expected: Option<bool>,
    tags: &[&str],
    active: &[bool],
) {
    let filter = with_subqueries(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let sets: Vec<Values> = (members.iter())
        .map(|values| {
            let mut set = Values::new(Lsn(0));
            for value in *values {
                set.begin_with(&value.iter().map(|part| part.map(str::to_owned)).collect());
            }
            set
        })
        .collect();
    let mut row = vec![None; table().columns.len()];
    (row[0], row[2]) = (Some("1"), Some("x"));
    let matches = filter.matches_with(&row, &sets);
    assert_eq!(matches, expected, "{text}");
    let dnf = filter.dnf().unwrap();
    let found = dnf.active(&row, &filter.atoms(&row, &sets));
    assert_eq!(found, active, "{text}: active");
    assert_eq!(dnf.is_satisfied(&found), matches == Some(true), "{text}: satisfied");
    let slot = |slot: &Slot| match slot {
        Slot::Absent => String::new(),
        Slot::Plain => "1".to_owned(),
        Slot::Value(value) => value.iter().map(|part| part.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join("+"),
    };
    let found = dnf.tags(&filter, &row);
    let found: Vec<String> = found.iter().map(|tag| tag.iter().map(slot).collect::<Vec<_>>().join("/")).collect();
    assert_eq!(found, tags, "{text}: tags");
}

#[test]
fn tags_and_conditions_of_rows() {
    let one: &[&[Option<&str>]] = &[&[Some("1")]];
    let none: &[&[Option<&str>]] = &[];
    let null: &[&[Option<&str>]] = &[&[None]];
    check_subqueries("id IN (SELECT id FROM items)", &[one], Some(true), &["1"], &[true]);
    check_subqueries("id IN (SELECT id FROM items)", &[none], Some(false), &["1"], &[false]);
    check_subqueries("id IN (SELECT id FROM items)", &[null], None, &["1"], &[false]);
    check_subqueries("id NOT IN (SELECT id FROM items)", &[none], Some(true), &["1"], &[true]);
    check_subqueries("id NOT IN (SELECT id FROM items)", &[null], None, &["1"], &[false]);
    check_subqueries("big IN (SELECT big FROM items)", &[one], None, &["NULL"], &[false]);
    check_subqueries("big IN (SELECT big FROM items)", &[none], Some(false), &["NULL"], &[false]);
    check_subqueries(
        "t = 'x' AND (id IN (SELECT id FROM items) OR id IN (SELECT id FROM users WHERE b))",
        &[none, one],
        Some(true),
        &["1/1/", "1//1"],
        &[true, false, true],
    );
    check_subqueries("NOT (id IN (SELECT id FROM items) OR t = 'y')", &[none], Some(true), &["1/1"], &[true, true]);
    let pair: &[&[Option<&str>]] = &[&[Some("1"), Some("x")]];
    let half: &[&[Option<&str>]] = &[&[Some("1"), None]];
    check_subqueries("(id, t) IN (SELECT id, t FROM items)", &[pair], Some(true), &["1+x"], &[true]);
    check_subqueries("(id, t) IN (SELECT id, t FROM items)", &[half], None, &["1+x"], &[false]);
    let other: &[&[Option<&str>]] = &[&[Some("2"), None]];
    check_subqueries("(id, t) IN (SELECT id, t FROM items)", &[other], Some(false), &["1+x"], &[false]);
}

struct Known([Option<bool>; 3]);

impl Members for Known {
    fn contains(&self, subquery: usize, _: &[Option<&str>]) -> Option<bool> {
        self.0[subquery]
    }
}

/// A filter over three subqueries and two plain conditions.
fn of_atoms() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "b",
        "t = 'x'",
        "id IN (SELECT id FROM items)",
        "id IN (SELECT id FROM users WHERE b)",
        "big NOT IN (SELECT big FROM items)",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|all| format!("({})", all.join(" AND "))),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|all| format!("({})", all.join(" OR "))),
            inner.prop_map(|one| format!("NOT {one}")),
        ]
    })
}

proptest! {
    /// The normal form is satisfied where the filter is true, whatever the subqueries have.
    #[test]
    fn the_normal_form_says_what_the_filter_says(
        text in of_atoms(),
        known in prop::array::uniform3(prop::option::of(any::<bool>())),
        b in prop::sample::select(vec![None, Some("t"), Some("f")]),
        t in prop::sample::select(vec![None, Some("x"), Some("y")]),
    ) {
        // Refused where a subquery stands in both ways.
        if let Ok(filter) = with_subqueries(&text) {
            let mut row = vec![None; table().columns.len()];
            (row[0], row[2], row[4], row[13]) = (Some("1"), t, b, Some("2"));
            let known = Known(known);
            let matches = filter.matches_with(&row, &known) == Some(true);
            if let Some(dnf) = filter.dnf() {
                let active = dnf.active(&row, &filter.atoms(&row, &known));
                prop_assert_eq!(dnf.is_satisfied(&active), matches, "{}", filter.to_sql());
                for subquery in 0..filter.subqueries().len() {
                    prop_assert!(dnf.positions_of(subquery).count() == 1);
                }
            }
        }
    }
}
