//! What was recorded of one listener, and what follows from it. Pure: no socket, no clock.
//!
//! [`Writer`] makes the lines of a recording out of looks at the kernel's counters, [`Recording`] reads them back, and the
//! rest asks what they mean: when new attempts came ([`arrivals`]), how fast they were accepted ([`service`]), and which
//! quiet stretches can be left out ([`quiet`]).
//!
//! What this crate refuses: to know more than the counters say. A dropped SYN has no name, so what came again is told from
//! what was new by the kernel's timers and by how patient clients are taken to be.

pub mod arrivals;
pub mod quiet;
pub mod service;

mod format;
mod reading;
#[cfg(test)]
mod testing;
mod writer;

pub use arrivals::Arrivals;
pub use format::{End, Ending, Header, LimitChange, Sample, VERSION};
pub use reading::{Recording, RecordingError};
pub use service::Service;
pub use writer::{Look, Writer, Written};
