//! How acceptbench counts and shows what it counted.
//!
//! Writers own [`counter::Counter`]s and [`histogram::Histogram`]s: no lock, no allocation and no read-modify-write
//! per connection. Readers take snapshots, and [`exposition`] turns those into a Prometheus page, which [`admin`]
//! serves from a thread of its own. [`units`] are the typed values that are flag, environment variable, TOML and
//! JSON alike; [`stop`] ends a program once for all its threads; [`log`] writes to stderr and nowhere else.
//!
//! What this crate refuses: a metrics registry. Every number has one owner, and a page is a pure function of what
//! its owners say at the moment of the scrape.

pub mod admin;
pub mod command_line;
pub mod counter;
mod cpus;
pub mod exposition;
pub mod histogram;
pub mod listeners;
pub mod log;
pub mod namespace;
mod scheduling;
pub mod standard;
pub mod stop;
pub mod string_serde;
pub mod text_schema;
pub mod units;
mod warning;

pub use cpus::Cpus;
pub use scheduling::Scheduling;
pub use stop::Stop;
pub use warning::Warning;
