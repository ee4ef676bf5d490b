//! Reads a running server: everything its threads, processes and the kernel know, as one [`Snapshot`].

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use kernel::process::monotonic_ns;
use kernel::sysctl;
use telemetry::Warning;
use telemetry::histogram::{Histogram, HistogramSnapshot};
use telemetry::namespace::Detail;

use crate::opts::{Opts, Relisten};
use crate::relisten::SOMAXCONN;
use crate::running::Shared;
use crate::snapshot::{ListenerCounts, Snapshot};
use crate::tally::{Desk, Tally};

/// Reads a running server from any thread.
#[derive(Clone, Debug)]
pub struct Observer(pub(crate) Arc<Shared>);

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
            shared.desks.iter().for_each(Desk::new_window);
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
            acceptors: shared.desks.iter().map(Desk::read).collect(),
            batch: merged(|tally| &tally.batch),
            wait: merged(|tally| &tally.wait),
            wait_stamped: merged(|tally| &tally.wait_stamped),
            fill: shared.fills.snapshot(),
            // No metric is made of them.
            depths: match detail {
                Detail::Scrape | Detail::Own => Vec::new(),
                Detail::Books | Detail::Full => shared.slots.iter().map(|slot| slot.depths().clone()).collect(),
            },
            syn_recv,
            kernel,
            sampler_cpu_ns: shared.sampler_cpu_ns.get(),
        }
    }

    fn staff_cpu_seconds(&self) -> f64 {
        let now = self.0.desks.iter().map(Desk::process_cpu_ns).sum();
        self.0.staff_cpu_ns.fetch_max(now, Ordering::Relaxed).max(now) as f64 / 1e9
    }

    fn listener(&self, index: usize, detail: Detail) -> ListenerCounts {
        let shared = &*self.0;
        let slot = &shared.slots[index];
        let opened = &shared.opened[index];
        let drops = slot.read_drops();
        let now = slot.depth();
        let depth = now.map_or(0, |d| u64::from(d.depth));
        let seen_by_acceptors = |what: fn(&Desk) -> u64| {
            slot.acceptors.iter().map(|acceptor| what(&shared.desks[*acceptor])).max().unwrap_or(0)
        };
        // An acceptor of several listeners does not tell them apart: with one address it has one.
        let alone = shared.opened.len() == 1 || shared.plan.opts().listen.as_slice().len() == 1;
        let seen = |what| if alone { seen_by_acceptors(what) } else { 0 };
        let deepest = slot.deepest.get().max(seen(|desk| desk.tally.deepest.get())).max(depth);
        let window = match detail {
            Detail::Scrape => slot.deepest_since_scrape.swap(0, Ordering::Relaxed),
            Detail::Own | Detail::Books | Detail::Full => slot.deepest_since_scrape.load(Ordering::Relaxed),
        };
        let window = window.max(seen(Desk::deepest_in_window));
        ListenerCounts {
            address: opened.address,
            backlog_requested: Some(opened.backlog),
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

/// What deserves attention, as the queues are now.
fn warnings(opts: &Opts, listeners: &[ListenerCounts]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if let Some(ListenerCounts { backlog_requested: Some(backlog), limit, .. }) = listeners.first()
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
