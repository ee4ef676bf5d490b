//! Durations and rates as people write them: `500us`, `2.5k`.
//!
//! Owns the text forms of [`Span`] and [`Rate`], which are the same as a flag, in an environment variable, in an
//! experiment file and in a record. Parsing is exact (decimal arithmetic, never through a binary float where the value
//! is a whole number of nanoseconds) and printing is the shortest text that parses back to the same value. A number
//! without a unit is refused: `accept-delay = 500` has been milliseconds in one tool and microseconds in the next.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

/// Nanoseconds per second.
const SECOND: u128 = 1_000_000_000;

/// The units of a span in nanoseconds, greatest first. The first name of a unit is the one printed.
const UNITS: [(&[&str], u128); 6] = [
    (&["h"], 3600 * SECOND),
    (&["m", "min"], 60 * SECOND),
    (&["s"], SECOND),
    (&["ms"], 1_000_000),
    (&["us", "µs", "μs"], 1_000),
    (&["ns"], 1),
];

/// What the text of a [`Span`] looks like, as a regular expression: for the schemas of types built on it.
pub const SPAN_PATTERN: &str = r"(0+(\.0+)?|[0-9]+(\.[0-9]+)? *(ns|us|µs|μs|ms|s|min|m|h))";

/// A span of time with its unit: `250ns`, `500us`, `1.5ms`, `5s`, `1m`, `2h`, or a bare `0`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

/// Why a text is not a [`Span`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// A number without a unit.
    #[error("read the duration {0:?}: it has no unit; write a unit, e.g. {0}us, {0}ms or {0}s")]
    NoUnit(String),
    /// A unit that is not one of the six.
    #[error("read the duration {text:?}: {unit:?} is not a unit; use ns, us, ms, s, m or h, e.g. 500us")]
    UnknownUnit {
        /// What was written.
        text: String,
        /// Its part after the number.
        unit: String,
    },
    /// Not a number before the unit.
    #[error("read the duration {0:?}: it does not begin with a number; write a decimal number and a unit, e.g. 1.5ms")]
    NoNumber(String),
    /// More digits than a nanosecond can hold.
    #[error("read the duration {0:?}: it is not a whole number of nanoseconds; use fewer decimals")]
    TooFine(String),
    /// More than a [`Duration`] can hold.
    #[error("read the duration {0:?}: it is too long to represent; use a shorter one")]
    TooLong(String),
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// So many milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The span as the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Whole nanoseconds; spans beyond 584 years saturate.
    pub fn as_ns(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether the span is zero.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let written = text.trim();
        let own = || written.to_owned();
        let split = written.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(written.len());
        let (number, unit) = (&written[..split], written[split..].trim_start());
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || decimals.contains('.') || number.ends_with('.') {
            return Err(SpanError::NoNumber(own()));
        }
        let scale = match UNITS.iter().find(|(names, _)| names.contains(&unit)) {
            Some(&(_, scale)) => scale,
            // Zero is zero in every unit.
            None if unit.is_empty() && number.bytes().all(|digit| matches!(digit, b'0' | b'.')) => 1,
            None if unit.is_empty() => return Err(SpanError::NoUnit(own())),
            None => {
                return Err(SpanError::UnknownUnit { text: own(), unit: unit.to_owned() });
            }
        };

        let whole: u128 = whole.parse().map_err(|_| SpanError::TooLong(own()))?;
        let mut ns = whole.checked_mul(scale).ok_or_else(|| SpanError::TooLong(own()))?;
        let mut rest = scale;
        for digit in decimals.trim_end_matches('0').bytes() {
            // The weight of this decimal must be a whole number of nanoseconds, or become one with its digit (1.5m).
            let weighted = rest * u128::from(digit - b'0');
            if weighted % 10 != 0 {
                return Err(SpanError::TooFine(own()));
            }
            ns = ns.checked_add(weighted / 10).ok_or_else(|| SpanError::TooLong(own()))?;
            rest /= 10;
        }
        let seconds = u64::try_from(ns / SECOND).map_err(|_| SpanError::TooLong(own()))?;
        let nanos = u32::try_from(ns % SECOND).unwrap_or_default();
        Ok(Self(Duration::new(seconds, nanos)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        if ns == 0 {
            return f.pad("0");
        }
        let shortest = UNITS
            .iter()
            .filter(|(_, scale)| ns >= *scale)
            .filter_map(|&(names, scale)| in_unit(ns, scale).map(|number| format!("{number}{}", names[0])))
            // The first of equals wins, which is the greater unit: 1.000000001s rather than 1000000001ns.
            .min_by_key(String::len);
        f.pad(&shortest.unwrap_or_default())
    }
}

/// `ns` as an exact decimal number of `scale`, if it has one that a reader would write.
fn in_unit(ns: u128, scale: u128) -> Option<String> {
    let (whole, part) = (ns / scale, ns % scale);
    if part == 0 {
        return Some(whole.to_string());
    }
    // Nobody reads 0.35m: fractions only of the decimal units.
    (scale <= SECOND).then(|| {
        let digits = scale.ilog10() as usize;
        format!("{whole}.{}", format!("{part:0digits$}").trim_end_matches('0'))
    })
}

crate::string_serde!(Span, "a duration as text: write a unit, e.g. \"500us\"");
crate::text_schema!(Span, SPAN_PATTERN, or { "const": 0 });

/// Attempts per second: finite and greater than zero. Written `1000`, `2.5k`, `1M` or `1000/s`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

crate::text_schema!(Rate, r"[0-9]+(\.[0-9]+)? *[kM]? *(/s)?", or { "type": "number", "exclusiveMinimum": 0 });

/// Why a value is not a [`Rate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not a decimal number with an optional k, M and /s.
    #[error("read the rate {0:?}: it is not a number; write attempts per second, e.g. 1000, 2.5k or 1000/s")]
    NotANumber(String),
    /// Zero, negative or infinite.
    #[error("read the rate {0:?}: a rate is finite and greater than 0; write attempts per second, e.g. 1000")]
    NotPositive(String),
}

impl Rate {
    /// A thousand attempts per second.
    pub const THOUSAND: Self = Self(1000.0);

    /// A rate of `per_second` attempts per second.
    ///
    /// # Errors
    /// [`RateError::NotPositive`] unless finite and greater than zero.
    pub fn new(per_second: f64) -> Result<Self, RateError> {
        if per_second.is_finite() && per_second > 0.0 {
            Ok(Self(per_second))
        } else {
            Err(RateError::NotPositive(per_second.to_string()))
        }
    }

    /// Attempts per second.
    pub const fn per_second(self) -> f64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let written = text.trim();
        let not_a_number = || RateError::NotANumber(written.to_owned());
        let number = written.strip_suffix("/s").unwrap_or(written).trim_end();
        let (number, exponent) = match number.char_indices().next_back() {
            Some((at, 'k')) => (&number[..at], "e3"),
            Some((at, 'M')) => (&number[..at], "e6"),
            _ => (number, ""),
        };
        // f64 would also take "inf", "nan" and "1e3", the last of which cannot carry a k.
        if !number.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(not_a_number());
        }
        // The exponent is parsed with the digits, since 1.001 * 1000 is 1000.9999999999999.
        let value: f64 = format!("{number}{exponent}").parse().map_err(|_| not_a_number())?;
        Self::new(value).map_err(|_| RateError::NotPositive(written.to_owned()))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;

        impl serde::de::Visitor<'_> for NumberOrText {
            type Value = Rate;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("attempts per second, e.g. 1000 or \"2.5k\"")
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Rate, E> {
                Rate::new(value).map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Rate, E> {
                self.visit_f64(value as f64)
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Rate, E> {
                self.visit_f64(value as f64)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Rate, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(NumberOrText)
    }
}

/// A text that is no value of its type. It carries cause and fix in one line; types built on these units use it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseUnitError(String);

impl ParseUnitError {
    /// An error that says this.
    pub fn new(message: String) -> Self {
        Self(message)
    }
}

impl From<SpanError> for ParseUnitError {
    fn from(error: SpanError) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests;
