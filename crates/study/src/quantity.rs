//! The quantities of a trial that have a name: what conditions compare, tables show and CSV files hold. One catalogue,
//! one definition each.
//!
//! Ratios and latencies are those of the cohort (attempts planned in the measured phase); kernel counters and queues
//! are those of the whole trial, which cannot be split by attempt. In an attached trial all are those of its window, and
//! ratios are of the attempts that ended in it. It refuses invented values: a latency of nothing, a ratio of nothing and the phantoms of a window have no value.

mod catalogue;
mod demand;

use loadgen::opts::Confirm;
use loadgen::verdict::Verdict;
use telemetry::histogram::HistogramSnapshot;

use crate::results::{Topology, Trial};

pub(crate) use demand::{arrival_rate, service_is_measured, service_rate, service_seconds};

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A share from 0 to 1.
    Ratio,
    /// A number of things.
    Count,
    /// Seconds.
    Seconds,
    /// Things per second.
    PerSecond,
}

impl Unit {
    /// The unit in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Count => "count",
            Self::Seconds => "seconds",
            Self::PerSecond => "per second",
        }
    }
}

/// Which way a quantity is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// A fact, neither good nor bad.
    Neither,
}

/// One named quantity.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// Its name in conditions and files, kebab-case.
    pub name: &'static str,
    /// Its name above a table, at most 24 characters.
    pub title: &'static str,
    /// Unit of its value.
    pub unit: Unit,
    /// Which way it is good.
    pub better: Better,
    /// What it means, in one sentence.
    pub help: &'static str,
    read: fn(&Trial) -> Option<f64>,
}

/// No quantity has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metric `{name}` does not exist; {hint}")]
pub struct UnknownQuantity {
    /// The name that was asked for.
    pub name: String,
    /// The nearest name there is, or where to look.
    pub hint: String,
}

impl Quantity {
    /// What is compared where nothing is said: what became of attempts, and how long those waited that were served.
    pub const DEFAULTS: [&'static Self; 2] = [&catalogue::RATIOS[0], &catalogue::CONFIRM_LATENCY[2]];

    /// Every quantity, in the order of the catalogue.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        catalogue::CATALOGUE.iter().copied().flatten()
    }

    /// The quantity called `name`.
    ///
    /// # Errors
    /// [`UnknownQuantity`] names the nearest one.
    pub fn named(name: &str) -> Result<&'static Self, UnknownQuantity> {
        Self::all()
            .find(|quantity| quantity.name == name)
            .ok_or_else(|| UnknownQuantity { name: name.to_owned(), hint: hint_for(name) })
    }

    /// Does it need books that only our own server keeps? Then it has no value of a target.
    pub fn is_the_servers_own(&self) -> bool {
        catalogue::is_the_servers_own(self.name)
    }

    /// Its value in a trial; `None` where there is none, e.g. the latency of nothing.
    pub fn of(&self, trial: &Trial) -> Option<f64> {
        (self.read)(trial)
    }
}

fn hint_for(name: &str) -> String {
    // A third of a name may be wrong before the nearest one is a guess.
    let limit = name.chars().count().div_ceil(3);
    Quantity::all()
        .map(|quantity| (distance(name, quantity.name), quantity.name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map_or_else(
            || "metrics are e.g. `served-ratio`, `overflows`, `phantoms`, `confirm-latency.p99`".to_owned(),
            |(_, nearest)| format!("did you mean `{nearest}`?"),
        )
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// `part / whole`, or nothing where the whole is nothing.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Attempts of the cohort that ended with `verdict`.
fn verdict(trial: &Trial, verdict: Verdict) -> u64 {
    trial.loadgen.measured.verdict(verdict)
}

/// Attempts that ratios are of.
pub(crate) fn cohort(trial: &Trial) -> u64 {
    let cohort = &trial.loadgen.measured;
    match trial.topology {
        Topology::Veth | Topology::Loopback => cohort.planned,
        // Who was planned before the window and ended in it would count as one too many.
        Topology::Attached => cohort.concluded(),
    }
}

fn verdict_ratio(trial: &Trial, kind: Verdict) -> Option<f64> {
    ratio(verdict(trial, kind), cohort(trial))
}

/// Without a greeting nobody can know who was served: then there is no served ratio rather than one of 0.
fn confirmed_ratio(trial: &Trial, kind: Verdict) -> Option<f64> {
    match trial.loadgen.opts.confirm {
        Confirm::Greeting | Confirm::Reply => verdict_ratio(trial, kind),
        Confirm::None => None,
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn quantile(times: &HistogramSnapshot, q: f64) -> Option<f64> {
    times.quantile(q).map(seconds)
}

fn greatest(times: &HistogramSnapshot) -> Option<f64> {
    (times.count > 0).then(|| seconds(times.max))
}

fn mean(times: &HistogramSnapshot) -> Option<f64> {
    times.mean().map(|ns| ns / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn read(name: &str, trial: &Trial) -> Option<f64> {
        Quantity::named(name).unwrap().of(trial)
    }

    fn close(name: &str, trial: &Trial, expected: f64) {
        let value = read(name, trial).unwrap();
        assert!((value - expected).abs() <= expected.abs() * 1e-9, "{name} is {value}, not {expected}");
    }

    #[test]
    fn names_are_unique_kebab_case_and_titles_fit_their_column() {
        let mut names: Vec<_> = Quantity::all().map(|quantity| quantity.name).collect();
        let all = names.len();
        for quantity in Quantity::all() {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            assert!(quantity.name.chars().all(fits), "{}", quantity.name);
            assert!(quantity.title.chars().count() <= 24, "{}", quantity.title);
            assert!(!quantity.help.is_empty());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn cohort_quantities_ignore_the_warm_up() {
        let mut trial = testing::trial(0);
        trial.loadgen.warm_up.planned = 100;
        trial.loadgen.warm_up.verdicts.insert(Verdict::Served, 100);
        close("planned", &trial, 1000.0);
        close("served", &trial, 780.0);
        close("served-ratio", &trial, 0.78);
        close("unserved-ratio", &trial, 0.02);
        close("timed-out-ratio", &trial, 0.2);
        close("connected-ratio", &trial, 0.8);
        close("refused-ratio", &trial, 0.0);
    }

    #[test]
    fn latencies_are_seconds_and_have_no_value_when_nothing_was_recorded() {
        let mut trial = testing::trial(0);
        for ms in 1..=100 {
            trial.loadgen.measured.confirm_latency.record(ms * 1_000_000);
        }
        close("confirm-latency.max", &trial, 0.1);
        close("confirm-latency.mean", &trial, 0.0505);
        let p90 = read("confirm-latency.p90", &trial).unwrap();
        assert!((0.09..=0.0915).contains(&p90), "{p90}");
        assert_eq!(read("confirm-service.p50", &trial), None);
        assert_eq!(read("schedule-lag.mean", &trial), None);
    }

    #[test]
    fn kernel_and_queue_quantities_are_of_the_whole_trial() {
        let mut trial = testing::trial(0);
        trial.server.kernel.net.listen_overflows = 31;
        trial.server.kernel.net.listen_drops = 40;
        trial.loadgen.kernel.net.syn_retransmits = 7;
        trial.server.kernel.net.syn_retransmits = 5;
        trial.server.listeners[0].full_ns = 250_000_000;
        let acceptor = &mut trial.server.acceptors[0];
        (acceptor.late_handshakes, acceptor.replies, acceptor.wakeups_empty) = (3, 11, 12);
        (acceptor.pauses, acceptor.restarts) = (13, 14);
        trial.ledger.terms.lost = 1;
        trial.timings.load_ms = 2000.0;
        close("overflows", &trial, 31.0);
        close("listen-drops", &trial, 40.0);
        close("queue-limit", &trial, 128.0);
        close("queue-capacity", &trial, 129.0);
        close("queue-full-seconds", &trial, 0.25);
        close("late-handshakes", &trial, 3.0);
        close("replies", &trial, 11.0);
        close("empty-wakeups", &trial, 12.0);
        close("accept-pauses", &trial, 13.0);
        close("worker-restarts", &trial, 14.0);
        close("lost", &trial, 1.0);
        close("accepted", &trial, 790.0);
        close("accept-rate", &trial, 395.0);
        close("phantoms", &trial, 10.0);
        close("syn-retransmits", &trial, 7.0);
    }

    #[test]
    fn a_run_without_confirmation_has_no_served_ratio() {
        let mut trial = testing::trial(0);
        trial.loadgen.opts.confirm = Confirm::None;
        assert_eq!(read("served-ratio", &trial), None);
        assert_eq!(read("unserved-ratio", &trial), None);
        close("timed-out-ratio", &trial, 0.2);
    }

    #[test]
    fn of_a_window_ratios_are_of_what_ended_in_it_and_phantoms_are_unknown() {
        let mut trial = testing::trial(0);
        trial.topology = Topology::Attached;
        trial.loadgen.measured.planned = 1010;
        close("served-ratio", &trial, 0.78);
        close("planned", &trial, 1010.0);
        for unknown in ["phantoms", "raced", "lost", "queue-max"] {
            assert_eq!(read(unknown, &trial), None, "{unknown}");
        }
    }

    #[test]
    fn what_only_the_server_counts_has_no_value_of_a_target_and_what_the_kernel_counts_has() {
        let mut trial = testing::trial(0);
        trial.target = Some(crate::results::Target::default());
        trial.server.acceptors.clear();
        trial.ledger = crate::ledger::target::balance(&trial.server, &trial.loadgen, trial.topology);
        for own in ["accepted", "replies", "empty-wakeups", "lost", "service-rate", "utilisation"] {
            assert!(Quantity::named(own).unwrap().is_the_servers_own(), "{own}");
        }
        for quantity in Quantity::all().filter(|quantity| quantity.is_the_servers_own()) {
            assert_eq!(quantity.of(&trial), None, "{}", quantity.name);
        }
        for (kernel, value) in [("entered", 790.0), ("left", 0.0), ("queue-limit", 128.0), ("phantoms", 10.0)] {
            close(kernel, &trial, value);
        }
    }

    #[test]
    fn the_residual_keeps_its_sign_and_is_the_worst_line() {
        let mut trial = testing::trial(0);
        close("residual", &trial, 0.0);
        trial.ledger.lines[1].residual = 2;
        trial.ledger.lines[2].residual = -3;
        close("residual", &trial, -3.0);
    }

    #[test]
    fn what_is_compared_by_itself_is_what_experiments_md_says() {
        assert_eq!(Quantity::DEFAULTS.map(|quantity| quantity.name), ["served-ratio", "confirm-latency.p99"]);
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        let hint = |name: &str| Quantity::named(name).unwrap_err().hint;
        assert_eq!(hint("served-ration"), "did you mean `served-ratio`?");
        assert_eq!(hint("overflow"), "did you mean `overflows`?");
        assert_eq!(hint("confirm-latency.p95"), "did you mean `confirm-latency.p90`?");
        assert!(hint("happiness").starts_with("metrics are e.g."), "{}", hint("happiness"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
