//! Attempts at given instants: what somebody recorded, as it stands in an option, a record or a file.
//!
//! A trace is shown and recorded whole, also when it came from a file: who has the record can plan the same attempts.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use telemetry::units::{ParseUnitError, Span};

/// Steps of a trace at most: its text stays below some 2 MB.
const MOST_STEPS: usize = 200_000;

/// Attempts of a trace at most.
const MOST_ATTEMPTS: u64 = 1 << 32;

/// `times` instants, each `gap` ticks after the one before and `count` attempts strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Ticks since the instant before; of the first step since the start.
    pub gap: u64,
    /// Attempts at each of its instants; 1 or more.
    pub count: u32,
    /// Its instants; 1 or more.
    pub times: u32,
}

/// A step with what came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    step: Step,
    /// Ticks from the start to the instant before its first.
    from: u64,
    /// Attempts before it.
    before: u64,
}

/// Attempts at given instants. Written `TICK:STEP,STEP,…`, where TICK is the unit of its gaps (`1us`) and a step is
/// `GAP[xCOUNT][*TIMES]`: TIMES instants, each GAP ticks after the one before, of COUNT attempts each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    tick: Span,
    steps: Arc<[Placed]>,
    attempts: u64,
    /// Ticks from the start to the last instant.
    lasts: u64,
}

impl Trace {
    /// The trace of these steps.
    ///
    /// # Errors
    /// Without an attempt, with more than the bounds of this module, or with a tick of 0.
    pub fn new(tick: Span, steps: impl IntoIterator<Item = Step>) -> Result<Self, ParseUnitError> {
        let too = |what: &str| Err(ParseUnitError::new(format!("a trace {what}")));
        if tick.is_zero() {
            return too("needs a tick above 0, e.g. 1us");
        }
        let (mut placed, mut attempts, mut lasts) = (Vec::new(), 0_u64, 0_u64);
        for step in steps {
            placed.push(Placed { step, from: lasts, before: attempts });
            let more = u64::from(step.count) * u64::from(step.times);
            attempts = attempts.saturating_add(more);
            let longer = step.gap.checked_mul(u64::from(step.times)).and_then(|more| lasts.checked_add(more));
            let Some(longer) = longer.filter(|ticks| ticks.checked_mul(tick.as_ns()).is_some()) else {
                return too("lasts 584 years at most");
            };
            lasts = longer;
            if more == 0 {
                return too("has no step of 0 attempts; leave it out and add its gap to the next");
            }
            if placed.len() > MOST_STEPS {
                return too(&format!("has {MOST_STEPS} steps at most; use a coarser tick, or cut it in two"));
            }
        }
        if attempts == 0 {
            return too("needs at least one attempt");
        }
        if attempts > MOST_ATTEMPTS {
            return too(&format!("has {MOST_ATTEMPTS} attempts at most"));
        }
        Ok(Self { tick, steps: placed.into(), attempts, lasts })
    }

    /// Attempts of the whole.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// The last instant, ns from the start.
    pub fn last_ns(&self) -> u64 {
        self.lasts * self.tick.as_ns()
    }

    /// Attempts at one instant at most.
    pub fn most_at_once(&self) -> u32 {
        let mut most = 0_u64;
        let (mut now, mut together) = (0, 0);
        for Placed { step, from, .. } in self.steps.iter() {
            let count = u64::from(step.count);
            if step.gap > 0 {
                (now, together) = (from + step.gap * u64::from(step.times), count);
            } else if *from == now {
                together += count * u64::from(step.times);
            }
            most = most.max(together);
        }
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// Attempts planned before `end`, ns from the start.
    pub fn before(&self, end: u64) -> u64 {
        let tick = self.tick.as_ns();
        // The first step of which no instant is before `end` begins what is not counted.
        let reached = self.steps.partition_point(|placed| (placed.from + placed.step.gap) * tick < end);
        let Some(Placed { step, from, before }) = reached.checked_sub(1).and_then(|index| self.steps.get(index)) else {
            return 0;
        };
        let within = (end - 1) / tick - from;
        let instants = within.checked_div(step.gap).map_or(u64::from(step.times), |n| n.min(step.times.into()));
        before + instants * u64::from(step.count)
    }

    /// Attempts within any stretch of this length, at most.
    pub fn most_within(&self, length: Span) -> u64 {
        let tick = self.tick.as_ns();
        let begins = self.steps.iter().flat_map(|placed| {
            let first = placed.from + placed.step.gap;
            [first, placed.from + placed.step.gap * u64::from(placed.step.times)]
        });
        // The busiest stretch begins with an instant, or within a step of which one at its edge is as busy but for one count.
        let within = |from: u64| self.before((from * tick).saturating_add(length.as_ns())) - self.before(from * tick);
        begins.map(within).max().unwrap_or(0)
    }

    /// What it is, in a few words: its text may have a megabyte.
    pub fn brief(&self) -> String {
        format!("trace of {} attempts in {}", self.attempts, Span::from(Duration::from_nanos(self.last_ns())))
    }

    /// Its instants, ns from the start, one for each attempt, in order.
    pub(crate) fn instants(&self) -> Instants {
        Instants { trace: self.clone(), step: 0, time: 1, attempt: 0 }
    }
}

/// The planned instants of a [`Trace`].
#[derive(Clone, Debug)]
pub(crate) struct Instants {
    trace: Trace,
    step: usize,
    /// Of the step's instants, from 1.
    time: u32,
    /// Of the instant's attempts, from 0.
    attempt: u32,
}

impl Iterator for Instants {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let Placed { step, from, .. } = *self.trace.steps.get(self.step)?;
        let at = (from + step.gap * u64::from(self.time)) * self.trace.tick.as_ns();
        self.attempt += 1;
        if self.attempt == step.count {
            (self.attempt, self.time) = (0, self.time + 1);
            if self.time > step.times {
                (self.time, self.step) = (1, self.step + 1);
            }
        }
        Some(at)
    }
}

/// One step as it is written.
fn step(text: &str) -> Option<Step> {
    let (rest, times) = text.split_once('*').unwrap_or((text, "1"));
    let (gap, count) = rest.split_once('x').unwrap_or((rest, "1"));
    Some(Step { gap: gap.parse().ok()?, count: count.parse().ok()?, times: times.parse().ok()? })
}

impl FromStr for Trace {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let contents;
        let (written, file) = match text.strip_prefix('@') {
            Some(path) => {
                contents = std::fs::read_to_string(path).map_err(|error| {
                    ParseUnitError::new(format!("cannot read {path}: {error}; write trace:@FILE, or the trace itself"))
                })?;
                (contents.as_str(), Some(path))
            }
            None => (text, None),
        };
        let wrong = |line: usize, what: String| match file {
            Some(path) => ParseUnitError::new(format!("{path}:{line}: {what}")),
            None => ParseUnitError::new(what),
        };
        let how = "write TICK:STEP,… with steps GAP[xCOUNT][*TIMES], e.g. 1us:0x40,950,1000x3*20";
        let (tick, steps) = written
            .split_once(':')
            .ok_or_else(|| wrong(1, format!("a trace begins with the unit of its gaps; {how}")))?;
        let tick: Span = tick.trim().parse().map_err(|error| wrong(1, format!("{error}")))?;
        let mut read = Vec::new();
        for (line, number) in steps.lines().zip(1..) {
            for part in line.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                let step = step(part).ok_or_else(|| wrong(number, format!("`{part}` is no step of a trace; {how}")))?;
                read.push(step);
            }
        }
        let lines = steps.lines().count();
        Self::new(tick, read).map_err(|error| wrong(lines, error.to_string()))
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.tick)?;
        for (index, Placed { step: Step { gap, count, times }, .. }) in self.steps.iter().enumerate() {
            let mut text = if index == 0 { String::new() } else { ",".to_owned() };
            write!(text, "{gap}")?;
            if *count > 1 {
                write!(text, "x{count}")?;
            }
            if *times > 1 {
                write!(text, "*{times}")?;
            }
            f.write_str(&text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trace(text: &str) -> Trace {
        text.parse().expect("a trace")
    }

    #[test]
    fn a_trace_plans_what_is_written() {
        let trace = trace("1us:0x3,500,1000x2*3");
        let planned: Vec<u64> = trace.instants().collect();
        let us = [0, 0, 0, 500, 1500, 1500, 2500, 2500, 3500, 3500];
        assert_eq!(planned, us.map(|us| us * 1000));
        assert_eq!((trace.attempts(), trace.last_ns(), trace.most_at_once()), (10, 3_500_000, 3));
        assert_eq!(trace.to_string(), "1us:0x3,500,1000x2*3");
        assert_eq!(trace.most_within(Span::from_millis(1)), 4, "the first four are within 1 ms");
        assert_eq!(trace.most_within(Span::from_secs(1)), 10);
    }

    #[test]
    fn instants_without_a_gap_are_together() {
        assert_eq!(trace("1ms:0x3,0x4,1,0*5").most_at_once(), 7);
        assert_eq!(trace("1ms:5*9").most_at_once(), 1);
    }

    #[test]
    fn what_is_no_trace_is_named_with_its_line() {
        for (wrong, says) in [
            ("1us", "begins with the unit"),
            ("1us:", "at least one attempt"),
            ("1:5", "write a unit"),
            ("0s:5", "tick above 0"),
            ("1us:5,x", "`x` is no step"),
            ("1us:5x0", "step of 0 attempts"),
            ("1us:0x5000000000", "is no step"),
            ("1s:18446744073709551615", "584 years at most"),
            ("1ns:18446744073709551615,5", "584 years at most"),
            ("1ns:18446744073709551615*2", "584 years at most"),
            ("@/nowhere/at/all", "cannot read /nowhere/at/all"),
        ] {
            let error = wrong.parse::<Trace>().expect_err(wrong).to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("trace");
        std::fs::write(&path, "1us:0x40\n950\n1000y3\n").expect("written");
        let error = format!("@{}", path.display()).parse::<Trace>().expect_err("no step").to_string();
        assert!(error.starts_with(&format!("{}:3: `1000y3` is no step", path.display())), "{error}");
        std::fs::write(&path, "1us:0x40\n950,\n1000x3\n").expect("written");
        assert_eq!(trace(&format!("@{}", path.display())), trace("1us:0x40,950,1000x3"), "recorded whole");
    }

    proptest! {
        #[test]
        fn a_trace_reads_back_and_counts_as_it_plans(
            steps in proptest::collection::vec((0..50_u64, 1..5_u32, 1..5_u32), 1..20), end in 0..3_000_u64,
        ) {
            let steps = steps.into_iter().map(|(gap, count, times)| Step { gap, count, times });
            let trace = Trace::new("1us".parse().expect("a span"), steps).expect("a trace");
            prop_assert_eq!(trace.to_string().parse::<Trace>().expect("read back"), trace.clone());
            let planned: Vec<u64> = trace.instants().collect();
            prop_assert_eq!(planned.len() as u64, trace.attempts());
            prop_assert!(planned.is_sorted());
            prop_assert_eq!(planned.last().copied(), Some(trace.last_ns()));
            let before = planned.iter().filter(|at| **at < end * 500).count() as u64;
            prop_assert_eq!(trace.before(end * 500), before);
        }
    }
}
