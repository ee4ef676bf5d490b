//! How deep an accept queue was over time, in bounded space whatever the run lasts.
//!
//! A series begins with steps as long as the sampling thread's ticks. When it is full, steps are joined two by two and
//! twice as long, so that it always spans the time since the start. Of each step the deepest look is kept: what matters of
//! a queue is how full it got. It refuses to fill gaps: a step in which nobody looked has no depth.

use serde::{Deserialize, Serialize};

/// Steps a series has at most.
const STEPS: usize = 200;

/// The depth of one accept queue since the start ([`Server::begin`](crate::Server::begin)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Depths {
    /// Length of a step, ns; 0 before the start.
    pub step_ns: u64,
    /// Connections in the queue at the deepest look of each step, the first from the start on; `None` where nobody looked.
    pub deepest: Vec<Option<u32>>,
}

impl Depths {
    /// Notes that `depth` connections were in the queue `since_start_ns` after the start. `tick_ns` is the length of the
    /// first series' steps.
    pub fn note(&mut self, since_start_ns: u64, depth: u32, tick_ns: u64) {
        if self.step_ns == 0 {
            self.step_ns = tick_ns.max(1);
        }
        while since_start_ns / self.step_ns >= STEPS as u64 {
            self.join();
        }
        // Below STEPS by the loop above.
        let step = usize::try_from(since_start_ns / self.step_ns).unwrap_or(STEPS - 1);
        if self.deepest.len() <= step {
            self.deepest.resize(step + 1, None);
        }
        let deepest = &mut self.deepest[step];
        *deepest = (*deepest).max(Some(depth));
    }

    fn join(&mut self) {
        // None is less than any depth.
        self.deepest = self.deepest.chunks(2).map(|pair| pair.iter().copied().max().flatten()).collect();
        self.step_ns = self.step_ns.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 5;

    #[test]
    fn each_step_keeps_its_deepest_look_and_gaps_stay_gaps() {
        let mut depths = Depths::default();
        for (at, depth) in [(1, 3), (4, 7), (6, 2), (17, 9)] {
            depths.note(at, depth, TICK);
        }
        assert_eq!(depths, Depths { step_ns: 5, deepest: vec![Some(7), Some(2), None, Some(9)] });
    }

    #[test]
    fn a_longer_run_has_longer_steps_and_loses_no_peak() {
        let mut depths = Depths::default();
        for tick in 0..10_000_u32 {
            depths.note(u64::from(tick) * TICK, if tick == 4321 { 999 } else { tick % 7 }, TICK);
        }
        assert_eq!(depths.step_ns, 64 * TICK, "10 000 ticks need 50 ticks a step, and steps double");
        assert_eq!(depths.deepest.len(), 10_000_usize.div_ceil(64));
        let peak = depths.deepest.iter().position(|depth| *depth == Some(999));
        assert_eq!(peak, Some(4321 / 64));
        assert!(depths.deepest.iter().all(|depth| depth.is_some_and(|depth| depth == 999 || depth == 6)));
    }

    #[test]
    fn a_long_silence_costs_no_space() {
        let mut depths = Depths::default();
        depths.note(0, 5, TICK);
        depths.note(u64::MAX / 2, 1, TICK);
        assert!(depths.deepest.len() <= STEPS);
        assert_eq!((depths.deepest[0], depths.deepest.last()), (Some(5), Some(&Some(1))));
    }
}
