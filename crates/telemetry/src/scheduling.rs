//! How the threads of a program are scheduled, as a setting.

use std::io;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The scheduling policy of threads or processes of one kind, sched(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduling {
    /// `SCHED_OTHER`.
    Normal,
    /// `SCHED_BATCH`: who wakes up does not preempt who runs.
    Batch,
}

crate::value_enum_display!(Scheduling);

impl Scheduling {
    /// Gives the calling thread a CPU, if there is one for it, and this policy.
    ///
    /// # Errors
    /// EINVAL for a CPU on which this thread may not run; EPERM where a policy may not be changed (seccomp).
    pub fn settle(self, cpu: Option<usize>) -> io::Result<()> {
        if let Some(cpu) = cpu {
            kernel::process::pin_to_cpu(cpu)?;
        }
        match self {
            Self::Normal => Ok(()),
            Self::Batch => kernel::process::schedule_as_batch(),
        }
    }
}
