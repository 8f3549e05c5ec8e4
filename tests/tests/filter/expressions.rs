//! Random expressions of the filter language, mostly well typed, in all the ways to write them.

use std::collections::BTreeMap;

use headwater_tests::random::Random;

use super::Case;
use super::rows::{COLUMNS, values};

/// Writes expressions.
pub(crate) struct Expressions<'a> {
    random: &'a mut Random,
    params: BTreeMap<u32, String>,
}

const NUMBERS: &[&str] = &["int2", "int4", "int8", "float4", "float8", "numeric"];
const COMPARED: &[&str] = &[
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "text",
    "varchar",
    "bpchar",
    "name",
    "uuid",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "interval",
    "mood",
    "bool",
    "int4[]",
    "text[]",
    "numeric[]",
    "mood[]",
    "date[]",
    "jsonb",
    "jsonb[]",
];
const ARRAYS: &[(&str, &str)] = &[
    ("int4[]", "int4"),
    ("text[]", "text"),
    ("numeric[]", "numeric"),
    ("mood[]", "mood"),
    ("bool[]", "bool"),
    ("uuid[]", "uuid"),
    ("date[]", "date"),
    ("jsonb[]", "jsonb"),
];
const SIGNS: &[&str] = &["=", "<>", "<", "<=", ">", ">=", "!="];

impl<'a> Expressions<'a> {
    pub(crate) fn new(random: &'a mut Random) -> Self {
        Self { random, params: BTreeMap::new() }
    }

    /// A filter.
    pub(crate) fn filter(mut self) -> Case {
        let depth = self.random.below(4);
        let text = self.condition(depth);
        Case { text, params: self.params }
    }

    fn one_of<'b>(&mut self, of: &[&'b str]) -> &'b str {
        of[self.random.index(of.len())]
    }

    fn chance(&mut self, of: u64) -> bool {
        self.random.below(of) == 0
    }

    /// Mostly in parentheses, so that most expressions mean what their parts do.
    fn wrapped(&mut self, text: String) -> String {
        if self.chance(5) { text } else { format!("({text})") }
    }

    fn condition(&mut self, depth: u64) -> String {
        let text = if depth > 0 && self.chance(2) {
            let less = depth - 1;
            let (a, b) = (self.condition(less), self.condition(less));
            match self.random.below(9) {
                0 | 1 => format!("{a} AND {b}"),
                2 | 3 => format!("{a} OR {b}"),
                4 => format!("NOT {a}"),
                5 => format!(
                    "{a} IS {}{}",
                    self.one_of(&["", "NOT "]),
                    self.one_of(&["TRUE", "FALSE", "UNKNOWN", "NULL"])
                ),
                6 => format!("{a} IS {}DISTINCT FROM {b}", self.one_of(&["", "NOT "])),
                7 => format!("CASE WHEN {a} THEN {b} ELSE {} END", self.condition(less)),
                _ => format!("{a} {} {b}", self.one_of(&["=", "<>", "<"])),
            }
        } else {
            self.test(depth)
        };
        self.wrapped(text)
    }

    /// A condition over values.
    fn test(&mut self, depth: u64) -> String {
        let kind = self.one_of(COMPARED);
        let not = self.one_of(&["", "NOT "]);
        match self.random.below(18) {
            16 | 17 => self.looks_in(depth),
            0..=4 => {
                let other = self.kind_like(kind);
                format!("{} {} {}", self.value(kind, depth), self.one_of(SIGNS), self.value(other, depth))
            }
            5 => format!("{} IS {not}NULL", self.value(kind, depth)),
            6 => {
                let count = 1 + self.random.below(4);
                let list: Vec<String> = (0..count).map(|_| self.value(kind, 0)).collect();
                format!("{} {not}IN ({})", self.value(kind, depth), list.join(", "))
            }
            7 => {
                let symmetric = self.one_of(&["", "SYMMETRIC "]);
                let of = self.value(kind, depth);
                format!("{of} {not}BETWEEN {symmetric}{} AND {}", self.value(kind, 0), self.value(kind, 0))
            }
            8 => {
                let of = self.one_of(&["text", "varchar", "bpchar", "name", "text"]);
                let (word, pattern) = (self.one_of(&["LIKE", "ILIKE", "~~", "!~~*"]), self.pattern());
                if word.starts_with(['L', 'I']) {
                    let escape =
                        if self.chance(5) { self.one_of(&[" ESCAPE '#'", " ESCAPE ''", " ESCAPE '\\'"]) } else { "" };
                    format!("{} {not}{word} {pattern}{escape}", self.value(of, depth))
                } else {
                    format!("{} {word} {pattern}", self.value(of, depth))
                }
            }
            9 | 10 => {
                let (array, element) = *self.random.one_of(ARRAYS);
                let quantifier = self.one_of(&["ANY", "ALL", "SOME"]);
                let sign = if matches!(element, "text" | "int4" | "numeric") { self.one_of(SIGNS) } else { "=" };
                format!("{} {sign} {quantifier} ({})", self.value(element, depth), self.value(array, depth))
            }
            11 => {
                let (array, _) = *self.random.one_of(ARRAYS);
                let sign = self.one_of(&["@>", "<@", "&&", "=", "<>", "<"]);
                format!("{} {sign} {}", self.value(array, depth), self.value(array, depth))
            }
            12 => format!("{} IS {not}DISTINCT FROM {}", self.value(kind, depth), self.value(kind, depth)),
            13 => {
                let column = self.random.one_of(COLUMNS).0;
                format!("{column} IS {not}NULL")
            }
            14 if self.chance(2) => self.value("bool", depth),
            14 => self.digits(depth + 1),
            _ => {
                let (column, kind) = *self.random.one_of(COLUMNS);
                format!("{column} {} {}", self.one_of(&["=", "=", "<>", "<", ">="]), self.literal(kind))
            }
        }
    }

    /// Whether something is in a `jsonb`.
    fn looks_in(&mut self, depth: u64) -> String {
        let of = self.operand("jsonb", depth);
        match self.random.below(6) {
            0 | 1 => format!("{of} {} {}", self.one_of(&["@>", "<@"]), self.operand("jsonb", depth)),
            2 => format!("{of} ? {}", self.step()),
            3 => format!("{of} {} '{{{},b,NULL}}'", self.one_of(&["?|", "?&"]), self.one_of(&["a", "c", "1"])),
            4 => {
                format!("{of} ->> {} {} '{}'", self.step(), self.one_of(SIGNS), self.one_of(&["1", "x", "true", "{}"]))
            }
            _ => format!("{of}::text LIKE {}", self.pattern()),
        }
    }

    /// A key, or a place in an array.
    fn step(&mut self) -> &'static str {
        ["'a'", "'b'", "'aa'", "''", "0", "1", "-1", "-2", "i4a", "t1", "'1'::text"][self.random.index(11)]
    }

    /// Looks at single digits of what a value is as text: comparisons forgive small mistakes.
    fn digits(&mut self, depth: u64) -> String {
        let kinds = [
            "int4",
            "int8",
            "numeric",
            "numeric",
            "date",
            "time",
            "timestamp",
            "timestamptz",
            "interval",
            "int4[]",
            "numeric[]",
        ];
        let kind = self.one_of(&kinds);
        let (skip, digit) = ("_".repeat(self.random.index(12)), self.random.below(10));
        let pattern = if self.chance(2) { format!("{skip}{digit}%") } else { format!("%{digit}{skip}") };
        format!("({})::text LIKE '{pattern}'", self.value(kind, depth))
    }

    /// The kind itself or one that it is compared with.
    fn kind_like<'b>(&mut self, kind: &'b str) -> &'b str {
        if !self.chance(3) {
            return kind;
        }
        match kind {
            _ if NUMBERS.contains(&kind) => self.one_of(NUMBERS),
            "text" | "varchar" | "bpchar" | "name" => self.one_of(&["text", "varchar", "bpchar", "name"]),
            "date" | "timestamp" | "timestamptz" => self.one_of(&["date", "timestamp", "timestamptz"]),
            "time" => "interval",
            _ => kind,
        }
    }

    fn pattern(&mut self) -> String {
        let pieces =
            ["%", "_", "a", "b", "c", "A", "\\%", "\\_", "\\\\", "é", "É", "#%", "#", "日", "%%", "B", " ", "abc"];
        let count = self.random.below(5);
        let text: String = (0..count).map(|_| self.one_of(&pieces)).collect();
        if self.chance(6) {
            return self.value("text", 0);
        }
        self.quoted(&text)
    }

    fn quoted(&mut self, text: &str) -> String {
        if self.chance(6) && !text.contains('$') {
            let number = u32::try_from(self.params.len()).unwrap() + 1;
            self.params.insert(number, text.to_owned());
            return format!("${number}");
        }
        format!("'{}'", text.replace('\'', "''"))
    }

    /// A literal of a kind, with or without its type.
    fn literal(&mut self, kind: &str) -> String {
        let text = self.one_of(values(kind));
        let sql = match kind {
            "numeric3" => "numeric",
            "bpchar3" => "bpchar",
            "positive" => "int4",
            _ => kind,
        };
        match self.random.below(4) {
            0 if NUMBERS.contains(&sql) && !text.contains(['N', 'I']) && !text.contains("1e-45") => text.to_owned(),
            0 if sql == "bool" => self.one_of(&["true", "false", "'yes'", "'off'"]).to_owned(),
            1 => format!("{}::{sql}", self.quoted(text)),
            2 if self.chance(8) => "NULL".to_owned(),
            2 if self.chance(2) => format!("CAST({} AS {sql})", self.quoted(text)),
            _ => self.quoted(text),
        }
    }

    fn column(&mut self, kind: &str) -> String {
        let fitting: Vec<&str> =
            COLUMNS.iter().filter(|(_, of)| of.trim_end_matches('3') == kind).map(|(name, _)| *name).collect();
        if fitting.is_empty() {
            return self.literal(kind);
        }
        let name = self.one_of(&fitting);
        if self.chance(10) { format!("\"{name}\"") } else { name.to_owned() }
    }

    /// An expression of about this kind.
    fn value(&mut self, kind: &str, depth: u64) -> String {
        if depth == 0 || self.chance(3) {
            return if self.chance(3) { self.literal(kind) } else { self.column(kind) };
        }
        let less = depth - 1;
        let text = match self.random.below(10) {
            0 => format!("coalesce({}, {})", self.value(kind, less), self.value(kind, less)),
            1 => format!(
                "{}({}, {})",
                self.one_of(&["greatest", "least"]),
                self.value(kind, less),
                self.value(kind, less)
            ),
            2 => format!("nullif({}, {})", self.value(kind, less), self.value(kind, less)),
            3 => format!(
                "CASE WHEN {} THEN {} ELSE {} END",
                self.condition(0),
                self.value(kind, less),
                self.value(kind, less)
            ),
            4 if !kind.contains('[') => {
                let of = self.castable(kind);
                format!("{}::{kind}", self.operand(of, less))
            }
            _ => self.operation(kind, less),
        };
        self.wrapped(text)
    }

    /// Fit to stand beside an operator.
    fn operand(&mut self, kind: &str, depth: u64) -> String {
        let value = self.value(kind, depth);
        if self.chance(6) { value } else { format!("({value})") }
    }

    fn castable<'b>(&mut self, kind: &'b str) -> &'b str {
        match kind {
            _ if NUMBERS.contains(&kind) => {
                self.one_of(&["int2", "int4", "int8", "float4", "float8", "numeric", "text"])
            }
            "text" | "varchar" | "bpchar" => self.one_of(&[
                "int4",
                "numeric",
                "text",
                "bpchar",
                "varchar",
                "name",
                "uuid",
                "date",
                "timestamp",
                "timestamptz",
                "interval",
                "mood",
                "bool",
                "time",
                "int4[]",
                "text[]",
                "jsonb",
            ]),
            "name" | "uuid" | "jsonb" => "text",
            "bool" => self.one_of(&["int4", "text"]),
            "date" => self.one_of(&["timestamp", "timestamptz"]),
            "time" => self.one_of(&["timestamp", "interval"]),
            "timestamp" => self.one_of(&["date", "timestamptz"]),
            "timestamptz" => self.one_of(&["date", "timestamp"]),
            "interval" => "time",
            _ => kind,
        }
    }

    fn operation(&mut self, kind: &str, depth: u64) -> String {
        match kind {
            "int2" | "int4" | "int8" => match self.random.below(6) {
                0 => format!("{}{}", self.one_of(&["-", "@ ", "~ ", "+"]), self.operand(kind, depth)),
                1 if kind == "int4" => format!("length({})", self.value("text", depth)),
                1 if kind == "int4" => format!("array_ndims({})", self.value("int4[]", depth)),
                2 if kind == "int4" => format!("{} - {}", self.operand("date", depth), self.operand("date", depth)),
                3 if kind == "int4" => self.element("int4[]", depth),
                _ => {
                    let sign = self.one_of(&["+", "-", "*", "/", "%", "&", "|", "#"]);
                    let other = self.one_of(&["int2", "int4", "int8"]);
                    format!("{} {sign} {}", self.operand(kind, depth), self.operand(other, depth))
                }
            },
            "float4" | "float8" | "numeric" => match self.random.below(6) {
                0 => format!("{}{}", self.one_of(&["-", "@ ", "|/ "]), self.operand(kind, depth)),
                1 if kind == "float8" => {
                    format!("{} ^ {}", self.operand("int4", depth), self.one_of(&["2", "0.5::float8", "3", "-1"]))
                }
                2 if kind == "numeric" => self.element("numeric[]", depth),
                _ => {
                    let sign = self.one_of(&["+", "-", "*", "/", "/"]);
                    let other = self.kind_like(kind);
                    format!("{} {sign} {}", self.operand(kind, depth), self.operand(other, depth))
                }
            },
            "jsonb" => {
                let of = self.operand("jsonb", depth);
                match self.random.below(3) {
                    0 => {
                        format!("{of} #> '{}'", self.one_of(&["{a}", "{b,a,1}", "{}", "{1,-1}", "{a,NULL}", "{2, a}"]))
                    }
                    _ => format!("{of} -> {}", self.step()),
                }
            }
            "text" | "varchar" => match self.random.below(8) {
                6 => format!("{} ->> {}", self.operand("jsonb", depth), self.step()),
                7 => {
                    let path = self.one_of(&["{a}", "{b,a,0}", "{}", "{0}", "{b,a,2,a}"]);
                    format!("{} #>> '{path}'", self.operand("jsonb", depth))
                }
                0 => format!("{}({})", self.one_of(&["lower", "upper"]), self.value("text", depth)),
                1 => format!("concat({}, {})", self.value("text", depth), self.value(self_kind(depth), depth)),
                2 => self.element("text[]", depth),
                3 => format!(
                    "{}::{}",
                    self.operand("text", depth),
                    self.one_of(&["varchar(2)", "char(3)", "varchar", "char(8)::text"])
                ),
                _ => format!("{} || {}", self.operand("text", depth), self.operand(self_text(depth), depth)),
            },
            "date" => {
                format!("{} {} {}", self.operand("date", depth), self.one_of(&["+", "-"]), self.operand("int4", depth))
            }
            "time" => format!(
                "{} {} {}",
                self.operand("time", depth),
                self.one_of(&["+", "-"]),
                self.operand("interval", depth)
            ),
            "timestamp" => match self.random.below(4) {
                0 => format!("{} + {}", self.operand("date", depth), self.operand("time", depth)),
                1 => format!("{} AT TIME ZONE 'UTC'", self.operand("timestamptz", depth)),
                _ => {
                    let of = self.one_of(&["timestamp", "date"]);
                    format!(
                        "{} {} {}",
                        self.operand(of, depth),
                        self.one_of(&["+", "-"]),
                        self.operand("interval", depth)
                    )
                }
            },
            "timestamptz" => match self.random.below(3) {
                0 => format!("timezone('UTC', {})", self.value("timestamp", depth)),
                _ => format!(
                    "{} {} {}",
                    self.operand("timestamptz", depth),
                    self.one_of(&["+", "-"]),
                    self.operand("interval", depth)
                ),
            },
            "interval" => match self.random.below(7) {
                0 => format!(
                    "{}({})",
                    self.one_of(&["justify_days", "justify_hours", "justify_interval"]),
                    self.value("interval", depth)
                ),
                1 => {
                    let of = self.one_of(&["timestamp", "timestamptz", "time"]);
                    format!("{} - {}", self.operand(of, depth), self.operand(of, depth))
                }
                2 => format!(
                    "{} {} {}",
                    self.operand("interval", depth),
                    self.one_of(&["*", "/"]),
                    self.one_of(&["2", "0.3::float8", "-1.7::float8", "3", "f8a"])
                ),
                3 => format!("- {}", self.operand("interval", depth)),
                _ => format!(
                    "{} {} {}",
                    self.operand("interval", depth),
                    self.one_of(&["+", "-"]),
                    self.operand("interval", depth)
                ),
            },
            "int4[]" | "text[]" | "numeric[]" => {
                let element = kind.trim_end_matches("[]");
                match self.random.below(7) {
                    0 => format!("ARRAY[{}, {}]", self.value(element, depth), self.value(element, depth)),
                    1 => format!("{} || {}", self.operand(kind, depth), self.operand(kind, depth)),
                    2 => format!("{} || {}", self.operand(kind, depth), self.operand(element, depth)),
                    3 => format!("array_prepend({}, {})", self.value(element, depth), self.value(kind, depth)),
                    4 => format!("array_append({}, {})", self.value(kind, depth), self.value(element, depth)),
                    5 => format!("array_cat({}, {})", self.value(kind, depth), self.value(kind, depth)),
                    _ => {
                        let bounds =
                            self.one_of(&["[1:2]", "[2:]", "[:1]", "[0:1]", "[i4a:2]", "[1:2][1:1]", "[2:1]", "[:]"]);
                        format!("({}){bounds}", self.column(kind))
                    }
                }
            }
            "bool" => {
                format!("{}({}, {})", self.one_of(&["coalesce", "greatest"]), self.condition(0), self.condition(0))
            }
            _ => self.column(kind),
        }
    }

    fn element(&mut self, array: &str, depth: u64) -> String {
        let index = self.one_of(&["1", "2", "0", "-1", "i4a", "[1][1]", "[2][1]"]);
        let of = if depth > 0 && self.chance(3) {
            format!("({})", self.value(array, depth - 1))
        } else {
            self.column(array)
        };
        if of.starts_with('\'') || of.starts_with('$') {
            return format!("{of}::{}", array.trim_end_matches("[]"));
        }
        if index.starts_with('[') { format!("({of}){index}") } else { format!("({of})[{index}]") }
    }
}

/// Something to be joined to text.
fn self_kind(depth: u64) -> &'static str {
    ["int4", "bool", "date", "uuid", "bpchar"][usize::try_from(depth % 5).unwrap()]
}

fn self_text(depth: u64) -> &'static str {
    ["text", "varchar", "bpchar"][usize::try_from(depth % 3).unwrap()]
}
