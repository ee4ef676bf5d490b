//! The epoll engines: epoll(7) on the listeners, then accept4(2) until the queue is empty or the batch is full. Level and
//! edge triggered, and level with `EPOLLEXCLUSIVE`, which differ only in how the kernel is asked to wake.
//!
//! Whatever the trigger, no connection is stranded: after a full batch the queue is looked at again without waiting, and
//! a listener that was left alone for want of descriptors is added anew, which reports what waits there.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use kernel::process::monotonic_ns;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{EventData, EventFlags};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::acceptor::{Acceptor, Left, RESOURCE_PAUSE};
use crate::connection::Connection;
use crate::connections::Connections;

/// Tokens below are listeners by number; connections have greater ones.
const STOP: u64 = u32::MAX as u64;

/// Events taken per wait.
const EVENTS: usize = 256;

/// How often an acceptor that only serves what is open looks whether it must end at once.
const LOOK_NS: u64 = 10_000_000;

/// What a connection is watched for. Edge-triggered, because it is always advanced as far as it goes.
const READS: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// Level-triggered.
pub(crate) fn run_level(acceptor: &mut Acceptor) -> io::Result<()> {
    run(acceptor, EventFlags::IN)
}

/// Edge-triggered (`EPOLLET`).
pub(crate) fn run_edge(acceptor: &mut Acceptor) -> io::Result<()> {
    run(acceptor, EventFlags::IN | EventFlags::ET)
}

/// Level-triggered, one waiter woken per event (`EPOLLEXCLUSIVE`, Linux 4.5).
pub(crate) fn run_exclusive(acceptor: &mut Acceptor) -> io::Result<()> {
    run(acceptor, EventFlags::IN | EventFlags::EXCLUSIVE)
}

/// What the loop knows of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// The kernel says when somebody waits.
    Watched,
    /// The last batch was full: somebody may wait.
    Unfinished,
    /// Descriptors or memory had run out: left alone until this instant (monotonic ns).
    Shut { until: u64 },
}

struct Loop {
    epoll: OwnedFd,
    trigger: EventFlags,
    doors: Vec<Door>,
    connections: Connections,
}

fn run(acceptor: &mut Acceptor, trigger: EventFlags) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, acceptor.stop_fd(), EventData::new_u64(STOP), EventFlags::IN)?;
    for (index, listener) in acceptor.listeners.iter().enumerate() {
        epoll::add(&epoll, listener, EventData::new_u64(index as u64), trigger)?;
    }
    let doors = vec![Door::Watched; acceptor.listeners.len()];
    Loop { epoll, trigger, doors, connections: Connections::default() }.run(acceptor)
}

impl Loop {
    fn run(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        while !acceptor.desk.is_stopped() {
            let look = self.next_look().into_iter().chain(acceptor.reap()).min();
            self.wait(&mut events, look)?;
            for event in &events {
                match event.data.u64() {
                    STOP => {}
                    index if index < STOP => self.open(acceptor, usize::try_from(index).unwrap_or(0)),
                    token => self.advance(acceptor, token),
                }
            }
            self.go_round(acceptor)?;
            self.connections.advance_due(monotonic_ns(), acceptor.tally());
        }
        for listener in &acceptor.listeners {
            // ENOENT where it was shut.
            let _ = epoll::delete(&self.epoll, listener);
        }
        epoll::delete(&self.epoll, acceptor.stop_fd())?;
        if self.trigger.contains(EventFlags::EXCLUSIVE) {
            for connection in acceptor.take_what_only_this_one_was_told_of() {
                self.watch(acceptor, connection);
            }
        }
        acceptor.let_go();
        self.serve_what_is_open(acceptor, &mut events)
    }

    fn serve_what_is_open(&mut self, acceptor: &Acceptor, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        while !self.connections.is_empty() && !acceptor.desk.must_end() {
            let look = monotonic_ns() + LOOK_NS;
            self.wait(events, Some(self.connections.next_due().map_or(look, |due| due.min(look))))?;
            for event in events.iter() {
                self.advance(acceptor, event.data.u64());
            }
            self.connections.advance_due(monotonic_ns(), acceptor.tally());
        }
        self.connections.close_all(acceptor.tally());
        Ok(())
    }

    /// Waits for events until the instant `until` (monotonic ns), or for ever.
    fn wait(&self, events: &mut Vec<epoll::Event>, until: Option<u64>) -> io::Result<()> {
        events.clear();
        let left = until.map(|until| Duration::from_nanos(until.saturating_sub(monotonic_ns())));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match epoll::wait(&self.epoll, spare_capacity(events), left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// When the loop must look again though nothing happens; 0 for at once.
    fn next_look(&self) -> Option<u64> {
        let doors = self.doors.iter().filter_map(|door| match door {
            Door::Watched => None,
            Door::Unfinished => Some(0),
            Door::Shut { until } => Some(*until),
        });
        doors.chain(self.connections.next_due()).min()
    }

    /// Goes on with unfinished queues, and opens doors whose time has come.
    fn go_round(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
        for index in 0..self.doors.len() {
            match self.doors[index] {
                Door::Unfinished => self.take(acceptor, index),
                Door::Shut { until } if monotonic_ns() >= until => {
                    let data = EventData::new_u64(index as u64);
                    epoll::add(&self.epoll, &acceptor.listeners[index], data, self.trigger)?;
                    self.doors[index] = Door::Watched;
                }
                Door::Watched | Door::Shut { .. } => {}
            }
        }
        Ok(())
    }

    /// The kernel says that somebody waits. An unfinished door has its turn in [`Self::go_round`].
    fn open(&mut self, acceptor: &mut Acceptor, index: usize) {
        if self.doors[index] == Door::Watched {
            self.take(acceptor, index);
        }
    }

    /// Takes what waits at a listener, as one batch.
    fn take(&mut self, acceptor: &mut Acceptor, index: usize) {
        let mut open = Vec::new();
        let left = acceptor.take(index, |connection| open.push(connection));
        for connection in open {
            self.watch(acceptor, connection);
        }
        self.doors[index] = match left {
            Left::Somebody => Door::Unfinished,
            // Level-triggered it would be reported for ever, edge-triggered never again: adding it anew later does neither.
            // If it cannot be removed, it goes on being reported.
            Left::Alone if epoll::delete(&self.epoll, &acceptor.listeners[index]).is_ok() => {
                let pause = u64::try_from(RESOURCE_PAUSE.as_nanos()).unwrap_or(u64::MAX);
                Door::Shut { until: monotonic_ns() + pause }
            }
            Left::Nobody | Left::Alone => Door::Watched,
        };
    }

    fn watch(&mut self, acceptor: &Acceptor, connection: Connection) {
        let token = self.connections.insert(connection);
        let Some(connection) = self.connections.get(token) else { return };
        if epoll::add(&self.epoll, connection, EventData::new_u64(token), READS).is_err() {
            // ENOSPC (fs.epoll.max_user_watches) or ENOMEM: nobody would ever look at it again.
            self.connections.abandon(token, acceptor.tally());
        }
    }

    fn advance(&mut self, acceptor: &Acceptor, token: u64) {
        if self.connections.advance(token, monotonic_ns(), acceptor.tally())
            && let Some(connection) = self.connections.get(token).filter(|connection| connection.wants_to_send())
        {
            // From now on it also says when there is room; a failure would mean that it is gone.
            let _ = epoll::modify(&self.epoll, connection, EventData::new_u64(token), READS | EventFlags::OUT);
        }
    }
}
