//! A running server: its listeners, its acceptors, and the handle that reads and ends them.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kernel::netstat::NetstatReader;
use kernel::process::monotonic_ns;
use kernel::shared::Shared as SharedMemory;
use kernel::sysctl;
use telemetry::counter::Counter;
use telemetry::histogram::{Histogram, HistogramSnapshot};
use telemetry::namespace::{Detail, NamespaceReader};
use telemetry::{Stop, Warning};
use thiserror::Error;

use crate::acceptor::Acceptor;
use crate::listener::{ListenError, Listener};
use crate::nursery::Nursery;
use crate::opts::{Cpus, Engine, Opts, Relisten, Reuseport, Workers};
use crate::plan::Plan;
use crate::relisten::{self, SOMAXCONN};
use crate::sampler::{Sampler, Slot};
use crate::snapshot::{ListenerCounts, ListenerOptions, Snapshot};
use crate::staff::{Bells, Crew, Staff};
use crate::tally::{DeskOf, Desks, Tally};
use crate::threads::Threads;
use crate::uring;

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

/// What is known of a listener from the beginning.
#[derive(Debug)]
struct Opened {
    address: SocketAddr,
    backlog: u32,
    /// The limit as it stood after listen(2).
    limit: u32,
    options: ListenerOptions,
}

/// What snapshots are made of; shared by the threads, the handle and its observers.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    opened: Vec<Opened>,
    /// The ports listened on, each once.
    ports: Arc<[u16]>,
    slots: Arc<[Slot]>,
    desks: Desks,
    fills: Arc<Histogram>,
    sampler_cpu_ns: Arc<Counter>,
    namespace: Arc<Mutex<NamespaceReader>>,
    /// CPU time of the acceptors' processes as last read, ns: never goes down.
    staff_cpu_ns: AtomicU64,
    staff: Arc<Staff>,
}

/// A server that listens and accepts. Dropping it stops everything without a last snapshot.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    stop: Stop,
    sampler: Option<JoinHandle<io::Result<()>>>,
}

/// Reads a running server from any thread.
#[derive(Clone, Debug)]
pub struct Observer(Arc<Shared>);

fn starting(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
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
        let cpus = cpus(opts)?;
        check_engine(opts.engine)?;
        // Read before the listeners are opened: a change in between is then a change to follow.
        let relisten =
            (opts.relisten == Relisten::OnChange).then(|| relisten::Relisten::new(sysctl::read(SOMAXCONN).ok()));
        let Origin { program, inherited } = origin;
        let listeners = open_listeners(plan, &cpus, inherited)?;
        let opened = listeners.iter().map(|listener| opened(listener)).collect::<Result<Vec<_>, _>>()?;
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
            ports: ports(&opened),
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

/// The CPU of each acceptor.
fn cpus(opts: &Opts) -> Result<Vec<Option<usize>>, StartError> {
    let allowed = kernel::process::allowed_cpus().map_err(starting("pinning"))?;
    let list = match &opts.cpus {
        Cpus::Off => return Ok(vec![None; opts.acceptors.get() as usize]),
        Cpus::Auto => allowed,
        Cpus::List(list) => {
            if let Some(cpu) = list.iter().find(|cpu| !allowed.contains(cpu)) {
                let texts: Vec<String> = allowed.iter().map(usize::to_string).collect();
                return Err(StartError::Unfit(format!(
                    "cpus names CPU {cpu}, but this process may run on {} only; choose among them",
                    texts.join(",")
                )));
            }
            list.clone()
        }
    };
    Ok(list.into_iter().cycle().map(Some).take(opts.acceptors.get() as usize).collect())
}

fn check_engine(engine: Engine) -> Result<(), StartError> {
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

fn opened(listener: &Listener) -> Result<Opened, StartError> {
    let depth = listener.depth().map_err(starting("reading the queue limit back"))?;
    Ok(Opened { address: listener.address, backlog: listener.backlog, limit: depth.limit, options: listener.options() })
}

fn ports(opened: &[Opened]) -> Arc<[u16]> {
    let ports: BTreeSet<u16> = opened.iter().map(|opened| opened.address.port()).collect();
    ports.into_iter().collect()
}

fn open_listeners(
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

/// What deserves attention, as the queues are now.
fn warnings(opts: &Opts, listeners: &[ListenerCounts]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if let Some(ListenerCounts { backlog_requested: backlog, limit, .. }) = listeners.first()
        && limit < backlog
    {
        warnings.push(Warning::new(
            "backlog-capped",
            format!("somaxconn {limit} caps the requested backlog {backlog}: the accept queue holds {}", limit + 1),
            match opts.relisten {
                Relisten::Never => "raise net.core.somaxconn in this network namespace, then listen again",
                Relisten::OnChange => "raise net.core.somaxconn in this network namespace",
            },
        ));
    }
    if opts.relisten == Relisten::OnChange && sysctl::read(SOMAXCONN).is_err() {
        warnings.push(Warning::new(
            "relisten-blind",
            "net.core.somaxconn cannot be read here, so relisten on-change never listens again",
            "this kernel hides it from namespaces of user namespaces: run as root, or set relisten never",
        ));
    }
    warnings
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

impl Observer {
    /// Where the server listens, ports resolved.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.opened.iter().map(|opened| opened.address).collect()
    }

    /// Reads the books. [`Detail::Books`] leaves out what the ledger does not need. [`Detail::Scrape`] also
    /// starts a new window of the "since the last scrape" maxima.
    pub fn snapshot(&self, detail: Detail) -> Snapshot {
        let shared = &*self.0;
        let opts = shared.plan.opts();
        let mut namespace = shared.namespace.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners = (0..shared.slots.len()).map(|index| self.listener(index, detail)).collect::<Vec<_>>();
        if detail == Detail::Scrape {
            shared.desks.iter().for_each(crate::tally::Desk::new_window);
        }
        let merged = |pick: fn(&Tally) -> &Histogram| {
            let mut sum = HistogramSnapshot::default();
            for desk in shared.desks.iter() {
                sum.merge(&pick(&desk.tally).snapshot());
            }
            sum
        };
        let mut warnings = shared.plan.warnings();
        warnings.extend(self::warnings(opts, &listeners));
        let syn_recv = namespace.syn_recv(&shared.ports, detail);
        let mut kernel = namespace.read(detail);
        kernel.process.cpu_seconds += self.staff_cpu_seconds();
        Snapshot {
            opts: opts.clone(),
            warnings,
            monotonic_ns: monotonic_ns(),
            listeners,
            acceptors: shared.desks.iter().map(crate::tally::Desk::read).collect(),
            batch: merged(|tally| &tally.batch),
            wait: merged(|tally| &tally.wait),
            wait_stamped: merged(|tally| &tally.wait_stamped),
            fill: shared.fills.snapshot(),
            syn_recv,
            kernel,
            sampler_cpu_ns: shared.sampler_cpu_ns.get(),
        }
    }

    fn staff_cpu_seconds(&self) -> f64 {
        let now = self.0.desks.iter().map(crate::tally::Desk::process_cpu_ns).sum();
        self.0.staff_cpu_ns.fetch_max(now, Ordering::Relaxed).max(now) as f64 / 1e9
    }

    fn listener(&self, index: usize, detail: Detail) -> ListenerCounts {
        let shared = &*self.0;
        let slot = &shared.slots[index];
        let opened = &shared.opened[index];
        let drops = slot.read_drops();
        let now = slot.depth();
        let depth = now.map_or(0, |d| u64::from(d.depth));
        let seen_by_acceptors = |what: fn(&crate::tally::Desk) -> u64| {
            slot.acceptors.iter().map(|acceptor| what(&shared.desks[*acceptor])).max().unwrap_or(0)
        };
        // An acceptor of several listeners does not tell them apart: with one address it has one.
        let alone = shared.opened.len() == 1 || shared.plan.opts().listen.as_slice().len() == 1;
        let seen = |what| if alone { seen_by_acceptors(what) } else { 0 };
        let deepest = slot.deepest.get().max(seen(|desk| desk.tally.deepest.get())).max(depth);
        let window = match detail {
            Detail::Scrape => slot.deepest_since_scrape.swap(0, Ordering::Relaxed),
            Detail::Books | Detail::Full => slot.deepest_since_scrape.load(Ordering::Relaxed),
        };
        let window = window.max(seen(crate::tally::Desk::deepest_in_window));
        ListenerCounts {
            address: opened.address,
            backlog_requested: opened.backlog,
            limit: now.map_or(opened.limit, |d| d.limit),
            depth,
            deepest,
            deepest_since_scrape: window.max(depth),
            full_ns: slot.full_ns.get(),
            drops,
            left: slot.left.load(Ordering::Acquire),
            destroyed: slot.destroyed.load(Ordering::Acquire),
            retired: now.is_none(),
            relistens: slot.relistens.get(),
            options: opened.options.clone(),
        }
    }
}
