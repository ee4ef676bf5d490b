//! From text to comparisons.

use super::value::Value;
use super::{Comparison, Operator};

/// A text is not a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "read the condition `{text}`: at character {position}, expected {expected}, found {found} (e.g. `served-ratio >= 99 % and overflows = 0`)"
)]
pub struct ParseError {
    /// The whole text.
    pub text: String,
    /// Where, in characters from 1.
    pub position: usize,
    /// What should stand there.
    pub expected: &'static str,
    /// What stands there.
    pub found: String,
}

/// A part of the text with the byte offset where it begins.
type Token<'a> = (usize, &'a str);

fn is_operator(c: char) -> bool {
    matches!(c, '=' | '!' | '<' | '>')
}

/// Words and operators; an operator needs no space around it.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return tokens };
        let end = rest.find(|c: char| c.is_whitespace() || is_operator(c) != is_operator(first)).unwrap_or(rest.len());
        tokens.push((text.len() - rest.len(), &rest[..end]));
        rest = &rest[end..];
    }
}

/// Reads a whole condition.
pub(super) fn condition(text: &str) -> Result<Vec<Comparison>, ParseError> {
    let tokens = tokens(text);
    let mut reader = Reader { text, tokens: &tokens };
    let mut comparisons = vec![reader.comparison()?];
    while !reader.tokens.is_empty() {
        // A value runs up to `and`, so what follows it can be nothing else.
        reader.tokens = &reader.tokens[1..];
        comparisons.push(reader.comparison()?);
    }
    Ok(comparisons)
}

struct Reader<'a> {
    text: &'a str,
    tokens: &'a [Token<'a>],
}

impl<'a> Reader<'a> {
    fn comparison(&mut self) -> Result<Comparison, ParseError> {
        let name = self.next("a metric or setting", |token| !token.starts_with(is_operator) && token != "and")?;
        let symbol = self.next("one of = != < <= > >=", |token| Operator::ALL.iter().any(|op| op.symbol() == token))?;
        let operator = Operator::ALL.into_iter().find(|op| op.symbol() == symbol).unwrap_or(Operator::Equal);
        let mut words = vec![self.next("a value", |token| !token.starts_with(is_operator) && token != "and")?];
        while let Some((_, word)) = self.tokens.first().filter(|(_, token)| *token != "and") {
            if word.starts_with(is_operator) {
                return Err(self.error("`and` or the end"));
            }
            words.push(word);
            self.tokens = &self.tokens[1..];
        }
        Ok(Comparison { name: name.to_owned(), operator, value: Value::read(&words.join(" ")) })
    }

    /// The next token if it fits.
    fn next(&mut self, expected: &'static str, fits: impl Fn(&str) -> bool) -> Result<&'a str, ParseError> {
        match self.tokens.split_first() {
            Some(((_, token), rest)) if fits(token) => {
                self.tokens = rest;
                Ok(token)
            }
            _ => Err(self.error(expected)),
        }
    }

    fn error(&self, expected: &'static str) -> ParseError {
        let (offset, found) = match self.tokens.first() {
            Some((offset, token)) => (*offset, format!("`{token}`")),
            None => (self.text.len(), "the end".to_owned()),
        };
        let position = self.text[..offset].chars().count() + 1;
        ParseError { text: self.text.to_owned(), position, expected, found }
    }
}
