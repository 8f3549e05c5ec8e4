//! What stands between operators: literals, columns, calls, arrays, CASE, and whatever is in parentheses.

use super::super::MAX_DEPTH;
use super::super::error::WhereError;
use super::super::lexer::TokenKind;
use super::super::syntax::{Index, Kind, Node};
use super::Parser;
use super::words::RESERVED;

impl Parser<'_> {
    pub(super) fn primary(&mut self) -> Result<Node, WhereError> {
        let at = self.start();
        match self.peek().clone() {
            TokenKind::String(text) => {
                self.advance();
                self.node(at, Kind::String(text))
            }
            TokenKind::Integer(digits) => {
                self.advance();
                self.node(at, Kind::Integer(digits))
            }
            TokenKind::Decimal(digits) => {
                self.advance();
                self.node(at, Kind::Decimal(digits))
            }
            TokenKind::Param(number) => {
                self.advance();
                let node = self.node(at, Kind::Param(number))?;
                self.subscripts(node)
            }
            TokenKind::Punctuation("(") => {
                self.advance();
                if self.is_word("select") {
                    return Err(self.refused(at, "scalar subqueries are not supported: write column IN (SELECT …)"));
                }
                let mut items = self.items(")")?;
                if items.len() > 1 {
                    return self.node(at, Kind::Row(items));
                }
                let Some(inner) = items.pop() else { return Err(self.unexpected()) };
                self.subscripts(inner)
            }
            TokenKind::Quoted(_) => self.named(at),
            TokenKind::Word(word) => self.word(at, &word),
            _ => Err(self.unexpected()),
        }
    }

    fn word(&mut self, at: usize, word: &str) -> Result<Node, WhereError> {
        let called = matches!(self.peek_second(), TokenKind::Punctuation("("));
        match word {
            "true" | "false" => {
                self.advance();
                self.node(at, Kind::Bool(word == "true"))
            }
            "null" => {
                self.advance();
                self.node(at, Kind::Null)
            }
            "array" => {
                self.advance();
                if self.is_sign("(") {
                    return Err(self.refused(at, "ARRAY(SELECT …) is not supported"));
                }
                self.array(at)
            }
            "case" => self.case(at),
            "cast" if called => {
                self.advance();
                self.advance();
                let of = self.within()?.into();
                self.expect_word("as")?;
                let name = self.type_name()?;
                self.expect_sign(")")?;
                self.node(at, Kind::Cast(of, name))
            }
            "row" if called => {
                self.advance();
                self.advance();
                let items = self.items(")")?;
                self.node(at, Kind::Row(items))
            }
            "exists" if called => Err(self.refused(at, "EXISTS is not supported: write column IN (SELECT …)")),
            "like" | "left" | "right" | "ilike" if called => self.named(at),
            "current_date" | "current_time" | "current_timestamp" | "localtime" | "localtimestamp" | "current_user"
            | "session_user" | "user" | "current_role" | "current_catalog" | "current_schema" | "system_user" => {
                Err(self.refused(at, format!("{word} is not supported: it is not the same at all times")))
            }
            _ if RESERVED.contains(&word) => Err(self.unexpected()),
            _ => match self.typed_literal(at)? {
                Some(node) => Ok(node),
                None => self.named(at),
            },
        }
    }

    /// `DATE '2024-01-31'`
    fn typed_literal(&mut self, at: usize) -> Result<Option<Node>, WhereError> {
        let back = (self.at, self.nodes);
        if matches!(self.peek_second(), TokenKind::String(_) | TokenKind::Word(_) | TokenKind::Punctuation("(")) {
            if let Ok(name) = self.type_name()
                && let TokenKind::String(text) = self.peek().clone()
            {
                let text_at = self.start();
                self.advance();
                let of = self.node(text_at, Kind::String(text))?.into();
                return self.node(at, Kind::Cast(of, name)).map(Some);
            }
            (self.at, self.nodes) = back;
        }
        Ok(None)
    }

    /// A column or a call.
    fn named(&mut self, at: usize) -> Result<Node, WhereError> {
        if matches!(self.peek_second(), TokenKind::Punctuation("(")) {
            let name = self.qualified_name()?;
            return self.call(at, name);
        }
        let names = self.names()?;
        if self.is_sign("(") && names.len() == 2 && names[0] == "pg_catalog" {
            return self.call(at, names[1].clone());
        }
        let node = self.node(at, Kind::Column(names))?;
        self.subscripts(node)
    }

    fn call(&mut self, at: usize, name: String) -> Result<Node, WhereError> {
        self.expect_sign("(")?;
        if self.is_word("variadic") || self.is_word("distinct") || self.is_word("all") {
            return Err(self.refused(self.start(), "VARIADIC, DISTINCT and ALL are not supported in calls"));
        }
        if matches!(self.peek(), TokenKind::Operator(sign) if sign == "*") {
            return Err(self.refused(at, "aggregates are not supported"));
        }
        let arguments = if self.take_sign(")") { Vec::new() } else { self.items(")")? };
        if self.is_word("over") || self.is_word("filter") || self.is_word("within") {
            return Err(self.refused(at, "aggregates and window functions are not supported"));
        }
        self.node(at, Kind::Function { name, arguments })
    }

    /// `[1]`, `[1:2]`, any number of them.
    fn subscripts(&mut self, of: Node) -> Result<Node, WhereError> {
        let at = self.start();
        let mut indexes = Vec::new();
        while self.take_sign("[") {
            let low = if self.is_sign(":") { None } else { Some(self.within()?) };
            if self.take_sign(":") {
                let high = if self.is_sign("]") { None } else { Some(self.within()?) };
                indexes.push(Index::Slice(low, high));
            } else {
                indexes.push(Index::One(low.ok_or_else(|| self.unexpected())?));
            }
            self.expect_sign("]")?;
        }
        if self.is_sign(".") {
            return Err(self.refused(at, "fields of composite values are not supported"));
        }
        if indexes.is_empty() { Ok(of) } else { self.node(at, Kind::Subscript(of.into(), indexes)) }
    }

    /// `[a, b]`, `[[a, b], [c, d]]`
    fn array(&mut self, at: usize) -> Result<Node, WhereError> {
        self.level += 1;
        if self.level > MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        self.expect_sign("[")?;
        let items = if self.take_sign("]") {
            Vec::new()
        } else if self.is_sign("[") {
            let mut rows = Vec::new();
            loop {
                let start = self.start();
                rows.push(self.array(start)?);
                if self.take_sign("]") {
                    break rows;
                }
                self.expect_sign(",")?;
            }
        } else {
            self.items("]")?
        };
        self.level -= 1;
        self.node(at, Kind::Array(items))
    }

    fn case(&mut self, at: usize) -> Result<Node, WhereError> {
        self.advance();
        let operand = if self.is_word("when") { None } else { Some(self.within()?.into()) };
        let mut branches = Vec::new();
        while self.take_word("when") {
            let when = self.within()?;
            self.expect_word("then")?;
            branches.push((when, self.within()?));
        }
        if branches.is_empty() {
            return Err(self.unexpected());
        }
        let default = if self.take_word("else") { Some(self.within()?.into()) } else { None };
        self.expect_word("end")?;
        self.node(at, Kind::Case { operand, branches, default })
    }
}
