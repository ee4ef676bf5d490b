//! When attempts were established, on the grid of the SYN's retries, as bars of text. Pure.
//!
//! A SYN that is dropped comes again when its timer fires, at the times of [`loadgen::retry_grid`]. Drops therefore show as
//! bars at these times, and what lies between them is waiting.
//!
//! One kind of retry waits for no timer: a SYN that meets what an earlier connection of the same addresses and ports left at
//! the server is answered by an ACK, refuses it by a RST, and comes again 8 to 13 ms later. It is shown apart.

use loadgen::{PhaseCounts, Snapshot, retry_grid};
use study::format;
use telemetry::histogram::{HistogramSnapshot, upper_edge};

/// An attempt with a SYN sent again that is established before this met a leftover: no timer fires so early.
const EARLY_NS: u64 = 900_000_000;

/// Class of most retransmits that are told apart. What is beyond is not known, and sorted by its time alone.
const MOST_TOLD: usize = 3;

/// Characters of the longest bar.
const BAR: usize = 40;

/// What was established, by when its SYN was answered.
#[derive(Debug, PartialEq, Eq)]
struct Established {
    /// Attempts from each time of the grid to the next.
    at: Vec<u64>,
    /// Of those from the first retry on: attempts whose first SYN was answered, only slowly.
    slow: u64,
    /// Attempts whose SYN met a leftover.
    leftover: HistogramSnapshot,
}

fn sort(counts: &PhaseCounts, grid: &[u64]) -> Established {
    let mut sorted = Established { at: vec![0; grid.len()], slow: 0, leftover: HistogramSnapshot::default() };
    for (retransmits, histogram) in counts.connect_service.iter().enumerate() {
        for &(bucket, n) in &histogram.buckets {
            let ns = upper_edge(bucket as usize);
            if (1..=MOST_TOLD).contains(&retransmits) && ns < EARLY_NS {
                sorted.leftover.buckets.push((bucket, n));
                sorted.leftover.count += n;
                continue;
            }
            let place = grid.partition_point(|at| at * 1_000_000_000 <= ns).saturating_sub(1);
            sorted.at[place] += n;
            sorted.slow += if retransmits == 0 && place > 0 { n } else { 0 };
        }
    }
    sorted.leftover.buckets.sort_unstable();
    sorted
}

/// The bars of the measured attempts; nothing when every SYN was answered before the first could come again.
pub(super) fn lines(books: &Snapshot) -> Vec<String> {
    let grid = retry_grid(books);
    let sorted = sort(&books.measured, &grid);
    let last = sorted.at.iter().rposition(|n| *n > 0).unwrap_or(0);
    if last == 0 && sorted.leftover.count == 0 && books.measured.syn_retransmits == 0 {
        return Vec::new();
    }
    let all: u64 = sorted.at.iter().sum::<u64>() + sorted.leftover.count;
    let most = sorted.at.iter().copied().max().unwrap_or(0).max(sorted.leftover.count);
    let mut lines = vec!["established, from issued, by the SYN that was answered".to_owned()];
    for (place, (second, n)) in grid.iter().zip(&sorted.at).enumerate().take(last + 1) {
        let name = if place == 0 { "the first, at 0 s".to_owned() } else { format!("retry {place}, at {second} s") };
        lines.push(row(&name, *n, all, most));
        if place == 0 && sorted.leftover.count > 0 {
            lines.push(row("met a leftover", sorted.leftover.count, all, most));
        }
    }
    lines.extend(notes(&sorted));
    lines
}

/// A name, a count, its share, and a bar that no count above 0 goes without.
fn row(name: &str, n: u64, all: u64, most: u64) -> String {
    let share = format::percent(n as f64 / all.max(1) as f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most BAR, and not below 0")]
    let length = (n as f64 / most.max(1) as f64 * BAR as f64).round() as usize;
    let bar = "#".repeat(if n > 0 { length.max(1) } else { 0 });
    format!("  {name:<17} {n:>8} {share:>8}  {bar}").trim_end().to_owned()
}

fn notes(sorted: &Established) -> Vec<String> {
    let mut notes = Vec::new();
    let time = |q| sorted.leftover.buckets.get(q).map(|(bucket, _)| upper_edge(*bucket as usize) as f64 / 1e9);
    if let (Some(least), Some(most)) = (time(0), time(sorted.leftover.buckets.len().wrapping_sub(1))) {
        notes.push(format!(
            "  a leftover of an earlier connection: the SYN came again after {}",
            format::range([least, most], study::quantity::Unit::Seconds)
        ));
    }
    if sorted.slow > 0 {
        notes.push(format!("  {} of them sent no SYN again: slow, not dropped", sorted.slow));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(attempts: &[(usize, u64, u64)]) -> Snapshot {
        let mut books = Snapshot::default();
        books.measured.connect_service = vec![HistogramSnapshot::default(); 4];
        for &(retransmits, ms, n) in attempts {
            (0..n).for_each(|_| books.measured.connect_service[retransmits.min(3)].record(ms * 1_000_000));
            books.measured.syn_retransmits += retransmits as u64 * n;
        }
        let sysctl = |name: &str, value: &str| (format!("net.ipv4.{name}"), value.to_owned());
        books.kernel.sysctls = [sysctl("tcp_syn_linear_timeouts", "4"), sysctl("tcp_syn_retries", "6")].into();
        books
    }

    #[test]
    fn retries_stand_at_their_seconds_and_leftovers_apart() {
        let lines = lines(&books(&[(0, 1, 4000), (1, 9, 6), (1, 12, 2), (1, 1004, 900), (3, 3010, 1), (6, 7020, 80)]));
        assert_eq!(
            lines,
            [
                "established, from issued, by the SYN that was answered",
                "  the first, at 0 s     4000   80.2 %  ########################################",
                "  met a leftover           8    0.2 %  #",
                "  retry 1, at 1 s        900   18.0 %  #########",
                "  retry 2, at 2 s          0      0 %",
                "  retry 3, at 3 s          1   <0.1 %  #",
                "  retry 4, at 4 s          0      0 %",
                "  retry 5, at 5 s          0      0 %",
                "  retry 6, at 7 s         80    1.6 %  #",
                "  a leftover of an earlier connection: the SYN came again after 9.04–12.1 ms",
            ]
        );
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn who_is_slow_was_not_dropped() {
        let lines = lines(&books(&[(0, 1, 10), (0, 1500, 3), (1, 1010, 2)]));
        assert_eq!(lines[2], "  retry 1, at 1 s          5   33.3 %  ####################");
        assert_eq!(lines[3], "  3 of them sent no SYN again: slow, not dropped");
    }

    #[test]
    fn nothing_is_shown_of_a_load_without_retries() {
        assert_eq!(lines(&books(&[])), [""; 0]);
        assert_eq!(lines(&books(&[(0, 1, 100), (0, 700, 2)])), [""; 0]);
    }
}
