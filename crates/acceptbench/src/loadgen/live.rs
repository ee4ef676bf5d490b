//! What a running load generator says of itself, in one line: what was measured since an earlier reading, and counts since
//! the start. Pure: two readings in, a line out.
//!
//! A line that is longer than the terminal is wide cannot replace itself. So what does not fit is left out, the least
//! telling first: the median, what is in flight, the 99th percentile; errors stay, and the rare ones are added up.

use std::collections::VecDeque;
use std::time::Duration;

use loadgen::opts::RunTime;
use loadgen::{PhaseCounts, Snapshot, Verdict};
use study::format;
use telemetry::histogram::HistogramSnapshot;

/// What stands between two items.
const GAP: &str = "  ";

/// Readings of the recent past, so that a line can tell what happened within it.
#[derive(Debug)]
pub(super) struct Recent {
    window: Duration,
    readings: VecDeque<Snapshot>,
}

impl Recent {
    /// Remembers readings for `window`.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, readings: VecDeque::new() }
    }

    /// Adds a reading, and returns the one to compare it with: the youngest that is at least a window old, or else the oldest
    /// there is.
    pub(super) fn add(&mut self, now: Snapshot) -> (&Snapshot, &Snapshot) {
        let window = u64::try_from(self.window.as_nanos()).unwrap_or(u64::MAX);
        let old = |reading: &Snapshot| now.monotonic_ns.saturating_sub(reading.monotonic_ns) >= window;
        while self.readings.get(1).is_some_and(old) {
            self.readings.pop_front();
        }
        self.readings.push_back(now);
        let last = self.readings.len() - 1;
        (&self.readings[0], &self.readings[last])
    }
}

/// What an attempt ends with when nothing is wrong.
fn is_good(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Served | Verdict::Connected)
}

/// Attempts that ended well.
pub(super) fn good(counts: &PhaseCounts) -> u64 {
    counts.verdicts.iter().filter(|(verdict, _)| is_good(**verdict)).map(|(_, count)| count).sum()
}

/// The latency that tells most: to the first byte, or to ESTABLISHED where nothing confirms.
pub(super) fn latency(counts: &PhaseCounts) -> &HistogramSnapshot {
    if counts.confirm_latency.is_empty() { &counts.connect_latency } else { &counts.confirm_latency }
}

/// Has the last attempt been planned?
pub(super) fn is_over(books: &Snapshot) -> bool {
    let RunTime::For(span) = books.opts.duration else { return false };
    books.monotonic_ns >= books.origin_ns.saturating_add(books.opts.warm_up.as_ns()).saturating_add(span.as_ns())
}

/// Seconds between two readings.
pub(super) fn seconds_between(before: &Snapshot, now: &Snapshot) -> f64 {
    now.monotonic_ns.saturating_sub(before.monotonic_ns.max(before.origin_ns.min(now.monotonic_ns))) as f64 / 1e9
}

/// `part` per second between two readings.
pub(super) fn per_second(before: &Snapshot, now: &Snapshot, part: impl Fn(&PhaseCounts) -> u64) -> f64 {
    let (earlier, later) = (before.whole(), now.whole());
    let seconds = seconds_between(before, now);
    if seconds > 0.0 { part(&later).saturating_sub(part(&earlier)) as f64 / seconds } else { 0.0 }
}

/// The line: rates and latencies since `before`, counts since the start, in at most `width` characters.
pub(super) fn line(before: &Snapshot, now: &Snapshot, width: usize) -> String {
    if now.origin_ns > now.monotonic_ns {
        let left = Duration::from_nanos(now.origin_ns - now.monotonic_ns);
        return fit(format!("begins in {} s", left.as_secs() + 1), width);
    }
    let whole = now.whole();
    let mut head = vec![rate(before, now), format!("{} {}", good_name(&whole), good(&whole))];
    head.extend(limited(now));
    let errors = errors(&whole);
    let tails = tails(before, now);
    // Every error, if need be without the median; or else as many as there is room for, if need be without the rest.
    let whole_lists = tails.iter().take(2).map(|tail| (tail, errors.len()));
    let elided = tails.iter().skip(1).flat_map(|tail| (1..=errors.len().max(1)).rev().map(move |shown| (tail, shown)));
    let best = whole_lists.chain(elided).find_map(|(tail, shown)| {
        let line = join(&head, &errors, shown, tail);
        (line.chars().count() <= width).then_some(line)
    });
    best.unwrap_or_else(|| fit(join(&head, &errors, 1, &[]), width))
}

fn join(head: &[String], errors: &[(u64, String)], shown: usize, tail: &[String]) -> String {
    let mut items = head.to_vec();
    let mut listed: Vec<String> = errors.iter().take(shown).map(|(count, name)| format!("{name} {count}")).collect();
    let rest: u64 = errors.iter().skip(shown).map(|(count, _)| count).sum();
    if rest > 0 {
        listed.push(format!("+{rest} more"));
    }
    if !listed.is_empty() {
        items.push(listed.join(", "));
    }
    items.extend_from_slice(tail);
    items.join(GAP)
}

/// Cut to `width` characters.
fn fit(line: String, width: usize) -> String {
    if line.chars().count() <= width { line } else { line.chars().take(width).collect() }
}

fn rate(before: &Snapshot, now: &Snapshot) -> String {
    let achieved = per_second(before, now, |counts| counts.issued);
    if is_over(now) {
        return "all issued".to_owned();
    }
    // A closed loop plans no rate, and a load that was told to stop has none any more.
    if now.target_rate > 0.0 {
        format!("{achieved:.0} of {}/s", format::count(now.target_rate))
    } else {
        format!("{achieved:.0}/s")
    }
}

fn good_name(whole: &PhaseCounts) -> &'static str {
    if whole.verdict(Verdict::Connected) > 0 { "connected" } else { "served" }
}

/// The limits of its own that the generator passed: what it measures from then on is itself.
fn limited(now: &Snapshot) -> Option<String> {
    let names: Vec<&str> = now.limits.iter().map(|limit| limit.what.label()).collect();
    (!names.is_empty()).then(|| format!("LIMITED by {}", names.join(", ")))
}

/// Each kind of error with its count, the most frequent first.
fn errors(whole: &PhaseCounts) -> Vec<(u64, String)> {
    let failed = whole.verdicts.iter().filter(|(verdict, count)| !is_good(**verdict) && **count > 0);
    let mut errors: Vec<_> = failed.map(|(verdict, count)| (*count, verdict.label().replace('_', "-"))).collect();
    errors.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    errors
}

/// What may stand behind the errors, from the richest to nothing.
fn tails(before: &Snapshot, now: &Snapshot) -> Vec<Vec<String>> {
    let recent = latency(&now.whole()).since(latency(&before.whole()));
    let quantile = |name: &str, q: f64| {
        recent.quantile(q).map(|ns| format!("{name} {}", format::time(ns as f64 / 1e9))).into_iter().collect::<Vec<_>>()
    };
    let (median, p99) = (quantile("p50", 0.5), quantile("p99", 0.99));
    let both: Vec<String> = [median, p99.clone()].concat();
    let both = if both.is_empty() { both } else { vec![both.join(" ")] };
    let flying = vec![format!("in flight {}", now.connecting + now.confirming)];
    vec![[both, flying.clone()].concat(), [p99.clone(), flying].concat(), p99, Vec::new()]
}

#[cfg(test)]
mod tests {
    use loadgen::{Limit, LimitKind};

    use super::*;

    /// A second of a generator at 1000/s, 4 s after its start, with these errors.
    fn second(errors: &[(Verdict, u64)]) -> (Snapshot, Snapshot) {
        let mut before = Snapshot { origin_ns: 1_000_000_000, monotonic_ns: 4_000_000_000, ..Snapshot::default() };
        before.measured.issued = 3000;
        before.measured.confirm_latency.record(900_000_000);
        let mut now = before.clone();
        now.monotonic_ns += 1_000_000_000;
        (now.target_rate, now.connecting, now.confirming) = (1000.0, 11, 2);
        now.warm_up.issued = 500;
        now.measured.issued = 3498;
        now.measured.verdicts = Verdict::ALL.map(|verdict| (verdict, 0)).into();
        now.measured.verdicts.insert(Verdict::Served, 3985);
        now.measured.verdicts.extend(errors.iter().copied());
        for _ in 0..99 {
            now.measured.confirm_latency.record(84_992);
        }
        now.measured.confirm_latency.record(1_200_000);
        (before, now)
    }

    fn shown(errors: &[(Verdict, u64)], width: usize) -> String {
        let (before, now) = second(errors);
        let line = line(&before, &now, width);
        assert!(line.chars().count() <= width, "{line}");
        line
    }

    #[test]
    fn a_healthy_second_fits_whole() {
        assert_eq!(shown(&[], 79), "998 of 1000/s  served 3985  p50 85.0 µs p99 85.0 µs  in flight 13");
    }

    #[test]
    fn errors_come_most_frequent_first_and_the_least_telling_makes_room() {
        let errors = [(Verdict::Reset, 3), (Verdict::TimedOut, 120)];
        assert_eq!(shown(&errors, 79), "998 of 1000/s  served 3985  timed-out 120, reset 3  p99 85.0 µs  in flight 13");
        let many = [&errors[..], &[(Verdict::Refused, 40), (Verdict::Unserved, 2), (Verdict::NoPorts, 1)]].concat();
        assert_eq!(shown(&many, 79), "998 of 1000/s  served 3985  timed-out 120, +46 more  p99 85.0 µs  in flight 13");
        assert_eq!(shown(&many, 60), "998 of 1000/s  served 3985  timed-out 120, +46 more");
        assert_eq!(shown(&many, 20), "998 of 1000/s  serve");
    }

    #[test]
    fn a_limit_passed_is_named() {
        let (before, mut now) = second(&[(Verdict::Shed, 7)]);
        now.limits = vec![Limit { what: LimitKind::Descriptors, measured: 7.0, limit: 0.0 }];
        assert_eq!(line(&before, &now, 79), "998 of 1000/s  served 3985  LIMITED by descriptors  shed 7  p99 85.0 µs");
    }

    #[test]
    fn a_loop_without_a_schedule_has_no_target() {
        let (before, mut now) = second(&[]);
        (now.target_rate, now.measured.confirm_latency) = (0.0, before.measured.confirm_latency.clone());
        assert_eq!(line(&before, &now, 79), "998/s  served 3985  in flight 13", "and nothing was answered");
    }

    #[test]
    fn a_load_that_only_waits_for_answers_says_so() {
        let (before, mut now) = second(&[]);
        now.opts.duration = "4s".parse().expect("a time");
        assert!(line(&before, &now, 79).starts_with("all issued  served 3985  p50"));
    }

    #[test]
    fn a_load_that_is_to_begin_later_says_so() {
        let waiting = Snapshot { origin_ns: 12_300_000_000, monotonic_ns: 1_000_000_000, ..Snapshot::default() };
        assert_eq!(line(&waiting, &waiting, 79), "begins in 12 s");
    }

    #[test]
    fn a_line_looks_back_one_window() {
        let at = |ms: u64| Snapshot { monotonic_ns: ms * 1_000_000, ..Snapshot::default() };
        let mut recent = Recent::new(Duration::from_secs(1));
        let mut compared = Vec::new();
        for ms in [100, 350, 600, 850, 1099, 1350, 1600, 4000] {
            let (before, now) = recent.add(at(ms));
            assert_eq!(now.monotonic_ns, ms * 1_000_000);
            compared.push(before.monotonic_ns / 1_000_000);
        }
        assert_eq!(compared, [100, 100, 100, 100, 100, 350, 600, 1600]);
    }

    #[test]
    fn the_first_second_counts_from_the_start_of_the_load() {
        let (mut before, now) = second(&[]);
        (before.origin_ns, before.monotonic_ns) = (4_500_000_000, 1_000_000_000);
        assert!((seconds_between(&before, &now) - 0.5).abs() < 1e-9);
    }
}
