//! A running server: its listeners, its acceptors, and the handle that reads and ends them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kernel::netstat::NetstatReader;
use kernel::process::{MANY_DESCRIPTORS, make_room_for_descriptors};
use kernel::shared::Shared as SharedMemory;
use kernel::sysctl;
use telemetry::Stop;
use telemetry::counter::Counter;
use telemetry::histogram::Histogram;
use telemetry::namespace::{Detail, NamespaceReader};
use thiserror::Error;

use crate::acceptor::Acceptor;
use crate::listener::ListenError;
use crate::nursery::Nursery;
use crate::observer::Observer;
use crate::opening::{self, Opened};
use crate::opts::{Relisten, Reuseport, Workers};
use crate::plan::Plan;
use crate::relisten::{self, SOMAXCONN};
use crate::sampler::{Sampler, Slot};
use crate::snapshot::Snapshot;
use crate::staff::{Bells, Crew, Staff};
use crate::tally::{DeskOf, Desks};
use crate::threads::Threads;

/// Why a server could not start. Nothing is left behind.
#[derive(Debug, Error)]
pub enum StartError {
    /// The listening socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Options that this machine cannot meet. The text names the flag and the fix.
    #[error("{0}")]
    Unfit(String),
    /// Something that this machine lacks. The text says what to use instead.
    #[error("{0}")]
    Requirement(String),
    /// A thread, process or descriptor of the server's own.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What was to be started.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Where a server comes from, apart from its plan.
#[derive(Debug)]
pub struct Origin {
    /// The program that knows the roles of [`crate::process`]: pre-forked acceptors descend from it.
    pub program: PathBuf,
    /// Listening sockets handed over by the server before, in the order of the plan's; none for a first start.
    pub inherited: Vec<OwnedFd>,
}

impl Default for Origin {
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), inherited: Vec::new() }
    }
}

/// What snapshots are made of; shared by the threads, the handle and its observers.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) opened: Vec<Opened>,
    /// The ports listened on, each once.
    pub(crate) ports: Arc<[u16]>,
    pub(crate) slots: Arc<[Slot]>,
    pub(crate) desks: Desks,
    pub(crate) fills: Arc<Histogram>,
    pub(crate) sampler_cpu_ns: Arc<Counter>,
    pub(crate) namespace: Arc<Mutex<NamespaceReader>>,
    /// CPU time of the acceptors' processes as last read, ns: never goes down.
    pub(crate) staff_cpu_ns: AtomicU64,
    pub(crate) staff: Arc<Staff>,
}

/// A server that listens and accepts. Dropping it stops everything without a last snapshot.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    stop: Stop,
    sampler: Option<JoinHandle<io::Result<()>>>,
}

pub(crate) fn starting(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Start { what, source }
}

impl Server {
    /// Listens and starts acceptors and sampling, all in the calling thread's network namespace. Connections
    /// are accepted at once; stalls and retirements count from [`Server::begin`].
    ///
    /// # Errors
    /// When the machine cannot do what is asked, a socket cannot listen or a thread or process cannot start; nothing is
    /// left behind.
    pub fn start(plan: &Plan, origin: Origin) -> Result<Self, StartError> {
        let opts = plan.opts();
        let cpus = opening::cpus(opts)?;
        opening::check_engine(opts.engine)?;
        if opts.workers == Workers::Threads {
            // A process of one thread does not wait for the table of its descriptors to grow. Without room threads accept
            // all the same, and pause now and then on the way to many open connections.
            let _ = make_room_for_descriptors(MANY_DESCRIPTORS);
        }
        // Read before the listeners are opened: a change in between is then a change to follow.
        let relisten =
            (opts.relisten == Relisten::OnChange).then(|| relisten::Relisten::new(sysctl::read(SOMAXCONN).ok()));
        let Origin { program, inherited } = origin;
        let listeners = opening::open_listeners(plan, &cpus, inherited)?;
        let opened = listeners.iter().map(|listener| opening::opened(listener)).collect::<Result<Vec<_>, _>>()?;
        let acceptors = opts.acceptors.get() as usize;
        let desks: Desks =
            Arc::new(SharedMemory::new("acceptbench-desks", acceptors).map_err(starting("the counters"))?);
        let of = |listener: usize| (0..acceptors).filter(|a| plan.listeners_of(*a).contains(&listener)).collect();
        let slots: Arc<[Slot]> =
            listeners.iter().enumerate().map(|(index, l)| Slot::new(Arc::clone(l), of(index))).collect();
        let to_retire = opts.retire.map_or_else(Vec::new, |retire| of(retire.listener as usize));
        let bells = Bells::new(to_retire).map_err(starting("an eventfd"))?;
        let staff = match opts.workers {
            Workers::Threads => {
                let hands = (0..acceptors)
                    .map(|index| {
                        let own = plan.listeners_of(index).iter().map(|l| Arc::clone(&listeners[*l])).collect();
                        let bell = bells.of(index).try_clone().map_err(starting("an acceptor"))?;
                        Ok(Acceptor::new(opts, index, own, DeskOf::new(&desks, index), bell, cpus[index]))
                    })
                    .collect::<Result<Vec<_>, StartError>>()?;
                drop(listeners);
                let threads = Threads::new(opts.engine, Arc::clone(&desks));
                let started = threads.start(opts.engine, hands);
                let staff = Staff::new(Arc::clone(&desks), bells, Crew::Threads(threads));
                if let Err(error) = started {
                    staff.end();
                    return Err(starting("an acceptor")(error));
                }
                staff
            }
            Workers::Processes => {
                let nursery = Nursery::start(plan, &program, &listeners, &desks, &bells, &cpus)
                    .map_err(starting("the acceptors' nursery"))?;
                drop(listeners);
                Staff::new(Arc::clone(&desks), bells, Crew::Processes(nursery))
            }
        };
        let shared = Arc::new(Shared {
            plan: plan.clone(),
            ports: opening::ports(&opened),
            opened,
            slots,
            desks,
            fills: Arc::new(Histogram::new()),
            sampler_cpu_ns: Arc::new(Counter::default()),
            namespace: Arc::new(Mutex::new(NamespaceReader::open())),
            staff_cpu_ns: AtomicU64::new(0),
            staff: Arc::new(staff),
        });
        // From here on, dropping `server` ends what was started.
        let mut server = Self { shared, stop: Stop::new(), sampler: None };
        server.sampler = Some(server.start_sampler(relisten)?);
        Ok(server)
    }

    fn start_sampler(&self, relisten: Option<relisten::Relisten>) -> Result<JoinHandle<io::Result<()>>, StartError> {
        let shared = &self.shared;
        let opts = shared.plan.opts();
        let sampler = Sampler {
            slots: Arc::clone(&shared.slots),
            fills: Arc::clone(&shared.fills),
            cpu_ns: Arc::clone(&shared.sampler_cpu_ns),
            desks: Arc::clone(&shared.desks),
            retire: opts.retire,
            relisten,
            steered: opts.reuseport == Reuseport::Cpu,
            staff: Arc::clone(&shared.staff),
            netstat: NetstatReader::open().ok(),
            namespace: Arc::clone(&shared.namespace),
            ports: Arc::clone(&shared.ports),
            stop: self.stop.clone(),
        };
        let builder = std::thread::Builder::new().name("sampler".to_owned());
        builder.spawn(move || sampler.run()).map_err(starting("the sampler"))
    }

    /// The instant (`CLOCK_MONOTONIC`, ns) from which stalls and retirements count.
    pub fn begin(&self, origin_ns: u64) {
        self.shared.desks.iter().for_each(|desk| desk.begin(origin_ns));
    }

    /// A handle that reads from any thread.
    pub fn observer(&self) -> Observer {
        Observer(Arc::clone(&self.shared))
    }

    /// Duplicates of the listening sockets, for the server that takes over: [`Origin::inherited`]. What waits in their
    /// queues stays there as long as one of the two has them open.
    ///
    /// # Errors
    /// EMFILE when there are no descriptors left; `InvalidInput` when one was or is to be retired, which is done to the
    /// socket itself and would reach the other server.
    pub fn listeners(&self) -> io::Result<Vec<OwnedFd>> {
        let retired =
            || io::Error::new(io::ErrorKind::InvalidInput, "a server that retires a listener hands none over");
        if self.shared.plan.opts().retire.is_some() {
            return Err(retired());
        }
        let duplicate = |slot: &Slot| match slot.listener().as_ref() {
            Some(listener) => listener.as_fd().try_clone_to_owned(),
            None => Err(retired()),
        };
        self.shared.slots.iter().map(duplicate).collect()
    }

    /// Waits until every accept queue is empty, at most `limit`. True when they are.
    pub fn drain(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let empty = self.shared.slots.iter().all(|slot| slot.depth().is_none_or(|d| d.depth == 0));
            if empty || Instant::now() >= end {
                return empty;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends accepting for good and counts what is left in the queues. Open connections are served on, and the listeners
    /// stay open, so that what is left can still be looked at.
    pub fn stop_accepting(&self) {
        self.shared.stop_accepting();
    }

    /// Ends accepting; another server has the listeners and takes what is in their queues. From now on nothing is done
    /// to them here: no retirement, no listening again.
    pub fn hand_over(&self) {
        self.stop.request();
        self.shared.staff.stop(&self.shared.acceptors());
    }

    /// After [`stop_accepting`](Self::stop_accepting) or [`hand_over`](Self::hand_over): waits until the open connections
    /// have ended, at most `limit`. True when they have.
    pub fn serve_out(&self, limit: Duration) -> bool {
        self.shared.staff.wait(limit)
    }

    /// Ends everything, closes open connections, and returns the last snapshot, read while the listeners were still open.
    pub fn finish(self, detail: Detail) -> Snapshot {
        self.shared.staff.end();
        self.observer().snapshot(detail)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(sampler) = self.sampler.take() {
            let _ = sampler.join();
        }
        self.shared.staff.end();
    }
}

impl Shared {
    fn acceptors(&self) -> Vec<usize> {
        (0..self.desks.len()).collect()
    }

    fn stop_accepting(&self) {
        self.staff.stop(&self.acceptors());
        for slot in self.slots.iter() {
            if let Some(depth) = slot.depth() {
                slot.left.store(u64::from(depth.depth), Ordering::Release);
            }
        }
    }
}
