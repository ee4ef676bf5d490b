//! The load generator of acceptbench: an open-loop connection generator that accounts for every attempt. It
//! knows nothing of the server: they meet over TCP.

pub mod arrivals;
mod attempt;
pub mod budget;
pub mod metrics;
pub mod opts;
mod plan;
mod running;
pub mod snapshot;
mod sources;
mod tally;
mod target;
pub mod verdict;
mod worker;

pub use budget::Budget;
pub use opts::Opts;
pub use plan::{Machine, Plan, PlanError, check, check_descriptors};
pub use running::{Generator, Observer, StartError};
pub use snapshot::{PhaseCounts, Snapshot};
pub use verdict::Verdict;
