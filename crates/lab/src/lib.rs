//! The lab: experiment files, the order of their trials, the processes and namespaces of each trial, and the books
//! that come out. The runner itself never changes a namespace; only its children do. An attached run builds nothing: it
//! steps the sysctls of a running deployment and puts them back.

mod agenda;
mod attached;
mod bench;
mod child;
mod control;
mod directory;
pub mod experiment;
pub mod inside;
mod live;
pub mod metrics;
mod private;
mod replay;
mod resume;
mod run;
mod schedule;
mod settings;
mod sources;
mod target;
#[cfg(test)]
mod testing;
mod trial;
mod tryout;

pub use agenda::Agenda;
pub use directory::{DirectoryError, Reopened, Stored, run_name};
pub use experiment::{
    AdminAddress, Attach, Common, Experiment, ExperimentError, Part, PartError, Place, Searched, Wiring, schema,
};
pub use replay::open_metrics;
pub use run::{Event, Finished, Request, RunError, Started, resume, run};
pub use schedule::{Order, Planned};
pub use settings::Resolved;
pub use target::Target;
pub use target::program::{find as find_program, package_of};
pub use trial::TrialError;
pub use tryout::{Tried, Wanted, try_out};
