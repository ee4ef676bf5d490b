//! The sampling thread: one dump of all listeners per tick, and everything else that is read of the namespace.
//!
//! It alone enters another namespace and it alone reads the kernel: `/proc/thread-self/net`, `/proc/sys/net` and a netlink
//! socket belong to the namespace of the thread that opens them. Whoever wants to know sends a [`Question`] and waits, not
//! for ever, for the answer.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use kernel::netstat::NetCounters;
use kernel::process::{monotonic_ns, thread_cpu_ns};
use kernel::sock_diag::{ListenerEntry, SockDiag};
use telemetry::namespace::{Detail, NamespaceReader, SourceReading};

use crate::board::{Asker, Board};
use crate::commands::Commands;
use crate::filter::Filter;
use crate::opts::Opts;
use crate::snapshot::Snapshot;
use crate::target::{Attached, Target};
use crate::watcher::StartError;

const SECOND: u64 = 1_000_000_000;

/// For what somebody wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A page of this detail; a scrape begins a new window.
    Page(Detail),
    /// The table, which begins a new window of its own.
    Table,
}

/// What the thread is sent.
#[derive(Debug)]
pub(crate) enum Question {
    /// To say what there is.
    Ask(Ask, SyncSender<Snapshot>),
    /// To end.
    Stop,
}

/// When an asker's window began.
#[derive(Debug, Clone, Copy)]
struct Window {
    began_ns: u64,
    net: NetCounters,
}

/// What the thread works on.
#[derive(Debug)]
pub(crate) struct Sampler {
    netns: Option<String>,
    attached: Option<Attached>,
    target_checked_ns: u64,
    period_ns: u64,
    diag: SockDiag,
    reader: NamespaceReader,
    /// What the last dump found; kept for its memory.
    entries: Vec<ListenerEntry>,
    dump: SourceReading,
    board: Board,
    commands: Commands,
    windows: [Window; 2],
}

impl Sampler {
    /// Enters the target and takes the first look. To be called on the thread that samples.
    pub(crate) fn begin(opts: &Opts, target: Option<Target>) -> Result<Self, StartError> {
        let attached = target.map(Target::enter).transpose()?;
        let mut reader = NamespaceReader::open();
        let window = Window { began_ns: monotonic_ns(), net: reader.read(Detail::Books).net };
        let mut sampler = Self {
            netns: opts.netns.as_ref().map(ToString::to_string),
            attached,
            target_checked_ns: 0,
            period_ns: SECOND / u64::from(opts.rate),
            diag: SockDiag::open().map_err(StartError::SockDiag)?,
            reader,
            entries: Vec::new(),
            dump: SourceReading { name: "listeners".to_owned(), up: false, seconds: 0.0 },
            board: Board::new(Filter::new(opts), opts.max_listeners.get() as usize),
            commands: Commands::new(opts.rate),
            windows: [window; 2],
        };
        sampler.diag.listeners_into(&mut sampler.entries).map_err(StartError::Listing)?;
        sampler.look();
        Ok(sampler)
    }

    /// Samples and answers until told to stop or until the target is over; what it knew last.
    pub(crate) fn run(mut self, questions: &Receiver<Question>) -> Snapshot {
        let mut next = monotonic_ns();
        loop {
            match questions.recv_timeout(Duration::from_nanos(next.saturating_sub(monotonic_ns()))) {
                Ok(Question::Ask(question, reply)) => self.answer(question, &reply),
                Ok(Question::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = monotonic_ns();
            if now < next {
                continue;
            }
            next = following_tick(next, now, self.period_ns);
            self.look();
            self.commands.tick(now, || self.board.inodes(&self.entries));
            if self.target_is_over(now) {
                break;
            }
        }
        self.snapshot(Detail::Books, Asker::Scrape)
    }

    /// One dump. What cannot be listed stays as it was, and its source is down.
    fn look(&mut self) {
        let began = monotonic_ns();
        let listed = self.diag.listeners_into(&mut self.entries);
        let now = monotonic_ns();
        self.dump.up = listed.is_ok();
        self.dump.seconds = Duration::from_nanos(now - began).as_secs_f64();
        match listed {
            Ok(()) => self.board.look(&self.entries, now, &self.commands),
            Err(error) => tracing::debug!(%error, "a look at the listeners failed"),
        }
    }

    /// Has whoever named the namespace ended, and does nothing listen there any more? Then the thread ends too, since
    /// it would keep the namespace alive. Looked up once a second.
    fn target_is_over(&mut self, now: u64) -> bool {
        let Some(attached) = &self.attached else { return false };
        if now.saturating_sub(self.target_checked_ns) < SECOND {
            return false;
        }
        self.target_checked_ns = now;
        self.dump.up && self.entries.is_empty() && !attached.is_there()
    }

    /// Looks once more and says what there is now.
    fn answer(&mut self, question: Ask, reply: &SyncSender<Snapshot>) {
        self.look();
        let (detail, asker) = match question {
            Ask::Page(detail) => (detail, Asker::Scrape),
            Ask::Table => (Detail::Full, Asker::Table),
        };
        let snapshot = self.snapshot(detail, asker);
        let (now, net) = (snapshot.monotonic_ns, snapshot.kernel.net);
        // A window ends when somebody learns what was in it.
        let learnt = reply.try_send(snapshot).is_ok();
        if learnt && matches!(question, Ask::Page(Detail::Scrape) | Ask::Table) {
            self.windows[asker as usize] = Window { began_ns: now, net };
            self.board.begin_window(asker);
        }
    }

    fn snapshot(&mut self, detail: Detail, asker: Asker) -> Snapshot {
        let mut kernel = self.reader.read(detail);
        kernel.sources.push(self.dump.clone());
        if let Some(attached) = &self.attached {
            let began = monotonic_ns();
            let up = attached.is_there();
            let seconds = Duration::from_nanos(monotonic_ns() - began).as_secs_f64();
            kernel.sources.push(SourceReading { name: "netns".to_owned(), up, seconds });
        }
        let now = monotonic_ns();
        let window = self.windows[asker as usize];
        Snapshot {
            netns: self.netns.clone(),
            monotonic_ns: now,
            window_ns: now.saturating_sub(window.began_ns),
            samples: self.board.looks(),
            sampler_cpu_ns: thread_cpu_ns(),
            omitted: self.board.omitted(),
            listeners: self.board.listeners(asker, &self.commands),
            in_window: kernel.net.since(&window.net),
            kernel,
        }
    }
}

/// The next tick after `now`. Ticks do not drift, and one that was missed is not made up for.
pub(crate) fn following_tick(tick: u64, now: u64, period: u64) -> u64 {
    tick + (now.saturating_sub(tick) / period + 1) * period
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_do_not_drift_and_missed_ones_are_left_out() {
        assert_eq!(following_tick(1000, 1000, 100), 1100);
        assert_eq!(following_tick(1000, 1007, 100), 1100, "late by 7");
        assert_eq!(following_tick(1000, 1100, 100), 1200);
        assert_eq!(following_tick(1000, 1350, 100), 1400, "three were missed");
    }
}
