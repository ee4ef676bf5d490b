//! Contestants that take turns. Each is first tried at several levels of concurrency and keeps its fastest; then all have
//! one turn per round, in an order that is reversed every other round, so that a slow spell of the machine hits all of them.
//!
//! A turn counts only if the connections that a tool claims are those that the kernel counted meanwhile. A tool that fails
//! once is out, and its row says why.

use anyhow::{Context, bail};
use serde::Serialize;

use crate::outputs::Claim;
use crate::scene::{Played, Scene};
use crate::settings::Settings;
use crate::statistics::{median, middle_half};
use crate::table::whole;

/// Connections of a tool that only knows numbers when nothing is known about its speed yet.
const FIRST_COUNT: u64 = 10_000;

/// How far a claim may be from the kernel's count, as a share: connections of the last moment are counted by one only.
const TOLERANCE: f64 = 0.03;

/// Failures among what a tool attempted, at most.
const FAILURES: f64 = 0.01;

/// What a contestant is to do in one turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Connections in flight in total, or whatever else the contestant's levels are.
    pub(crate) level: u32,
    /// How long.
    pub(crate) seconds: u32,
    /// About as many connections as it makes in that time, for tools that only know numbers.
    pub(crate) count: u64,
}

/// How a contestant is set up, and how what it prints is read.
pub(crate) struct Contestant {
    /// What it is called in tables.
    pub(crate) name: &'static str,
    /// What its levels are (`in flight`).
    pub(crate) unit: &'static str,
    /// Which to try.
    pub(crate) levels: &'static [u32],
    /// Server and clients for a load.
    pub(crate) scene: Box<dyn Fn(Load) -> Scene>,
    /// Reads the output of one client.
    pub(crate) claim: fn(&str, Load) -> Result<Claim, String>,
}

/// One turn.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Sample {
    /// Connections per second, as the tool says.
    pub(crate) rate: f64,
    /// CPU time of clients and server per connection, µs.
    pub(crate) cpu_us: f64,
}

/// All turns of one contestant.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Entry {
    /// The contestant's name.
    pub(crate) name: &'static str,
    /// What `level` is.
    pub(crate) unit: &'static str,
    /// The fastest one.
    pub(crate) level: u32,
    /// One per round.
    pub(crate) samples: Vec<Sample>,
    /// Why it is out, if it is.
    pub(crate) failed: Option<String>,
    #[serde(skip)]
    count: u64,
}

impl Entry {
    fn out(contestant: &Contestant, error: &anyhow::Error) -> Self {
        let failed = Some(format!("{error:#}"));
        Self { name: contestant.name, unit: contestant.unit, level: 0, samples: Vec::new(), failed, count: 0 }
    }

    /// The level, once one was found.
    pub(crate) fn level_cell(&self) -> String {
        if self.level == 0 { "-".to_owned() } else { self.level.to_string() }
    }

    /// Median and middle half of the rates, and the median of the CPU time: three cells of a table.
    pub(crate) fn cells(&self) -> Option<[String; 3]> {
        let rates: Vec<f64> = self.samples.iter().map(|sample| sample.rate).collect();
        let cpu: Vec<f64> = self.samples.iter().map(|sample| sample.cpu_us).collect();
        let (low, high) = middle_half(&rates)?;
        Some([whole(median(&rates)?), format!("{}-{}", whole(low), whole(high)), format!("{:.1}", median(&cpu)?)])
    }

    /// The median of this one's rate divided by the other's, round by round.
    pub(crate) fn ratio_to(&self, other: &Self) -> Option<f64> {
        let ratios: Vec<f64> = self.samples.iter().zip(&other.samples).map(|(own, its)| own.rate / its.rate).collect();
        median(&ratios)
    }
}

/// Tries levels, then plays all rounds. What happens is told on standard error.
pub(crate) fn hold(part: &str, contestants: &[Contestant], settings: &Settings) -> Vec<Entry> {
    let tell = |contestant: &Contestant, what: String| eprintln!("{part} {}: {what}", contestant.name);
    let mut entries: Vec<Entry> = Vec::new();
    for contestant in contestants {
        let entry = fastest(contestant).unwrap_or_else(|error| Entry::out(contestant, &error));
        let found = format!("fastest with {} {}", entry.level, entry.unit);
        tell(contestant, entry.failed.clone().unwrap_or(found));
        entries.push(entry);
    }
    for round in 1..=settings.rounds {
        let forth = 0..contestants.len();
        let order: Vec<usize> = if round % 2 == 1 { forth.collect() } else { forth.rev().collect() };
        for number in order {
            let (contestant, entry) = (&contestants[number], &mut entries[number]);
            if entry.failed.is_some() {
                continue;
            }
            let count = entry.count * u64::from(settings.seconds);
            match turn(contestant, Load { level: entry.level, seconds: settings.seconds, count }) {
                Ok(sample) => {
                    tell(contestant, format!("round {round}: {} /s", whole(sample.rate)));
                    entry.samples.push(sample);
                }
                Err(error) => {
                    tell(contestant, format!("round {round}: {error:#}"));
                    entry.failed = Some(format!("{error:#}"));
                }
            }
        }
    }
    entries
}

/// The level at which a contestant is fastest in a short load.
fn fastest(contestant: &Contestant) -> anyhow::Result<Entry> {
    let mut best: Option<(f64, u32)> = None;
    for level in contestant.levels {
        let rate = turn(contestant, Load { level: *level, seconds: 1, count: FIRST_COUNT })?.rate;
        if best.is_none_or(|(so_far, _)| rate > so_far) {
            best = Some((rate, *level));
        }
    }
    let (rate, level) = best.context("nothing to try")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is no larger than 2^53")]
    let count = rate.round().max(1.0) as u64;
    Ok(Entry { name: contestant.name, unit: contestant.unit, level, samples: Vec::new(), failed: None, count })
}

/// One turn.
fn turn(contestant: &Contestant, load: Load) -> anyhow::Result<Sample> {
    let played = (contestant.scene)(load).play()?;
    let claims = played.clients.iter().map(|client| (contestant.claim)(&client.stdout, load));
    let claims = claims.collect::<Result<Vec<_>, _>>().map_err(|missing| anyhow::anyhow!("its output: {missing}"))?;
    let claim = Claim::together(&claims);
    believe(&claim, &played, load)?;
    let cpu_ns = played.server.cpu_ns + played.clients.iter().map(|client| client.cpu_ns).sum::<u64>();
    Ok(Sample { rate: claim.rate(), cpu_us: cpu_ns as f64 / 1e3 / played.connections as f64 })
}

/// Fails when more failed than may.
pub(crate) fn went_well(claim: &Claim) -> anyhow::Result<()> {
    if claim.failed as f64 > FAILURES * (claim.done + claim.failed) as f64 {
        bail!("{} of {} connections failed", claim.failed, claim.done + claim.failed);
    }
    Ok(())
}

/// Holds a claim against what the kernel counted.
fn believe(claim: &Claim, played: &Played, load: Load) -> anyhow::Result<()> {
    went_well(claim)?;
    let apart = claim.done.abs_diff(played.connections) as f64;
    if claim.done == 0 || apart > TOLERANCE * played.connections as f64 + f64::from(2 * load.level) {
        bail!("it claims {} connections, the kernel counted {}", claim.done, played.connections);
    }
    Ok(())
}
