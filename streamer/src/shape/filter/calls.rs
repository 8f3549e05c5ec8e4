//! The functions that filters may call.

use super::analyze::{Analyzer, Typed};
use super::cast;
use super::datetime;
use super::error::WhereError;
use super::expr::{Expr, Kind, Op, Sign};
use super::operators::{Signature, choose};
use super::types::Type;
use super::value::Value;
use crate::shape::table::Letters;

/// A call by name.
pub(super) fn call(
    analyzer: &mut Analyzer<'_>,
    at: usize,
    name: &str,
    arguments: Vec<Typed>,
) -> Result<Expr, WhereError> {
    let sign = match (name, arguments.len()) {
        ("like", 2) => Some("~~"),
        ("ilike", 2) => Some("~~*"),
        ("notlike", 2) => Some("!~~"),
        ("array_cat", 2) => return array_cat(analyzer, at, arguments),
        ("array_append" | "array_prepend", 2) => return array_with(analyzer, at, name, arguments),
        ("array_ndims", 1) => return array_ndims(analyzer, at, arguments),
        ("concat", 1..) => return concat(analyzer, at, arguments),
        ("abs", 1) => Some("@"),
        _ => None,
    };
    if let Some(sign) = sign {
        return analyzer.operator(at, sign, arguments);
    }
    let candidates = candidates(name, arguments.len());
    if candidates.is_empty() {
        return Err(analyzer.error(at, unknown(name, arguments.len())));
    }
    let types: Vec<&Type> = arguments.iter().map(Typed::ty).collect();
    let signature = choose(candidates, &types)
        .map_err(|_| analyzer.error(at, format!("{name} takes arguments of other types: write a cast")))?;
    let mut given = Vec::with_capacity(arguments.len());
    for (argument, takes) in arguments.into_iter().zip(&signature.takes) {
        given.push(analyzer.coerce(argument, takes, at)?);
    }
    if signature.op == Op::AtZone {
        let zone = given.first().and_then(Expr::constant).and_then(Option::as_ref).and_then(Value::as_text);
        if !zone.is_some_and(datetime::is_utc) {
            return Err(analyzer.error(at, "of time zones only 'UTC' is supported"));
        }
    }
    analyzer.call(at, signature.op, Sign::Function(signature.sign), given, signature.gives)
}

fn unknown(name: &str, arguments: usize) -> String {
    match name {
        "now"
        | "clock_timestamp"
        | "statement_timestamp"
        | "transaction_timestamp"
        | "random"
        | "timeofday"
        | "gen_random_uuid" => {
            format!("{name} is not supported: it is not the same at all times")
        }
        "count" | "sum" | "avg" | "min" | "max" | "array_agg" | "string_agg" | "bool_and" | "bool_or" => {
            format!("{name} is not supported: aggregates say nothing of one row")
        }
        _ => format!("function {name} with {arguments} arguments does not exist or is not supported"),
    }
}

fn candidates(name: &str, count: usize) -> Vec<Signature> {
    let one = |op: Op, sign: &'static str, takes: &[&Type], gives: &Type| Signature {
        op,
        takes: takes.iter().copied().cloned().collect(),
        gives: gives.clone(),
        sign,
    };
    match (name, count) {
        ("lower", 1) => vec![one(Op::Lower(Letters::Ascii), "lower", &[&Type::Text], &Type::Text)],
        ("upper", 1) => vec![one(Op::Upper(Letters::Ascii), "upper", &[&Type::Text], &Type::Text)],
        ("length" | "char_length" | "character_length", 1) => vec![
            one(Op::Length, "length", &[&Type::Text], &Type::Int4),
            one(Op::Length, "length", &[&Type::Bpchar], &Type::Int4),
        ],
        ("justify_days", 1) => vec![one(Op::JustifyDays, "justify_days", &[&Type::Interval], &Type::Interval)],
        ("justify_hours", 1) => vec![one(Op::JustifyHours, "justify_hours", &[&Type::Interval], &Type::Interval)],
        ("justify_interval", 1) => {
            vec![one(Op::JustifyInterval, "justify_interval", &[&Type::Interval], &Type::Interval)]
        }
        ("timezone", 2) => vec![
            one(Op::AtZone, "timezone", &[&Type::Text, &Type::Timestamp], &Type::Timestamptz),
            one(Op::AtZone, "timezone", &[&Type::Text, &Type::Timestamptz], &Type::Timestamp),
        ],
        _ => Vec::new(),
    }
}

/// The array and the type of its elements, of an argument that must be one.
fn array_type(of: &Typed) -> Option<Type> {
    match of.ty() {
        ty @ Type::Array(_) => Some(ty.clone()),
        _ => None,
    }
}

fn array_cat(analyzer: &mut Analyzer<'_>, at: usize, arguments: Vec<Typed>) -> Result<Expr, WhereError> {
    let Some(ty) = arguments.iter().find_map(array_type) else {
        return Err(analyzer.error(at, "array_cat takes two arrays"));
    };
    let mut given = Vec::new();
    for argument in arguments {
        given.push(analyzer.coerce(argument, &ty, at)?);
    }
    analyzer.call(at, Op::ArrayJoin, Sign::Function("array_cat"), given, ty)
}

fn array_with(analyzer: &mut Analyzer<'_>, at: usize, name: &str, arguments: Vec<Typed>) -> Result<Expr, WhereError> {
    let append = name == "array_append";
    let place = usize::from(!append);
    let ty = match arguments[place].ty() {
        Type::Unknown => arguments[1 - place].ty().array(),
        ty => ty.clone(),
    };
    let Some(element) = ty.element().filter(|element| !matches!(element, Type::Unknown | Type::Array(_))).cloned()
    else {
        return Err(analyzer.error(at, format!("{name} takes an array and an element")));
    };
    let other = arguments[1 - place].ty();
    if !append && other.is_text() && *other != element {
        // Of two kinds of text Postgres takes the first here.
        return Err(analyzer.error(at, format!("{name} of {other} and {ty} is not supported: write a cast")));
    }
    let takes = if append { [ty.clone(), element] } else { [element, ty.clone()] };
    let mut given = Vec::new();
    for (argument, takes) in arguments.into_iter().zip(&takes) {
        given.push(analyzer.coerce(argument, takes, at)?);
    }
    let (op, sign) = if append { (Op::ArrayAppend, "array_append") } else { (Op::ArrayPrepend, "array_prepend") };
    analyzer.call(at, op, Sign::Function(sign), given, ty)
}

fn array_ndims(analyzer: &mut Analyzer<'_>, at: usize, arguments: Vec<Typed>) -> Result<Expr, WhereError> {
    let Some(ty) = arguments.first().and_then(array_type) else {
        return Err(analyzer.error(at, "array_ndims takes an array"));
    };
    let mut given = Vec::new();
    for argument in arguments {
        given.push(analyzer.coerce(argument, &ty, at)?);
    }
    analyzer.call(at, Op::ArrayDimensions, Sign::Function("array_ndims"), given, Type::Int4)
}

/// `FUNC_MAX_ARGS`: Postgres refuses more, too; and each argument may be a whole row's text.
const MAX_ARGUMENTS: usize = 100;

fn concat(analyzer: &mut Analyzer<'_>, at: usize, arguments: Vec<Typed>) -> Result<Expr, WhereError> {
    if arguments.len() > MAX_ARGUMENTS {
        return Err(analyzer.error(at, format!("cannot pass more than {MAX_ARGUMENTS} arguments to a function")));
    }
    let mut given = Vec::new();
    for argument in arguments {
        let ty = if *argument.ty() == Type::Unknown { Type::Text } else { argument.ty().clone() };
        if !cast::exists(&ty, &Type::Text, false) {
            return Err(analyzer.error(at, format!("concat of {ty} is not supported")));
        }
        given.push(analyzer.coerce(argument, &ty, at)?);
    }
    analyzer.folded(at, Expr::new(Type::Text, Kind::Concat(given)))
}
