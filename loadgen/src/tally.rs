//! The counters of one worker in one phase. Written by its worker only; read at any time, exact once the
//! worker is done.

use rustix::io::Errno;
use telemetry::counter::Counter;
use telemetry::histogram::Histogram;

use crate::snapshot::PhaseCounts;
use crate::verdict::Verdict;

/// Retransmitted SYNs told apart: 0, 1, 2, 3 and more, and not known.
const RETRANSMIT_CLASSES: usize = 5;

/// An attempt established this soon did not wait for the first SYN timeout, which is 1 s (`TCP_TIMEOUT_INIT`).
const BEFORE_SYN_TIMEOUT_NS: u64 = 900_000_000;

/// errno values of Linux are below this (EHWPOISON is 133).
const ERRNOS: usize = 134;

kernel::shareable! {
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) planned: Counter,
    pub(crate) issued: Counter,
    pub(crate) before_syn: Counter,
    established: Counter,
    pub(crate) reset_at_connect: Counter,
    pub(crate) closed_without_byte: Counter,
    pub(crate) abrupt: Counter,
    /// Two counters that share nothing, so that neither of their metrics is ever seen to go down.
    early_syn_retransmits: Counter,
    timed_syn_retransmits: Counter,
    pub(crate) held_lost: Counter,
    verdicts: [Counter; Verdict::ALL.len()],
    others: [Counter; ERRNOS],
    pub(crate) lag: Histogram,
    pub(crate) connect_latency: Histogram,
    connect_service: [Histogram; RETRANSMIT_CLASSES],
    pub(crate) confirm_latency: Histogram,
    pub(crate) confirm_service: Histogram,
}
}

impl Tally {
    pub(crate) fn conclude(&self, verdict: Verdict) {
        self.verdicts[verdict as usize].add(1);
    }

    /// Concludes with the verdict of an error, whose number is kept where the verdict does not say it.
    pub(crate) fn fail(&self, verdict: Verdict, errno: Errno) {
        if verdict == Verdict::Other {
            self.other(errno.raw_os_error());
        }
        self.conclude(verdict);
    }

    pub(crate) fn other(&self, errno: i32) {
        let index = usize::try_from(errno).unwrap_or(0).min(ERRNOS - 1);
        self.others[index].add(1);
    }

    /// An attempt was established `after_ns` from its issue, having sent its SYN `retransmits` times more, if that is known.
    pub(crate) fn established_after(&self, after_ns: u64, retransmits: Option<u32>) {
        self.established.add(1);
        let class = retransmits.map_or(RETRANSMIT_CLASSES - 1, |n| (n as usize).min(RETRANSMIT_CLASSES - 2));
        self.connect_service[class].record(after_ns);
        let Some(retransmits) = retransmits.filter(|n| *n > 0) else { return };
        let counter =
            if after_ns < BEFORE_SYN_TIMEOUT_NS { &self.early_syn_retransmits } else { &self.timed_syn_retransmits };
        counter.add(u64::from(retransmits));
    }

    /// Adds what this worker counted to `sum`.
    pub(crate) fn add_to(&self, sum: &mut PhaseCounts) {
        sum.planned += self.planned.get();
        sum.issued += self.issued.get();
        sum.before_syn += self.before_syn.get();
        sum.established += self.established.get();
        sum.reset_at_connect += self.reset_at_connect.get();
        sum.closed_without_byte += self.closed_without_byte.get();
        sum.abrupt += self.abrupt.get();
        let early = self.early_syn_retransmits.get();
        sum.syn_retransmits += early + self.timed_syn_retransmits.get();
        sum.early_syn_retransmits += early;
        sum.held_lost += self.held_lost.get();
        for (verdict, count) in Verdict::ALL.iter().zip(&self.verdicts) {
            *sum.verdicts.entry(*verdict).or_default() += count.get();
        }
        for (errno, count) in self.others.iter().enumerate().filter(|(_, count)| count.get() > 0) {
            *sum.other_errnos.entry(errno.to_string()).or_default() += count.get();
        }
        sum.lag.merge(&self.lag.snapshot());
        sum.connect_latency.merge(&self.connect_latency.snapshot());
        sum.connect_service.resize_with(RETRANSMIT_CLASSES, Default::default);
        for (sum, mine) in sum.connect_service.iter_mut().zip(&self.connect_service) {
            sum.merge(&mine.snapshot());
        }
        sum.confirm_latency.merge(&self.confirm_latency.snapshot());
        sum.confirm_service.merge(&self.confirm_service.snapshot());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_sent_again_before_the_first_timeout_is_counted_apart_and_in_the_sum() {
        let tally = kernel::shared::zeroed::<Tally>();
        for (retransmits, after_ms) in [(0, 0), (1, 9), (1, 12), (0, 899), (1, 1004), (5, 3010), (0, 1500)] {
            tally.established_after(after_ms * 1_000_000, Some(retransmits));
        }
        tally.established_after(20_000_000, None);
        let mut sum = PhaseCounts::default();
        tally.add_to(&mut sum);
        assert_eq!((sum.established, sum.syn_retransmits, sum.early_syn_retransmits), (8, 8, 2));
        let classes: Vec<u64> = sum.connect_service.iter().map(|class| class.count).collect();
        assert_eq!(classes, [3, 3, 0, 1, 1], "0, 1, 2, 3 and more, not known");
        let mut whole = sum.clone();
        whole.absorb(&sum);
        assert_eq!((whole.syn_retransmits, whole.early_syn_retransmits), (16, 4));
    }
}
