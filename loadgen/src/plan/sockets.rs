//! What the sockets of a load are like: the options each is given, its range of ports, and the engine that drives it.

use std::sync::Arc;

use kernel::socket_option::SocketOption;

use super::{Machine, PlanError};
use crate::opts::{ArrivalKind, Close, Engine, Opts, PortRange, Sockets};
use crate::{sources, uring};

/// The range of ports each socket is given: the one asked for, or the whole of the kernel's where ports stay in use after
/// an attempt, since the search in a range of one's own does not slow down at its half.
pub(super) fn port_range(opts: &Opts, machine: &Machine) -> Result<Option<PortRange>, PlanError> {
    let kernels = machine.ports.map(|(low, high)| PortRange { low, high });
    match (opts.source_ports, kernels) {
        (Some(asked), Some(kernels)) if asked.low < kernels.low || asked.high > kernels.high => {
            Err(PlanError::Sources(format!(
                "source-ports {asked} lies outside net.ipv4.ip_local_port_range {kernels}, and the kernel would ignore it; \
                 widen the sysctl or choose ports within"
            )))
        }
        (Some(asked), _) => Ok(Some(asked)),
        (None, kernels) if keeps_ports(opts) && kernel_has_port_ranges() => Ok(kernels),
        (None, _) => Ok(None),
    }
}

/// Do ports stay in use beyond an attempt, in `TIME_WAIT` or by a connection that is held?
fn keeps_ports(opts: &Opts) -> bool {
    opts.close != Close::Reset || opts.keep.is_some() || !opts.hold.is_zero()
}

/// `IP_LOCAL_PORT_RANGE`, Linux 6.3.
fn kernel_has_port_ranges() -> bool {
    sources::check(&[], &[SocketOption::local_port_range(1, u16::MAX)]).is_ok()
}

/// What every new socket is given before it connects.
pub(super) fn options(opts: &Opts, ports: Option<PortRange>) -> Arc<[SocketOption]> {
    let reset = (opts.close == Close::Reset && opts.sockets == Sockets::Fresh).then(SocketOption::reset_on_close);
    let no_port = opts.sources.as_ref().map(|_| SocketOption::bind_address_no_port());
    let ports = ports.map(|range| SocketOption::local_port_range(range.low, range.high));
    let retries = opts.syn_retries.map(|retries| SocketOption::syn_count(retries.get()));
    let timeout = opts
        .user_timeout
        .map(|span| SocketOption::user_timeout(u32::try_from(span.as_ns() / 1_000_000).unwrap_or(u32::MAX)));
    [reset, no_port, ports, retries, timeout].into_iter().flatten().collect()
}

/// The engine that can do what is asked here.
pub(super) fn engine(opts: &Opts, sources: bool, self_connect_possible: bool) -> Result<Engine, PlanError> {
    match opts.engine {
        Engine::Epoll => Ok(Engine::Epoll),
        Engine::IoUring => match uring::lacks(sources) {
            None => Ok(Engine::IoUring),
            Some(needs) => Err(PlanError::Engine { engine: opts.engine, needs }),
        },
        // A closed loop submits many attempts at once, which is where io_uring gains. An attempt on its own, at its planned
        // instant, costs less through epoll: at 10 000/s 46 against 57 % of a core.
        Engine::Auto if !matches!(opts.arrivals, ArrivalKind::Closed(_)) => Ok(Engine::Epoll),
        // With io_uring every attempt that might have met itself would cost a descriptor of its own to ask.
        Engine::Auto if opts.fastopen || self_connect_possible || uring::lacks(sources).is_some() => Ok(Engine::Epoll),
        Engine::Auto => Ok(Engine::IoUring),
    }
}
