//! Conditions over the columns of a made-up table that hold, or do not hold, but never fail.

use headwater_tests::random::Random;

use super::schema::{BIG, COMPARED, Column, Table, literal, sql_type, value};

const TEXTS: &[&str] = &["text", "varchar", "bpchar", "bpchar3", "name", BIG];
const PATTERNS: &[&str] = &["%a%", "a%", "_", "%", "%é", "A__", "%\\_%", "0%", "%%1"];

pub(super) fn condition(random: &mut Random, table: &Table, depth: u32) -> String {
    if depth > 0 && random.below(3) > 0 {
        let (left, right) = (condition(random, table, depth - 1), condition(random, table, depth - 1));
        return match random.below(5) {
            0 => format!("not ({left})"),
            1 | 2 => format!("({left} or {right})"),
            3 => format!("(({left}) is not true and {right})"),
            _ => format!("({left} and {right})"),
        };
    }
    let stored: Vec<usize> = table.stored().collect();
    let at =
        if table.key.is_empty() || random.below(3) > 0 { *random.one_of(&stored) } else { *random.one_of(&table.key) };
    test(random, table, &table.columns[at])
}

/// A condition over one column, or two.
fn test(random: &mut Random, table: &Table, column: &Column) -> String {
    let (name, kind) = (&column.name, column.kind);
    let not = *random.one_of(&["", "not "]);
    let compared = kind == BIG || COMPARED.contains(&kind);
    if !compared || kind == "jsonb" {
        return match kind {
            "jsonb" => match random.below(6) {
                0 => format!("{name} @> {}", constant(random, kind)),
                1 => format!("{name}->>'a' is {not}distinct from '1'"),
                2 => format!("{name} #>> '{{b,c,0}}' like '1%'"),
                3 => format!("{name} ? 'a'"),
                4 => format!("{name} is {not}distinct from {}", constant(random, kind)),
                _ => format!("{name} is {not}null"),
            },
            _ => format!("{name} is {not}null"),
        };
    }
    match random.below(11) {
        0 => format!("{name} is {not}null"),
        1 | 2 => {
            let sign = *random.one_of(&["=", "=", "<>", "<", "<=", ">", ">="]);
            format!("{name} {sign} {}", constant(random, kind))
        }
        3 => {
            let list: Vec<String> = (0..=random.below(4)).map(|_| constant(random, kind)).collect();
            format!("{name} {not}in ({})", list.join(", "))
        }
        4 => format!("{name} {not}between {} and {}", constant(random, kind), constant(random, kind)),
        5 => format!("{name} is {not}distinct from {}", constant(random, kind)),
        6 => format!("coalesce({name}, {0}) = {0}", constant(random, kind)),
        7 => {
            let like = |other: &&Column| other.kind == kind && other.name != *name;
            match table.stored().map(|at| &table.columns[at]).find(like) {
                Some(other) => format!("{name} {} {}", random.one_of(&["=", "<>", "<"]), other.name),
                None => format!("{name} = {}", constant(random, kind)),
            }
        }
        _ if TEXTS.contains(&kind) => match random.below(3) {
            0 => format!("length({name}) > {}", random.below(8)),
            1 => format!("lower({name}) = {}", literal(&value(random, "text"))),
            _ => format!("{name} {not}{} '{}'", random.one_of(&["like", "ilike"]), random.one_of(PATTERNS)),
        },
        _ if kind == "bool" => format!("{name} is {not}true"),
        _ if kind.ends_with("[]") => {
            let element = kind.trim_end_matches("[]");
            match random.below(3) {
                0 => format!("{} = any ({name})", typed(random, element)),
                1 => format!("{name} @> {}", typed(random, kind)),
                _ => format!("{name} && {}", typed(random, kind)),
            }
        }
        _ if kind.starts_with("int") && kind != "interval" => {
            let n = random.below(40);
            match random.below(2) {
                0 => format!("{name} = any ('{{{n},1,2,NULL}}')"),
                _ => format!("{name} % {} = 1", n % 5 + 2),
            }
        }
        _ => format!("{name} = {}", constant(random, kind)),
    }
}

/// A literal of a kind, with its type or without.
fn constant(random: &mut Random, kind: &str) -> String {
    if random.below(4) == 0 { typed(random, kind) } else { plain(random, kind) }
}

fn plain(random: &mut Random, kind: &str) -> String {
    // What keys are made of, so that conditions are met.
    let n = random.below(40);
    // A long one has no room in a URL.
    let kind = if kind == BIG { "text" } else { kind };
    literal(&match (kind, random.below(2)) {
        ("int2" | "int4" | "int8" | "text" | "varchar" | "bpchar", 0) => n.to_string(),
        ("numeric3", 0) => format!("{n}.5"),
        ("uuid", 0) => format!("00000000-0000-0000-0000-{n:012}"),
        ("date", 0) => format!("2020-01-{:02}", n % 28 + 1),
        ("timestamptz", 0) => format!("2020-01-01 00:00:{n:02}.5+00"),
        _ => value(random, kind),
    })
}

fn typed(random: &mut Random, kind: &str) -> String {
    let name = match kind {
        "numeric3" => "numeric",
        "bpchar" | "bpchar3" => "bpchar",
        "positive" => "int4",
        "varchar" => "varchar",
        other => sql_type(other),
    };
    format!("{}::{name}", plain(random, kind))
}
