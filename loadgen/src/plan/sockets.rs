//! What the sockets of a load are like: the options each is given, its range of ports, and the engine that drives it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use kernel::socket_option::SocketOption;
use rustix::io::Errno;
use rustix::net::bind;
use telemetry::Warning;

use super::{Machine, Plan, PlanError};
use crate::opts::{ArrivalKind, Close, Engine, Opts, PortRange, Sockets};
use crate::reactor::MOST_SLOTS;
use crate::uring::Ring;
use crate::{attempt, sources, uring};

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

impl Plan {
    /// Most sockets of worker `index` at once. What is kept has descriptors of its own beside what is in flight.
    pub(crate) fn most_open(&self, index: usize) -> usize {
        let keep = self.opts.keep.map_or(0, |keep| share(keep.get() as usize, index, self.workers));
        let open = share(self.max_in_flight, index, self.workers) + keep;
        open.min(if self.engine == Engine::IoUring { uring::most_files(self) } else { MOST_SLOTS })
    }

    /// The rings of all workers; none with epoll. Where they cannot be had the engine becomes epoll, unless io-uring was asked
    /// for by name.
    pub(crate) fn rings(&mut self) -> io::Result<Vec<Ring>> {
        if self.engine != Engine::IoUring {
            return Ok(Vec::new());
        }
        let rings = (0..self.workers).map(|index| Ring::new(self.most_open(index))).collect();
        self.or_epoll(rings)
    }

    fn or_epoll(&mut self, rings: io::Result<Vec<Ring>>) -> io::Result<Vec<Ring>> {
        match rings {
            Err(error) if self.opts.engine == Engine::Auto => {
                self.engine = Engine::Epoll;
                self.warnings.push(Warning::new(
                    "engine",
                    format!("io_uring has no room for {} workers ({error}), so epoll drives the sockets", self.workers),
                    "raise the limit of locked memory (ulimit -l), lower workers, or set engine epoll",
                ));
                Ok(Vec::new())
            }
            rings => rings,
        }
    }
}

/// Part `index` of `total` in `parts` parts that add up.
pub(crate) fn share(total: usize, index: usize, parts: usize) -> usize {
    (total / parts + usize::from(index < total % parts)).max(1)
}

/// May a socket come to have the target's address for its own, so that, given the same port, it meets itself? It must be
/// one of its sources, or of this namespace. What another look at a name's addresses will find is not known yet, and the
/// unspecified address is whichever the source is (`net/ipv4/route.c`, `ip_route_output_key_hash_rcu`).
pub(super) fn may_have_the_address(opts: &Opts, target: SocketAddr, sources: &[IpAddr]) -> bool {
    let by_name = opts.target.as_str().parse::<SocketAddr>().is_err();
    let is_ours = || match attempt::open(target).map(|socket| bind(&socket, &SocketAddr::new(target.ip(), 0))) {
        Ok(bound) => bound != Err(Errno::ADDRNOTAVAIL),
        Err(_) => true,
    };
    by_name
        || target.ip().is_unspecified()
        || if sources.is_empty() { is_ours() } else { sources.contains(&target.ip()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        assert_eq!((0..3).map(|i| share(10, i, 3)).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!(share(1, 1, 2), 1);
    }

    #[test]
    fn epoll_takes_over_where_there_is_no_room_for_rings() {
        let machine = Machine { nofile: 1024, cpus: 1, ports: None };
        let mut plan = Plan::new(Opts { engine: Engine::Epoll, ..Opts::default() }, &machine).expect("a load");
        assert!(plan.rings().is_ok_and(|rings| rings.is_empty()), "it needs none");
        let full = || Err(io::Error::from(io::ErrorKind::OutOfMemory));
        (plan.engine, plan.opts.engine) = (Engine::IoUring, Engine::IoUring);
        assert!(plan.or_epoll(full()).is_err(), "asked for by name");
        plan.opts.engine = Engine::Auto;
        assert!(plan.or_epoll(full()).is_ok_and(|rings| rings.is_empty()));
        assert_eq!(plan.engine, Engine::Epoll);
        assert!(plan.warnings.iter().any(|warning| warning.cause.contains("epoll drives")), "{:?}", plan.warnings);
    }
}
