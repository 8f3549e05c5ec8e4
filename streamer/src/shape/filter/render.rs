//! Typed expressions as SQL. Nothing of it is the client's text: every name and literal is quoted here, every literal has
//! its type, operators, functions and types are qualified, and every part stands in parentheses.

use std::fmt::Write as _;

use super::expr::{Expr, Kind, Sign};
use super::subquery::Subquery;
use super::text;
use super::types::Type;
use super::value::Maybe;
use crate::shape::table::{TableSchema, quote};

/// The expression, with these subqueries.
pub(super) fn sql(expr: &Expr, table: &TableSchema, subqueries: &[Subquery]) -> String {
    let left = |subquery: &Subquery| -> Vec<String> {
        subquery.columns.iter().map(|at| quote(&table.columns[*at].name)).collect()
    };
    let atoms: Vec<String> = (subqueries.iter())
        .map(|subquery| format!("(({}) IN ({}))", left(subquery).join(", "), subquery.to_sql()))
        .collect();
    sql_with(expr, table, &atoms)
}

/// The expression, with these texts where subqueries stand.
pub(super) fn sql_with(expr: &Expr, table: &TableSchema, atoms: &[String]) -> String {
    let mut writer = Writer { out: String::new(), table, atoms };
    writer.expr(expr);
    writer.out
}

struct Writer<'a> {
    out: String,
    table: &'a TableSchema,
    atoms: &'a [String],
}

/// A string for SQL, safe whatever `standard_conforming_strings` is.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

impl Writer<'_> {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn list(&mut self, all: &[Expr], between: &str) {
        for (at, one) in all.iter().enumerate() {
            if at > 0 {
                self.push(between);
            }
            self.expr(one);
        }
    }

    fn call(&mut self, name: &str, all: &[Expr]) {
        self.push(name);
        self.push("(");
        self.list(all, ", ");
        self.push(")");
    }

    fn constant(&mut self, ty: &Type, value: &Maybe<'_>) {
        let Some(value) = value else {
            self.push("NULL");
            if let Some(name) = ty.sql() {
                let _ = write!(self.out, "::{name}");
            }
            return;
        };
        if *ty == Type::Bool {
            self.push(&text::show(ty, value));
            return;
        }
        self.push(&literal(&text::show(ty, value)));
        // Types of users' have no name that is safe to write: such a literal takes its type from its surroundings.
        if let Some(name) = ty.sql() {
            let _ = write!(self.out, "::{name}");
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            Kind::Const(value) => self.constant(&expr.ty, value),
            Kind::Column(index) => {
                let column = &self.table.columns[*index];
                let name = quote(&column.name);
                // A domain is what it stands for.
                match expr.ty.sql().filter(|_| column.type_oid != column.base.oid) {
                    Some(ty) => {
                        let _ = write!(self.out, "({name}::{ty})");
                    }
                    None => self.push(&name),
                }
            }
            // The SQL is made of the expression before it gets its sets.
            Kind::Among(of, _) => self.expr(of),
            Kind::Atom(index) => {
                if let Some(atom) = self.atoms.get(*index) {
                    self.push(atom);
                }
            }
            Kind::And(all) | Kind::Or(all) => {
                self.push("(");
                self.list(all, if matches!(expr.kind, Kind::And(_)) { " AND " } else { " OR " });
                self.push(")");
            }
            Kind::Not(of) => {
                self.push("(NOT ");
                self.expr(of);
                self.push(")");
            }
            Kind::IsNull(of) => self.null_test(of),
            Kind::Fields { column, null } => {
                let name = quote(&self.table.columns[*column].name);
                let _ = write!(self.out, "({name} IS {}NULL)", if *null { "" } else { "NOT " });
            }
            Kind::Is(wanted, of) => {
                self.push("(");
                self.expr(of);
                self.push(if *wanted { " IS TRUE)" } else { " IS FALSE)" });
            }
            Kind::Same(left, right) => {
                self.push("(");
                self.expr(left);
                self.push(" IS NOT DISTINCT FROM ");
                self.expr(right);
                self.push(")");
            }
            Kind::Call { sign, arguments, .. } => self.operator(*sign, arguments),
            Kind::Quantified { sign, all, left, right, .. } => {
                self.push("(");
                self.expr(left);
                if let Sign::Infix(sign) = sign {
                    let _ = write!(self.out, " OPERATOR(pg_catalog.{sign}) ");
                }
                self.push(if *all { "ALL (" } else { "ANY (" });
                self.expr(right);
                self.push("))");
            }
            Kind::Cast { of, modifier } => {
                self.push("(");
                self.expr(of);
                if let Some(name) = expr.ty.sql() {
                    let _ = write!(self.out, "::{name}");
                }
                if !modifier.is_empty() {
                    let all: Vec<String> = modifier.iter().map(i32::to_string).collect();
                    let _ = write!(self.out, "({})", all.join(", "));
                }
                self.push(")");
            }
            Kind::Coalesce(all) => self.call("COALESCE", all),
            Kind::Extreme { greatest, of } => self.call(if *greatest { "GREATEST" } else { "LEAST" }, of),
            Kind::Concat(all) => self.call("pg_catalog.concat", all),
            Kind::NullIf(left, right) => {
                self.push("NULLIF(");
                self.expr(left);
                self.push(", ");
                self.expr(right);
                self.push(")");
            }
            Kind::Case { branches, default } => {
                self.push("(CASE");
                for (when, then) in branches {
                    self.push(" WHEN ");
                    self.expr(when);
                    self.push(" THEN ");
                    self.expr(then);
                }
                if let Some(default) = default {
                    self.push(" ELSE ");
                    self.expr(default);
                }
                self.push(" END)");
            }
            Kind::Array(all) => {
                self.push("(ARRAY[");
                self.list(all, ", ");
                self.push("]");
                if let Some(name) = expr.ty.sql() {
                    let _ = write!(self.out, "::{name}");
                }
                self.push(")");
            }
            Kind::Subscript(of, indexes) => {
                self.push("(");
                self.expr(of);
                self.push(")");
                for index in indexes {
                    self.push("[");
                    self.expr(index);
                    self.push("]");
                }
            }
            Kind::Slice(of, bounds) => {
                self.push("(");
                self.expr(of);
                self.push(")");
                for (low, high) in bounds {
                    self.push("[");
                    if let Some(low) = low {
                        self.expr(low);
                    }
                    self.push(":");
                    if let Some(high) = high {
                        self.expr(high);
                    }
                    self.push("]");
                }
            }
            Kind::Collate(of) => {
                self.push("(");
                self.expr(of);
                self.push(" COLLATE pg_catalog.\"C\")");
            }
        }
    }

    fn null_test(&mut self, of: &Expr) {
        self.push("(");
        self.expr(of);
        // Of a composite value IS NULL would ask whether all its fields are null ([`Kind::Fields`]).
        self.push(if matches!(of.ty, Type::Other(_)) { " IS NOT DISTINCT FROM NULL)" } else { " IS NULL)" });
    }

    fn operator(&mut self, sign: Sign, arguments: &[Expr]) {
        match (sign, arguments) {
            (Sign::Function(name), _) => {
                let name = format!("pg_catalog.{name}");
                self.call(&name, arguments);
            }
            (Sign::Infix(sign), [left, right]) => {
                self.push("(");
                self.expr(left);
                let _ = write!(self.out, " OPERATOR(pg_catalog.{sign}) ");
                self.expr(right);
                self.push(")");
            }
            (Sign::Prefix(sign) | Sign::Infix(sign), all) => {
                let _ = write!(self.out, "(OPERATOR(pg_catalog.{sign}) ");
                self.list(all, ", ");
                self.push(")");
            }
        }
    }
}
