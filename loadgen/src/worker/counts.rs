//! What one worker counts. Written by its worker only; read at any time.

use telemetry::counter::Counter;

use crate::attempt::{Attempt, Stage};
use crate::effort::Effort;
use crate::tally::Tally;

kernel::shareable! {
/// What one worker counts, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Counts {
    /// Warm-up, measured.
    pub(crate) phases: [Tally; 2],
    pub(crate) connecting: Counter,
    pub(crate) confirming: Counter,
    pub(crate) holding: Counter,
    pub(crate) ending: Counter,
    pub(crate) effort: Effort,
}
}

impl Counts {
    pub(super) fn of(&self, attempt: &Attempt) -> &Tally {
        &self.phases[usize::from(attempt.phase)]
    }

    /// Attempts that are at this stage.
    pub(super) fn at(&self, stage: Stage) -> &Counter {
        match stage {
            Stage::Connecting => &self.connecting,
            Stage::Confirming => &self.confirming,
            Stage::Holding => &self.holding,
            Stage::Closing => &self.ending,
        }
    }
}
