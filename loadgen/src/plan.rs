//! From what was typed to what will be done: the target resolved, the workers counted, and what can never work refused
//! before the first SYN. What may run out is reckoned in [`crate::budget`].

mod contradictions;
mod sockets;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use kernel::socket_option::SocketOption;
use telemetry::Warning;
use thiserror::Error;

use crate::arrivals::simultaneous;
use crate::budget::{Budget, Facts, RESERVED_FDS};
use crate::opts::{ArrivalKind, AutoCount, Close, Confirm, Engine, Opts, PortRange, RunTime, Shard};
use crate::sources;

pub use contradictions::check;
pub(crate) use sockets::share;
use sockets::{engine, options, port_range};

/// More threads than any machine of today schedules usefully; almost always a typing error.
const MAX_WORKERS: u32 = 1024;

/// What the machine gives this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Descriptors the process may have open (`RLIMIT_NOFILE`, soft, after raising it).
    pub nofile: u64,
    /// CPUs the process may run on.
    pub cpus: usize,
    /// Local ports the kernel picks from (`net.ipv4.ip_local_port_range`), inclusive.
    pub ports: Option<(u16, u16)>,
}

impl Machine {
    /// What is left of it beside this many descriptors.
    #[must_use]
    pub fn without_descriptors(self, count: u32) -> Self {
        Self { nofile: self.nofile.saturating_sub(u64::from(count)), ..self }
    }

    /// Reads it in the calling thread's namespace and raises the soft descriptor limit to the hard one.
    pub fn read() -> Self {
        let nofile = kernel::process::raise_nofile().map_or(1024, |limits| limits.soft);
        let cpus = kernel::process::allowed_cpus().map_or(1, |cpus| cpus.len().max(1));
        Self { nofile, cpus, ports: kernel::sysctl::port_range() }
    }
}

/// Valid, resolved options. Only a `Plan` can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(crate) opts: Opts,
    pub(crate) target: SocketAddr,
    pub(crate) workers: usize,
    pub(crate) max_in_flight: usize,
    /// May a socket connect to itself (the target's port is one the kernel picks from)?
    pub(crate) self_connect_possible: bool,
    pub(crate) ports: Option<(u16, u16)>,
    /// Local addresses that attempts come from in turn; empty: the kernel's choice.
    pub(crate) sources: Arc<[IpAddr]>,
    /// What every new socket is given.
    pub(crate) options: Arc<[SocketOption]>,
    /// Never `auto`.
    pub(crate) engine: Engine,
    /// The CPU of each worker.
    pub(crate) cpus: Vec<Option<usize>>,
    pub(crate) nofile: u64,
    pub(crate) budget: Budget,
    warnings: Vec<Warning>,
}

/// Why options cannot be run. The text names the flag and the fix.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The target's host has no address.
    #[error("target {target} has no address: {reason}; check the name, or write an IP address")]
    Resolve {
        /// As typed.
        target: String,
        /// What the resolver said.
        reason: String,
    },
    /// Too many workers.
    #[error("workers {0} is more than the {MAX_WORKERS} threads a load generator starts at most")]
    Workers(u32),
    /// Sources and target of different families.
    #[error(
        "sources {sources} cannot reach {target}: one is IPv4, the other IPv6; give sources of the target's family"
    )]
    Family {
        /// As given.
        sources: String,
        /// Resolved.
        target: SocketAddr,
    },
    /// Sources that this namespace does not have, or a range that the kernel would ignore. The text names the flag and the
    /// fix.
    #[error("{0}")]
    Sources(String),
    /// A closed loop has no stream of arrivals to take a part of.
    #[error(
        "shard {0} takes a part of planned arrivals, and arrivals closed:N plans none; give each generator its own N"
    )]
    Shard(Shard),
    /// A bound that contradicts the number in flight of a closed loop.
    #[error("max-in-flight {bound} is less than the {closed} of arrivals closed:{closed}; leave max-in-flight out")]
    Closed {
        /// `max-in-flight`.
        bound: u32,
        /// Of `closed:N`.
        closed: u32,
    },
    /// Settings that contradict each other. The text begins with the name of one of them and says what to do.
    #[error("{0}")]
    Contradiction(String),
    /// The engine asked for cannot run here, or not do what is asked.
    #[error("engine {engine} needs {needs}; use engine epoll, or auto")]
    Engine {
        /// As asked.
        engine: Engine,
        /// What is missing.
        needs: String,
    },
    /// A deadline of nothing.
    #[error("deadline must be above 0; the default is 5s")]
    Deadline,
    /// The plan needs descriptors that the process cannot have.
    #[error(
        "{what} needs {needed} descriptors, but RLIMIT_NOFILE allows {nofile} ({RESERVED_FDS} of them for the program itself); \
         raise it (ulimit -n, LimitNOFILE=) or lower {fix}"
    )]
    Descriptors {
        /// The setting that asks for them.
        what: String,
        /// How many, the program's own included.
        needed: u64,
        /// The limit.
        nofile: u64,
        /// The setting to lower.
        fix: &'static str,
    },
}

impl PlanError {
    /// Is it the machine that lacks something (exit 69), and not the request that is wrong (64)?
    pub fn is_requirement(&self) -> bool {
        matches!(self, Self::Descriptors { .. } | Self::Engine { .. })
    }
}

/// Descriptors that cannot be had: a burst, connections kept, or an explicit bound on attempts in flight, beyond the limit. `half_open`
/// sockets are kept beside them.
///
/// # Errors
/// [`PlanError::Descriptors`].
pub fn check_descriptors(opts: &Opts, half_open: u32, nofile: u64) -> Result<(), PlanError> {
    let (what, count, fix) = match opts.max_in_flight {
        AutoCount::Exactly(n) => (format!("max-in-flight {n}"), n.get(), "max-in-flight"),
        AutoCount::Auto => (
            format!("arrivals {}", opts.arrivals.brief()),
            simultaneous(&opts.arrivals),
            "the burst or set max-in-flight",
        ),
    };
    let kept = opts.keep.map_or(0, |keep| u64::from(keep.get()));
    let (what, fix) = if kept > 0 { (format!("{what} with keep {kept}"), "keep") } else { (what, fix) };
    let (what, fix) = match half_open {
        0 => (what, fix),
        _ => (format!("{what} beside {half_open} half-open sockets"), "half-open.count"),
    };
    let needed = u64::from(count) + kept + u64::from(half_open) + RESERVED_FDS;
    if needed > nofile {
        return Err(PlanError::Descriptors { what, needed, nofile, fix });
    }
    Ok(())
}

impl Plan {
    /// Checks the options against the machine and resolves the target.
    ///
    /// # Errors
    /// When the options can never work, or not on this machine.
    pub fn new(opts: Opts, machine: &Machine) -> Result<Self, PlanError> {
        check(&opts)?;
        check_descriptors(&opts, 0, machine.nofile)?;
        let target = resolve(opts.target.as_str())?;
        let workers = match opts.workers {
            AutoCount::Auto => machine.cpus,
            AutoCount::Exactly(n) => n.get() as usize,
        };
        // More workers than attempts in flight would have nothing to do.
        let workers = workers.min(most_in_flight(&opts.arrivals));
        let sources = sources_of(&opts, target)?;
        let port_range = port_range(&opts, machine)?;
        let options = options(&opts, port_range);
        sources::check(&sources, &options).map_err(PlanError::Sources)?;
        let allowed: Vec<usize> = kernel::process::allowed_cpus().unwrap_or_default();
        let cpus = opts.cpus.assign(&allowed, workers).map_err(PlanError::Contradiction)?;
        let ports = port_range.map_or(machine.ports, |range| Some((range.low, range.high)));
        let chosen_from = ports.map(|(low, high)| PortRange { low, high });
        let facts = Facts::read(machine.nofile, target, &sources, chosen_from, opts.shard);
        let self_connect_possible = facts.target_chosen && sockets::may_have_the_address(&opts, target, &sources);
        let budget = Budget::of(&opts, &facts);
        Ok(Self {
            target,
            workers,
            max_in_flight: usize::try_from(budget.max_in_flight(&opts)).unwrap_or(usize::MAX),
            self_connect_possible,
            ports,
            engine: engine(&opts, !sources.is_empty(), self_connect_possible)?,
            sources,
            options,
            cpus,
            nofile: machine.nofile,
            warnings: budget.warnings(&opts),
            budget,
            opts,
        })
    }

    /// Are connections held open after their verdict?
    pub(crate) fn holds(&self) -> bool {
        self.opts.keep.is_some() || !self.opts.hold.is_zero()
    }

    /// May an attempt be over with its handshake, without the worker having a say? Nothing is waited for, its socket is not
    /// kept, and it cannot have met itself; one that is slow has time to be asked before its deadline.
    pub(crate) fn ends_with_the_handshake(&self) -> bool {
        let opts = &self.opts;
        let nothing_to_say = opts.confirm == Confirm::None && !opts.fastopen && opts.close == Close::Reset;
        let patient = opts.deadline.as_ns() >= 8 * kernel::process::tick_ns();
        nothing_to_say && !self.holds() && !self.self_connect_possible && patient
    }

    /// What drives the sockets: never `auto`.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The options as given.
    pub fn opts(&self) -> &Opts {
        &self.opts
    }

    /// The address attempts go to.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// What deserves attention before the run.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What the load needs of ports, `TIME_WAIT` and descriptors, and what there is.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// ns from the start at which the last attempt may be planned; `None` for a run without an end.
    pub fn planned_until(&self) -> Option<u64> {
        match self.opts.duration {
            RunTime::For(span) => Some(self.opts.warm_up.as_ns() + span.as_ns()),
            RunTime::Forever => None,
        }
    }
}

fn sources_of(opts: &Opts, target: SocketAddr) -> Result<Arc<[IpAddr]>, PlanError> {
    let Some(sources) = &opts.sources else { return Ok(Arc::from([])) };
    if sources.is_ipv4() != target.is_ipv4() {
        return Err(PlanError::Family { sources: sources.to_string(), target });
    }
    Ok(sources.addresses().into())
}

/// Attempts in flight that an arrival process allows at most.
fn most_in_flight(arrivals: &ArrivalKind) -> usize {
    match arrivals {
        ArrivalKind::Closed(n) => n.get() as usize,
        _ => usize::MAX,
    }
}

fn resolve(target: &str) -> Result<SocketAddr, PlanError> {
    let fail = |reason: String| PlanError::Resolve { target: target.to_owned(), reason };
    target
        .to_socket_addrs()
        .map_err(|error| fail(error.to_string()))?
        .next()
        .ok_or_else(|| fail("the name exists but has none".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { nofile: 1024, cpus: 2, ports: Some((32768, 60999)) };

    fn opts(change: impl FnOnce(&mut Opts)) -> Opts {
        let mut opts = Opts::default();
        change(&mut opts);
        opts
    }

    #[test]
    fn a_burst_beyond_the_descriptors_is_refused_by_name() {
        let opts = opts(|o| o.arrivals = "burst:1000/1s".parse().expect("a burst"));
        let error = Plan::new(opts, &MACHINE).expect_err("1000 + 128 > 1024");
        assert!(error.is_requirement());
        assert!(error.to_string().starts_with("arrivals burst:1000/1s needs 1128 descriptors"), "{error}");
    }

    #[test]
    fn half_open_sockets_need_descriptors_of_their_own() {
        let error = check_descriptors(&Opts::default(), 1000, 1024).expect_err("1000 + 1 + 128 > 1024");
        assert!(error.to_string().contains("beside 1000 half-open sockets needs 1129 descriptors"), "{error}");
        assert!(error.to_string().ends_with("or lower half-open.count"), "{error}");
        assert!(check_descriptors(&Opts::default(), 895, 1024).is_ok());
        let plan = Plan::new(Opts::default(), &MACHINE.without_descriptors(800)).expect("room for some");
        assert_eq!(plan.max_in_flight, 96);
    }

    #[test]
    fn a_worst_case_beyond_the_descriptors_is_a_warning() {
        let plan = Plan::new(Opts::default(), &MACHINE).expect("1000/s with a deadline of 5 s");
        assert_eq!(plan.max_in_flight, 896);
        assert_eq!(plan.warnings().len(), 1);
        assert!(plan.warnings()[0].cause.contains("5001 attempts"), "{:?}", plan.warnings());
        let roomy = Plan::new(Opts::default(), &Machine { nofile: 20_000, ..MACHINE }).expect("fits");
        assert!(roomy.warnings().is_empty());
    }

    #[test]
    fn only_who_may_get_both_port_and_address_of_the_target_can_meet_itself() {
        let possible = |target: &str, sources: Option<&str>, ports: Option<&str>| {
            let opts = opts(|o| {
                o.target = target.parse().expect("a target");
                o.sources = sources.map(|sources| sources.parse().expect("sources"));
                o.source_ports = ports.map(|ports| ports.parse().expect("ports"));
            });
            Plan::new(opts, &MACHINE).expect("valid").self_connect_possible
        };
        assert!(!possible("127.0.0.1:9700", None, None), "below the range");
        assert!(possible("127.0.0.1:40000", None, None));
        assert!(possible("localhost:40000", None, None), "another look may find another address");
        assert!(!possible("127.0.0.1:40000", None, Some("50000-50009")), "the range is each socket's own");
        assert!(!possible("127.0.0.1:40000", Some("127.0.0.2,127.0.0.3"), None), "none of these");
        assert!(possible("127.0.0.2:40000", Some("127.0.0.2,127.0.0.3"), None));
        assert!(possible("0.0.0.0:40000", Some("127.0.0.2"), None), "that is 127.0.0.2, too");
        assert!(!possible("192.0.2.1:40000", None, None), "nobody here has that address");
    }
}
