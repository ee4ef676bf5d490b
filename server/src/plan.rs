//! From what was typed to what will be done: [`Opts`] are checked as a whole and become a [`Plan`]. What only
//! the kernel knows (the queue limit) is read back after listen(2), in [`crate::listener`].

use thiserror::Error;

use crate::opts::{Opts, Reuseport};

/// Valid options. Only a `Plan` can be started.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    opts: Opts,
}

impl Plan {
    /// The options as given.
    pub fn opts(&self) -> &Opts {
        &self.opts
    }

    /// How many listening sockets the plan makes: one, or one per acceptor under reuseport.
    pub fn listeners(&self) -> u32 {
        match self.opts.reuseport {
            Reuseport::Off => 1,
            Reuseport::Hash => self.opts.acceptors.get(),
        }
    }
}

/// Options that cannot work together. The text names the flag and the fix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// listen(2) takes a C int.
    #[error("backlog {0} is more than listen(2) takes; the most is {max}", max = i32::MAX)]
    Backlog(u32),
    /// `retire` names a listener that the plan does not make.
    #[error(
        "retire names listener {listener}, but there are {listeners} (numbered from 0); use reuseport = \"hash\" for one per acceptor"
    )]
    Retire {
        /// The index asked for.
        listener: u32,
        /// How many there are.
        listeners: u32,
    },
    /// More threads than any machine of today schedules usefully; almost always a typing error.
    #[error("acceptors {0} is more than the {MAX_ACCEPTORS} threads a server starts at most")]
    Acceptors(u32),
}

/// Upper bound of `acceptors`.
pub(crate) const MAX_ACCEPTORS: u32 = 1024;

impl TryFrom<Opts> for Plan {
    type Error = PlanError;

    fn try_from(opts: Opts) -> Result<Self, PlanError> {
        if i32::try_from(opts.backlog).is_err() {
            return Err(PlanError::Backlog(opts.backlog));
        }
        if opts.acceptors.get() > MAX_ACCEPTORS {
            return Err(PlanError::Acceptors(opts.acceptors.get()));
        }
        let plan = Self { opts };
        match plan.opts.retire {
            Some(retire) if retire.listener >= plan.listeners() => {
                Err(PlanError::Retire { listener: retire.listener, listeners: plan.listeners() })
            }
            _ => Ok(plan),
        }
    }
}
