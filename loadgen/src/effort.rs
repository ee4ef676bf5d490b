//! What a worker's thread takes of its core: noted by the worker itself, since only a thread can read its own clock
//! without more rights than it needs.

use kernel::process::thread_cpu_ns;
use telemetry::counter::Counter;

use crate::snapshot::WorkerCpu;

/// How often a worker reads its CPU clock: 0.3 µs each, since that clock needs a system call.
const EVERY_NS: u64 = 100_000_000;

kernel::shareable! {
/// A worker's CPU time and the time it ran, at the same moment.
#[derive(Debug)]
pub(crate) struct Effort {
    cpu_ns: Counter,
    ran_ns: Counter,
}
}

impl Effort {
    /// The worker has run for `ran_ns`: reads the clock when it is time. For the worker's own thread.
    pub(crate) fn note(&self, ran_ns: u64) {
        if ran_ns.saturating_sub(self.ran_ns.get()) >= EVERY_NS {
            self.settle(ran_ns);
        }
    }

    /// Reads the clock now: at the worker's end. For the worker's own thread.
    pub(crate) fn settle(&self, ran_ns: u64) {
        self.cpu_ns.set(thread_cpu_ns());
        self.ran_ns.set(ran_ns);
    }

    pub(crate) fn read(&self) -> WorkerCpu {
        WorkerCpu { cpu_ns: self.cpu_ns.get(), ran_ns: self.ran_ns.get() }
    }
}
