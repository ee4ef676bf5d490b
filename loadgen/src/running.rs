//! A running load generator: its workers, and the handle that starts, reads and ends them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kernel::process::monotonic_ns;
use telemetry::Stop;

use telemetry::namespace::{Detail, NamespaceReader};
use thiserror::Error;

use crate::arrivals::{Arrivals, rate_at};
use crate::budget::RESERVED_FDS;
use crate::counts::Counts;
use crate::epoll::Epoll;
use crate::half_open::{HalfOpen, HalfOpenError};
use crate::judgement;
use crate::opts::{Engine, Shard};
use crate::plan::{Plan, share};
use crate::reactor::Reactor;
use crate::snapshot::{PhaseCounts, Snapshot};
use crate::sources::Sources;
use crate::target::{self, Aim, TargetAddress};
use crate::uring::Uring;
use crate::worker::{Share, Worker};

/// Descriptors that room is made for at most: 8 MiB of the kernel's memory.
const MOST_ROOM: u64 = 1 << 20;

/// Why a generator could not start.
#[derive(Debug, Error)]
#[error("cannot start {what}: {source}")]
pub struct StartError {
    /// What was to be started.
    pub what: &'static str,
    /// What the system said.
    pub source: io::Error,
}

#[derive(Debug)]
struct Shared {
    plan: Arc<Plan>,
    target: Arc<TargetAddress>,
    half_open: HalfOpen,
    counts: Vec<Arc<Counts>>,
    origin: AtomicU64,
    stop: Stop,
    namespace: Mutex<NamespaceReader>,
    running: Mutex<usize>,
    done: Condvar,
}

/// A generator whose workers wait for the start, or run. Dropping it ends the load.
#[derive(Debug)]
pub struct Generator {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// Asked when the generator is gone, and nobody needs the target's address any more.
    gone: Stop,
}

/// Reads a running generator from any thread.
#[derive(Clone, Debug)]
pub struct Observer(Arc<Shared>);

/// Where workers wait for the start: `None` until it is known.
#[derive(Debug, Default)]
struct Gate {
    origin: Mutex<Option<u64>>,
    opened: Condvar,
}

impl Gate {
    fn open(&self, origin: u64) {
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner) = Some(origin);
        self.opened.notify_all();
    }

    fn wait(&self) -> u64 {
        let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match *origin {
                Some(origin) => return origin,
                None => origin = self.opened.wait(origin).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Where a worker works.
struct Place {
    gate: Arc<Gate>,
    shared: Arc<Shared>,
    counts: Arc<Counts>,
    index: usize,
}

impl Place {
    /// Starts the worker's thread, which waits at the gate.
    fn start<R: Reactor + Send + 'static>(
        self,
        worker: Worker<R, impl Iterator<Item = u64> + Send + 'static>,
    ) -> io::Result<JoinHandle<io::Result<()>>> {
        let Self { gate, shared, counts, index } = self;
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let origin = gate.wait();
            let plan = &shared.plan;
            let settled = plan.opts.scheduling.settle(plan.cpus[index]);
            let result = settled.and_then(|()| worker.run(origin, &counts));
            *shared.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            shared.done.notify_all();
            result
        })
    }
}

impl Generator {
    /// Starts the workers, all in the calling thread's network namespace. Nothing is sent before
    /// [`Generator::begin`].
    ///
    /// # Errors
    /// When a thread or a descriptor of the generator's own cannot be had.
    pub fn prepare(mut plan: Plan) -> Result<Self, StartError> {
        let what = "io_uring, whose rings are locked memory (raise ulimit -l, lower workers, or use engine epoll)";
        let mut rings = plan.rings().map_err(|source| StartError { what, source })?.into_iter();
        if plan.engine == Engine::Epoll {
            let most = plan.budget.in_flight.saturating_add(plan.budget.held).saturating_add(RESERVED_FDS);
            // Without it the load begins all the same, and some attempts of its beginning are late.
            let _ = kernel::process::make_room_for_descriptors(most.min(MOST_ROOM));
        }
        let plan = Arc::new(plan);
        let (stop, gone) = (Stop::new(), Stop::new());
        let target = Arc::new(TargetAddress::new(plan.target));
        let counts: Vec<_> = (0..plan.workers).map(|_| Arc::from(kernel::shared::zeroed::<Counts>())).collect();
        let shared = Arc::new(Shared {
            plan: Arc::clone(&plan),
            target: Arc::clone(&target),
            half_open: HalfOpen::default(),
            counts: counts.clone(),
            origin: AtomicU64::new(0),
            stop: stop.clone(),
            namespace: Mutex::new(NamespaceReader::open()),
            running: Mutex::new(plan.workers),
            done: Condvar::new(),
        });
        let gate = Arc::new(Gate::default());
        target::follow(plan.opts.target.as_str(), &target, gone.clone())
            .map_err(|source| StartError { what: "looking up the target", source })?;
        let mut generator = Self { shared: Arc::clone(&shared), gate: Arc::clone(&gate), threads: Vec::new(), gone };
        let stop_fd = || stop.eventfd().map_err(|source| StartError { what: "a worker", source });
        let stream = Arrivals::new(&plan.opts.arrivals, plan.opts.rate, plan.opts.seed);
        let (part, parts) = plan.opts.shard.map_or((0, 1), Shard::place);
        for (index, counts) in counts.into_iter().enumerate() {
            let arrivals = stream.clone().shard(part + parts * index, parts * plan.workers);
            let keep = plan.opts.keep.map(|keep| share(keep.get() as usize, index, plan.workers));
            let share = Share { open: plan.most_open(index), keep };
            let aim = Aim::new(Arc::clone(&target));
            let sources = Sources::new(&plan, part + parts * index, parts * plan.workers);
            let stop_fd = stop_fd()?;
            let place = Place { gate: Arc::clone(&gate), shared: Arc::clone(&shared), counts, index };
            let thread = if let Some(ring) = rings.next() {
                let reactor = Uring::new(Arc::clone(&plan), share.open, ring, stop_fd);
                place.start(Worker::new(Arc::clone(&plan), aim, sources, arrivals, share, (stop.clone(), reactor)))
            } else {
                let reactor = Epoll::new(Arc::clone(&plan), stop_fd);
                let reactor = reactor.map_err(|source| StartError { what: "epoll", source })?;
                place.start(Worker::new(Arc::clone(&plan), aim, sources, arrivals, share, (stop.clone(), reactor)))
            };
            let thread = thread.map_err(|source| StartError { what: "a worker", source })?;
            generator.threads.push(thread);
        }
        Ok(generator)
    }

    /// Keeps `count` sockets half open from now on, until generator and observers are all gone.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub fn keep_half_open(&self, count: u32) -> Result<(), HalfOpenError> {
        self.shared.half_open.open(count, self.shared.target.get())
    }

    /// Plans the first arrival at `origin_ns` (`CLOCK_MONOTONIC`).
    pub fn begin(&self, origin_ns: u64) {
        self.shared.origin.store(origin_ns, Ordering::Release);
        self.gate.open(origin_ns);
    }

    /// Issues no more; attempts in flight go on to their verdicts, at most one deadline long.
    pub fn stop_issuing(&self) {
        self.shared.stop.request();
    }

    /// Waits until all attempts have their verdicts, at most `limit`. True when they have.
    pub fn wait(&self, limit: Duration) -> bool {
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (running, _) = self
            .shared
            .done
            .wait_timeout_while(running, limit, |running| *running > 0)
            .unwrap_or_else(PoisonError::into_inner);
        *running == 0
    }

    /// A handle that reads from any thread.
    pub fn observer(&self) -> Observer {
        Observer(Arc::clone(&self.shared))
    }

    /// Waits for the last verdict and returns the last snapshot.
    ///
    /// # Errors
    /// When a worker's event loop failed: its counts are not complete.
    pub fn finish(mut self, detail: Detail) -> Result<Snapshot, StartError> {
        self.join()?;
        Ok(self.observer().snapshot(detail))
    }

    fn join(&mut self) -> Result<(), StartError> {
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            if let Err(source) = ended {
                result = Err(StartError { what: "a worker's event loop", source });
            }
        }
        result
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.gone.request();
        self.shared.stop.request();
        self.gate.open(monotonic_ns());
        let _ = self.join();
    }
}

impl Observer {
    /// Reads the books.
    pub fn snapshot(&self, detail: Detail) -> Snapshot {
        let shared = &*self.0;
        let plan = &shared.plan;
        let finished = *shared.running.lock().unwrap_or_else(PoisonError::into_inner) == 0;
        let [mut warm_up, mut measured] = [PhaseCounts::default(), PhaseCounts::default()];
        let [mut connecting, mut confirming, mut holding, mut ending] = [0; 4];
        for counts in &shared.counts {
            counts.phases[0].add_to(&mut warm_up);
            counts.phases[1].add_to(&mut measured);
            connecting += counts.connecting.get();
            confirming += counts.confirming.get();
            holding += counts.holding.get();
            ending += counts.ending.get();
        }
        shared.half_open.add_to(&mut warm_up);
        let mut namespace = shared.namespace.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = namespace.read(detail);
        let origin_ns = shared.origin.load(Ordering::Acquire);
        let active = origin_ns > 0 && !finished && !shared.stop.is_requested();
        let mut books = Snapshot {
            opts: plan.opts.clone(),
            target: shared.target.get(),
            target_changes: shared.target.changes(),
            workers: plan.workers,
            engine: plan.engine,
            warnings: plan.warnings().to_vec(),
            budget: Some(plan.budget.clone()),
            monotonic_ns: monotonic_ns(),
            origin_ns,
            warm_up,
            measured,
            connecting,
            confirming,
            holding,
            ending,
            finished,
            target_rate: if active { target_rate(plan, monotonic_ns().saturating_sub(origin_ns)) } else { 0.0 },
            ports_available: ports_available(plan, &kernel.tcp_sockets),
            closing: if detail == Detail::Own { 0 } else { namespace.closing_towards(plan.target.port()) },
            worker_cpu: shared.counts.iter().map(|counts| counts.effort.read()).collect(),
            limits: Vec::new(),
            half_open: if finished || matches!(detail, Detail::Full | Detail::Scrape) {
                shared.half_open.look()
            } else {
                shared.half_open.last()
            },
            kernel,
        };
        books.limits = judgement::limits(&books);
        books
    }
}

/// Attempts per second that this part of the load plans at `elapsed` ns from the start.
fn target_rate(plan: &Plan, elapsed: u64) -> f64 {
    let (_, shards) = plan.opts.shard.map_or((0, 1), Shard::place);
    rate_at(&plan.opts.arrivals, plan.opts.rate, elapsed) / shards as f64
}

fn ports_available(plan: &Plan, sockets: &std::collections::BTreeMap<String, u64>) -> u64 {
    let used: u64 = sockets.iter().filter(|(state, _)| *state != "listen").map(|(_, count)| count).sum();
    let range = plan.ports.map_or(0, |(low, high)| u64::from(high.saturating_sub(low)) + 1);
    (range * plan.sources.len().max(1) as u64).saturating_sub(used)
}
