//! Text into tokens, as Postgres' own scanner cuts them (`src/backend/parser/scan.l`, `standard_conforming_strings = on`).
//! What it would take and we do not (bit strings, `U&''`, national strings) is refused, never read differently.

use super::error::WhereError;

/// Postgres cuts longer identifiers off, with a notice (NAMEDATALEN).
pub(super) const MAX_NAME_BYTES: usize = 63;

/// A token and where it begins, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// An identifier or keyword, lower-cased.
    Word(String),
    /// `"Quoted"`: never a keyword.
    Quoted(String),
    String(String),
    /// Digits only.
    Integer(String),
    /// With a point or an exponent.
    Decimal(String),
    Param(u32),
    Operator(String),
    /// `( ) [ ] , . :` and `::`
    Punctuation(&'static str),
    End,
}

/// The tokens of `text`, `End` last.
pub(super) fn tokens(text: &str, most: usize) -> Result<Vec<Token>, WhereError> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0 };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next()?;
        let end = token.kind == TokenKind::End;
        tokens.push(token);
        if end {
            return Ok(tokens);
        }
        if tokens.len() > most {
            return Err(WhereError::whole(format!("the expression has more than {most} words and signs")));
        }
    }
}

/// The place of a byte in characters.
pub(super) fn characters(text: &str, byte: usize) -> usize {
    text.get(..byte).map_or(byte, |before| before.chars().count())
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn error(&self, start: usize, message: impl Into<String>) -> WhereError {
        WhereError::at(super::parser::SHIFT + characters(self.text, start), message)
    }

    fn next(&mut self) -> Result<Token, WhereError> {
        self.skip_space()?;
        let start = self.at;
        let kind = self.kind(start)?;
        Ok(Token { kind, start, end: self.at })
    }

    fn kind(&mut self, start: usize) -> Result<TokenKind, WhereError> {
        if self.at >= self.bytes.len() {
            return Ok(TokenKind::End);
        }
        let byte = self.peek(0);
        match byte {
            0 => Err(self.error(start, "the character NUL is not allowed")),
            b';' => Err(WhereError::whole("unescaped \";\" causing statement split")),
            b'\'' => self.string(start).map(TokenKind::String),
            b'"' => self.quoted(start),
            b'$' => self.dollar(start),
            b'0'..=b'9' => self.number(start),
            b'.' if self.peek(1).is_ascii_digit() => self.number(start),
            b'(' => Ok(self.punctuation("(")),
            b')' => Ok(self.punctuation(")")),
            b'[' => Ok(self.punctuation("[")),
            b']' => Ok(self.punctuation("]")),
            b',' => Ok(self.punctuation(",")),
            b'.' => Ok(self.punctuation(".")),
            b':' if self.peek(1) == b':' => Ok(self.punctuation("::")),
            b':' if self.peek(1) == b'=' => Err(self.error(start, "syntax error at or near \":=\"")),
            b':' => Ok(self.punctuation(":")),
            _ if is_name_start(byte) => self.word(start),
            _ if is_operator(byte) => Ok(self.operator()),
            _ => {
                let sign = self.text[start..].chars().next().unwrap_or(' ');
                Err(self.error(start, format!("syntax error at or near \"{sign}\"")))
            }
        }
    }

    fn punctuation(&mut self, sign: &'static str) -> TokenKind {
        self.at += sign.len();
        TokenKind::Punctuation(sign)
    }

    fn skip_space(&mut self) -> Result<(), WhereError> {
        loop {
            match self.peek(0) {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.peek(1) == b'-' => {
                    while self.at < self.bytes.len() && !matches!(self.peek(0), b'\n' | b'\r') {
                        self.at += 1;
                    }
                }
                b'/' if self.peek(1) == b'*' => self.skip_comment()?,
                _ => return Ok(()),
            }
        }
    }

    /// Comments nest.
    fn skip_comment(&mut self) -> Result<(), WhereError> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ if self.at >= self.bytes.len() => return Err(self.error(start, "unterminated /* comment")),
                _ => self.at += 1,
            }
        }
    }

    fn word(&mut self, start: usize) -> Result<TokenKind, WhereError> {
        if self.peek(1) == b'\'' {
            match self.peek(0) {
                b'e' | b'E' => {
                    self.at += 1;
                    return self.escaped(start).map(TokenKind::String);
                }
                b'b' | b'B' | b'x' | b'X' | b'n' | b'N' => {
                    return Err(self.error(start, "bit strings and national strings are not supported"));
                }
                _ => {}
            }
        }
        if matches!(self.peek(0), b'u' | b'U') && self.peek(1) == b'&' && matches!(self.peek(2), b'\'' | b'"') {
            return Err(self.error(start, "U& escapes are not supported: write the characters themselves"));
        }
        while is_name_part(self.peek(0)) {
            self.at += 1;
        }
        Ok(TokenKind::Word(cut(&self.text[start..self.at].to_ascii_lowercase()).to_owned()))
    }

    /// What is between two `quote`s; a doubled one stands for itself.
    fn between(&mut self, start: usize, quote: u8, unterminated: &str) -> Result<String, WhereError> {
        self.at += 1;
        let mut content = String::new();
        let mut from = self.at;
        loop {
            if self.at >= self.bytes.len() {
                return Err(self.error(start, unterminated));
            }
            if self.peek(0) == 0 {
                return Err(self.error(self.at, "the character NUL is not allowed"));
            }
            if self.peek(0) == quote {
                content.push_str(&self.text[from..self.at]);
                if self.peek(1) != quote {
                    self.at += 1;
                    return Ok(content);
                }
                content.push(char::from(quote));
                self.at += 1;
                from = self.at + 1;
            }
            self.at += 1;
        }
    }

    fn string(&mut self, start: usize) -> Result<String, WhereError> {
        self.between(start, b'\'', "unterminated quoted string")
    }

    fn quoted(&mut self, start: usize) -> Result<TokenKind, WhereError> {
        let name = self.between(start, b'"', "unterminated quoted identifier")?;
        if name.is_empty() {
            return Err(self.error(start, "zero-length delimited identifier at or near \"\"\"\""));
        }
        Ok(TokenKind::Quoted(cut(&name).to_owned()))
    }

    /// `E'…'`
    fn escaped(&mut self, start: usize) -> Result<String, WhereError> {
        self.at += 1;
        let mut content: Vec<u8> = Vec::new();
        loop {
            if self.at >= self.bytes.len() {
                return Err(self.error(start, "unterminated quoted string"));
            }
            let byte = self.peek(0);
            self.at += 1;
            match byte {
                b'\'' if self.peek(0) == b'\'' => {
                    self.at += 1;
                    content.push(b'\'');
                }
                b'\'' => break,
                b'\\' => self.escape(&mut content)?,
                _ => content.push(byte),
            }
        }
        match String::from_utf8(content) {
            Ok(content) if !content.contains('\0') => Ok(content),
            _ => Err(self.error(start, "the escapes make no valid UTF-8 text")),
        }
    }

    /// Behind a backslash.
    fn escape(&mut self, content: &mut Vec<u8>) -> Result<(), WhereError> {
        let start = self.at - 1;
        let byte = self.peek(0);
        self.at += 1;
        match byte {
            b'b' => content.push(8),
            b'f' => content.push(12),
            b'n' => content.push(b'\n'),
            b'r' => content.push(b'\r'),
            b't' => content.push(b'\t'),
            b'0'..=b'7' => {
                self.at -= 1;
                let value = self.digits(8, 3);
                content.push(u8::try_from(value & 0xff).unwrap_or(0));
            }
            b'x' if self.peek(0).is_ascii_hexdigit() => {
                let value = self.digits(16, 2);
                content.push(u8::try_from(value).unwrap_or(0));
            }
            b'u' | b'U' => {
                let length = if byte == b'u' { 4 } else { 8 };
                let from = self.at;
                let value = self.digits(16, length);
                let character = char::from_u32(value).filter(|_| self.at - from == length);
                // Surrogate pairs are two escapes in Postgres; nobody has to write them.
                let character = character.ok_or_else(|| self.error(start, "invalid Unicode escape"))?;
                content.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            0 => return Err(self.error(start, "unterminated quoted string")),
            _ => content.push(byte),
        }
        Ok(())
    }

    fn digits(&mut self, radix: u32, most: usize) -> u32 {
        let mut value = 0_u32;
        for _ in 0..most {
            let Some(digit) = char::from(self.peek(0)).to_digit(radix) else { break };
            value = value.wrapping_mul(radix).wrapping_add(digit);
            self.at += 1;
        }
        value
    }

    /// `$1`, `$$text$$`, `$tag$text$tag$`
    fn dollar(&mut self, start: usize) -> Result<TokenKind, WhereError> {
        if self.peek(1).is_ascii_digit() {
            self.at += 1;
            let from = self.at;
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
            let digits = &self.text[from..self.at];
            if is_name_start(self.peek(0)) {
                return Err(self.error(start, format!("trailing junk after parameter at or near \"${digits}\"")));
            }
            let number = digits.parse().map_err(|_| self.error(start, "parameter number too large"))?;
            return Ok(TokenKind::Param(number));
        }
        self.at += 1;
        while is_name_part(self.peek(0)) && self.peek(0) != b'$' {
            self.at += 1;
        }
        if self.peek(0) != b'$' {
            return Err(self.error(start, "syntax error at or near \"$\""));
        }
        self.at += 1;
        let delimiter = &self.text[start..self.at];
        let Some(length) = self.text[self.at..].find(delimiter) else {
            return Err(self.error(start, "unterminated dollar-quoted string"));
        };
        let content = self.text[self.at..self.at + length].to_owned();
        if content.contains('\0') {
            return Err(self.error(start, "the character NUL is not allowed"));
        }
        self.at += length + delimiter.len();
        Ok(TokenKind::String(content))
    }

    fn number(&mut self, start: usize) -> Result<TokenKind, WhereError> {
        let mut decimal = false;
        self.skip_digits();
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            decimal = true;
            self.at += 1;
            self.skip_digits();
        }
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                decimal = true;
                self.at += 1 + sign;
                self.skip_digits();
            }
        }
        if is_name_start(self.peek(0)) {
            let text = &self.text[start..self.at];
            return Err(self.error(start, format!("trailing junk after numeric literal at or near \"{text}\"")));
        }
        let text = self.text[start..self.at].to_owned();
        Ok(if decimal { TokenKind::Decimal(text) } else { TokenKind::Integer(text) })
    }

    fn skip_digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }

    fn operator(&mut self) -> TokenKind {
        let mut length = 0;
        while is_operator(self.peek(length)) {
            let two = (self.peek(length), self.peek(length + 1));
            if two == (b'-', b'-') || two == (b'/', b'*') {
                break;
            }
            length += 1;
        }
        // An operator ends in + or - only if it has a sign that SQL itself does not use: `a=-1` is two operators.
        let text = &self.bytes[self.at..self.at + length];
        if length > 1 && !text.iter().any(|byte| b"~!@#^&|`?%".contains(byte)) {
            let kept = text.iter().rposition(|byte| !matches!(byte, b'+' | b'-')).map_or(1, |last| last + 1);
            length = kept;
        }
        let text = &self.text[self.at..self.at + length];
        self.at += length;
        TokenKind::Operator(if text == "!=" { "<>".to_owned() } else { text.to_owned() })
    }
}

/// A name as Postgres keeps it: at most 63 bytes, whole characters.
pub(super) fn cut(name: &str) -> &str {
    if name.len() <= MAX_NAME_BYTES {
        return name;
    }
    let mut end = MAX_NAME_BYTES;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_name_part(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn is_operator(byte: u8) -> bool {
    byte != 0 && b"~!@#^&|`?+-*/%<>=".contains(&byte)
}
