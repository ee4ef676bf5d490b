//! One text form per type: what a flag takes is what a TOML file and a JSON record hold.
//!
//! Owns [`string_serde!`](crate::string_serde!), which derives serde from `Display` and `FromStr`, so that a type cannot
//! be written one way on the command line and another way in a file.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error, Visitor};

/// Reads a value from a string and from nothing else. Made by [`string_serde!`](crate::string_serde!).
#[derive(Debug)]
pub struct TextVisitor<T> {
    expected: &'static str,
    value: PhantomData<T>,
}

impl<T> TextVisitor<T> {
    /// A visitor whose error says that `expected` belongs here.
    pub const fn new(expected: &'static str) -> Self {
        Self { expected, value: PhantomData }
    }
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    // A number in a file is the text of that number: `workers = 2` is `--workers 2`, and a type that wants a unit
    // says so in its own words.
    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Implements serde's `Serialize` and `Deserialize` for a type through its `Display` and `FromStr`.
///
/// A number counts as its text. Anything else is refused; the optional second argument says in that error what to write.
///
/// ```
/// # use std::{fmt, str::FromStr};
/// #[derive(Debug, PartialEq)]
/// struct Port(u16);
/// impl fmt::Display for Port {
///     fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result { write!(f, ":{}", self.0) }
/// }
/// impl FromStr for Port {
///     type Err = std::num::ParseIntError;
///     fn from_str(text: &str) -> Result<Self, Self::Err> { text.trim_start_matches(':').parse().map(Port) }
/// }
/// telemetry::string_serde!(Port, "a port as text, e.g. \":9700\"");
///
/// assert_eq!(serde_json::to_string(&Port(9700)).unwrap(), "\":9700\"");
/// assert_eq!(serde_json::from_str::<Port>("9700").unwrap(), Port(9700));
/// let error = serde_json::from_str::<Port>("true").unwrap_err().to_string();
/// assert!(error.contains("expected a port as text"));
/// ```
#[macro_export]
macro_rules! string_serde {
    ($type:ty) => {
        $crate::string_serde!($type, "text in quotes");
    };
    ($type:ty, $expected:expr) => {
        impl $crate::string_serde::serde::Serialize for $type {
            fn serialize<S: $crate::string_serde::serde::Serializer>(
                &self,
                to: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> $crate::string_serde::serde::Deserialize<'de> for $type {
            fn deserialize<D: $crate::string_serde::serde::Deserializer<'de>>(
                from: D,
            ) -> ::core::result::Result<Self, D::Error> {
                from.deserialize_any($crate::string_serde::TextVisitor::<$type>::new($expected))
            }
        }
    };
}

/// For the macro only: the serde this crate was built with, so that its users need not depend on it by the same name.
/// Gives choices (types with `clap::ValueEnum`, which must be in scope) a `Display` that writes what the flag takes.
#[macro_export]
macro_rules! value_enum_display {
    ($($type:ty),+) => {$(
        impl ::core::fmt::Display for $type {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.to_possible_value() {
                    Some(value) => f.write_str(value.get_name()),
                    None => ::core::fmt::Debug::fmt(self, f),
                }
            }
        }
    )+};
}

#[doc(hidden)]
pub use serde;
