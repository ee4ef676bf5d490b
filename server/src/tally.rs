//! What one acceptor counts, in memory that its process may share with the server: see [`Desk`].

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kernel::shared::Shared;
use telemetry::counter::Counter;
use telemetry::histogram::Histogram;

use crate::connection::End;
use crate::snapshot::AcceptorCounts;

/// accept4 errors told apart in the counts; the last entry takes all others.
pub(crate) const ERRNOS: [&str; 7] = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EPROTO", "other"];

kernel::shareable! {
    /// Counters of one acceptor, written by it only: the same memory whether it is a thread or a process. A process that
    /// takes over from one that died goes on counting here.
    #[derive(Debug)]
    pub(crate) struct Tally {
        pub(crate) accepts: Counter,
        /// Service time spent, ns; 0 without one.
        pub(crate) service: Counter,
        pub(crate) wakeups_work: Counter,
        pub(crate) wakeups_empty: Counter,
        pub(crate) errors: [Counter; ERRNOS.len()],
        /// Times the listener was left alone because descriptors or memory had run out.
        pub(crate) pauses: Counter,
        pub(crate) dead_on_accept: Counter,
        pub(crate) late_handshakes: Counter,
        pub(crate) greetings: Counter,
        /// Connections that got their first byte after they had sent one.
        pub(crate) replies: Counter,
        closed: [Counter; End::ALL.len()],
        /// Children forked for a connection.
        pub(crate) forks: Counter,
        /// Completions of a multishot accept that were taken off the queue by the kernel and not looked at yet.
        pub(crate) unhandled: Counter,
        pub(crate) deepest: Counter,
        /// Deepest since the scrape whose number is in `window`.
        pub(crate) deepest_in_window: Counter,
        pub(crate) window: Counter,
        pub(crate) batch: Histogram,
        /// By `tcpi_last_data_sent`, ns.
        pub(crate) wait: Histogram,
        /// By the time stamp of the client's first bytes, ns.
        pub(crate) wait_stamped: Histogram,
    }
}

kernel::shareable! {
    /// The place of one acceptor: what it is told, who sits there, and what it counts. Lies in shared memory.
    #[derive(Debug)]
    #[repr(align(128))]
    pub(crate) struct Desk {
        /// 0 accept, 1 accept no more but serve what is open, 2 end at once. Written by the server.
        stop: AtomicU64,
        /// When stalls and retirements count from, monotonic ns; 0 before. Written by the server.
        origin: AtomicU64,
        /// Number of scrapes so far. Written by the server.
        scrapes: AtomicU64,
        /// 1: the acceptor has let go of its listeners; 2: its process has ended, and none follows. Written by whoever
        /// runs it, and by the nursery when nobody does.
        gone: AtomicU64,
        /// Process id of the acceptor, 0 for a thread or when nobody sits here. Written by the nursery.
        pub(crate) pid: Counter,
        /// Acceptors that died here. Written by the nursery.
        pub(crate) deaths: Counter,
        /// Acceptors that took over. Written by the nursery.
        pub(crate) restarts: Counter,
        /// Connections that may have died between accept4(2) and the count, at most. Written by the nursery.
        pub(crate) lost_at_most: Counter,
        /// CPU time of the processes that ended here, ns. Written by the nursery.
        pub(crate) cpu_ns: Counter,
        /// Written by the acceptor.
        pub(crate) tally: Tally,
    }
}

/// The desks of all acceptors.
pub(crate) type Desks = Arc<Shared<Desk>>;

/// One acceptor's desk.
#[derive(Clone, Debug)]
pub(crate) struct DeskOf {
    desks: Desks,
    index: usize,
}

impl DeskOf {
    /// Desk number `index`; there must be as many.
    pub(crate) fn new(desks: &Desks, index: usize) -> Self {
        Self { desks: Arc::clone(desks), index }
    }
}

impl Deref for DeskOf {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.desks[self.index]
    }
}

impl Desk {
    /// Has the acceptor been told to accept no more?
    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire) != 0
    }

    /// Has the acceptor been told to end, whatever is open?
    pub(crate) fn must_end(&self) -> bool {
        self.stop.load(Ordering::Acquire) > 1
    }

    /// Tells the acceptor to accept no more; whoever waits must be woken, too.
    pub(crate) fn request_stop(&self) {
        self.stop.fetch_max(1, Ordering::AcqRel);
    }

    /// Tells the acceptor to end at once.
    pub(crate) fn request_end(&self) {
        self.stop.store(2, Ordering::Release);
    }

    pub(crate) fn begin(&self, origin_ns: u64) {
        self.origin.store(origin_ns, Ordering::Release);
    }

    /// Monotonic ns of the start, once there is one.
    pub(crate) fn origin(&self) -> Option<u64> {
        match self.origin.load(Ordering::Acquire) {
            0 => None,
            origin => Some(origin),
        }
    }

    /// Starts a new window of the "since the last scrape" maximum.
    pub(crate) fn new_window(&self) {
        self.scrapes.fetch_add(1, Ordering::AcqRel);
    }

    /// Says that the acceptor has let go of its listeners.
    pub(crate) fn set_gone(&self) {
        self.gone.store(1, Ordering::Release);
    }

    /// Has the acceptor let go of its listeners?
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire) != 0
    }

    /// Says that the acceptor's process has ended, and that none follows. By the nursery.
    pub(crate) fn set_over(&self) {
        self.pid.set(0);
        self.gone.store(2, Ordering::Release);
    }

    /// Has the acceptor's process ended for good?
    pub(crate) fn is_over(&self) -> bool {
        self.gone.load(Ordering::Acquire) > 1
    }

    /// Counts the death of an acceptor's process and sets its books: nobody sits here from now on. `lost`: connections
    /// that it may have left uncounted. By the nursery, once the process has ended.
    pub(crate) fn bury(&self, lost: u64) {
        self.pid.set(0);
        self.deaths.add(1);
        self.lost_at_most.add(lost);
        self.take_over();
        self.gone.store(0, Ordering::Release);
    }

    /// CPU time of all processes that sat here, ns, without children forked for connections; 0 for a thread. An acceptor
    /// that ends meanwhile may count twice or not at all, until the next reading.
    pub(crate) fn process_cpu_ns(&self) -> u64 {
        let pid = u32::try_from(self.pid.get()).unwrap_or(0);
        let running = if pid == 0 { 0 } else { kernel::process::process_cpu_ns(pid).unwrap_or(0) };
        self.cpu_ns.get() + running
    }

    /// Notes a depth of the acceptor's queue. By the acceptor only.
    pub(crate) fn note_depth(&self, depth: u64) {
        self.tally.deepest.max(depth);
        let window = self.scrapes.load(Ordering::Relaxed);
        if self.tally.window.get() == window {
            self.tally.deepest_in_window.max(depth);
        } else {
            self.tally.deepest_in_window.set(depth);
            self.tally.window.set(window);
        }
    }

    /// The deepest that the acceptor saw since the last scrape.
    pub(crate) fn deepest_in_window(&self) -> u64 {
        if self.tally.window.get() == self.scrapes.load(Ordering::Relaxed) {
            self.tally.deepest_in_window.get()
        } else {
            0
        }
    }

    /// Sets the books right after the acceptor died: what it had accepted of an unfinished batch is a batch, and the
    /// connections it held are closed. By the one who takes over.
    fn take_over(&self) {
        let tally = &self.tally;
        let unrecorded = tally.accepts.get().saturating_sub(tally.batch.snapshot().sum);
        tally.batch.record_n(unrecorded, u64::from(unrecorded > 0));
        tally.closed[End::Killed as usize].add(tally.accepts.get().saturating_sub(tally.all_closed()));
        tally.unhandled.set(0);
    }

    /// The counts as they stand.
    pub(crate) fn read(&self) -> AcceptorCounts {
        let tally = &self.tally;
        AcceptorCounts {
            pid: u32::try_from(self.pid.get()).unwrap_or(0),
            deaths: self.deaths.get(),
            restarts: self.restarts.get(),
            lost_at_most: self.lost_at_most.get(),
            accepts: tally.accepts.get(),
            service_ns: tally.service.get(),
            wakeups_work: tally.wakeups_work.get(),
            wakeups_empty: tally.wakeups_empty.get(),
            errors: ERRNOS
                .iter()
                .zip(&tally.errors)
                .filter(|(_, count)| count.get() > 0)
                .map(|(name, count)| ((*name).to_owned(), count.get()))
                .collect(),
            pauses: tally.pauses.get(),
            dead_on_accept: tally.dead_on_accept.get(),
            late_handshakes: tally.late_handshakes.get(),
            greetings: tally.greetings.get(),
            replies: tally.replies.get(),
            closed_by_peer: tally.closed(End::Peer),
            closed_by_server: tally.closed(End::Server),
            closed_by_reset: tally.closed(End::Reset),
            closed_on_error: tally.closed(End::Error),
            closed_by_kill: tally.closed(End::Killed),
            forks: tally.forks.get(),
            unhandled: tally.unhandled.get(),
        }
    }
}

impl Tally {
    /// Counts the end of a connection.
    #[inline]
    pub(crate) fn close(&self, end: End) {
        self.closed[end as usize].add(1);
    }

    /// Connections that ended, for whatever reason.
    pub(crate) fn all_closed(&self) -> u64 {
        self.closed.iter().map(Counter::get).sum()
    }

    fn closed(&self, end: End) -> u64 {
        self.closed[end as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desks() -> Desks {
        Arc::new(Shared::new("desks", 2).unwrap())
    }

    #[test]
    fn the_deepest_since_the_last_scrape_is_forgotten_at_the_next() {
        let desks = desks();
        let desk = DeskOf::new(&desks, 1);
        desk.note_depth(5);
        desk.note_depth(3);
        assert_eq!((desk.deepest_in_window(), desk.tally.deepest.get()), (5, 5));
        desk.new_window();
        assert_eq!(desk.deepest_in_window(), 0);
        desk.note_depth(2);
        assert_eq!((desk.deepest_in_window(), desk.tally.deepest.get()), (2, 5));
    }

    #[test]
    fn who_takes_over_settles_the_books_of_who_died() {
        let desks = desks();
        let desk = DeskOf::new(&desks, 0);
        desk.tally.accepts.add(10);
        desk.tally.batch.record(7);
        (0..6).for_each(|_| desk.tally.close(End::Server));
        desk.take_over();
        assert_eq!(desk.tally.batch.snapshot().sum, 10);
        assert_eq!((desk.read().closed_by_kill, desk.read().open()), (4, 0));
        desk.take_over();
        assert_eq!((desk.tally.batch.snapshot().count, desk.read().closed_by_kill), (2, 4), "once");
    }
}
