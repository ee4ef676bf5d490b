//! The keeper of a target: the process in the server's place that starts it, looks at its listeners, stops and continues its
//! processes when that is planned, and ends it. It is its parent, and that of every process of it whose own parent ends.
//!
//! What the keeper does not end, the end of the trial's pid 1 does. It never speaks to the target over TCP: that it listens is
//! seen by `sock_diag`, so no connection but the load generator's is in the books.

mod processes;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kernel::process::{monotonic_ns, thread_cpu_ns};
use server::opts::Stall;
use server::{ListenerCounts, Snapshot};
use telemetry::namespace::{Detail, NamespaceReader, Reading};

pub(crate) use self::processes::NOT_PAUSED;
use self::processes::{Ended, Processes};
use super::listeners::{Looks, TICK_NS};
use super::{Order, in_words};
use crate::control::{Channel, ControlError, Failure, Reply, ServerRequest};

/// Time between two looks while a target is waited for.
const POLL: Duration = Duration::from_millis(5);

/// Listeners that have not changed for so long are all there are: a group of `SO_REUSEPORT` is made one by one.
const STANDS: Duration = Duration::from_millis(50);

/// How long those that were seen in time have to stand still.
const SETTLE: Duration = Duration::from_secs(1);

/// How long a target may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Finding a target's processes takes a walk over `/proc`, so it begins this long before they are stopped: enough for a machine
/// with 5000. Where there is not so much time, those that were there when it got ready are stopped first.
const AHEAD_NS: u64 = 100_000_000;

/// Serves the runner for one trial of a target.
pub(crate) fn serve(mut channel: Channel, order: Order) -> Result<(), ControlError> {
    let keeper = match Keeper::start(order) {
        Ok(keeper) => keeper,
        Err(failure) => return channel.send(&Reply::<Snapshot>::Failed(failure)),
    };
    let mut reader = NamespaceReader::open();
    channel.send(&Reply::<Snapshot>::Done)?;
    loop {
        let reply = match channel.receive()? {
            ServerRequest::Begin(origin) => {
                keeper.begin(origin)?;
                Reply::Done
            }
            ServerRequest::Snapshot(detail) => {
                match keeper.check_alive().and_then(|()| keeper.snapshot(&mut reader, detail)) {
                    Ok(snapshot) => Reply::Snapshot(Box::new(snapshot)),
                    Err(failure) => Reply::Failed(failure),
                }
            }
            ServerRequest::StopAccepting => {
                keeper.processes.stop_for_good()?;
                Reply::Done
            }
            ServerRequest::Finish => return channel.send(&keeper.finish(&mut reader)),
            ServerRequest::Prepare(_) | ServerRequest::PrepareTarget(_) => return Err(ControlError::Unexpected),
        };
        channel.send(&reply)?;
    }
}

/// A target that listens.
#[derive(Debug)]
struct Keeper {
    order: Order,
    processes: Arc<Processes>,
    looks: Arc<Mutex<Looks>>,
    sampler_cpu_ns: Arc<AtomicU64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Starts the target and waits until it listens.
    fn start(order: Order) -> Result<Self, Failure> {
        let cannot = |what: &str, error: io::Error| Failure::requirement(format!("target: cannot {what}: {error}"));
        let address = SocketAddr::new(order.address, order.port.get());
        let looks = Looks::open(address).map_err(|error| cannot("list listeners", error))?;
        let processes = Processes::start(&order)?;
        let keeper = Self {
            order,
            processes: Arc::new(processes),
            looks: Arc::new(Mutex::new(looks)),
            sampler_cpu_ns: Arc::default(),
        };
        if let Err(failure) = keeper.wait_ready() {
            keeper.processes.kill();
            return Err(failure);
        }
        lock(&keeper.looks).ready();
        if keeper.order.pause.is_some() {
            keeper.processes.look_ahead();
        }
        keeper.sample().map_err(|error| cannot("start the sampling thread", error))?;
        Ok(keeper)
    }

    /// Waits until there are listeners and they stand still.
    fn wait_ready(&self) -> Result<(), Failure> {
        let limit = Instant::now() + self.order.ready.duration();
        let mut standing = Vec::new();
        let (mut seen, mut since) = (false, Instant::now());
        loop {
            self.look()?;
            let now = lock(&self.looks).standing();
            if now != standing {
                (standing, since) = (now, Instant::now());
            }
            if let Some(ended) = self.processes.ended() {
                return Err(self.gone(&ended, "before it listened"));
            }
            if !standing.is_empty() && since.elapsed() >= STANDS {
                return Ok(());
            }
            let late = Instant::now().saturating_duration_since(limit);
            seen |= !standing.is_empty();
            if !seen && !late.is_zero() {
                return Err(self.failure(&self.never_listened()));
            }
            if late > SETTLE {
                let Order { port, address, ready, .. } = &self.order;
                let address = SocketAddr::new(*address, port.get());
                return Err(self.failure(&format!("kept no listener at {address} open within {ready}")));
            }
            thread::sleep(POLL);
        }
    }

    fn look(&self) -> Result<(), Failure> {
        lock(&self.looks).look().map_err(Failure::requirement)
    }

    fn never_listened(&self) -> String {
        let Order { port, address, ready, .. } = &self.order;
        let mut elsewhere: Vec<String> = lock(&self.looks).elsewhere().iter().map(ToString::to_string).collect();
        elsewhere.sort_unstable();
        elsewhere.dedup();
        let hint = if elsewhere.is_empty() {
            "give it longer with target.ready, or have it listen there with {address} and {port}".to_owned()
        } else {
            format!("it listens at {} instead: have it use {{address}} and {{port}}", elsewhere.join(", "))
        };
        format!("listened at no {} within {ready}; {hint}", SocketAddr::new(*address, port.get()))
    }

    /// One line that names the command, what it did, its last word and its log.
    fn failure(&self, did: &str) -> Failure {
        let said = processes::last_words(&self.order.log).map(|words| format!("; it last said: {words}"));
        let (command, log) = (in_words(&self.order.command), self.order.log.display());
        Failure::usage(format!("target `{command}` {did}{}; its log is {log}", said.unwrap_or_default()))
    }

    fn gone(&self, ended: &Ended, when: &str) -> Failure {
        let Ended { how, others } = ended;
        if *others && how.is_success() {
            return self.failure(
                "put itself in the background: the process that was started ended and others go on; have it stay in the \
                 foreground (nginx: daemon off; redis: daemonize no)",
            );
        }
        self.failure(&format!("ended ({how}) {when}"))
    }

    fn check_alive(&self) -> Result<(), Failure> {
        match self.processes.ended() {
            None => Ok(()),
            Some(ended) => Err(Failure { requirement: true, ..self.gone(&ended, "during the trial") }),
        }
    }

    /// The thread that looks at the listeners until the process ends.
    fn sample(&self) -> io::Result<()> {
        let (looks, cpu) = (Arc::clone(&self.looks), Arc::clone(&self.sampler_cpu_ns));
        let work = move || {
            kernel::process::set_timer_slack_min();
            loop {
                thread::sleep(Duration::from_nanos(TICK_NS));
                // One that fails leaves a gap; a snapshot that fails says why.
                let _ = lock(&looks).look();
                cpu.store(thread_cpu_ns(), Ordering::Relaxed);
            }
        };
        thread::Builder::new().name("listeners".to_owned()).spawn(work).map(drop)
    }

    /// The first arrival is planned at `origin_ns`; what is planned for the target counts from there.
    fn begin(&self, origin_ns: u64) -> io::Result<()> {
        lock(&self.looks).begin(origin_ns);
        let Some(Stall { at, lasts }) = self.order.pause else { return Ok(()) };
        let processes = Arc::clone(&self.processes);
        let work = move || {
            kernel::process::set_timer_slack_min();
            let at_ns = origin_ns + at.as_ns();
            let ahead_ns = at_ns.saturating_sub(AHEAD_NS);
            if ahead_ns > monotonic_ns() {
                sleep_until(ahead_ns);
                processes.look_ahead();
            }
            sleep_until(at_ns);
            processes.pause();
            if let Some(lasts) = lasts {
                sleep_until(at_ns + lasts.as_ns());
                processes.go_on();
            }
        };
        thread::Builder::new().name("pause".to_owned()).spawn(work).map(drop)
    }

    /// What the kernel knows of the target, in the form of our own server's books: without acceptors.
    fn snapshot(&self, reader: &mut NamespaceReader, detail: Detail) -> Result<Snapshot, Failure> {
        // The thread that looks is not to wait for what is read of the namespace.
        let (listeners, fill, depths) = {
            let mut looks = lock(&self.looks);
            looks.look().map_err(Failure::requirement)?;
            (looks.counts(detail), looks.fill(), looks.depths())
        };
        let syn_recv = reader.syn_recv(&[self.order.port.get()], detail);
        let mut kernel = reader.read(detail);
        forget_the_keeper(&mut kernel);
        Ok(Snapshot {
            monotonic_ns: monotonic_ns(),
            listeners,
            fill,
            depths,
            syn_recv,
            kernel,
            sampler_cpu_ns: self.sampler_cpu_ns.load(Ordering::Relaxed),
            warnings: self.processes.warnings(),
            ..Snapshot::default()
        })
    }

    /// The last books, then the end of the target.
    fn finish(&self, reader: &mut NamespaceReader) -> Reply<Snapshot> {
        let mut books = match self.check_alive().and_then(|()| self.snapshot(reader, Detail::Books)) {
            Ok(books) => books,
            Err(failure) => return Reply::Failed(failure),
        };
        for listener in &mut books.listeners {
            let ListenerCounts { depth, left, .. } = listener;
            *left = *depth;
        }
        let signal = self.order.stop_signal;
        if self.processes.end(signal.signal(), STOP_LIMIT) {
            return Reply::Snapshot(Box::new(books));
        }
        let waited = STOP_LIMIT.as_secs();
        Reply::Failed(self.failure(&format!(
            "did not end within {waited} s of SIG{signal} and was killed; set target.stop-signal to what ends it"
        )))
    }
}

/// Its own use of resources is not the target's.
fn forget_the_keeper(reading: &mut Reading) {
    reading.process = kernel::process::ProcessStats::default();
    reading.sources.retain(|source| source.name != "process");
}

fn sleep_until(instant_ns: u64) {
    thread::sleep(Duration::from_nanos(instant_ns.saturating_sub(monotonic_ns())));
}
