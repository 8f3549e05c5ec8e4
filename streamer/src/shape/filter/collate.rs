//! Under which collation text is compared, and whether we can do that as Postgres would.
//!
//! * Equality under a deterministic collation is equality of bytes, whatever the collation.
//! * Order is computed where it is that of bytes (`C`, `POSIX`, code points of UTF-8); under a language's collation it is
//!   refused, except for subsets, whose SQL is the only thing that is ever run.
//! * Case is mapped as the collation's provider maps it, where we know how (`Letters`).

use super::Purpose;
use super::analyze::Analyzer;
use super::error::WhereError;
use super::expr::{Expr, Kind, Op};
use super::types::{Category, Type};
use crate::shape::table::{Collation, Letters, TableSchema};

/// Where the collation of an expression comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Constants: whatever the others have, the database's in the end.
    Any,
    Column(usize),
    /// Several columns that may differ.
    Several(Collation, Letters),
    /// `COLLATE "C"`, or the type `name`.
    C,
}

fn is_collatable(ty: &Type) -> bool {
    ty.element().unwrap_or(ty).category() == Category::String
}

fn source(expr: &Expr, table: &TableSchema) -> Source {
    if !is_collatable(&expr.ty) {
        return Source::Any;
    }
    // Whatever makes a `name`, it has the type's own collation.
    if *expr.ty.element().unwrap_or(&expr.ty) == Type::Name {
        return Source::C;
    }
    match &expr.kind {
        Kind::Const(_) => Source::Any,
        Kind::Column(index) => Source::Column(*index),
        Kind::Collate(_) => Source::C,
        _ => merged(&expr.parts(), table),
    }
}

fn merged(parts: &[&Expr], table: &TableSchema) -> Source {
    let mut merged = Source::Any;
    for part in parts {
        merged = match (merged, source(part, table)) {
            (Source::Any, other) | (other, Source::Any) => other,
            (Source::C, _) | (_, Source::C) => Source::C,
            (a, b) if a == b => a,
            (a, b) => {
                let cases = (letters(a, table), letters(b, table));
                let cases = if cases.0 == cases.1 { cases.0 } else { Letters::Unknown };
                let collation = match (collation(a, table), collation(b, table)) {
                    (Collation::Nondeterministic, _) | (_, Collation::Nondeterministic) => Collation::Nondeterministic,
                    (a, b) if a == b => a,
                    // Which of them counts depends on which is the database's.
                    _ => Collation::Language,
                };
                Source::Several(collation, cases)
            }
        };
    }
    merged
}

fn collation(source: Source, table: &TableSchema) -> Collation {
    match source {
        Source::Any => table.default_collation,
        Source::Column(index) => table.columns[index].collation,
        Source::Several(collation, _) => collation,
        Source::C => Collation::Bytes,
    }
}

/// How the case of these is mapped.
fn letters(source: Source, table: &TableSchema) -> Letters {
    match source {
        Source::Any => table.default_letters,
        Source::Column(index) => table.columns[index].letters,
        Source::Several(_, letters) => letters,
        Source::C => Letters::Ascii,
    }
}

/// An operator or function with its arguments, if it can be computed under their collation.
pub(super) fn checked(
    analyzer: &Analyzer<'_>,
    at: usize,
    op: Op,
    arguments: Vec<Expr>,
) -> Result<(Op, Vec<Expr>), WhereError> {
    let ordered = op.orders();
    let compared = op.compares() || matches!(op, Op::Like { .. } | Op::Contains | Op::Contained | Op::Overlaps);
    let folds = matches!(op, Op::Lower(_) | Op::Upper(_) | Op::Like { fold: true, .. });
    if !(compared || folds) || !arguments.iter().any(|argument| is_collatable(&argument.ty)) {
        return Ok((op, arguments));
    }
    let table = analyzer.table;
    let source = merged(&arguments.iter().collect::<Vec<_>>(), table);
    let collation = collation(source, table);
    if analyzer.purpose == Purpose::Subset {
        return Ok((op, arguments));
    }
    if compared && collation == Collation::Nondeterministic {
        return Err(
            analyzer.error(at, "text under a nondeterministic collation cannot be compared here: write COLLATE \"C\"")
        );
    }
    if ordered && collation != Collation::Bytes {
        return Err(analyzer
            .error(at, "the order of text under this collation cannot be followed in the log: write COLLATE \"C\""));
    }
    if folds && letters(source, table) == Letters::Unknown {
        return Err(analyzer.error(
            at,
            "upper and lower case under this collation cannot be followed in the log: write COLLATE \"C\"",
        ));
    }
    Ok((op.with(letters(source, table)), arguments))
}

/// Whether any column takes part.
pub(super) fn mentions_column(expr: &Expr) -> bool {
    matches!(expr.kind, Kind::Column(_) | Kind::Fields { .. }) || expr.parts().into_iter().any(mentions_column)
}
