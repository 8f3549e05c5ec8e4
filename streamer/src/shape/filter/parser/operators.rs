//! Operators: how tightly each binds, which of them chain, and what each makes of its sides.

use super::super::error::WhereError;
use super::super::lexer::TokenKind;
use super::super::syntax::{Kind, Node, Select, Test};
use super::Parser;

const OR: u8 = 10;
const AND: u8 = 20;
const NOT: u8 = 30;
const IS: u8 = 40;
const COMPARISON: u8 = 50;
const RANGE: u8 = 60;
const OTHER: u8 = 70;
const SUM: u8 = 80;
const PRODUCT: u8 = 90;
const POWER: u8 = 100;
const AT: u8 = 110;
const COLLATE: u8 = 120;
const SIGN: u8 = 130;
const TYPECAST: u8 = 150;

impl Parser<'_> {
    pub(super) fn operators(&mut self, least: u8) -> Result<Node, WhereError> {
        let mut left = self.prefix()?;
        // Comparisons and their like do not chain: `a < b < c` is a syntax error in Postgres too.
        let mut closed = u8::MAX;
        loop {
            let Some((strength, chains)) = self.infix() else { return Ok(left) };
            if strength < least {
                return Ok(left);
            }
            if strength == closed {
                return Err(self.unexpected());
            }
            let (node, quantified) = self.after(left, strength)?;
            left = node;
            closed = if chains || quantified { u8::MAX } else { strength };
        }
    }

    /// How tightly the operator that comes now binds, and whether it chains; none if none comes.
    fn infix(&self) -> Option<(u8, bool)> {
        match self.peek() {
            TokenKind::Operator(sign) => Some(match sign.as_str() {
                "<" | ">" | "=" | "<=" | ">=" | "<>" => (COMPARISON, false),
                "+" | "-" => (SUM, true),
                "*" | "/" | "%" => (PRODUCT, true),
                "^" => (POWER, true),
                _ => (OTHER, true),
            }),
            TokenKind::Punctuation("::") => Some((TYPECAST, true)),
            TokenKind::Word(word) if !self.bounded => match word.as_str() {
                "or" => Some((OR, true)),
                "and" => Some((AND, true)),
                "is" | "isnull" | "notnull" => Some((IS, false)),
                "between" | "in" | "like" | "ilike" | "similar" => Some((RANGE, false)),
                "not" => match self.peek_second() {
                    TokenKind::Word(next)
                        if matches!(next.as_str(), "between" | "in" | "like" | "ilike" | "similar") =>
                    {
                        Some((RANGE, false))
                    }
                    _ => None,
                },
                "at" if self.is_second_word("time") => Some((AT, true)),
                "collate" => Some((COLLATE, true)),
                _ => None,
            },
            TokenKind::Word(word) if word == "is" && self.is_distinct() => Some((IS, false)),
            _ => None,
        }
    }

    /// `IS [NOT] DISTINCT` comes.
    fn is_distinct(&self) -> bool {
        let word = |ahead: usize| match self.tokens.get(self.at + ahead).map(|token| &token.kind) {
            Some(TokenKind::Word(word)) => word.as_str(),
            _ => "",
        };
        word(1) == "distinct" || (word(1) == "not" && word(2) == "distinct")
    }

    /// What the operator makes of its left side and of what follows; and whether it was `op ANY (…)`.
    fn after(&mut self, left: Node, strength: u8) -> Result<(Node, bool), WhereError> {
        let at = self.start();
        let node = match strength {
            TYPECAST => {
                self.advance();
                let name = self.type_name()?;
                self.node(at, Kind::Cast(left.into(), name))?
            }
            OR | AND => return Ok((self.chain(left, strength)?, false)),
            IS => self.is(left)?,
            RANGE => return self.range(left),
            AT => {
                self.advance();
                self.advance();
                self.expect_word("zone")?;
                let zone = self.expression(AT + 1)?;
                self.node(at, Kind::AtTimeZone(left.into(), zone.into()))?
            }
            COLLATE => {
                self.advance();
                let name = self.qualified_name()?;
                self.node(at, Kind::Collate(left.into(), name))?
            }
            _ => {
                let TokenKind::Operator(sign) = self.peek().clone() else { return Err(self.unexpected()) };
                self.advance();
                if let Some(all) = self.quantifier() {
                    return Ok((self.quantified(at, left, sign, all)?, true));
                }
                let right = self.expression(strength + 1)?;
                self.node(at, Kind::Binary(sign, left.into(), right.into()))?
            }
        };
        Ok((node, false))
    }

    /// `a AND b AND c` is one node, however long.
    fn chain(&mut self, first: Node, strength: u8) -> Result<Node, WhereError> {
        let at = first.at;
        let word = if strength == AND { "and" } else { "or" };
        let mut all = vec![first];
        while self.take_word(word) {
            all.push(self.expression(strength + 1)?);
        }
        self.node(at, if strength == AND { Kind::And(all) } else { Kind::Or(all) })
    }

    fn is(&mut self, of: Node) -> Result<Node, WhereError> {
        let at = self.start();
        let of = Box::new(of);
        if self.take_word("isnull") {
            return self.node(at, Kind::Is { test: Test::Null, negated: false, of });
        }
        if self.take_word("notnull") {
            return self.node(at, Kind::Is { test: Test::Null, negated: true, of });
        }
        self.advance();
        let negated = self.take_word("not");
        if self.take_word("distinct") {
            self.expect_word("from")?;
            let right = self.expression(IS + 1)?.into();
            return self.node(at, Kind::Distinct { negated, left: of, right });
        }
        let test = match self.peek() {
            TokenKind::Word(word) => match word.as_str() {
                "null" => Test::Null,
                "true" => Test::True,
                "false" => Test::False,
                "unknown" => Test::Unknown,
                _ => return Err(self.unexpected()),
            },
            _ => return Err(self.unexpected()),
        };
        self.advance();
        self.node(at, Kind::Is { test, negated, of })
    }

    /// `[NOT] BETWEEN | IN | LIKE | ILIKE`
    fn range(&mut self, of: Node) -> Result<(Node, bool), WhereError> {
        let at = self.start();
        let negated = self.take_word("not");
        if self.take_word("between") {
            let symmetric = self.take_word("symmetric");
            if !symmetric {
                self.take_word("asymmetric");
            }
            let outer = std::mem::replace(&mut self.bounded, true);
            let low = self.expression(0);
            self.bounded = outer;
            let low = low?.into();
            self.expect_word("and")?;
            let high = self.expression(RANGE + 1)?.into();
            return Ok((self.node(at, Kind::Between { negated, symmetric, of: of.into(), low, high })?, false));
        }
        if self.take_word("in") {
            return Ok((self.list(at, of, negated)?, false));
        }
        let fold = self.is_word("ilike");
        if !fold && !self.is_word("like") {
            return Err(self.refused(at, "SIMILAR TO is not supported: use LIKE"));
        }
        self.advance();
        if let Some(all) = self.quantifier() {
            let sign = match (negated, fold) {
                (false, false) => "~~",
                (false, true) => "~~*",
                (true, false) => "!~~",
                (true, true) => "!~~*",
            };
            return Ok((self.quantified(at, of, sign.to_owned(), all)?, true));
        }
        let pattern = self.expression(RANGE + 1)?.into();
        let escape = if self.take_word("escape") { Some(self.expression(RANGE + 1)?.into()) } else { None };
        Ok((self.node(at, Kind::Like { negated, fold, of: of.into(), pattern, escape })?, false))
    }

    /// ANY, SOME or ALL with what stands in parentheses behind it: whether it is ALL.
    fn quantifier(&mut self) -> Option<bool> {
        if !matches!(self.peek_second(), TokenKind::Punctuation("(")) {
            return None;
        }
        let all = match self.peek() {
            TokenKind::Word(word) if word == "any" || word == "some" => false,
            TokenKind::Word(word) if word == "all" => true,
            _ => return None,
        };
        self.advance();
        Some(all)
    }

    fn quantified(&mut self, at: usize, left: Node, operator: String, all: bool) -> Result<Node, WhereError> {
        self.expect_sign("(")?;
        if self.is_word("select") {
            if operator == "=" && !all {
                let select = self.select()?.into();
                return self.node(at, Kind::InSelect { negated: false, left: vec![left], select });
            }
            return Err(self.refused(at, "of subqueries only IN and NOT IN are supported"));
        }
        let right = self.within()?.into();
        self.expect_sign(")")?;
        self.node(at, Kind::Quantified { operator, all, left: left.into(), right })
    }

    /// Behind IN.
    fn list(&mut self, at: usize, left: Node, negated: bool) -> Result<Node, WhereError> {
        self.expect_sign("(")?;
        if self.is_word("select") {
            let select = self.select()?.into();
            let left = match left.kind {
                Kind::Row(columns) => columns,
                _ => vec![left],
            };
            return self.node(at, Kind::InSelect { negated, left, select });
        }
        let list = self.items(")")?;
        self.node(at, Kind::In { negated, left: left.into(), list })
    }

    /// `SELECT column, … FROM table [WHERE …] )`
    fn select(&mut self) -> Result<Select, WhereError> {
        let start = self.start();
        self.expect_word("select")?;
        let plain = "a subquery is SELECT columns FROM table WHERE …, without anything else";
        if self.is_word("distinct") || self.is_word("all") {
            return Err(self.refused(start, plain));
        }
        let mut columns = Vec::new();
        loop {
            let at = self.start();
            if !self.is_name() {
                return Err(self.refused(at, plain));
            }
            columns.push((at, self.names()?));
            if !self.take_sign(",") {
                break;
            }
        }
        if !self.take_word("from") {
            return Err(self.refused(self.start(), plain));
        }
        let table_at = self.start();
        let table = self.names()?;
        let filter = if self.take_word("where") { Some(self.within()?) } else { None };
        if !self.take_sign(")") {
            return Err(match self.peek() {
                TokenKind::End => self.unexpected(),
                _ => self.refused(self.start(), plain),
            });
        }
        Ok(Select { columns, table, table_at, filter })
    }

    fn prefix(&mut self) -> Result<Node, WhereError> {
        let at = self.start();
        match self.peek().clone() {
            TokenKind::Word(word) if word == "not" && !self.bounded => {
                self.advance();
                let of = self.expression(NOT)?.into();
                self.node(at, Kind::Not(of))
            }
            TokenKind::Operator(sign) => {
                let strength = match sign.as_str() {
                    "+" | "-" => SIGN,
                    "<" | ">" | "=" | "<=" | ">=" | "<>" | "*" | "/" | "%" | "^" => return Err(self.unexpected()),
                    _ => OTHER + 1,
                };
                self.advance();
                let of = self.expression(strength)?;
                // A sign before a number is part of it, so that the smallest integers can be written.
                if sign == "-" {
                    match of.kind {
                        Kind::Integer(digits) if !digits.starts_with('-') => {
                            return self.node(at, Kind::Integer(format!("-{digits}")));
                        }
                        Kind::Decimal(digits) if !digits.starts_with('-') => {
                            return self.node(at, Kind::Decimal(format!("-{digits}")));
                        }
                        _ => {}
                    }
                }
                self.node(at, Kind::Unary(sign, of.into()))
            }
            _ => self.primary(),
        }
    }
}
