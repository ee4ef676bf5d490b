//! The parts of one load (`--shard I/N`) as the whole: exact, or refused.
//!
//! Attempts of shard I are the arrivals i ≡ I (mod N) of one stream, so counts and histograms of the parts add up to those of
//! the whole by bucket, with nothing estimated. What belongs to a machine and not to the load does not add up (a namespace's
//! counters, its free ports, monotonic clocks), and is left out rather than invented.

mod kinship;

use std::collections::BTreeMap;

use kernel::process::ProcessStats;
use loadgen::judgement::{Limit, LimitKind};
use loadgen::opts::Shard;
use loadgen::{HalfOpenCounts, Snapshot};
use serde::Serialize;
use telemetry::namespace::Reading;
use thiserror::Error;

use crate::format;
use kinship::{Kin, place};

/// Which program wrote a snapshot. Both are empty in snapshots older than the field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Build {
    /// Its version.
    pub version: String,
    /// The commit it was built from.
    pub revision: String,
}

impl std::fmt::Display for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        write!(f, "{} ({})", known(&self.version), known(&self.revision))
    }
}

/// The snapshot of one shard, and where it came from.
#[derive(Clone, Debug)]
pub struct Part {
    /// What to call it in messages: a file, or a line of one.
    pub name: String,
    /// Who wrote it.
    pub build: Build,
    /// The books.
    pub books: Snapshot,
    /// Was it told to stop before its plan was over?
    pub interrupted: bool,
}

/// Why snapshots are not the parts of one load.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MergeError {
    /// No snapshot at all.
    #[error("there is nothing to merge; give the snapshots of a load's shards")]
    Nothing,
    /// Other programs count otherwise.
    #[error(
        "{} was written by acceptbench {}, {} by {}; run every shard with the same program",
        .0.one, .0.value, .0.other, .0.other_value
    )]
    Builds(Box<Clash>),
    /// Another number of shards.
    #[error("{} is shard {}, {} is shard {}: these are parts of different loads", .0.one, .0.value, .0.other, .0.other_value)]
    Divisions(Box<Clash>),
    /// A shard that is there more than once: its attempts would be counted twice.
    #[error("shard {} is given twice, by {} and by {}; leave one of them out", .0.value, .0.one, .0.other)]
    Twice(Box<Clash>),
    /// Options that plan another load.
    #[error("{} is {} in {} and {} in {}: these are parts of different loads", .0, .1.value, .1.one, .1.other_value, .1.other)]
    Plans(String, Box<Clash>),
    /// Shards that nobody gave.
    #[error("{0}")]
    Missing(String),
}

/// Two parts that do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Name of the first.
    pub one: String,
    /// What it is or has.
    pub value: String,
    /// Name of the second.
    pub other: String,
    /// What that is or has instead.
    pub other_value: String,
}

/// What one shard did, beside the sum.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShardOf {
    /// Which of how many; none for a load that was not split.
    pub shard: Option<Shard>,
    /// Where its snapshot came from.
    pub from: String,
    /// The options that are its own machine's and not the load's, as far as they are not the defaults.
    pub options: BTreeMap<String, serde_json::Value>,
    /// The address its attempts went to.
    pub target: std::net::SocketAddr,
    /// Its threads.
    pub workers: usize,
    /// From its start to its reading, s.
    pub seconds: f64,
    /// Attempts planned, warm-up included.
    pub planned: u64,
    /// Attempts that have their verdict, warm-up included.
    pub concluded: u64,
    /// Had every attempt its verdict?
    pub finished: bool,
    /// Was it told to stop before its plan was over? Only its end says so (`loadgen --json`), no snapshot.
    pub interrupted: bool,
    /// The limits of its own that it passed.
    pub limits: Vec<Limit>,
}

/// A load put together again.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Merged {
    /// Who wrote the parts.
    #[serde(flatten)]
    pub build: Build,
    /// The sum.
    #[serde(flatten)]
    pub books: Snapshot,
    /// The parts, in their order.
    pub shards: Vec<ShardOf>,
}

impl Merged {
    /// What a reader of the sum should know of the parts, a line each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.shards.len() > 1 && self.books.opts.start_at.is_none() {
            notes.push(
                "the shards had no common start (start-at): the counts are exact, but the server met another load than planned"
                    .to_owned(),
            );
        }
        for shard in &self.shards {
            let name = shard.shard.map_or_else(|| shard.from.clone(), |place| format!("shard {place}"));
            if !shard.finished {
                let open = shard.planned.saturating_sub(shard.concluded);
                notes
                    .push(format!("{name} was not over: {} without a verdict", format::plural(whole(open), "attempt")));
            }
            if shard.interrupted {
                notes.push(format!("{name} was interrupted: its part of the load is not whole"));
            }
            if self.shards.len() > 1 {
                notes.extend(shard.limits.iter().map(|limit| format!("{name} was a bottleneck: {}", limit.cause())));
            }
        }
        notes
    }
}

/// Puts the parts of one load together.
///
/// Summed: all counts, the verdicts by name, histograms by bucket, half-open sockets, what is under way, the rate planned now,
/// workers and what each took of its core, CPU time, memory and open descriptors of the processes. `finished` if all are;
/// `limits` are those that any shard passed: of attempts not made the sum, of lag and CPU the worst. The time (`monotonic-ns` from `origin-ns`)
/// is that of the shard that took longest. Sysctls are those on which all agree.
///
/// Left out (0 or empty), since two shards may share a namespace or not: the kernel's counters and sockets by state,
/// `ports-available`, `closing`; the budget is of one generator; `max-fds` of one process.
///
/// # Errors
/// When the parts are not those of one load, each exactly once.
pub fn merge(mut parts: Vec<Part>) -> Result<Merged, MergeError> {
    parts.sort_by_key(|part| place(&part.books));
    Kin(&parts).check()?;
    let shards: Vec<ShardOf> = parts.iter().map(shard_of).collect();
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return Err(MergeError::Nothing) };
    let build = first.build;
    let mut sum = alone(first.books);
    parts.for_each(|part| add(&mut sum, &part.books));
    sum.opts.shard = None;
    sum.limits = limits(&shards);
    Ok(Merged { build, books: sum, shards })
}

fn shard_of(part: &Part) -> ShardOf {
    let books = &part.books;
    let whole = books.whole();
    ShardOf {
        shard: books.opts.shard,
        from: part.name.clone(),
        options: kinship::own(&books.opts),
        target: books.target,
        workers: books.workers,
        seconds: span_ns(books) as f64 / 1e9,
        planned: whole.planned,
        concluded: whole.concluded(),
        finished: books.finished,
        interrupted: part.interrupted,
        limits: books.limits.clone(),
    }
}

/// The first part, without what does not add up.
fn alone(books: Snapshot) -> Snapshot {
    let kernel = Reading {
        sysctls: books.kernel.sysctls,
        process: ProcessStats { max_fds: 0, ..books.kernel.process },
        ..Reading::default()
    };
    Snapshot { budget: None, ports_available: 0, closing: 0, kernel, ..books }
}

fn add(sum: &mut Snapshot, part: &Snapshot) {
    if span_ns(part) > span_ns(sum) {
        (sum.origin_ns, sum.monotonic_ns) = (part.origin_ns, part.monotonic_ns);
    }
    sum.warm_up.absorb(&part.warm_up);
    sum.measured.absorb(&part.measured);
    sum.target_changes = sum.target_changes.saturating_add(part.target_changes);
    sum.workers = sum.workers.saturating_add(part.workers);
    sum.warnings
        .extend(part.warnings.iter().filter(|warning| !sum.warnings.contains(warning)).cloned().collect::<Vec<_>>());
    sum.connecting = sum.connecting.saturating_add(part.connecting);
    sum.confirming = sum.confirming.saturating_add(part.confirming);
    sum.holding = sum.holding.saturating_add(part.holding);
    sum.ending = sum.ending.saturating_add(part.ending);
    sum.finished &= part.finished;
    sum.target_rate += part.target_rate;
    sum.worker_cpu.extend(&part.worker_cpu);
    sum.half_open = HalfOpenCounts {
        kept: sum.half_open.kept.saturating_add(part.half_open.kept),
        answered: sum.half_open.answered.saturating_add(part.half_open.answered),
        dropped: sum.half_open.dropped.saturating_add(part.half_open.dropped),
    };
    let (mine, theirs) = (&mut sum.kernel.process, &part.kernel.process);
    mine.cpu_seconds += theirs.cpu_seconds;
    mine.resident_bytes = mine.resident_bytes.saturating_add(theirs.resident_bytes);
    mine.open_fds = mine.open_fds.saturating_add(theirs.open_fds);
    mine.start_time_seconds = mine.start_time_seconds.min(theirs.start_time_seconds);
    sum.kernel.sysctls.retain(|name, value| part.kernel.sysctls.get(name) == Some(value));
}

/// A late shard must not disappear in the sum: its attempts may be less than a hundredth of all. Nor is the sum judged anew: it
/// has one shard's `max-in-flight`, and pairs one's busy core with another's lateness.
fn limits(shards: &[ShardOf]) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    for passed in shards.iter().flat_map(|shard| &shard.limits) {
        match limits.iter_mut().find(|limit| limit.what == passed.what) {
            Some(known) => match passed.what {
                LimitKind::Descriptors | LimitKind::Ports => known.measured += passed.measured,
                LimitKind::Lag | LimitKind::Cpu => known.measured = known.measured.max(passed.measured),
            },
            None => limits.push(*passed),
        }
    }
    limits.sort_by_key(|limit| limit.what);
    limits
}

fn span_ns(books: &Snapshot) -> u64 {
    books.monotonic_ns.saturating_sub(books.origin_ns)
}

fn whole(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
