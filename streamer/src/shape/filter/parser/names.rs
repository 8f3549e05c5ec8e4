//! What columns, functions, collations and types are called.

use super::super::error::WhereError;
use super::super::lexer::TokenKind;
use super::super::syntax::TypeName;
use super::Parser;
use super::words::RESERVED;

impl Parser<'_> {
    pub(super) fn is_name(&self) -> bool {
        match self.peek() {
            TokenKind::Quoted(_) => true,
            TokenKind::Word(word) => !RESERVED.contains(&word.as_str()),
            _ => false,
        }
    }

    /// `name`, `a.b`
    pub(in crate::shape::filter) fn names(&mut self) -> Result<Vec<String>, WhereError> {
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
    pub(super) fn qualified_name(&mut self) -> Result<String, WhereError> {
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

    pub(super) fn type_name(&mut self) -> Result<TypeName, WhereError> {
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
