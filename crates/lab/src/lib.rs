//! The lab: experiment files, the order of their trials, the processes and namespaces of each trial, and the books
//! that come out. The runner itself never changes a namespace; only its children do.

mod child;
mod control;
mod directory;
pub mod experiment;
pub mod inside;
mod live;
pub mod metrics;
mod run;
mod schedule;
mod settings;
mod trial;

pub use directory::{DirectoryError, Stored};
pub use experiment::{Experiment, ExperimentError};
pub use live::Build;
pub use run::{Event, Finished, Request, RunError, check_machine, generator_limits, run};
pub use schedule::{Planned, order};
pub use settings::Resolved;
pub use trial::TrialError;
