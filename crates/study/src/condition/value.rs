//! The right side of a comparison, and the text of a setting: the same forms.

use std::fmt;

use telemetry::units::{Rate, Span};

/// What a name is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number: `16`, `-1`, `0.5`, `2.5k`.
    Number(f64),
    /// A share, as written in percent: `12 %`.
    Percent(f64),
    /// A time: `50ms`.
    Time(Span),
    /// Anything else, words separated by one space: `hash`, `32768 60999`.
    Word(String),
}

impl Value {
    /// Reads a value; what has no other meaning is a word.
    pub fn read(text: &str) -> Self {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(number) = decimal(&text) {
            Self::Number(number)
        } else if let Some(percent) = text.strip_suffix('%').and_then(|number| decimal(number.trim_end())) {
            Self::Percent(percent)
        } else if let Ok(span) = text.parse::<Span>() {
            Self::Time(span)
        } else if let Ok(rate) = text.parse::<Rate>() {
            Self::Number(rate.per_second())
        } else {
            Self::Word(text)
        }
    }

    /// As a number: a percentage as a ratio, a time in seconds; `None` for a word.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Percent(percent) => Some(percent / 100.0),
            Self::Time(span) => Some(span.duration().as_secs_f64()),
            Self::Word(_) => None,
        }
    }
}

/// A plain decimal number. f64's own parser would also take `inf`, `nan` and `1e3`, which are words here.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (plain && digits.starts_with(|c: char| c.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Percent(percent) => write!(f, "{percent} %"),
            Self::Time(span) => span.fmt(f),
            Self::Word(word) => f.write_str(word),
        }
    }
}
