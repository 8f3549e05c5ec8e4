//! Which operator a sign means between two types: Postgres' rules (`src/backend/parser/parse_oper.c`, `parse_func.c`;
//! "Operator Type Resolution" in the manual) over the operators that we can compute.

use super::expr::Op;
use super::types::{Category, Type};
use crate::shape::table::Letters;

/// An operator: what it takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Signature {
    pub(super) op: Op,
    /// One or two.
    pub(super) takes: Vec<Type>,
    pub(super) gives: Type,
    pub(super) sign: &'static str,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unresolved {
    None,
    Ambiguous,
}

const SIGNS: &[&str] = &[
    "=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "^", "|/", "@", "&", "|", "#", "~", "||", "~~", "!~~",
    "~~*", "!~~*", "@>", "<@", "&&", "->", "->>", "#>", "#>>", "?", "?|", "?&",
];

/// Operators that look into a `jsonb`.
const LOOKING_IN: &[&str] = &["->", "->>", "#>", "#>>", "?", "?|", "?&"];

const COMPARED: &[Type] = &[
    Type::Bool,
    Type::Int2,
    Type::Int4,
    Type::Int8,
    Type::Float4,
    Type::Float8,
    Type::Numeric,
    Type::Text,
    Type::Bpchar,
    Type::Name,
    Type::Uuid,
    Type::Date,
    Type::Time,
    Type::Timestamp,
    Type::Timestamptz,
    Type::Interval,
];

/// Types of different names that Postgres compares directly.
const CROSS: &[&[Type]] = &[
    &[Type::Int2, Type::Int4, Type::Int8],
    &[Type::Float4, Type::Float8],
    &[Type::Date, Type::Timestamp, Type::Timestamptz],
    &[Type::Name, Type::Text],
];

fn comparison(sign: &str) -> Option<Op> {
    Some(match sign {
        "=" => Op::Equal,
        "<>" => Op::NotEqual,
        "<" => Op::Less,
        "<=" => Op::LessOrEqual,
        ">" => Op::Greater,
        ">=" => Op::GreaterOrEqual,
        _ => return None,
    })
}

fn arithmetic(sign: &str) -> Option<Op> {
    Some(match sign {
        "+" => Op::Add,
        "-" => Op::Subtract,
        "*" => Op::Multiply,
        "/" => Op::Divide,
        _ => return None,
    })
}

fn wider<'a>(a: &'a Type, b: &'a Type) -> &'a Type {
    if a.becomes(b) { b } else { a }
}

/// The operators that a sign has between plain types.
fn candidates(sign: &'static str, binary: bool) -> Vec<Signature> {
    let mut all = Vec::new();
    let mut push = |op: Op, takes: &[&Type], gives: &Type| {
        if takes.len() == if binary { 2 } else { 1 } {
            all.push(Signature { op, takes: takes.iter().copied().cloned().collect(), gives: gives.clone(), sign });
        }
    };
    if let Some(op) = comparison(sign) {
        for of in COMPARED {
            push(op, &[of, of], &Type::Bool);
        }
        if !op.orders() {
            push(op, &[&Type::Jsonb, &Type::Jsonb], &Type::Bool);
        }
        for family in CROSS {
            for (a, b) in family.iter().flat_map(|a| family.iter().map(move |b| (a, b))).filter(|(a, b)| a != b) {
                push(op, &[a, b], &Type::Bool);
            }
        }
    }
    let ints = [Type::Int2, Type::Int4, Type::Int8];
    let floats = [Type::Float4, Type::Float8];
    if let Some(op) = arithmetic(sign) {
        for family in [&ints[..], &floats[..]] {
            for (a, b) in family.iter().flat_map(|a| family.iter().map(move |b| (a, b))) {
                push(op, &[a, b], wider(a, b));
            }
        }
        push(op, &[&Type::Numeric, &Type::Numeric], &Type::Numeric);
    }
    let signed = [&Type::Int2, &Type::Int4, &Type::Int8, &Type::Float4, &Type::Float8, &Type::Numeric];
    let (date, time) = (&Type::Date, &Type::Time);
    let json = &Type::Jsonb;
    let (stamp, zoned, span) = (&Type::Timestamp, &Type::Timestamptz, &Type::Interval);
    match sign {
        "+" => {
            for of in signed {
                push(Op::Plus, &[of], of);
            }
            push(Op::Add, &[date, &Type::Int4], date);
            push(Op::Add, &[&Type::Int4, date], date);
            push(Op::Add, &[date, time], stamp);
            push(Op::Add, &[time, date], stamp);
            for (of, gives) in [(date, stamp), (time, time), (stamp, stamp), (zoned, zoned)] {
                push(Op::Add, &[of, span], gives);
                push(Op::Add, &[span, of], gives);
            }
            push(Op::Add, &[span, span], span);
        }
        "-" => {
            for of in signed {
                push(Op::Negate, &[of], of);
            }
            push(Op::Negate, &[span], span);
            push(Op::Subtract, &[date, &Type::Int4], date);
            push(Op::Subtract, &[date, date], &Type::Int4);
            for of in [time, stamp, zoned] {
                push(Op::Subtract, &[of, of], span);
            }
            for (of, gives) in [(date, stamp), (time, time), (stamp, stamp), (zoned, zoned)] {
                push(Op::Subtract, &[of, span], gives);
            }
            push(Op::Subtract, &[span, span], span);
        }
        "*" => {
            push(Op::Multiply, &[span, &Type::Float8], span);
            push(Op::Multiply, &[&Type::Float8, span], span);
        }
        "/" => push(Op::Divide, &[span, &Type::Float8], span),
        "%" => {
            for of in ints.iter().chain([&Type::Numeric]) {
                push(Op::Remainder, &[of, of], of);
            }
        }
        // Also between numerics in Postgres; `operator` refuses those.
        "^" => {
            push(Op::Power, &[&Type::Float8, &Type::Float8], &Type::Float8);
            push(Op::Power, &[&Type::Numeric, &Type::Numeric], &Type::Numeric);
        }
        "|/" => push(Op::SquareRoot, &[&Type::Float8], &Type::Float8),
        "@" => {
            for of in signed {
                push(Op::Absolute, &[of], of);
            }
        }
        "&" | "|" | "#" => {
            let op = match sign {
                "&" => Op::BitAnd,
                "|" => Op::BitOr,
                _ => Op::BitXor,
            };
            for of in &ints {
                push(op, &[of, of], of);
            }
        }
        "~" => {
            for of in &ints {
                push(Op::BitNot, &[of], of);
            }
        }
        "@>" => push(Op::Contains, &[json, json], &Type::Bool),
        "<@" => push(Op::Contained, &[json, json], &Type::Bool),
        "->" | "->>" | "#>" | "#>>" => {
            let as_text = sign.ends_with(">>");
            let gives = if as_text { &Type::Text } else { json };
            if sign.starts_with('#') {
                push(Op::Path { as_text }, &[json, &Type::Text.array()], gives);
            } else {
                push(Op::Step { as_text }, &[json, &Type::Text], gives);
                push(Op::Step { as_text }, &[json, &Type::Int4], gives);
            }
        }
        "?" => push(Op::HasKey, &[json, &Type::Text], &Type::Bool),
        "?|" => push(Op::HasAnyKey, &[json, &Type::Text.array()], &Type::Bool),
        "?&" => push(Op::HasAllKeys, &[json, &Type::Text.array()], &Type::Bool),
        "||" => push(Op::Join, &[&Type::Text, &Type::Text], &Type::Text),
        "~~" | "!~~" | "~~*" | "!~~*" => {
            let op = Op::Like { negated: sign.starts_with('!'), fold: sign.ends_with('*'), letters: Letters::Ascii };
            for of in [&Type::Text, &Type::Bpchar, &Type::Name] {
                push(op, &[of, &Type::Text], &Type::Bool);
            }
        }
        _ => {}
    }
    all
}

/// The operator that `sign` means here.
pub(super) fn resolve(sign: &str, inputs: &[&Type]) -> Result<Signature, Unresolved> {
    let sign = SIGNS.iter().find(|known| **known == sign).copied().ok_or(Unresolved::None)?;
    if inputs.iter().any(|input| matches!(input, Type::Other(_))) {
        return Err(Unresolved::None);
    }
    // Ranges, geometry and others have such operators too: of literals nobody knows which is meant.
    if matches!(sign, "@>" | "<@") && inputs.iter().all(|input| **input == Type::Unknown) {
        return Err(Unresolved::Ambiguous);
    }
    if LOOKING_IN.contains(&sign) && *inputs[0] != Type::Jsonb {
        return Err(if *inputs[0] == Type::Unknown { Unresolved::Ambiguous } else { Unresolved::None });
    }
    if let [left, right] = inputs
        && !LOOKING_IN.contains(&sign)
        && let Some(found) = polymorphic(sign, left, right)
    {
        return found;
    }
    choose(candidates(sign, inputs.len() == 2), inputs)
}

/// Operators of arrays and enums.
fn polymorphic(sign: &'static str, left: &Type, right: &Type) -> Option<Result<Signature, Unresolved>> {
    let same =
        |op: Op, of: &Type, gives: Type| Some(Ok(Signature { op, takes: vec![of.clone(), of.clone()], gives, sign }));
    let of = match (left, right) {
        (Type::Array(_) | Type::Enum(_), _) => left,
        (_, Type::Array(_) | Type::Enum(_)) => right,
        _ => return None,
    };
    let alike = [left, right].iter().all(|side| *side == of || **side == Type::Unknown);
    if matches!(of, Type::Enum(_)) && !matches!(right, Type::Array(_)) {
        return match comparison(sign) {
            Some(op) if alike => same(op, of, Type::Bool),
            _ if sign == "||" => None,
            _ => Some(Err(Unresolved::None)),
        };
    }
    if alike {
        let op = match sign {
            "@>" => Op::Contains,
            "<@" => Op::Contained,
            "&&" => Op::Overlaps,
            "||" => return same(Op::ArrayJoin, of, of.clone()),
            _ => match comparison(sign) {
                Some(op) if op.orders() && of.element() == Some(&Type::Jsonb) => return Some(Err(Unresolved::None)),
                Some(op) => op,
                None => return Some(Err(Unresolved::None)),
            },
        };
        return same(op, of, Type::Bool);
    }
    if sign == "||" {
        match (left, right) {
            (Type::Array(element), other) if other.becomes(element) => {
                let takes = vec![left.clone(), (**element).clone()];
                return Some(Ok(Signature { op: Op::ArrayAppend, takes, gives: left.clone(), sign }));
            }
            // Of two kinds of text Postgres takes the first here.
            (other, Type::Array(element)) if other.becomes(element) && !(other.is_text() && *other != **element) => {
                let takes = vec![(**element).clone(), right.clone()];
                return Some(Ok(Signature { op: Op::ArrayPrepend, takes, gives: right.clone(), sign }));
            }
            _ => {}
        }
    }
    Some(Err(Unresolved::None))
}

/// The best of several candidates (`oper`, `func_select_candidate`).
pub(super) fn choose(mut left: Vec<Signature>, inputs: &[&Type]) -> Result<Signature, Unresolved> {
    let unknown = |input: &&Type| **input == Type::Unknown;
    // An unknown beside a known type is taken for the same type, if there is such an operator.
    let mut assumed: Vec<&Type> = inputs.to_vec();
    if let [a, b] = inputs {
        match (unknown(a), unknown(b)) {
            (true, false) => assumed[0] = *b,
            (false, true) => assumed[1] = *a,
            _ => {}
        }
    }
    if let Some(exact) = left.iter().find(|candidate| candidate.takes.iter().eq(assumed.iter().copied())) {
        return Ok(exact.clone());
    }
    left.retain(|candidate| candidate.takes.iter().zip(inputs).all(|(takes, input)| input.becomes(takes)));
    keep_best(&mut left, inputs, |takes, input| takes == input);
    keep_best(&mut left, inputs, |takes, input| {
        takes == input || (takes.is_preferred() && takes.category() == input.category())
    });
    if left.len() > 1 && inputs.iter().any(unknown) {
        by_category(&mut left, inputs);
    }
    if left.len() > 1 {
        let mut known = inputs.iter().filter(|input| !unknown(input));
        if let Some(first) = known.next()
            && known.all(|other| other == first)
        {
            let fits = |candidate: &&Signature| candidate.takes.iter().all(|takes| first.becomes(takes));
            let mut fitting = left.iter().filter(fits);
            if let (Some(only), None) = (fitting.next(), fitting.next()) {
                return Ok(only.clone());
            }
        }
    }
    match left.len() {
        0 => Err(Unresolved::None),
        1 => Ok(left.remove(0)),
        _ => Err(Unresolved::Ambiguous),
    }
}

/// Keeps those with the most inputs of known type for which `good` holds.
fn keep_best(left: &mut Vec<Signature>, inputs: &[&Type], good: impl Fn(&Type, &Type) -> bool) {
    let score = |candidate: &Signature| {
        let pairs = candidate.takes.iter().zip(inputs);
        pairs.filter(|(takes, input)| ***input != Type::Unknown && good(takes, input)).count()
    };
    let best = left.iter().map(score).max().unwrap_or(0);
    left.retain(|candidate| score(candidate) == best);
}

/// Unknown inputs prefer strings, then whatever category all agree on, and the preferred type in it.
fn by_category(left: &mut Vec<Signature>, inputs: &[&Type]) {
    let mut kept = left.clone();
    for (at, input) in inputs.iter().enumerate() {
        if **input != Type::Unknown {
            continue;
        }
        let categories: Vec<Category> = left.iter().map(|candidate| candidate.takes[at].category()).collect();
        let category = if categories.contains(&Category::String) {
            Category::String
        } else if categories.windows(2).all(|pair| pair[0] == pair[1]) {
            categories[0]
        } else {
            return;
        };
        let preferred = |of: &Type| of.is_preferred() && of.category() == category;
        let any = left.iter().any(|candidate| preferred(&candidate.takes[at]));
        kept.retain(|candidate| {
            candidate.takes[at].category() == category && (!any || preferred(&candidate.takes[at]))
        });
    }
    if !kept.is_empty() {
        *left = kept;
    }
}
