//! The words of a batch. <https://learn.microsoft.com/sql/t-sql/language-elements/language-elements-transact-sql>

use crate::error::{SqlError, syntax};

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A bare word: a keyword or a name.
    Word(String),
    /// A name in brackets or double quotes.
    Quoted(String),
    /// `@x` or `@@X`, with its signs.
    Variable(String),
    Text {
        value: String,
        unicode: bool,
    },
    /// Digits, perhaps a point, perhaps an exponent: as written.
    Number(String),
    Bytes(Vec<u8>),
    Sign(&'static str),
}

impl Token {
    /// As an error names it.
    pub fn shown(&self) -> String {
        match self {
            Token::Word(text) | Token::Quoted(text) | Token::Variable(text) | Token::Number(text) => text.clone(),
            Token::Text { value, .. } => value.clone(),
            Token::Bytes(_) => "0x".into(),
            Token::Sign(sign) => (*sign).into(),
        }
    }
}

const SIGNS: [&str; 21] =
    ["<>", "<=", ">=", "!=", "+=", "-=", "(", ")", ",", ".", ";", "=", "<", ">", "+", "-", "*", "/", "%", "{", "}"];

pub fn tokens(text: &str) -> Result<Vec<Token>, SqlError> {
    let mut lexer = Lexer { rest: text };
    let mut found = Vec::new();
    while let Some(token) = lexer.next()? {
        found.push(token);
    }
    Ok(found)
}

struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<Option<Token>, SqlError> {
        self.skip_blanks()?;
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        let token = match first {
            '[' => Token::Quoted(self.quoted(']')?),
            '"' => Token::Quoted(self.quoted('"')?),
            '\'' => Token::Text { value: self.quoted('\'')?, unicode: false },
            'N' | 'n' if self.rest[1..].starts_with('\'') => {
                self.rest = &self.rest[1..];
                Token::Text { value: self.quoted('\'')?, unicode: true }
            }
            '0' if self.rest[1..].starts_with(['x', 'X']) => self.bytes()?,
            '.' if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            c if c.is_ascii_digit() => self.number(),
            '@' => Token::Variable(self.while_true(is_of_word).to_string()),
            c if c.is_alphabetic() || c == '_' || c == '#' => Token::Word(self.while_true(is_of_word).to_string()),
            _ => self.sign()?,
        };
        Ok(Some(token))
    }

    fn while_true(&mut self, test: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !test(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip_blanks(&mut self) -> Result<(), SqlError> {
        loop {
            self.while_true(|c| c.is_whitespace() || c == '\u{feff}');
            if self.rest.starts_with("--") {
                self.while_true(|c| c != '\n');
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let end = comment.find("*/").ok_or_else(|| SqlError::new(113, 15, "Missing end comment mark '*/'."))?;
                self.rest = &comment[end + 2..];
            } else {
                return Ok(());
            }
        }
    }

    /// Up to the closing sign; twice it is itself.
    fn quoted(&mut self, close: char) -> Result<String, SqlError> {
        let mut value = String::new();
        let mut inner = self.rest[1..].char_indices().peekable();
        while let Some((at, c)) = inner.next() {
            if c != close {
                value.push(c);
            } else if inner.peek().is_some_and(|(_, next)| *next == close) {
                inner.next();
                value.push(c);
            } else {
                self.rest = &self.rest[1 + at + c.len_utf8()..];
                return Ok(value);
            }
        }
        let message = format!("Unclosed quotation mark after the character string '{value}'.");
        Err(SqlError::new(105, 15, message))
    }

    fn bytes(&mut self) -> Result<Token, SqlError> {
        self.rest = &self.rest[2..];
        let digits = self.while_true(|c| c.is_ascii_hexdigit());
        let even = if digits.len().is_multiple_of(2) { digits.to_string() } else { format!("0{digits}") };
        let byte = |at: usize| u8::from_str_radix(&even[at..at + 2], 16).map_err(|_| syntax(digits));
        (0..even.len()).step_by(2).map(byte).collect::<Result<_, _>>().map(Token::Bytes)
    }

    fn number(&mut self) -> Token {
        let mut text = self.while_true(|c| c.is_ascii_digit() || c == '.').to_string();
        if self.rest.starts_with(['e', 'E']) {
            let exponent = &self.rest[1..];
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.starts_with(|c: char| c.is_ascii_digit()) {
                text.push('e');
                text.push_str(&exponent[..exponent.len() - digits.len()]);
                self.rest = digits;
                text.push_str(self.while_true(|c| c.is_ascii_digit()));
            }
        }
        Token::Number(text)
    }

    fn sign(&mut self) -> Result<Token, SqlError> {
        let found = SIGNS.iter().find(|sign| self.rest.starts_with(**sign));
        let sign = found.ok_or_else(|| syntax(&self.rest.chars().take(1).collect::<String>()))?;
        self.rest = &self.rest[sign.len()..];
        Ok(Token::Sign(sign))
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '@' | '#' | '$')
}
