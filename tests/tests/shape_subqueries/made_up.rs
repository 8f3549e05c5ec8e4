//! Shapes with subqueries that nobody has thought of: up to three levels, of one column and of two, negated or not, over the
//! tables of the module above. No condition of them fails for any row.

use headwater_tests::random::Random;

use crate::shape_world::Shape;

/// Levels of subqueries, one within the other.
const LEVELS: u32 = 3;

/// The columns that are compared with those of other tables: numbers, and texts.
const COLUMNS: &[(&str, &[&str], &[&str])] = &[
    ("children", &["id", "parent_id"], &["kind", "v"]),
    ("parents", &["id", "grand_id"], &["kind"]),
    ("grands", &["id"], &["region"]),
    ("regions", &[], &["name"]),
    ("links", &["a"], &["b"]),
    ("pairs", &["n", "a"], &["b"]),
    ("notes", &["n", "parent_id"], &[]),
];

/// A shape with at least one subquery.
pub(super) fn shape(random: &mut Random) -> Shape {
    let (table, _, _) = random.one_of(COLUMNS);
    let condition = membership(random, table, LEVELS);
    let condition = match random.below(4) {
        0 => format!("not ({condition})"),
        1 => format!("{condition} and {}", plain(random, table)),
        2 => format!("{condition} or {}", membership(random, table, 1)),
        _ => condition,
    };
    let query = format!("select * from {table} where {condition}");
    Shape::new(&[("table", table), ("where", &condition)], query)
}

/// A condition over one table.
fn condition(random: &mut Random, table: &str, levels: u32) -> String {
    if levels == 0 || random.below(4) == 0 {
        return plain(random, table);
    }
    match random.below(5) {
        0 => format!("({} or {})", plain(random, table), membership(random, table, levels)),
        1 => format!("({} and {})", membership(random, table, levels), plain(random, table)),
        2 => format!("not ({})", membership(random, table, levels)),
        _ => membership(random, table, levels),
    }
}

/// One that names no other table.
fn plain(random: &mut Random, table: &str) -> String {
    let (_, numbers, texts) = COLUMNS.iter().find(|(name, _, _)| *name == table).unwrap();
    let n = random.below(8);
    match random.below(6) {
        0 if table == "regions" => "open".to_owned(),
        1 if table == "grands" => "mood > 'calm'".to_owned(),
        0 | 1 if !numbers.is_empty() => format!("{} > {n}", random.one_of(numbers)),
        2 if !numbers.is_empty() => format!("{} in ({n}, 3, null)", random.one_of(numbers)),
        3 if !texts.is_empty() => format!("{} is not null", random.one_of(texts)),
        4 if !texts.is_empty() => format!("{} <> 'y'", random.one_of(texts)),
        _ if !texts.is_empty() => format!("{} in ('x', 'r1', 'v3')", random.one_of(texts)),
        _ => format!("{} % 3 = {}", random.one_of(numbers), n % 3),
    }
}

/// `columns [NOT] IN (SELECT …)`: of one number, one text, or both.
fn membership(random: &mut Random, table: &str, levels: u32) -> String {
    let (_, numbers, texts) = COLUMNS.iter().find(|(name, _, _)| *name == table).unwrap();
    let not = ["", "", "not "][random.index(3)];
    loop {
        let (inner, of_numbers, of_texts) = random.one_of(COLUMNS);
        let (with_number, with_text) = *random.one_of(&[(true, false), (true, false), (false, true), (true, true)]);
        if with_number && (numbers.is_empty() || of_numbers.is_empty())
            || with_text && (texts.is_empty() || of_texts.is_empty())
        {
            continue;
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        if with_number {
            left.push(*random.one_of(numbers));
            right.push(*random.one_of(of_numbers));
        }
        if with_text {
            left.push(*random.one_of(texts));
            right.push(*random.one_of(of_texts));
        }
        let filter = condition(random, inner, levels - 1);
        let left = if left.len() == 1 { left[0].to_owned() } else { format!("({})", left.join(", ")) };
        return format!("{left} {not}in (select {} from {inner} where {filter})", right.join(", "));
    }
}
