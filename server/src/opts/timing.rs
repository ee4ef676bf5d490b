//! Values of time: how long serving a connection takes, when nobody accepts, when a listener is closed.

use std::fmt;
use std::str::FromStr;

use telemetry::units::{ParseUnitError, SPAN_PATTERN, Span};

/// Service time per accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptDelay {
    /// No service time: accept as fast as the CPU allows.
    None,
    /// A constant time spent asleep.
    Sleep(Span),
    /// Exponentially distributed with this mean, spent asleep.
    Exponential(Span),
    /// A constant time spent busy on the CPU.
    Spin(Span),
    /// Exponentially distributed with this mean, spent busy on the CPU.
    SpinExponential(Span),
}

impl AcceptDelay {
    /// Is it drawn from an exponential distribution?
    pub fn is_exponential(self) -> bool {
        matches!(self, Self::Exponential(_) | Self::SpinExponential(_))
    }
}

impl FromStr for AcceptDelay {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let delay = match text.split_once(':') {
            Some(("exp", mean)) => Self::Exponential(mean.parse()?),
            Some(("spin", time)) => match time.strip_prefix("exp:") {
                Some(mean) => Self::SpinExponential(mean.parse()?),
                None => Self::Spin(time.parse()?),
            },
            Some((other, _)) => {
                return Err(ParseUnitError::new(format!(
                    "`{other}:` is no kind of accept delay; use TIME, exp:MEAN, spin:TIME or spin:exp:MEAN"
                )));
            }
            None => Self::Sleep(text.parse()?),
        };
        Ok(match delay {
            Self::Sleep(t) | Self::Exponential(t) | Self::Spin(t) | Self::SpinExponential(t) if t.as_ns() == 0 => {
                Self::None
            }
            delay => delay,
        })
    }
}

impl fmt::Display for AcceptDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("0"),
            Self::Sleep(time) => time.fmt(f),
            Self::Exponential(mean) => write!(f, "exp:{mean}"),
            Self::Spin(time) => write!(f, "spin:{time}"),
            Self::SpinExponential(mean) => write!(f, "spin:exp:{mean}"),
        }
    }
}
telemetry::string_serde!(AcceptDelay);
telemetry::text_schema!(AcceptDelay, format!("(spin:)?(exp:)?{SPAN_PATTERN}"), or { "const": 0 });

/// A window in which no acceptor accepts, counted from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// When it begins.
    pub at: Span,
    /// How long it lasts; `None` is for ever.
    pub lasts: Option<Span>,
}

impl FromStr for Stall {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (at, lasts) = text.split_once('+').ok_or_else(|| {
            ParseUnitError::new(format!("`{text}` is no stall; write AT+FOR, e.g. 1s+2s or 0s+forever"))
        })?;
        let lasts = if lasts == "forever" { None } else { Some(lasts.parse()?) };
        Ok(Self { at: at.parse()?, lasts })
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lasts {
            Some(lasts) => write!(f, "{}+{lasts}", self.at),
            None => write!(f, "{}+forever", self.at),
        }
    }
}
telemetry::string_serde!(Stall);
telemetry::text_schema!(Stall, format!(r"{SPAN_PATTERN}\+({SPAN_PATTERN}|forever)"));

/// A listener to close while the run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retire {
    /// Index of the listener in the order of their listen(2) calls.
    pub listener: u32,
    /// When, counted from the start of the run.
    pub at: Span,
}

impl FromStr for Retire {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (listener, at) = text
            .split_once('@')
            .and_then(|(n, at)| Some((n.parse().ok()?, at)))
            .ok_or_else(|| ParseUnitError::new(format!("`{text}` names no listener; write N@T, e.g. 0@2s")))?;
        Ok(Self { listener, at: at.parse()? })
    }
}

impl fmt::Display for Retire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.listener, self.at)
    }
}
telemetry::string_serde!(Retire);
telemetry::text_schema!(Retire, format!("[0-9]+@{SPAN_PATTERN}"));
