//! What a load generator says at its end, in 80 columns. Pure: its books in, lines out.

use std::fmt::Write;

use loadgen::{Limit, Snapshot, Verdict};
use study::format;

use super::retry_grid;

/// The quantiles of the table of times, and their names.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Columns of the names of the table of times: five figures of ten fill up to 80.
const NAME: usize = 30;

/// Everything it has to say of the measured phase.
pub(crate) fn lines(books: &Snapshot) -> Vec<String> {
    let mut lines = vec![counts(books)];
    lines.extend(verdicts(books));
    lines.extend(times(books));
    lines.extend(retry_grid::lines(books));
    lines
}

/// The limits of its own that the generator passed, each a warning.
pub(crate) fn warnings(limits: &[Limit]) -> Vec<String> {
    limits.iter().map(|limit| format!("warning: the generator was the bottleneck: {limit}")).collect()
}

/// Time from the start of the load to the reading, s.
pub(crate) fn seconds(books: &Snapshot) -> f64 {
    books.monotonic_ns.saturating_sub(books.origin_ns) as f64 / 1e9
}

fn counts(books: &Snapshot) -> String {
    let measured = &books.measured;
    let mut line =
        format!("planned {}  issued {}  in {}", measured.planned, measured.issued, format::time(seconds(books)));
    if books.warm_up.planned > 0 {
        let _ = write!(line, "  (and {} in the warm-up)", books.warm_up.planned);
    }
    line
}

fn verdicts(books: &Snapshot) -> Vec<String> {
    let measured = &books.measured;
    let mut lines = Vec::new();
    for verdict in Verdict::ALL {
        let count = measured.verdict(verdict);
        if count > 0 {
            let share = format::percent(count as f64 / measured.planned.max(1) as f64);
            lines.push(format!("  {:<12} {count:>9}  {share:>8}", verdict.label().replace('_', "-")));
        }
    }
    for (errno, count) in &measured.other_errnos {
        let text =
            errno.parse().map(std::io::Error::from_raw_os_error).map_or_else(|_| errno.clone(), |e| e.to_string());
        lines.push(format!("               {count:>9}  {text}"));
    }
    let whole = books.whole();
    let foretold =
        books.budget.as_ref().and_then(|budget| budget.beside(whole.planned, whole.verdict(Verdict::NoPorts)));
    lines.extend(foretold.map(|foretold| format!("  {foretold}")));
    lines
}

fn times(books: &Snapshot) -> Vec<String> {
    let measured = &books.measured;
    let rows = [
        ("lag (issued - planned)", &measured.lag),
        ("connected, from planned", &measured.connect_latency),
        ("first byte, from planned", &measured.confirm_latency),
        ("first byte, from issued", &measured.confirm_service),
    ];
    let rows: Vec<_> = rows.into_iter().filter(|(_, times)| !times.is_empty()).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let head = row("", QUANTILES.map(|(name, _)| name.to_owned()));
    let rows = rows.into_iter().map(|(name, times)| {
        row(name, QUANTILES.map(|(_, q)| format::time(times.quantile(q).unwrap_or(0) as f64 / 1e9)))
    });
    [head].into_iter().chain(rows).collect()
}

fn row(name: &str, figures: [String; QUANTILES.len()]) -> String {
    let mut line = format!("{name:<NAME$}");
    for figure in figures {
        let _ = write!(line, "{figure:>9} ");
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use telemetry::histogram::HistogramSnapshot;

    use super::*;

    #[test]
    fn the_end_fits_a_screen_and_says_where_times_count_from() {
        let mut books = Snapshot { origin_ns: 1_000_000_000, monotonic_ns: 11_020_000_000, ..Snapshot::default() };
        books.warm_up.planned = 500;
        let measured = &mut books.measured;
        (measured.planned, measured.issued, measured.syn_retransmits) = (10_000, 9_993, 120);
        measured.verdicts = [(Verdict::Served, 9863), (Verdict::TimedOut, 10), (Verdict::Other, 120)].into();
        measured.verdicts.insert(Verdict::Shed, 7);
        measured.other_errnos = [("105".to_owned(), 120)].into();
        measured.connect_service = vec![HistogramSnapshot::default(); 4];
        for (ns, times) in [(41_000, 99), (1_017_000_000, 2)] {
            for _ in 0..times {
                measured.lag.record(3_100);
                measured.connect_latency.record(ns);
                measured.confirm_latency.record(ns + 43_000);
                measured.confirm_service.record(ns + 40_000);
                measured.connect_service[usize::from(ns > 1_000_000)].record(ns);
            }
        }
        let lines = lines(&books);
        let expected = [
            "planned 10000  issued 9993  in 10.0 s  (and 500 in the warm-up)",
            "  served            9863    98.6 %",
            "  timed-out           10     0.1 %",
            "  shed                 7     0.1 %",
            "  other              120     1.2 %",
            "                     120  No buffer space available (os error 105)",
            "                                    p50       p90       p99     p99.9       max",
            "lag (issued - planned)          3.10 µs   3.10 µs   3.10 µs   3.10 µs   3.10 µs",
            "connected, from planned         41.5 µs   41.5 µs    1.02 s    1.02 s    1.02 s",
            "first byte, from planned        85.0 µs   85.0 µs    1.02 s    1.02 s    1.02 s",
            "first byte, from issued         81.9 µs   81.9 µs    1.02 s    1.02 s    1.02 s",
            "established, from issued, by the SYN that was answered",
            "  the first, at 0 s       99   98.0 %  ########################################",
            "  retry 1, at 1 s          2    2.0 %  #",
        ];
        assert_eq!(lines, expected);
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_load_that_never_began_has_nothing_to_tabulate() {
        assert_eq!(lines(&Snapshot::default()), ["planned 0  issued 0  in 0 s"]);
    }
}
