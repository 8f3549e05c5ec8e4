//! Tables made up from a seed: their names, columns of all types, keys, partitions; and rows for them.

use std::fmt::Write as _;

use headwater_tests::random::Random;

use crate::filter::rows;

pub(super) const TYPES: &str = "
    create type mood as enum ('sad', 'ok', 'happy', 'O''K', 'A b');
    create domain positive as int check (value > 0);
    create type pair as (a int, \"b c\" text);
    create schema \"s 1\";";

/// Kinds of columns that conditions compare: all but jsonb by their order, too.
pub(super) const COMPARED: &[&str] = &[
    "bool",
    "int2",
    "int4",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "numeric3",
    "text",
    "text",
    "varchar",
    "bpchar",
    "bpchar3",
    "name",
    "uuid",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "interval",
    "mood",
    "positive",
    "int4[]",
    "text[]",
    "numeric[]",
    "mood[]",
    "uuid[]",
    "date[]",
    "jsonb",
];

/// Kinds that are carried along.
const CARRIED: &[&str] = &[
    "bytea",
    "json",
    "timetz",
    "inet",
    "cidr",
    "macaddr",
    "int4range",
    "tstzrange",
    "bit(4)",
    "varbit",
    "tsvector",
    "point",
    "pair",
    "pair[]",
    "int8[]",
    "oid",
    "\"char\"",
    "xid8",
    "text[][]",
    "box",
    "jsonb[]",
    "int4multirange",
];

const KEYS: &[&str] =
    &["int4", "int4", "int8", "int2", "text", "varchar", "bpchar", "uuid", "date", "timestamptz", "mood", "numeric3"];

/// A column with long values, which are stored out of line.
pub(super) const BIG: &str = "big";

#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Quoted.
    pub(super) name: String,
    pub(super) kind: &'static str,
    not_null: bool,
    /// Its expression: such columns are not in the WAL.
    generated: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Quoted, with its schema if that is not `public`.
    pub(super) name: String,
    /// Without the schema.
    bare: String,
    pub(super) columns: Vec<Column>,
    /// Columns of the primary key. Without one, the first column has a value of its own in every row.
    pub(super) key: Vec<usize>,
    /// What follows its definition: partitions.
    partitions: Vec<String>,
    partitioned: Option<String>,
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The type as Postgres spells it.
pub(super) fn sql_type(kind: &str) -> &str {
    match kind {
        "numeric3" => "numeric(12,3)",
        "bpchar" => "char(6)",
        "bpchar3" => "char(3)",
        "varchar" => "varchar(12)",
        BIG => "text",
        other => other,
    }
}

/// A value as text, of which Postgres makes one of the kind.
pub(super) fn value(random: &mut Random, kind: &str) -> String {
    let carried: &[&str] = match kind {
        "bytea" => &["\\x", "\\x00ff", "\\xdeadbeef"],
        "json" => &["{\"a\": 1, \"a\": [2.50]}", " null ", "\"ü\\u0041\"", "[1 , 2]"],
        "timetz" => &["00:00:00+00", "12:34:56.789-11:30", "24:00:00+02"],
        "inet" => &["10.0.0.1", "10.0.0.0/8", "::1", "2001:db8::/32"],
        "cidr" => &["10.0.0.0/8", "2001:db8::/32"],
        "macaddr" => &["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"],
        "int4range" => &["empty", "[1,5)", "(,3]", "(,)"],
        "int4multirange" => &["{}", "{[1,3),[7,9)}"],
        "tstzrange" => &["empty", "[2000-01-01 00:00:00+00,infinity)", "(,2024-02-29 12:34:56+02]"],
        "bit(4)" => &["0000", "1011"],
        "varbit" => &["", "1", "101010101"],
        "tsvector" => &["", "'a':1A 'b c':2", "x"],
        "box" => &["(1,2),(0,0)"],
        "pair" => &["(1,a)", "(,)", "(-7,\"x, \"\"y\"\" \\\\ (z)\")"],
        "pair[]" => &["{}", "{\"(1,a)\",NULL,\"(,)\"}"],
        "int8[]" => &["{}", "{9223372036854775807,NULL}", "[2:3]={1,2}"],
        "oid" => &["0", "4294967295"],
        "\"char\"" => &["", "a", "\\", "\""],
        "xid8" => &["0", "18446744073709551615"],
        "text[][]" => &["{}", "{{a,b},{\"c \\\\ \\\" d\",NULL}}"],
        "jsonb[]" => &["{}", "{\"{\\\"a\\\": [1, null]}\",NULL}"],
        "jsonb" => {
            &["{}", "null", "{\"a\": 1}", "{\"a\": \"1\", \"b\": {\"c\": [1.50, true]}}", "[\"a\", 2]", "\"x\"", "7"]
        }
        BIG => {
            let (of, times) = (random.below(1000), 100 + random.below(300));
            return format!("{of:032}").repeat(usize::try_from(times).unwrap());
        }
        _ => rows::values(kind),
    };
    (*random.one_of(carried)).to_owned()
}

/// A value of a key: of these there are some dozens.
fn key_value(random: &mut Random, kind: &str) -> String {
    let n = random.below(40);
    match kind {
        "int2" | "int4" | "int8" => n.to_string(),
        "numeric3" => format!("{n}.5"),
        "text" | "varchar" | "bpchar" => format!("{}{n}", random.one_of(&["", "a", "/", "ü", "\"", " "])),
        "uuid" => format!("00000000-0000-0000-0000-{n:012}"),
        "date" => format!("2020-01-{:02}", n % 28 + 1),
        "timestamptz" => format!("2020-01-01 00:00:{n:02}.5+00"),
        _ => value(random, kind),
    }
}

fn push(random: &mut Random, columns: &mut Vec<Column>, kind: &'static str, not_null: bool) {
    let name = *random.one_of(&["id", "Id", "a b", "x/y", "c.d", "ünï", "select", "q\"q", "1st", "per%cent", "com,ma"]);
    let name = quoted(&format!("{name}{}", columns.len()));
    columns.push(Column { name, kind, not_null, generated: None });
}

impl Table {
    pub(super) fn made_up(random: &mut Random, number: usize) -> Self {
        let name = *random.one_of(&["t", "Items", "a b", "x/y", "c.d", "ünï", "select", "q\"q", "per%cent"]);
        let schema = if random.below(4) == 0 { "\"s 1\"." } else { "" };
        let mut columns = Vec::new();
        let with_key = random.below(6) > 0;
        let keys = if with_key { 1 + random.index(3) } else { 0 };
        for _ in 0..keys {
            let kind = *random.one_of(KEYS);
            push(random, &mut columns, kind, true);
        }
        if !with_key {
            push(random, &mut columns, "int8", true);
        }
        for _ in 0..2 + random.index(8) {
            let kinds = if random.below(3) > 0 { COMPARED } else { CARRIED };
            let kind = *random.one_of(kinds);
            let not_null = random.below(5) == 0;
            push(random, &mut columns, kind, not_null);
        }
        if random.below(2) == 0 {
            push(random, &mut columns, BIG, false);
        }
        let mut key: Vec<usize> = (0..keys).collect();
        // The order of the key is not that of the columns, and key columns stand anywhere.
        random.shuffle(&mut key);
        let mut order: Vec<usize> = (0..columns.len()).collect();
        if with_key {
            random.shuffle(&mut order);
        }
        let columns: Vec<Column> = order.iter().map(|at| columns[*at].clone()).collect();
        let key: Vec<usize> = key.iter().map(|of| order.iter().position(|at| at == of).unwrap()).collect();
        let bare = quoted(&format!("{name}{number}"));
        let mut table =
            Self { name: format!("{schema}{bare}"), bare, columns, key, partitions: Vec::new(), partitioned: None };
        if random.below(4) == 0 {
            table.add_generated();
        }
        if random.below(3) == 0 {
            table.partition(random, number);
        }
        table
    }

    fn add_generated(&mut self) {
        let expression = self.columns.iter().find_map(|column| {
            let name = &column.name;
            match column.kind {
                "int4" | "int8" => Some(("numeric", format!("{name} / 2.0"))),
                "text" | "varchar" => Some(("text", format!("upper({name})"))),
                "bool" => Some(("bool", format!("not {name}"))),
                _ => None,
            }
        });
        if let Some((kind, expression)) = expression {
            let name = quoted(&format!("made {}", self.columns.len()));
            self.columns.push(Column { name, kind, not_null: false, generated: Some(expression) });
        }
    }

    fn partition(&mut self, random: &mut Random, number: usize) {
        let Some(first) = self.key.first() else { return };
        let (by, kind) = (self.columns[*first].name.clone(), self.columns[*first].kind);
        let name = |part: &str| quoted(&format!("part {part} of {number}"));
        let of = &self.name;
        (self.partitioned, self.partitions) = match (kind, random.below(3)) {
            ("int2" | "int4" | "int8", 0) => (
                Some(format!("range ({by})")),
                vec![
                    format!("create table {} partition of {of} for values from (minvalue) to (10)", name("low")),
                    format!(
                        "create table {} partition of {of} for values from (10) to (25) partition by hash ({by})",
                        name("middle")
                    ),
                    format!(
                        "create table {} partition of {} for values with (modulus 1, remainder 0)",
                        name("all"),
                        name("middle")
                    ),
                    format!("create table {} partition of {of} default", name("rest")),
                ],
            ),
            ("mood", _) => (
                Some(format!("list ({by})")),
                vec![
                    format!("create table {} partition of {of} for values in ('sad', 'O''K')", name("sad")),
                    format!("create table {} partition of {of} default", name("rest")),
                ],
            ),
            _ => (
                Some(format!("hash ({by})")),
                (0..3)
                    .map(|n| {
                        let part = name(&n.to_string());
                        format!("create table {part} partition of {of} for values with (modulus 3, remainder {n})")
                    })
                    .collect(),
            ),
        };
    }

    /// The statements that make it.
    pub(super) fn definition(&self) -> String {
        let mut script = format!("create table {} (", self.name);
        for (at, column) in self.columns.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let _ = write!(script, "{comma}{} {}", column.name, sql_type(column.kind));
            if column.not_null {
                script += " not null";
            }
            if let Some(expression) = &column.generated {
                let _ = write!(script, " generated always as ({expression}) stored");
            }
        }
        if !self.key.is_empty() {
            let _ = write!(script, ", primary key ({})", self.names(self.key.iter().copied()));
        }
        script += ")";
        if let Some(partitioned) = &self.partitioned {
            let _ = write!(script, " partition by {partitioned}");
        }
        script += ";";
        for partition in &self.partitions {
            let _ = write!(script, " {partition};");
        }
        for column in self.columns.iter().filter(|column| column.kind == BIG) {
            let _ = write!(script, " alter table {} alter {} set storage external;", self.name, column.name);
        }
        script
    }

    pub(super) fn names(&self, columns: impl Iterator<Item = usize>) -> String {
        columns.map(|at| self.columns[at].name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The columns that the WAL has.
    pub(super) fn stored(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.columns.len()).filter(|at| self.columns[*at].generated.is_none())
    }

    pub(super) fn has_generated(&self) -> bool {
        self.stored().count() < self.columns.len()
    }

    /// A value for a column, as SQL. `unique` is not used twice.
    fn cell(&self, random: &mut Random, at: usize, unique: &mut u64) -> String {
        let column = &self.columns[at];
        if self.key.contains(&at) {
            return literal(&key_value(random, column.kind));
        }
        if self.key.is_empty() && at == 0 {
            *unique += 1;
            return unique.to_string();
        }
        if !column.not_null && random.below(6) == 0 {
            return "null".to_owned();
        }
        literal(&value(random, column.kind))
    }

    /// Changes of a few rows. Which ones depends on what is in them, not on chance in Postgres.
    pub(super) fn statement(&self, random: &mut Random, unique: &mut u64) -> String {
        match random.below(9) {
            0..=3 => self.insert(random, unique),
            4..=6 => {
                let free: Vec<usize> = self.stored().filter(|at| !self.is_identity(*at)).collect();
                let mut set = Vec::new();
                for _ in 0..=random.below(3) {
                    let at = *random.one_of(&free);
                    let name = &self.columns[at].name;
                    let value = if random.below(6) == 0 { name.clone() } else { self.cell(random, at, unique) };
                    if !set.iter().any(|(other, _)| other == name) {
                        set.push((name.clone(), value));
                    }
                }
                let set: Vec<String> = set.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                format!("update {} set {} {};", self.name, set.join(", "), self.some(random, 4))
            }
            7 if !self.key.is_empty() => {
                let at = *random.one_of(&self.key);
                let (name, value) = (&self.columns[at].name, self.cell(random, at, unique));
                format!("update {} set {name} = {value} {};", self.name, self.some(random, 1))
            }
            _ => format!("delete from {} {};", self.name, self.some(random, 2)),
        }
    }

    /// One or more rows; now and then in place of one that is there.
    pub(super) fn insert(&self, random: &mut Random, unique: &mut u64) -> String {
        let names = self.names(self.stored());
        let row = |random: &mut Random, unique: &mut u64| {
            let cells: Vec<String> = self.stored().map(|at| self.cell(random, at, unique)).collect();
            format!("({})", cells.join(", "))
        };
        let replaced = self.stored().filter(|at| !self.is_identity(*at)).last();
        if let Some(column) = replaced.filter(|_| !self.key.is_empty() && random.below(3) == 0) {
            let (key, column) = (self.names(self.key.iter().copied()), &self.columns[column].name);
            let row = row(random, unique);
            let insert = format!("insert into {} ({names}) values {row}", self.name);
            return format!("{insert} on conflict ({key}) do update set {column} = excluded.{column};");
        }
        let rows: Vec<String> = (0..=random.below(4)).map(|_| row(random, unique)).collect();
        format!("insert into {} ({names}) values {} on conflict do nothing;", self.name, rows.join(", "))
    }

    fn is_identity(&self, at: usize) -> bool {
        if self.key.is_empty() { at == 0 } else { self.key.contains(&at) }
    }

    /// A condition that up to `most` rows meet.
    fn some(&self, random: &mut Random, most: u64) -> String {
        let (of, salt, count) = (&self.name, random.below(1000), 1 + random.below(most));
        format!(
            "where (tableoid, ctid) in (select tableoid, ctid from {of} r order by md5(r::text || '{salt}'), ctid limit {count})"
        )
    }

    /// Has it have another name for a moment.
    pub(super) fn renamed_and_back(&self) -> String {
        let (name, schema) = (&self.name, self.name.strip_suffix(&self.bare).expect("its name ends so"));
        format!("alter table {name} rename to moved; alter table {schema}moved rename to {}", self.bare)
    }

    /// Statements that take a partition off, and that put it back. Rows have no other place meanwhile.
    pub(super) fn detached_and_attached(&self) -> Option<(String, String)> {
        let part = self.a_partition().filter(|_| self.partitioned.as_ref().is_some_and(|by| by.starts_with("hash")))?;
        let (_, bounds) = self.partitions.first()?.split_once(" for values ")?;
        let of = format!("alter table {}", self.name);
        Some((format!("{of} detach partition {part}"), format!("{of} attach partition {part} for values {bounds}")))
    }

    /// One of its partitions.
    pub(super) fn a_partition(&self) -> Option<String> {
        let (_, after) = self.partitions.first()?.split_once("create table ")?;
        Some(after.split_once(" partition of")?.0.to_owned())
    }
}
