//! Values of time: when attempts are planned, and which of them are this generator's.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use telemetry::units::{ParseUnitError, Rate, SPAN_PATTERN, Span};

use super::trace::Trace;

/// When attempts are planned.
#[derive(Clone, Debug, PartialEq)]
pub enum ArrivalKind {
    /// Evenly spaced at the rate.
    Constant,
    /// A Poisson process of the rate: exponential gaps.
    Poisson,
    /// `size` at the same instant, every `every`, the first at the start.
    Burst {
        /// Attempts per burst.
        size: NonZeroU32,
        /// Time between bursts.
        every: Span,
    },
    /// Rates over time.
    Profile(Profile),
    /// At given instants, once.
    Trace(Trace),
    /// This many in flight at all times: the next attempt is planned when one ends. Not an open loop: a slow server slows
    /// it down.
    Closed(NonZeroU32),
}

impl FromStr for ArrivalKind {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || {
            ParseUnitError::new(format!(
                "`{text}` is no arrival process; use constant, poisson, burst:N/D, closed:N, profile:STAGES or \
                 trace:@FILE, e.g. burst:400/500ms, closed:64 or profile:2000x30s,ramp:2000-8000x60s,repeat"
            ))
        };
        if let Some(stages) = text.strip_prefix("profile:") {
            return stages.parse().map(Self::Profile);
        }
        if let Some(trace) = text.strip_prefix("trace:") {
            return trace.parse().map(Self::Trace);
        }
        if let Some(number) = text.strip_prefix("closed:") {
            return number.parse().map(Self::Closed).map_err(|_| unknown());
        }
        match text {
            "constant" => Ok(Self::Constant),
            "poisson" => Ok(Self::Poisson),
            _ => {
                let (size, every) =
                    text.strip_prefix("burst:").and_then(|rest| rest.split_once('/')).ok_or_else(unknown)?;
                let size = size.parse().map_err(|_| unknown())?;
                let every: Span = every.parse()?;
                if every.as_ns() == 0 {
                    return Err(ParseUnitError::new(format!("`{text}`: the time between bursts must be above 0")));
                }
                Ok(Self::Burst { size, every })
            }
        }
    }
}

impl fmt::Display for ArrivalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Poisson => f.write_str("poisson"),
            Self::Burst { size, every } => write!(f, "burst:{size}/{every}"),
            Self::Profile(profile) => write!(f, "profile:{profile}"),
            Self::Trace(trace) => write!(f, "trace:{trace}"),
            Self::Closed(n) => write!(f, "closed:{n}"),
        }
    }
}
telemetry::string_serde!(ArrivalKind);

impl ArrivalKind {
    /// As it is written, but for a trace, which is told in a few words: for messages.
    pub fn brief(&self) -> String {
        match self {
            Self::Trace(trace) => trace.brief(),
            other => other.to_string(),
        }
    }
}
telemetry::text_schema!(
    ArrivalKind,
    format!("constant|poisson|burst:[0-9]+/{SPAN_PATTERN}|closed:[0-9]+|profile:.+|trace:.+")
);

/// Rates over time: stages one after the other, once or for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    stages: Vec<Stage>,
    repeat: bool,
}

/// A stretch in which the rate is constant or changes evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Attempts per second at its beginning; 0 or more.
    pub from: f64,
    /// Attempts per second at its end.
    pub to: f64,
    /// How long it takes; above 0.
    pub lasts: Span,
}

impl Profile {
    /// The stages; at least one, and at least one of a rate above 0.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Does it begin anew when it has ended?
    pub fn repeats(&self) -> bool {
        self.repeat
    }
}

impl Stage {
    /// Attempts planned in it; seldom a whole number.
    pub fn attempts(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.seconds()
    }

    /// How long it takes, s.
    pub fn seconds(&self) -> f64 {
        self.lasts.as_ns() as f64 / 1e9
    }
}

/// A rate of a stage: a [`Rate`], or 0 for a pause.
fn stage_rate(text: &str) -> Result<f64, ParseUnitError> {
    if text == "0" {
        return Ok(0.0);
    }
    text.parse::<Rate>().map(Rate::per_second).map_err(|error| ParseUnitError::new(error.to_string()))
}

impl FromStr for Profile {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let repeat = parts.last() == Some(&"repeat");
        if repeat {
            parts.pop();
        }
        let wrong = |part: &str| {
            ParseUnitError::new(format!(
                "`{part}` is no stage of a profile; write RATExTIME (2000x30s) or ramp:RATE-RATExTIME (ramp:2000-8000x60s)"
            ))
        };
        let mut stages = Vec::new();
        for part in parts {
            let (rates, time) = part.rsplit_once('x').ok_or_else(|| wrong(part))?;
            let lasts: Span = time.parse()?;
            let (from, to) = match rates.strip_prefix("ramp:") {
                Some(rates) => {
                    let (from, to) = rates.split_once('-').ok_or_else(|| wrong(part))?;
                    (stage_rate(from)?, stage_rate(to)?)
                }
                None => (stage_rate(rates)?, stage_rate(rates)?),
            };
            if lasts.is_zero() {
                return Err(ParseUnitError::new(format!("`{part}`: a stage must take longer than 0")));
            }
            stages.push(Stage { from, to, lasts });
        }
        if stages.iter().all(|stage| stage.attempts() == 0.0) {
            return Err(ParseUnitError::new(format!("`{text}`: a profile needs a stage of a rate above 0")));
        }
        Ok(Self { stages, repeat })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Stage { from, to, lasts }) in self.stages.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            #[expect(clippy::float_cmp, reason = "a constant stage has the same value twice")]
            if from == to {
                write!(f, "{from}x{lasts}")?;
            } else {
                write!(f, "ramp:{from}-{to}x{lasts}")?;
            }
        }
        f.write_str(if self.repeat { ",repeat" } else { "" })
    }
}

/// Part `index` of `of` parts of a load: every `of`th attempt. Written `I/N`; or `index:I/N`, where I counts from 0 as
/// orchestrators do (`JOB_COMPLETION_INDEX` of Kubernetes), which is shown as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    index: NonZeroU32,
    of: NonZeroU32,
}

impl Shard {
    /// Number of this part, from 0, and how many there are.
    pub fn place(self) -> (usize, usize) {
        (self.index.get() as usize - 1, self.of.get() as usize)
    }
}

impl FromStr for Shard {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (place, first) = text.strip_prefix("index:").map_or((text, 0), |place| (place, 1));
        let parts = place.split_once('/').and_then(|(i, n)| {
            let index = NonZeroU32::new(i.parse::<u32>().ok()?.checked_add(first)?)?;
            Some((index, n.parse().ok()?))
        });
        match parts {
            Some((index, of)) if index <= of => Ok(Self { index, of }),
            _ => Err(ParseUnitError::new(format!(
                "`{text}` is no shard; write I/N with I from 1 to N, e.g. 1/3, or index:I/N with I from 0, e.g. index:0/3"
            ))),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}
telemetry::string_serde!(Shard);
telemetry::text_schema!(Shard, "([1-9][0-9]*|index:[0-9]+)/[1-9][0-9]*");

/// The instant of the start on `CLOCK_REALTIME`, for generators on several machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartAt(jiff::Timestamp);

impl StartAt {
    /// ns since 1970; 0 for what lies before.
    pub fn realtime_ns(self) -> u64 {
        u64::try_from(self.0.as_nanosecond()).unwrap_or(0)
    }
}

impl FromStr for StartAt {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let instant = match text.strip_prefix('@') {
            // Seconds since 1970, as date(1) prints with +%s.
            Some(seconds) => seconds.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()),
            None => text.parse().ok(),
        };
        instant.map(Self).ok_or_else(|| {
            ParseUnitError::new(format!(
                "`{text}` is no instant; write it with its zone, e.g. 2030-01-31T12:00:00Z, or @SECONDS since 1970"
            ))
        })
    }
}

impl fmt::Display for StartAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
telemetry::string_serde!(StartAt);
telemetry::text_schema!(StartAt, "@[0-9]+|[0-9]{4}-[0-9]{2}-[0-9]{2}.+");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_stages_and_perhaps_repeat() {
        let text = "2000x30s,ramp:5000-20000x1m,0x5s,repeat";
        let profile: Profile = text.parse().expect("a profile");
        assert_eq!(profile.to_string(), text);
        assert!(profile.repeats());
        let attempts: Vec<f64> = profile.stages().iter().map(Stage::attempts).collect();
        assert_eq!(attempts, [60_000.0, 750_000.0, 0.0]);
        assert_eq!("2.5kx1s".parse::<Profile>().expect("a profile").to_string(), "2500x1s");
    }

    #[test]
    fn what_is_no_arrival_process_is_named() {
        for (wrong, says) in [
            ("profile:", "`` is no stage"),
            ("profile:2000", "`2000` is no stage"),
            ("profile:2000x0s", "longer than 0"),
            ("profile:0x1s", "a rate above 0"),
            ("profile:ramp:5000x1s", "is no stage"),
            ("profile:-5x1s", "greater than 0"),
            ("profile:1x1s,repeat,2x1s", "`repeat` is no stage"),
            ("closed:0", "no arrival process"),
            ("steady", "no arrival process"),
        ] {
            let error = wrong.parse::<ArrivalKind>().expect_err(wrong).to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_instant_has_a_zone_or_counts_from_1970() {
        let ns = |text: &str| text.parse::<StartAt>().map(StartAt::realtime_ns);
        assert_eq!(ns("1970-01-01T00:00:01.5Z").expect("an instant"), 1_500_000_000);
        assert_eq!(ns("1970-01-01T01:00:01+01:00").expect("an instant"), 1_000_000_000);
        assert_eq!(ns("@1700000000").expect("an instant"), 1_700_000_000_000_000_000);
        assert_eq!("@0".parse::<StartAt>().expect("an instant").to_string(), "1970-01-01T00:00:00Z");
        for wrong in ["", "12:00", "2030-01-31T12:00:00", "@x"] {
            assert!(ns(wrong).expect_err(wrong).to_string().contains("no instant"), "{wrong}");
        }
    }

    #[test]
    fn shards_count_from_one() {
        assert_eq!("2/3".parse::<Shard>().expect("a shard").place(), (1, 3));
        let counted_from_zero = "index:2/3".parse::<Shard>().expect("a shard");
        assert_eq!((counted_from_zero.place(), counted_from_zero.to_string()), ((2, 3), "3/3".to_owned()));
        for wrong in
            ["0/3", "4/3", "1", "a/b", "1/0", "index:3/3", "index:-1/3", "index:4294967295/4294967295", "index:0/0"]
        {
            assert!(wrong.parse::<Shard>().expect_err(wrong).to_string().contains("no shard"), "{wrong}");
        }
    }
}
