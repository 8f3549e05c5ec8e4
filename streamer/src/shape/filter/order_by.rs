//! `ORDER BY` of a subset: columns, each ASC or DESC, NULLS FIRST or LAST. Nothing else: no expression ever gets there.

use super::error::WhereError;
use super::parser::Parser;
use crate::shape::table::{TableSchema, quote};

/// Most columns; more never make a difference.
const MAX_COLUMNS: usize = 64;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBy {
    /// The columns, by index of the table's.
    pub columns: Vec<usize>,
    sql: String,
}

impl OrderBy {
    /// What stands behind ORDER BY.
    pub fn to_sql(&self) -> &str {
        &self.sql
    }
}

/// Reads an order.
pub fn parse_order_by(text: &str, table: &TableSchema) -> Result<OrderBy, WhereError> {
    if text.len() > super::MAX_TEXT_BYTES {
        return Err(WhereError::whole(format!("order_by is longer than {} bytes", super::MAX_TEXT_BYTES)));
    }
    let refused = || WhereError::whole("order_by takes columns with ASC, DESC, NULLS FIRST, NULLS LAST, nothing else");
    let mut parser = Parser::new(text)?;
    let mut order = OrderBy { columns: Vec::new(), sql: String::new() };
    loop {
        let names = parser.names().map_err(|_| refused())?;
        let [name] = names.as_slice() else { return Err(refused()) };
        let index = table.column(name).ok_or_else(|| WhereError::whole(format!("unknown reference {name}")))?;
        if !order.columns.is_empty() {
            order.sql.push_str(", ");
        }
        order.sql.push_str(&quote(name));
        order.columns.push(index);
        if order.columns.len() > MAX_COLUMNS {
            return Err(WhereError::whole(format!("order_by has more than {MAX_COLUMNS} columns")));
        }
        if parser.take_word("desc") {
            order.sql.push_str(" DESC");
        } else {
            parser.take_word("asc");
        }
        if parser.take_word("nulls") {
            if parser.take_word("first") {
                order.sql.push_str(" NULLS FIRST");
            } else if parser.take_word("last") {
                order.sql.push_str(" NULLS LAST");
            } else {
                return Err(refused());
            }
        }
        if parser.take_sign(",") {
            continue;
        }
        return parser.end().map(|()| order).map_err(|_| refused());
    }
}
