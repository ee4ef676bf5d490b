//! What a server needs before its first acceptor: CPUs, an engine that works here, and its listeners, made or inherited.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::listener::Listener;
use crate::opts::{Engine, Opts, Reuseport};
use crate::plan::Plan;
use crate::running::{StartError, starting};
use crate::snapshot::ListenerOptions;
use crate::uring;

/// What is known of a listener from the beginning.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) address: SocketAddr,
    pub(crate) backlog: u32,
    /// The limit as it stood after listen(2).
    pub(crate) limit: u32,
    pub(crate) options: ListenerOptions,
}

/// The CPU of each acceptor.
pub(crate) fn cpus(opts: &Opts) -> Result<Vec<Option<usize>>, StartError> {
    let allowed = kernel::process::allowed_cpus().map_err(starting("pinning"))?;
    opts.cpus.assign(&allowed, opts.acceptors.get() as usize).map_err(StartError::Unfit)
}

/// Does this engine work here? Those on `io_uring` need a ring, and for multishot accepts Linux 5.19.
///
/// # Errors
/// [`StartError::Requirement`], which says what is lacking and what to use instead.
pub fn check_engine(engine: Engine) -> Result<(), StartError> {
    if !matches!(engine, Engine::IoUring | Engine::IoUringMultishot) {
        return Ok(());
    }
    let refused = |error| {
        StartError::Requirement(format!(
            "engine {engine} needs io_uring, which this kernel or container refuses ({error}); use engine epoll"
        ))
    };
    kernel::process::io_uring_works().map_err(refused)?;
    if engine == Engine::IoUringMultishot && !uring::multishot_works().map_err(refused)? {
        return Err(StartError::Requirement(format!("engine {engine} needs Linux 5.19 or newer; use engine io-uring")));
    }
    Ok(())
}

pub(crate) fn opened(listener: &Listener) -> Result<Opened, StartError> {
    let depth = listener.depth().map_err(starting("reading the queue limit back"))?;
    Ok(Opened { address: listener.address, backlog: listener.backlog, limit: depth.limit, options: listener.options() })
}

pub(crate) fn ports(opened: &[Opened]) -> Arc<[u16]> {
    let ports: BTreeSet<u16> = opened.iter().map(|opened| opened.address.port()).collect();
    ports.into_iter().collect()
}

pub(crate) fn open_listeners(
    plan: &Plan,
    cpus: &[Option<usize>],
    inherited: Vec<OwnedFd>,
) -> Result<Vec<Arc<Listener>>, StartError> {
    let opts = plan.opts();
    let mut places = plan.listeners();
    if !inherited.is_empty() && inherited.len() != places.len() {
        return Err(StartError::Unfit(format!(
            "{} listening sockets were handed over for a plan of {}: restart with the same settings",
            inherited.len(),
            places.len()
        )));
    }
    let addresses = opts.listen.as_slice().len();
    let allowed = kernel::process::allowed_cpus().map_err(starting("pinning"))?;
    let mut inherited = inherited.into_iter();
    let mut listeners: Vec<Arc<Listener>> = Vec::new();
    for index in 0..places.len() {
        let acceptor = index / addresses;
        let cpu = (opts.reuseport == Reuseport::IncomingCpu)
            .then(|| cpus[acceptor].unwrap_or(allowed[acceptor % allowed.len()]));
        let listener = match inherited.next() {
            Some(socket) => Listener::inherit(socket, places[index], opts, cpu)?,
            None => Listener::open(places[index], opts, cpu)?,
        };
        // Port 0: the others of the group share the port the first was given.
        for later in (index + addresses..places.len()).step_by(addresses) {
            places[later] = listener.address;
        }
        listeners.push(Arc::new(listener));
    }
    if opts.reuseport == Reuseport::Cpu {
        for first in listeners.iter().take(addresses) {
            first.steer_by_cpu(opts.acceptors.get())?;
        }
    }
    Ok(listeners)
}
