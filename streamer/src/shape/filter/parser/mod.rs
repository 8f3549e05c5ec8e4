//! Tokens into a tree, with the precedences and associativities of Postgres' grammar (`src/backend/parser/gram.y`):
//! what would be a syntax error there is one here, and nothing is grouped otherwise than there.
//!
//! Here are the tokens, one behind the other, and the bounds; `operators` says what binds how, `primary` what stands between
//! operators, `names` what columns and types are called, `words` what is no name.

mod names;
mod operators;
mod primary;
mod words;

use super::error::WhereError;
use super::lexer::{Token, TokenKind, characters, tokens};
use super::syntax::{Kind, Node};
use super::{MAX_DEPTH, MAX_NODES, MAX_TOKENS};
use words::CLAUSES;

/// Clients know the places of syntax errors in `SELECT 1 WHERE …`.
pub(super) const SHIFT: usize = "SELECT 1 WHERE ".len();

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
}
