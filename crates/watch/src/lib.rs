//! Every TCP listener of a network namespace, this one or another, sampled by `sock_diag`.
//!
//! [`Opts`] say what to watch; [`Watcher::start`] starts the one thread that looks, which alone enters the namespace and
//! alone reads the kernel; an [`Observer`] asks it for a [`Snapshot`], which [`metrics::expose`] turns into a page and
//! [`table`] into text. A [`Recorder`] looks at one listener far more often and writes down what it sees. Nothing here prints, and nothing here needs privilege but another namespace and other users'
//! command names.
//!
//! What this crate refuses: to attribute half-open requests or the namespace's counters to one listener. The kernel does
//! not say whose they are.

pub mod metrics;
pub mod opts;
pub mod record;
pub mod snapshot;
pub mod table;

mod board;
mod commands;
mod filter;
mod numbers;
mod sampler;
mod target;
mod watcher;

pub use opts::Opts;
pub use record::{RecordError, RecordOpts, Recorder};
pub use snapshot::Snapshot;
pub use target::TargetError;
pub use watcher::{Observer, StartError, Watcher};
