//! Acceptors as processes.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::listener::Listener;
use crate::plan::Plan;
use crate::staff::Bells;
use crate::tally::Desks;

/// The process that forks acceptors, as its server sees it.
#[derive(Debug)]
pub(crate) struct Nursery {}

impl Nursery {
    /// Starts the nursery and its acceptors.
    pub(crate) fn start(
        _plan: &Plan,
        _program: &Path,
        _listeners: &[Arc<Listener>],
        _desks: &Desks,
        _bells: &Bells,
        _cpus: &[Option<usize>],
    ) -> io::Result<Self> {
        Err(io::Error::other("not yet"))
    }

    /// Closes the nursery's own descriptor of a listener whose acceptors have let go of it.
    pub(crate) fn close_listener(&self, _listener: usize) {}

    /// Have all acceptors ended?
    pub(crate) fn is_empty(&self) -> bool {
        true
    }

    /// Takes leave, once all acceptors have ended.
    pub(crate) fn end(&self) {}
}

/// The process of a server that this argument asks for; `None` for anything a user types.
pub fn process(role: &str) -> Option<fn() -> ExitCode> {
    let _ = role;
    None
}
