//! Panels and colours that several boards show.

pub(super) mod books;
pub(super) mod client;
pub(super) mod kernel;
pub(super) mod queue;

/// Where panels lead to: a board, and what it shows more of.
const ACCEPT_QUEUE: (&str, &str) = ("accept-queue", "Accept queue: each listener");
const EXPERIMENT: (&str, &str) = ("experiment", "Experiment: cells, trials, books");
const KERNEL_PARAMETERS: (&str, &str) = ("kernel-parameters", "Kernel parameters: what each one costs");
const LOAD_GENERATOR: (&str, &str) = ("load-generator", "Load generator: plan, lag, latency, room");

/// Dropped packets as a fraction: any is worth a look, a twentieth is trouble.
pub(in crate::boards) const DROPPED: [(f64, &str); 2] = [(1e-9, "orange"), (0.05, "red")];

/// Something that should be 0.
pub(in crate::boards) const NONE_WANTED: [(f64, &str); 1] = [(1e-9, "orange")];

/// How full a queue is: beyond 1 it cannot get, at 1 it drops.
pub(in crate::boards) const FILL: [(f64, &str); 2] = [(0.5, "orange"), (1.0, "red")];
