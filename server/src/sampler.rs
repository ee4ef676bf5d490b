//! The timer thread: 200 looks a second at every listener, which finds the time spent full and the stalls in
//! which no acceptor wakes up, and the deeds of its own: closing a listener at its time (`retire`) and listening again
//! (`relisten`).
//!
//! 200 wake-ups cost under 1 % of a core; its own CPU time is a metric.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kernel::netstat::NetstatReader;
use kernel::process::{monotonic_ns, thread_cpu_ns};
use telemetry::Stop;
use telemetry::counter::Counter;
use telemetry::histogram::{Histogram, fill_parts};
use telemetry::listeners::Widened;
use telemetry::namespace::NamespaceReader;

use crate::depths::Depths;
use crate::listener::{Depth, Listener};
use crate::opts::Retire;
use crate::relisten::Relisten;
use crate::service::wait_readable;
use crate::staff::Staff;
use crate::tally::Desks;

/// Time between two looks.
const TICK: Duration = Duration::from_nanos(TICK_NS);
const TICK_NS: u64 = 5_000_000;

/// Time between two dumps of the socket table, ns: each takes 0.3 ms and more, whatever there is to find.
const DUMP_NS: u64 = 1_000_000_000;

/// One listening socket and what is known of it. The listener is `None` once closed.
#[derive(Debug)]
pub(crate) struct Slot {
    listener: Mutex<Option<Arc<Listener>>>,
    /// The acceptors that take from it.
    pub(crate) acceptors: Vec<usize>,
    /// Written by the timer thread only.
    pub(crate) full_ns: Counter,
    pub(crate) deepest: Counter,
    pub(crate) depths: Mutex<Depths>,
    pub(crate) relistens: Counter,
    /// Written by every sampler, taken at a scrape.
    pub(crate) deepest_since_scrape: AtomicU64,
    pub(crate) drops: Mutex<Widened>,
    pub(crate) left: AtomicU64,
    pub(crate) destroyed: AtomicU64,
}

impl Slot {
    pub(crate) fn new(listener: Arc<Listener>, acceptors: Vec<usize>) -> Self {
        Self {
            listener: Mutex::new(Some(listener)),
            acceptors,
            full_ns: Counter::default(),
            deepest: Counter::default(),
            depths: Mutex::default(),
            relistens: Counter::default(),
            deepest_since_scrape: AtomicU64::new(0),
            drops: Mutex::new(Widened::default()),
            left: AtomicU64::new(0),
            destroyed: AtomicU64::new(0),
        }
    }

    /// The listener, held while it is looked at: whoever keeps a clone keeps the socket open.
    pub(crate) fn listener(&self) -> MutexGuard<'_, Option<Arc<Listener>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Depth and limit now; `None` once closed.
    pub(crate) fn depth(&self) -> Option<Depth> {
        self.listener().as_ref().and_then(|listener| listener.depth().ok())
    }

    /// Drops counted so far, over wraps of the kernel's u32.
    pub(crate) fn read_drops(&self) -> u64 {
        let raw = self.listener().as_ref().and_then(|listener| listener.drops().ok());
        let mut widened = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(raw) = raw {
            widened.update(raw);
        }
        widened.total()
    }

    /// What was seen of its queue since the start, over time.
    pub(crate) fn depths(&self) -> MutexGuard<'_, Depths> {
        self.depths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the queue, `elapsed_ns` after the look before; `since_start_ns` is `None` before the start.
    fn look(&self, elapsed_ns: u64, since_start_ns: Option<u64>, fills: &Histogram) {
        let Some(depth) = self.depth() else { return };
        fills.record(fill_parts(u64::from(depth.depth), u64::from(depth.limit) + 1));
        if let Some(since_start_ns) = since_start_ns {
            self.depths().note(since_start_ns, depth.depth, TICK_NS);
        }
        self.deepest.max(u64::from(depth.depth));
        self.deepest_since_scrape.fetch_max(u64::from(depth.depth), Ordering::Relaxed);
        if depth.is_full() {
            self.full_ns.add(elapsed_ns);
        }
        self.read_drops();
    }

    /// Closes the listener, which its acceptors have let go of, and counts what its queue held. `moved` tells how many
    /// connections the kernel has moved to another listener of the group since the server began
    /// (`net.ipv4.tcp_migrate_req`).
    fn retire(&self, mut moved: impl FnMut() -> u64) {
        let mut listener = self.listener();
        let Some(open) = listener.as_ref() else { return };
        let depth = u64::from(open.seal().unwrap_or(0));
        self.deepest.max(depth);
        let before = moved();
        // The last descriptor: the kernel resets or moves the queue before close(2) returns.
        *listener = None;
        self.destroyed.store(depth.saturating_sub(moved() - before), Ordering::Release);
    }
}

/// What the timer thread works on.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub(crate) slots: Arc<[Slot]>,
    pub(crate) fills: Arc<Histogram>,
    pub(crate) cpu_ns: Arc<Counter>,
    pub(crate) desks: Desks,
    pub(crate) retire: Option<Retire>,
    pub(crate) relisten: Option<Relisten>,
    /// Does the kernel choose among the listeners by a program that counts them?
    pub(crate) steered: bool,
    pub(crate) staff: Arc<Staff>,
    pub(crate) netstat: Option<NetstatReader>,
    pub(crate) namespace: Arc<Mutex<NamespaceReader>>,
    pub(crate) ports: Arc<[u16]>,
    pub(crate) stop: Stop,
}

impl Sampler {
    /// Runs until told to stop.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        let stop = self.stop.eventfd()?;
        let mut last = monotonic_ns();
        let mut dumped = last;
        while !wait_readable(stop.as_fd(), TICK) {
            let now = monotonic_ns();
            let since_start = self.desks[0].origin().and_then(|origin| now.checked_sub(origin));
            for slot in self.slots.iter() {
                slot.look(now - last, since_start, &self.fills);
            }
            last = now;
            self.staff.look();
            self.retire_when_due(now);
            if let Some(relisten) = &mut self.relisten {
                relisten.tick(&self.slots);
            }
            if now - dumped >= DUMP_NS {
                dumped = now;
                self.namespace.lock().unwrap_or_else(PoisonError::into_inner).refresh(&self.ports);
            }
            self.cpu_ns.set(thread_cpu_ns());
        }
        Ok(())
    }

    fn retire_when_due(&mut self, now: u64) {
        let (Some(retire), Some(origin)) = (self.retire, self.desks[0].origin()) else { return };
        if now < origin + retire.at.as_ns() {
            return;
        }
        self.retire = None;
        let index = retire.listener as usize;
        let Some(slot) = self.slots.get(index) else { return };
        self.staff.stop(&slot.acceptors);
        self.staff.close_listener(index);
        let netstat = &mut self.netstat;
        let mut moved =
            || netstat.as_mut().and_then(|netstat| netstat.read().ok()).map_or(0, |net| net.migrate_request_success);
        slot.retire(&mut moved);
        if self.steered {
            self.steer_anew();
        }
    }

    /// The kernel has put the last listener in the place of the closed one: the program counts one less.
    fn steer_anew(&self) {
        let open: Vec<_> = self.slots.iter().filter_map(|slot| slot.listener().clone()).collect();
        if let (Some(first), Ok(count)) = (open.first(), u32::try_from(open.len()))
            && let Err(error) = first.steer_by_cpu(count)
        {
            tracing::warn!(%error, "steer by CPU: the program for one listener more stays");
        }
    }
}
