//! Tokens into a tree, with the precedences and associativities of Postgres' grammar (`src/backend/parser/gram.y`):
//! what would be a syntax error there is one here, and nothing is grouped otherwise than there.

use super::error::WhereError;
use super::lexer::{Token, TokenKind, characters, tokens};
use super::syntax::{Index, Kind, Node, Select, Test, TypeName};
use super::{MAX_DEPTH, MAX_NODES, MAX_TOKENS};

/// Clients know the places of syntax errors in `SELECT 1 WHERE …`.
pub(super) const SHIFT: usize = "SELECT 1 WHERE ".len();

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

/// Words that cannot name a column without quotes.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "system_user",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
    // These may name functions and types, but not columns.
    "authorization",
    "binary",
    "collation",
    "concurrently",
    "cross",
    "current_schema",
    "freeze",
    "full",
    "ilike",
    "inner",
    "is",
    "isnull",
    "join",
    "left",
    "like",
    "natural",
    "notnull",
    "outer",
    "overlaps",
    "right",
    "similar",
    "tablesample",
    "verbose",
];

/// Words that end a clause: what follows is another part of a query.
const CLAUSES: &[&str] = &[
    "order",
    "group",
    "having",
    "limit",
    "offset",
    "fetch",
    "union",
    "intersect",
    "except",
    "for",
    "window",
    "returning",
];

/// The tree of a whole `where` text.
pub(super) fn parse(text: &str) -> Result<Node, WhereError> {
    let mut parser = Parser::new(text)?;
    let node = parser.expression(0)?;
    parser.end()?;
    Ok(node)
}

/// Reads tokens of one text.
pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    /// Calls within calls.
    level: usize,
    /// How many nodes there are.
    nodes: usize,
    /// Within the lower bound of BETWEEN, where AND is not an operator.
    bounded: bool,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, WhereError> {
        Ok(Self { text, tokens: tokens(text, MAX_TOKENS)?, at: 0, level: 0, nodes: 0, bounded: false })
    }

    fn peek(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    fn peek_second(&self) -> &TokenKind {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    fn start(&self) -> usize {
        self.tokens[self.at].start
    }

    fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    /// The error at the present token.
    pub(super) fn unexpected(&self) -> WhereError {
        let token = &self.tokens[self.at];
        let place = SHIFT + characters(self.text, token.start);
        if token.kind == TokenKind::End {
            return WhereError::at(place, "syntax error at end of input");
        }
        let near = self.text.get(token.start..token.end).unwrap_or("");
        WhereError::at(place, format!("syntax error at or near \"{near}\""))
    }

    fn refused(&self, start: usize, message: impl Into<String>) -> WhereError {
        WhereError::at(characters(self.text, start), message)
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), TokenKind::Word(found) if found == word)
    }

    fn is_second_word(&self, word: &str) -> bool {
        matches!(self.peek_second(), TokenKind::Word(found) if found == word)
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), TokenKind::Punctuation(found) if *found == sign)
    }

    pub(super) fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.advance();
        }
        found
    }

    fn expect_sign(&mut self, sign: &str) -> Result<(), WhereError> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn expect_word(&mut self, word: &str) -> Result<(), WhereError> {
        if self.take_word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), WhereError> {
        match self.peek() {
            TokenKind::End => Ok(()),
            TokenKind::Word(word) if CLAUSES.contains(&word.as_str()) => {
                Err(WhereError::whole("malformed query ending with SQL clauses"))
            }
            _ => Err(self.unexpected()),
        }
    }

    fn node(&mut self, at: usize, kind: Kind) -> Result<Node, WhereError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(WhereError::whole(format!("the expression has more than {MAX_NODES} parts")));
        }
        let mut node = Node { at, kind, depth: 1 };
        let deepest = match &node.kind {
            // A leaf needs no list of children.
            Kind::Column(_) | Kind::String(_) | Kind::Integer(_) | Kind::Decimal(_) | Kind::Param(_) => 0,
            _ => node.children().iter().map(|child| child.depth).max().unwrap_or(0),
        };
        node.depth = deepest + 1;
        if node.depth > MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        Ok(node)
    }

    fn too_deep(&self, at: usize) -> WhereError {
        self.refused(at, format!("the expression is nested more than {MAX_DEPTH} deep"))
    }

    /// An expression of operators that bind at least as tightly as `least`.
    pub(super) fn expression(&mut self, least: u8) -> Result<Node, WhereError> {
        self.level += 1;
        if self.level > MAX_DEPTH {
            return Err(self.too_deep(self.start()));
        }
        let node = self.operators(least);
        self.level -= 1;
        node
    }

    fn operators(&mut self, least: u8) -> Result<Node, WhereError> {
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

    /// Expressions with commas between, and what ends them.
    fn items(&mut self, end: &str) -> Result<Vec<Node>, WhereError> {
        let mut items = Vec::new();
        loop {
            items.push(self.within()?);
            if self.take_sign(end) {
                return Ok(items);
            }
            self.expect_sign(",")?;
        }
    }

    /// An expression within parentheses or brackets, where everything is allowed again.
    fn within(&mut self) -> Result<Node, WhereError> {
        let outer = std::mem::replace(&mut self.bounded, false);
        let node = self.expression(0);
        self.bounded = outer;
        node
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

    fn primary(&mut self) -> Result<Node, WhereError> {
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

    fn is_name(&self) -> bool {
        match self.peek() {
            TokenKind::Quoted(_) => true,
            TokenKind::Word(word) => !RESERVED.contains(&word.as_str()),
            _ => false,
        }
    }

    /// `name`, `a.b`
    pub(super) fn names(&mut self) -> Result<Vec<String>, WhereError> {
        let mut names = Vec::new();
        loop {
            match self.peek().clone() {
                // Behind a point every word is a name.
                TokenKind::Word(word) if !names.is_empty() || !RESERVED.contains(&word.as_str()) => names.push(word),
                TokenKind::Quoted(name) => names.push(name),
                _ => return Err(self.unexpected()),
            }
            self.advance();
            if !self.take_sign(".") {
                return Ok(names);
            }
        }
    }

    /// A name of which `pg_catalog.` is no part.
    fn qualified_name(&mut self) -> Result<String, WhereError> {
        let start = self.start();
        let mut names = match self.peek().clone() {
            TokenKind::Word(word) if !matches!(self.peek_second(), TokenKind::Punctuation(".")) => {
                self.advance();
                vec![word]
            }
            _ => self.names()?,
        };
        if names.len() == 2 && names[0] == "pg_catalog" {
            names.remove(0);
        }
        match names.pop() {
            Some(name) if names.is_empty() => Ok(name),
            _ => Err(self.refused(start, "names with a schema are not supported here")),
        }
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

    fn type_name(&mut self) -> Result<TypeName, WhereError> {
        let start = self.start();
        let quoted = matches!(self.peek(), TokenKind::Quoted(_));
        let written = self.qualified_name()?;
        let mut modifiers = Vec::new();
        let mut name = written.clone();
        if !quoted {
            match written.as_str() {
                "double" => {
                    self.expect_word("precision")?;
                    "float8".clone_into(&mut name);
                }
                "character" | "char" if self.take_word("varying") => "varchar".clone_into(&mut name),
                "character" | "char" => {
                    "bpchar".clone_into(&mut name);
                    if !self.is_sign("(") {
                        modifiers.push(1);
                    }
                }
                "int" | "integer" => "int4".clone_into(&mut name),
                "bigint" => "int8".clone_into(&mut name),
                "smallint" => "int2".clone_into(&mut name),
                "real" => "float4".clone_into(&mut name),
                "decimal" | "dec" => "numeric".clone_into(&mut name),
                "boolean" => "bool".clone_into(&mut name),
                _ => {}
            }
        }
        if self.take_sign("(") {
            loop {
                let negative = matches!(self.peek(), TokenKind::Operator(sign) if sign == "-");
                if negative {
                    self.advance();
                }
                let TokenKind::Integer(digits) = self.peek().clone() else { return Err(self.unexpected()) };
                let value: i32 = digits.parse().map_err(|_| self.unexpected())?;
                modifiers.push(if negative { -value } else { value });
                self.advance();
                if self.take_sign(")") {
                    break;
                }
                self.expect_sign(",")?;
            }
        }
        if !quoted && written == "float" {
            let bits = modifiers.pop().unwrap_or(53);
            if !(1..=53).contains(&bits) {
                return Err(self.refused(start, "precision for type float must be between 1 and 53 bits"));
            }
            (if bits <= 24 { "float4" } else { "float8" }).clone_into(&mut name);
        }
        if !quoted && (written == "time" || written == "timestamp") && (self.is_word("with") || self.is_word("without"))
        {
            let with = self.is_word("with");
            self.advance();
            self.expect_word("time")?;
            self.expect_word("zone")?;
            if with {
                name.push_str("tz");
            }
        }
        let mut array = self.take_word("array");
        let brackets = !array;
        while self.take_sign("[") {
            array = true;
            if matches!(self.peek(), TokenKind::Integer(_)) {
                self.advance();
            }
            self.expect_sign("]")?;
            if !brackets {
                break;
            }
        }
        Ok(TypeName { name, modifiers, array })
    }
}
