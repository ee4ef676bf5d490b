//! From what was typed to what will be done: [`Opts`] are checked as a whole and become a [`Plan`]. What only
//! the kernel knows (the queue limit) is read back after listen(2), in [`crate::listener`].

use std::net::SocketAddr;

use telemetry::Warning;
use thiserror::Error;

use crate::opts::{AcceptDelay, Batch, Close, Engine, Handler, OnAccept, Opts, Reuseport, Workers};

/// Valid options. Only a `Plan` can be started.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    opts: Opts,
}

/// Options that cannot work together. The text names the flag and the fix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct PlanError(String);

/// Upper bound of `acceptors`.
pub(crate) const MAX_ACCEPTORS: u32 = 1024;

/// Upper bound of listening sockets.
const MAX_LISTENERS: usize = 4096;

impl Plan {
    /// The options as given.
    pub fn opts(&self) -> &Opts {
        &self.opts
    }

    /// Where each listening socket listens, in the order of their listen(2) calls: one per address, or one per acceptor
    /// and address under reuseport, acceptor by acceptor.
    pub fn listeners(&self) -> Vec<SocketAddr> {
        let rounds = if self.opts.reuseport == Reuseport::Off { 1 } else { self.opts.acceptors.get() as usize };
        let addresses = self.opts.listen.as_slice();
        addresses.iter().copied().cycle().take(addresses.len() * rounds).collect()
    }

    /// The listeners that an acceptor takes connections from, by number.
    pub fn listeners_of(&self, acceptor: usize) -> Vec<usize> {
        let addresses = self.opts.listen.as_slice().len();
        match (self.opts.reuseport, self.opts.engine) {
            // It can only wait in one accept4(2).
            (Reuseport::Off, Engine::Blocking) => vec![acceptor % addresses],
            (Reuseport::Off, _) => (0..addresses).collect(),
            _ => (acceptor * addresses..(acceptor + 1) * addresses).collect(),
        }
    }

    /// Settings that work, but perhaps not as meant.
    pub fn warnings(&self) -> Vec<Warning> {
        let opts = &self.opts;
        let mut warnings = Vec::new();
        if opts.engine == Engine::EpollExclusive && (opts.reuseport != Reuseport::Off || opts.acceptors.get() == 1) {
            warnings.push(Warning::new(
                "nothing-to-exclude",
                "epoll-exclusive matters only among acceptors that share a listener",
                "use reuseport off and several acceptors, or engine epoll",
            ));
        }
        if opts.defer_accept.as_ns() > 0 && matches!(opts.on_accept, OnAccept::Greet | OnAccept::Hold) {
            warnings.push(Warning::new(
                "defer-accept-greeting",
                "defer-accept keeps a connection out of the queue until the client sends, and here the server speaks first",
                "use on-accept reply and a client that speaks first",
            ));
        }
        warnings
    }
}

fn refuse<T>(message: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError(message.into()))
}

impl TryFrom<Opts> for Plan {
    type Error = PlanError;

    fn try_from(opts: Opts) -> Result<Self, PlanError> {
        check_numbers(&opts)?;
        check_engine(&opts)?;
        check_processes(&opts)?;
        check_service(&opts)?;
        let plan = Self { opts };
        let listeners = plan.listeners().len();
        if listeners > MAX_LISTENERS {
            return refuse(format!(
                "listen: {listeners} listening sockets (addresses times acceptors) are more than the {MAX_LISTENERS} a \
                 server opens at most"
            ));
        }
        if let Some(retire) = plan.opts.retire {
            if plan.opts.listen.as_slice().len() > 1 {
                return refuse("retire closes one of several listeners of one address; give --listen one address");
            }
            if retire.listener as usize >= listeners {
                return refuse(format!(
                    "retire names listener {}, but there are {listeners} (numbered from 0); use reuseport = \"hash\" for \
                     one per acceptor",
                    retire.listener
                ));
            }
        }
        Ok(plan)
    }
}

fn check_numbers(opts: &Opts) -> Result<(), PlanError> {
    if i32::try_from(opts.backlog).is_err() {
        return refuse(format!("backlog {} is more than listen(2) takes; the most is {}", opts.backlog, i32::MAX));
    }
    let acceptors = opts.acceptors.get();
    if acceptors > MAX_ACCEPTORS {
        return refuse(format!("acceptors {acceptors} is more than the {MAX_ACCEPTORS} a server starts at most"));
    }
    if opts.max_children.get() > 32_768 {
        return refuse(format!("max-children {} is more than the 32768 allowed", opts.max_children));
    }
    let defer = opts.defer_accept.as_ns();
    if !defer.is_multiple_of(1_000_000_000) || defer / 1_000_000_000 > u64::from(u16::MAX) {
        return refuse(format!(
            "defer-accept {} is no whole number of seconds up to 65535; TCP_DEFER_ACCEPT takes only those, e.g. 3s",
            opts.defer_accept
        ));
    }
    Ok(())
}

fn check_engine(opts: &Opts) -> Result<(), PlanError> {
    let engine = opts.engine;
    let addresses = opts.listen.as_slice().len();
    if engine == Engine::Blocking && opts.reuseport == Reuseport::Off && (opts.acceptors.get() as usize) < addresses {
        return refuse(format!(
            "engine blocking waits in one accept4(2) at a time, so {addresses} addresses need {addresses} acceptors; raise \
             --acceptors or use engine epoll"
        ));
    }
    if engine == Engine::Blocking && opts.reuseport != Reuseport::Off && addresses > 1 {
        return refuse(
            "engine blocking waits in one accept4(2) at a time, and reuseport gives each acceptor a listener per address; \
             give --listen one address or use engine epoll",
        );
    }
    let takes_one = matches!(engine, Engine::Blocking | Engine::IoUring | Engine::IoUringMultishot);
    if takes_one && opts.accept_batch != Batch::All {
        return refuse(format!(
            "accept-batch {} has no meaning for engine {engine}, which takes connections one at a time; use engine epoll, \
             epoll-edge, epoll-exclusive, tokio or tokio-local",
            opts.accept_batch
        ));
    }
    if engine == Engine::IoUringMultishot && opts.accept_delay != AcceptDelay::None {
        return refuse(
            "engine io-uring-multishot empties the accept queue whatever accept-delay is, so the backlog means nothing; use \
             engine io-uring",
        );
    }
    Ok(())
}

fn check_processes(opts: &Opts) -> Result<(), PlanError> {
    if opts.workers == Workers::Processes && opts.engine == Engine::Tokio {
        return refuse(
            "engine tokio is one runtime with several threads, and a pre-forked acceptor is a process with one; use engine \
             tokio-local",
        );
    }
    if opts.handler == Handler::Inline {
        return Ok(());
    }
    if opts.workers == Workers::Threads {
        return refuse(
            "handler fork needs processes with one thread, because fork(2) copies one thread only; use workers processes",
        );
    }
    if !matches!(opts.engine, Engine::Blocking | Engine::Epoll | Engine::EpollEdge | Engine::EpollExclusive) {
        return refuse(format!(
            "handler fork cannot copy what engine {} has in flight; use engine blocking or epoll",
            opts.engine
        ));
    }
    Ok(())
}

fn check_service(opts: &Opts) -> Result<(), PlanError> {
    let hold = opts.hold.as_ns();
    match opts.on_accept {
        OnAccept::Hold if hold == 0 => {
            return refuse("on-accept hold needs a time to hold; set hold, e.g. hold 2s");
        }
        OnAccept::Greet | OnAccept::Hold => {}
        other if hold > 0 => {
            return refuse(format!("hold is for on-accept greet and hold; on-accept {other} does not wait for a time"));
        }
        _ => {}
    }
    match (opts.on_accept, opts.close) {
        (OnAccept::Reset, Close::HalfClose | Close::Wait) => refuse(format!(
            "close {} contradicts on-accept reset, which closes by RST at once; use on-accept close",
            opts.close
        )),
        (OnAccept::Echo, Close::HalfClose) => refuse(
            "close half-close contradicts on-accept echo, which goes on until the client closes; use close wait or on-accept reply",
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opts::Cpus;

    fn plan(set: impl FnOnce(&mut Opts)) -> Result<Plan, String> {
        let mut opts = Opts::default();
        set(&mut opts);
        Plan::try_from(opts).map_err(|error| error.to_string())
    }

    fn refused(set: impl FnOnce(&mut Opts)) -> String {
        plan(set).expect_err("refused")
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_flag_and_the_fix() {
        let two = || 2.try_into().unwrap();
        let several = || "127.0.0.1:9700-9701".parse().unwrap();
        for (error, flag, fix) in [
            (refused(|o| o.backlog = u32::MAX), "backlog", "the most is 2147483647"),
            (refused(|o| o.acceptors = 4096.try_into().unwrap()), "acceptors", "1024"),
            (refused(|o| o.defer_accept = "1500ms".parse().unwrap()), "defer-accept", "e.g. 3s"),
            (refused(|o| (o.engine, o.listen) = (Engine::Blocking, several())), "engine blocking", "raise --acceptors"),
            (
                refused(|o| {
                    (o.engine, o.listen, o.reuseport, o.acceptors) =
                        (Engine::Blocking, several(), Reuseport::Hash, two());
                }),
                "engine blocking",
                "--listen one address",
            ),
            (
                refused(|o| (o.engine, o.accept_batch) = (Engine::IoUring, Batch::AtMost(two()))),
                "accept-batch 2",
                "use engine epoll",
            ),
            (
                refused(|o| (o.engine, o.accept_delay) = (Engine::IoUringMultishot, "1ms".parse().unwrap())),
                "accept-delay",
                "use engine io-uring",
            ),
            (refused(|o| (o.engine, o.workers) = (Engine::Tokio, Workers::Processes)), "engine tokio", "tokio-local"),
            (refused(|o| o.handler = Handler::Fork), "handler fork", "workers processes"),
            (
                refused(|o| (o.handler, o.workers, o.engine) = (Handler::Fork, Workers::Processes, Engine::IoUring)),
                "handler fork",
                "engine blocking or epoll",
            ),
            (refused(|o| o.on_accept = OnAccept::Hold), "on-accept hold", "hold 2s"),
            (
                refused(|o| (o.on_accept, o.hold) = (OnAccept::Echo, "1s".parse().unwrap())),
                "on-accept echo",
                "greet and hold",
            ),
            (refused(|o| (o.on_accept, o.close) = (OnAccept::Reset, Close::Wait)), "close wait", "on-accept close"),
            (refused(|o| (o.on_accept, o.close) = (OnAccept::Echo, Close::HalfClose)), "half-close", "close wait"),
            (refused(|o| o.retire = "1@1s".parse().ok()), "retire", "reuseport"),
            (refused(|o| (o.listen, o.retire) = (several(), "0@1s".parse().ok())), "retire", "--listen one address"),
        ] {
            assert!(error.contains(flag) && error.contains(fix), "{error}");
            assert!(!error.contains('\n'), "one line: {error}");
        }
    }

    #[test]
    fn listeners_are_numbered_acceptor_by_acceptor() {
        let shared = plan(|o| (o.listen, o.acceptors) = ("127.0.0.1:1-2".parse().unwrap(), 3.try_into().unwrap()));
        let shared = shared.unwrap();
        assert_eq!(shared.listeners().len(), 2);
        assert_eq!(shared.listeners_of(2), [0, 1]);
        let own = plan(|o| {
            o.listen = "127.0.0.1:1-2".parse().unwrap();
            o.acceptors = 3.try_into().unwrap();
            o.reuseport = Reuseport::Cpu;
        });
        let own = own.unwrap();
        let ports: Vec<u16> = own.listeners().iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [1, 2, 1, 2, 1, 2]);
        assert_eq!(own.listeners_of(2), [4, 5]);
        let blocking = plan(|o| {
            o.listen = "127.0.0.1:1-2".parse().unwrap();
            o.acceptors = 3.try_into().unwrap();
            o.engine = Engine::Blocking;
        });
        assert_eq!(blocking.unwrap().listeners_of(2), [0]);
    }

    #[test]
    fn doubtful_settings_are_warned_about() {
        let codes = |set: fn(&mut Opts)| -> Vec<String> {
            plan(set).unwrap().warnings().into_iter().map(|warning| warning.code.clone()).collect()
        };
        assert_eq!(codes(|o| o.engine = Engine::EpollExclusive), ["nothing-to-exclude"]);
        assert_eq!(codes(|o| o.defer_accept = "1s".parse().unwrap()), ["defer-accept-greeting"]);
        assert!(codes(|o| o.cpus = Cpus::Auto).is_empty());
    }
}
