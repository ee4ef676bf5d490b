//! A running server: threads, and the handle that reads and ends them.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kernel::process::monotonic_ns;
use kernel::sysctl;
use telemetry::counter::{Counter, Padded};
use telemetry::histogram::{Histogram, HistogramSnapshot};
use telemetry::namespace::{Detail, NamespaceReader};
use telemetry::{Stop, Warning};
use thiserror::Error;

use crate::acceptor::{self, Acceptor, Tally, Timeline};
use crate::listener::{ListenError, Listener};
use crate::opts::{Engine, Opts, Relisten, Reuseport};
use crate::plan::Plan;
use crate::relisten::{self, SOMAXCONN};
use crate::sampler::{Sampler, Slot};
use crate::service::Service;
use crate::snapshot::{ListenerCounts, Snapshot};
use crate::{blocking, epoll};

/// Why a server could not start. Nothing is left behind.
#[derive(Debug, Error)]
pub enum StartError {
    /// The listening socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A thread or descriptor of the server's own.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What was to be started.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

type AcceptorThread = JoinHandle<io::Result<()>>;

/// What snapshots are made of; shared by the threads, the handle and its observers.
#[derive(Debug)]
struct Shared {
    opts: Opts,
    /// Address, backlog and limit of each listener as they stood after listen(2).
    opened: Vec<(SocketAddr, u32, u32)>,
    slots: Arc<[Slot]>,
    tallies: Vec<(usize, Arc<Padded<Tally>>)>,
    fills: Arc<Histogram>,
    sampler_cpu_ns: Arc<Counter>,
    timeline: Arc<Timeline>,
    namespace: Mutex<NamespaceReader>,
    /// Acceptor threads by the listener they belong to, until joined.
    threads: Mutex<Vec<(usize, AcceptorThread)>>,
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

impl Server {
    /// Listens and starts acceptors and sampling, all in the calling thread's network namespace. Connections
    /// are accepted at once; stalls and retirements count from [`Server::begin`].
    ///
    /// # Errors
    /// When a socket cannot listen or a thread cannot start; nothing is left behind.
    pub fn start(plan: &Plan) -> Result<Self, StartError> {
        let opts = plan.opts().clone();
        // Read before the listeners are opened: a change in between is then a change to follow.
        let relisten =
            (opts.relisten == Relisten::OnChange).then(|| relisten::Relisten::new(sysctl::read(SOMAXCONN).ok()));
        let listeners = open_listeners(plan)?;
        let mut opened = Vec::new();
        for listener in &listeners {
            let limit = listener
                .depth()
                .map_err(|source| StartError::Start { what: "reading the queue limit back", source })?
                .limit;
            opened.push((listener.address, listener.backlog, limit));
        }
        let fail = |what| move |source| StartError::Start { what, source };
        let timeline = Arc::new(Timeline::new(opts.stall));
        let stop = Stop::new();
        let slots: Arc<[Slot]> = listeners.iter().map(|l| Slot::new(Arc::clone(l), Stop::new())).collect();
        let tallies: Vec<_> = (0..opts.acceptors.get() as usize)
            .map(|index| (index % listeners.len(), Arc::new(Padded(Tally::new()))))
            .collect();
        let shared = Arc::new(Shared {
            opened,
            slots: Arc::clone(&slots),
            tallies: tallies.clone(),
            fills: Arc::new(Histogram::new()),
            sampler_cpu_ns: Arc::new(Counter::default()),
            timeline: Arc::clone(&timeline),
            namespace: Mutex::new(NamespaceReader::open()),
            threads: Mutex::new(Vec::new()),
            opts,
        });
        // From here on, dropping `server` ends what was started.
        let mut server = Self { shared: Arc::clone(&shared), stop: stop.clone(), sampler: None };
        for (index, (owner, tally)) in tallies.into_iter().enumerate() {
            let stop = slots[owner].stop.clone();
            let acceptor = Acceptor {
                listener: Arc::clone(&listeners[owner]),
                stop_fd: stop.eventfd().map_err(fail("an acceptor"))?,
                stop,
                timeline: Arc::clone(&timeline),
                tally,
                service: Service::new(shared.opts.accept_delay, shared.opts.seed.wrapping_add(index as u64)),
                on_accept: shared.opts.on_accept,
            };
            let engine = match shared.opts.engine {
                Engine::Epoll => epoll::run,
                Engine::Blocking => blocking::run,
            };
            let thread = acceptor::spawn(format!("acceptor-{index}"), acceptor, engine).map_err(fail("an acceptor"))?;
            shared.lock_threads().push((owner, thread));
        }
        let sampler = Sampler {
            slots,
            fills: Arc::clone(&shared.fills),
            cpu_ns: Arc::clone(&shared.sampler_cpu_ns),
            timeline,
            retire: shared.opts.retire,
            relisten,
            stop,
        };
        let joiner = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || sampler.run(|listener| joiner.join_acceptors(Some(listener))))
            .map_err(fail("the sampler"))?;
        server.sampler = Some(thread);
        Ok(server)
    }

    /// The instant (`CLOCK_MONOTONIC`, ns) from which stalls and retirements count.
    pub fn begin(&self, origin_ns: u64) {
        self.shared.timeline.begin(origin_ns);
    }

    /// A handle that reads from any thread.
    pub fn observer(&self) -> Observer {
        Observer(Arc::clone(&self.shared))
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

    /// Ends accepting for good and counts what is left in the queues. The listeners stay open, so that what
    /// is left can still be looked at.
    pub fn stop_accepting(&self) {
        self.shared.stop_acceptors();
    }

    /// Ends everything and returns the last snapshot, read while the listeners were still open.
    pub fn finish(self, detail: Detail) -> Snapshot {
        self.shared.stop_acceptors();
        self.observer().snapshot(detail)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(sampler) = self.sampler.take() {
            let _ = sampler.join();
        }
        self.shared.stop_acceptors();
    }
}

fn open_listeners(plan: &Plan) -> Result<Vec<Arc<Listener>>, ListenError> {
    let opts = plan.opts();
    let mut address = opts.listen;
    let mut listeners = Vec::new();
    for _ in 0..plan.listeners() {
        let listener = Listener::open(address, opts.backlog, opts.reuseport != Reuseport::Off)?;
        // Port 0: the others share the port the first was given.
        address = listener.address;
        listener.set_blocking(opts.engine == Engine::Blocking).map_err(|source| ListenError {
            operation: "set the blocking mode of",
            address,
            source,
            hint: "",
        })?;
        listeners.push(Arc::new(listener));
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
    fn lock_threads(&self) -> std::sync::MutexGuard<'_, Vec<(usize, AcceptorThread)>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the acceptors of one listener (or all); they have been told to stop.
    fn join_acceptors(&self, listener: Option<usize>) {
        let gone: Vec<_> =
            self.lock_threads().extract_if(.., |(owner, _)| listener.is_none_or(|l| l == *owner)).collect();
        for (_, thread) in gone {
            // A blocking accept ends by a signal only; one sent just before the call blocks is lost.
            while self.opts.engine == Engine::Blocking && !thread.is_finished() {
                // A failure leaves the wait to the next connection.
                let _ = kernel::process::interrupt(&thread);
                std::thread::sleep(Duration::from_micros(500));
            }
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "an acceptor ended early"),
                Err(_) => tracing::error!("an acceptor panicked"),
            }
        }
    }

    fn stop_acceptors(&self) {
        for slot in self.slots.iter() {
            slot.stop.request();
        }
        self.join_acceptors(None);
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
        self.0.opened.iter().map(|(address, ..)| *address).collect()
    }

    /// Reads the books. [`Detail::Books`] leaves out what the ledger does not need. [`Detail::Scrape`] also
    /// starts a new window of the "since the last scrape" maxima.
    pub fn snapshot(&self, detail: Detail) -> Snapshot {
        let shared = &*self.0;
        let mut namespace = shared.namespace.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners = (0..shared.slots.len()).map(|index| self.listener(index, detail)).collect::<Vec<_>>();
        let merged = |pick: fn(&Tally) -> &Histogram| {
            let mut sum = HistogramSnapshot::default();
            for (_, tally) in &shared.tallies {
                sum.merge(&pick(tally).snapshot());
            }
            sum
        };
        let ports: std::collections::BTreeSet<u16> = shared.opened.iter().map(|(address, ..)| address.port()).collect();
        Snapshot {
            opts: shared.opts.clone(),
            warnings: warnings(&shared.opts, &listeners),
            monotonic_ns: monotonic_ns(),
            listeners,
            acceptors: shared.tallies.iter().map(|(_, tally)| tally.read()).collect(),
            batch: merged(|tally| &tally.batch),
            wait: merged(|tally| &tally.wait),
            fill: shared.fills.snapshot(),
            syn_recv: ports.iter().map(|port| namespace.syn_recv(*port)).sum(),
            kernel: namespace.read(detail),
            sampler_cpu_ns: shared.sampler_cpu_ns.get(),
        }
    }

    fn listener(&self, index: usize, detail: Detail) -> ListenerCounts {
        let shared = &*self.0;
        let slot = &shared.slots[index];
        let (address, backlog_requested, limit_at_start) = shared.opened[index];
        let drops = slot.read_drops();
        let now = slot.depth();
        let depth = now.map_or(0, |d| u64::from(d.depth));
        let by_acceptors = shared
            .tallies
            .iter()
            .filter(|(owner, _)| *owner == index)
            .map(|(_, tally)| tally.deepest.get())
            .max()
            .unwrap_or(0);
        let deepest = slot.deepest.get().max(by_acceptors).max(depth);
        let window = match detail {
            Detail::Scrape => slot.deepest_since_scrape.swap(0, Ordering::Relaxed),
            Detail::Books | Detail::Full => slot.deepest_since_scrape.load(Ordering::Relaxed),
        };
        ListenerCounts {
            address,
            backlog_requested,
            limit: now.map_or(limit_at_start, |d| d.limit),
            depth,
            deepest,
            deepest_since_scrape: window.max(depth),
            full_ns: slot.full_ns.get(),
            drops,
            left: slot.left.load(Ordering::Acquire),
            destroyed: slot.destroyed.load(Ordering::Acquire),
            retired: now.is_none(),
            relistens: slot.relistens.get(),
        }
    }
}
