//! The load generator of acceptbench: an open-loop connection generator that accounts for every attempt. It
//! knows nothing of the server: they meet over TCP.

pub mod arrivals;
mod attempt;
pub mod budget;
mod counts;
mod effort;
mod epoll;
mod half_open;
mod hope;
pub mod judgement;
pub mod metrics;
pub mod opts;
mod pacer;
mod plan;
mod reactor;
mod retry_grid;
mod running;
pub mod snapshot;
mod sources;
mod tally;
mod target;
mod uring;
pub mod verdict;
mod worker;

pub use budget::Budget;
pub use half_open::HalfOpenError;
pub use judgement::{Limit, LimitKind};
pub use opts::Opts;
pub use plan::{Machine, Plan, PlanError, check, check_descriptors};
pub use retry_grid::retry_grid;
pub use running::{Generator, Observer, StartError};
pub use snapshot::{HalfOpenCounts, PhaseCounts, Snapshot, WorkerCpu};
pub use uring::lacks as io_uring_lacks;
pub use verdict::Verdict;
