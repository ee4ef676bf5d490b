//! When a client sends its SYN again and when it gives up: the kernel's rule, and a client watched against it.
//!
//! The rule is `net/ipv4/tcp_timer.c`: the time-out starts at 1 s and stays so for `tcp_syn_linear_timeouts` more, then
//! doubles (`tcp_retransmit_timer`); the attempt fails at the first timer at or past what n retries would have taken
//! without linear time-outs, 2^(n+1) - 1 s (`tcp_write_timeout`, `retransmits_timed_out`).

use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use socket2::Socket;

use crate::claim::{Doing, Observed, ProbeError};
use crate::scene::{errno_name, info, wait};

/// How often a waiting client's `TCP_INFO` is read.
const SAMPLE: Duration = Duration::from_millis(5);
/// The timer wheel rounds a timer up, by an eighth of it at worst (kernel/time/timer.c); several add up to less.
const LATE_FACTOR: f64 = 1.08;
const LATE_SECONDS: f64 = 0.06;
/// What the reading of two clocks may differ.
const EARLY_SECONDS: f64 = 0.01;
/// A process that cannot look at its socket for longer, seconds, has measured nothing.
const BLIND: f64 = 8.0;
/// How much later than planned it may stop watching: no SYN is due in between.
const OVERRUN: f64 = 2.0;

/// Seconds after connect(2) at which SYNs go out, the first at 0, and at which the attempt fails.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    pub(super) syns: Vec<f64>,
    pub(super) fails: f64,
}

impl Schedule {
    /// The rule for `tcp_syn_retries` (or `TCP_SYNCNT`) and `tcp_syn_linear_timeouts`.
    pub(super) fn of(retries: i32, linear: u32) -> Self {
        let enough = 2f64.powi(retries + 1) - 1.0;
        let (mut syns, mut now, mut timeout) = (vec![0.0], 1.0, 1.0);
        while now < enough {
            syns.push(now);
            if syns.len() > linear as usize + 1 {
                timeout *= 2.0;
            }
            now += timeout;
        }
        Self { syns, fails: now }
    }

    /// The time given by the schedule if the measured one agrees with it, else the measured one.
    pub(super) fn rounded(measured: Seen, planned: Option<&f64>) -> String {
        match planned {
            Some(planned) if measured.agrees(*planned) => format!("{planned}"),
            _ => format!("{:.1}", measured.by),
        }
    }
}

/// When something happened, in seconds: after one look at the socket and by the next. The two are a few ms apart unless
/// the machine was too busy to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) after: f64,
    pub(super) by: f64,
}

impl Seen {
    /// Could it be a timer for `planned`?
    fn agrees(self, planned: f64) -> bool {
        self.by >= planned - EARLY_SECONDS && self.after <= planned * LATE_FACTOR + LATE_SECONDS
    }
}

/// What became of an attempt that nobody answered.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Seconds after the start at which SYNs were seen to go out.
    pub(super) syns: Vec<Seen>,
    /// How it ended: an errno's name, `connected`, or `SYN_SENT` when it had not.
    pub(super) ended: String,
    /// When.
    pub(super) at: Seen,
}

impl Attempt {
    /// Watches a client whose connect(2) began then, until it ends or the limit is reached.
    pub(super) fn watch(client: &Socket, began: Instant, limit: Duration) -> Result<Self, ProbeError> {
        let mut syns = vec![Seen { after: 0.0, by: 0.0 }];
        let mut after = 0.0;
        loop {
            let over = !wait(client, PollFlags::OUT, SAMPLE)?.is_empty();
            let sent = info(client)?.total_retrans as usize;
            let by = began.elapsed().as_secs_f64();
            let seen = Seen { after, by };
            if by - after > BLIND || (!over && by > limit.as_secs_f64() + OVERRUN) {
                return Err(ProbeError::Failed(format!("this machine was too busy to look for {:.1} s", by - after)));
            }
            syns.extend(std::iter::repeat_n(seen, (sent + 1).saturating_sub(syns.len())));
            if over || by >= limit.as_secs_f64() {
                let error = client.take_error().doing("read SO_ERROR")?;
                let ended = match (over, error) {
                    (false, _) => "SYN_SENT".to_owned(),
                    (true, None) => "connected".to_owned(),
                    (true, Some(error)) => errno_name(&error),
                };
                return Ok(Self { syns, ended, at: seen });
            }
            after = by;
        }
    }

    /// The times of the SYNs, those that agree with the schedule as it gives them: `0, 1, 3`.
    pub(super) fn syns_on(&self, schedule: &Schedule) -> String {
        let times = self.syns.iter().enumerate().map(|(n, at)| Schedule::rounded(*at, schedule.syns.get(n)));
        times.collect::<Vec<_>>().join(", ")
    }

    /// The time of the end, likewise.
    pub(super) fn end_on(&self, schedule: &Schedule) -> String {
        Schedule::rounded(self.at, Some(&schedule.fails))
    }

    /// Figures `syns`, `ended` and `end-s` (as the schedule has them), `seen-to-end-s` (as the clock had it), and a
    /// sentence.
    pub(super) fn observed(&self, schedule: &Schedule, setting: &str) -> Observed {
        let (syns, end) = (self.syns_on(schedule), self.end_on(schedule));
        let did = format!("{setting}: SYNs at {syns} s; {} at {end} s (timers may run up to 8 % late)", self.ended);
        Observed::new()
            .text("syns", syns)
            .text("ended", self.ended.as_str())
            .text("end-s", end)
            .number("seen-to-end-s", self.at.by)
            .did(did)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_gives_what_was_measured() {
        // retries, linear, SYNs, fails: measured on 6.18 with a timer slack of up to 4 %.
        let rows: [(i32, u32, &[f64], f64); 6] = [
            (1, 4, &[0.0, 1.0, 2.0], 3.0),
            (2, 0, &[0.0, 1.0, 3.0], 7.0),
            (3, 1, &[0.0, 1.0, 2.0, 4.0, 8.0], 16.0),
            (2, 4, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 7.0),
            (6, 4, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 11.0, 19.0, 35.0, 67.0], 131.0),
            (6, 0, &[0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0], 127.0),
        ];
        for (retries, linear, syns, fails) in rows {
            assert_eq!(Schedule::of(retries, linear), Schedule { syns: syns.to_vec(), fails });
        }
    }

    #[test]
    fn a_time_off_the_schedule_is_shown_as_measured() {
        let seen = |by| Seen { after: by, by };
        let syns = vec![seen(0.0), seen(1.024), seen(6.0)];
        let attempt = Attempt { syns, ended: "ETIMEDOUT".to_owned(), at: seen(7.18) };
        let schedule = Schedule::of(2, 0);
        assert_eq!(attempt.syns_on(&schedule), "0, 1, 6.0");
        assert_eq!(attempt.end_on(&schedule), "7");
        assert!(!seen(0.98).agrees(1.0) && !seen(1.15).agrees(1.0));
        assert!(Seen { after: 0.5, by: 2.0 }.agrees(1.0));
    }
}
