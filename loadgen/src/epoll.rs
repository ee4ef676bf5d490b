//! The engine `epoll`: a system call per step, edge-triggered events, timers in the same set to the nanosecond.

mod alarms;
mod slot;

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use kernel::process::{self, monotonic_ns};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, bind, connect, connect_unspec, sendto, shutdown};

use crate::attempt::{self, NotIssued};
use crate::hope::Hope;
use crate::opts::{Confirm, Sockets};
use crate::plan::Plan;
use crate::reactor::{Reactor, Seen, Token, Wants};
use alarms::Alarms;
use slot::Slot;

/// Events taken per wait.
const EVENTS: usize = 256;

/// The stop eventfd, and the timers.
const WAKE_UP: u64 = u64::MAX;

/// `MSG_FASTOPEN` of sendto(2), not in rustix.
const FAST_OPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);

/// An epoll set and the sockets in it.
#[derive(Debug)]
pub(crate) struct Epoll {
    plan: Arc<Plan>,
    set: OwnedFd,
    /// In the set as long as it is open.
    _stop: OwnedFd,
    slots: Vec<Slot>,
    /// Data and flags. What rustix has for them stays in its thread.
    events: Vec<(u64, epoll::EventFlags)>,
    /// Events already looked at.
    looked_at: usize,
    /// A socket for the next attempt, made while there was time, and what it is to connect to.
    ready: Option<(SocketAddr, OwnedFd)>,
    /// What the last attempt was to connect to.
    target: Option<SocketAddr>,
    /// What is known and not told yet.
    untold: VecDeque<(Token, Seen)>,
    /// Who has more to be thrown away.
    unfinished: Vec<Token>,
    alarms: Alarms,
    /// Is `epoll_pwait2(2)` refused? An older container's seccomp profile knows it not.
    refused: bool,
    /// When the wait after the next one will end (monotonic ns), as far as is known.
    foreseen: Option<u64>,
    hope: Hope,
}

impl Epoll {
    /// A set that `stop` wakes up.
    pub(crate) fn new(plan: Arc<Plan>, stop: OwnedFd) -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&set, &stop, epoll::EventData::new_u64(WAKE_UP), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(Self {
            alarms: Alarms::new(&set, WAKE_UP)?,
            plan,
            set,
            _stop: stop,
            slots: Vec::new(),
            events: Vec::with_capacity(EVENTS),
            looked_at: 0,
            ready: None,
            target: None,
            untold: VecDeque::new(),
            unfinished: Vec::new(),
            refused: false,
            foreseen: None,
            hope: Hope::default(),
        })
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        self.slots.get_mut(token.index()).filter(|slot| slot.is_of(token))
    }

    /// The socket of an attempt that begins: the one in its slot if sockets are reused, the one made ready, or a new one.
    fn take_socket(&mut self, token: Token, target: SocketAddr, source: Option<usize>) -> Result<(), NotIssued> {
        let not_called = |errno| NotIssued { errno, called: false };
        let index = token.index();
        while self.slots.len() <= index {
            self.slots.push(Slot::default());
        }
        let slot = &mut self.slots[index];
        slot.begin(token);
        if slot.socket.is_none() {
            let socket = match self.ready.take() {
                Some((of, socket)) if of == target => socket,
                _ => new_socket(&self.plan, target).map_err(not_called)?,
            };
            if let Some(number) = source {
                bind(&socket, &SocketAddr::new(self.plan.sources[number], 0)).map_err(not_called)?;
            }
            slot.socket = Some(socket);
            slot.watched = false;
        }
        Ok(())
    }

    /// Makes the socket of the next attempt now that there is time, so that at its instant only connect(2) is left to do. One
    /// that cannot be had is asked for again then, and its attempt fails as it must.
    fn make_ready(&mut self) {
        if let (Some(target), None, Sockets::Fresh) = (self.target, &self.ready, self.plan.opts.sockets) {
            self.ready = new_socket(&self.plan, target).ok().map(|socket| (target, socket));
        }
    }

    /// Puts the attempt's socket in the set, where everything that happens to it is told.
    fn watch(&mut self, token: Token) {
        let slot = &mut self.slots[token.index()];
        let Some(socket) = &slot.socket else { return };
        // A socket that is used again is in the set under another name.
        let watch = if slot.watched { epoll::modify } else { epoll::add };
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        match watch(&self.set, socket, epoll::EventData::new_u64(token.into()), flags) {
            Ok(()) => (slot.watched, slot.named) = (true, true),
            // ENOSPC (fs.epoll.max_user_watches) or ENOMEM: nobody would ever look at this socket again.
            Err(errno) => self.untold.push_back((token, Seen::Failed(errno))),
        }
    }

    /// connect(2), or with fast open sendto(2), which is both in one.
    fn connect(&mut self, token: Token, target: SocketAddr) -> Result<(), Errno> {
        let index = token.index();
        let Some(socket) = self.slots[index].socket.as_ref() else { return Ok(()) };
        if self.plan.opts.fastopen {
            let sent = sendto(socket, self.plan.opts.send.bytes(), FAST_OPEN | SendFlags::NOSIGNAL, &target);
            // EINPROGRESS: there is no cookie yet, and the SYN went without the bytes. What does not fit one follows later.
            self.slots[index].said = sent.unwrap_or(0);
            return sent.map(drop).or_else(|errno| if errno == Errno::INPROGRESS { Ok(()) } else { Err(errno) });
        }
        match connect(socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// What an event says of its attempt. An event that says two things leaves the second in `untold`.
    fn interpret(&mut self, token: Token, flags: epoll::EventFlags) -> Option<Seen> {
        let opts = &self.plan.opts;
        let confirm = opts.confirm;
        let slot = self.slots.get_mut(token.index()).filter(|slot| slot.is_of(token))?;
        let connecting = slot.wants == Wants::Connection;
        let readable = flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP);
        let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        if connecting && !broken && confirm == Confirm::Reply {
            slot.speak(opts.send.bytes());
        }
        // A byte that came before a reset still counts: read first.
        let read = if readable && (confirm != Confirm::None || broken || !connecting) {
            slot.read(opts.expect.bytes())
        } else if broken {
            slot.socket.as_ref().and_then(|socket| attempt::error(socket.as_fd())).map(Seen::Failed)
        } else {
            None
        };
        if !connecting || matches!(read, Some(Seen::Failed(_))) {
            if slot.more {
                self.unfinished.push(token);
            }
            return read;
        }
        slot.wants = Wants::Answer;
        self.untold.extend(read.map(|read| (token, read)));
        Some(Seen::Connected)
    }

    /// What happened, by `epoll_wait(2)`; unless something is `due`, it is waited for.
    fn take_events_the_old_way(&mut self, due: bool) -> io::Result<()> {
        match process::epoll_wait(&self.set, !due) {
            Ok(found) => self
                .events
                .extend(found.into_iter().map(|(flags, data)| (data, epoll::EventFlags::from_bits_retain(flags)))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A socket with its options set.
fn new_socket(plan: &Plan, target: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = attempt::open(target)?;
    for option in &*plan.options {
        option.apply(socket.as_fd()).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    }
    Ok(socket)
}

/// Is the handshake over, and well? Changes nothing: an error stays for the event that tells of it.
fn is_connected(socket: BorrowedFd<'_>) -> bool {
    let mut look = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    poll(&mut look, Some(&Timespec::default())).is_ok() && look[0].revents() == PollFlags::OUT
}

impl Reactor for Epoll {
    fn enter(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn open(&mut self, token: Token, target: SocketAddr, source: Option<usize>) -> Result<u64, NotIssued> {
        self.target = Some(target);
        self.take_socket(token, target, source)?;
        let issued = monotonic_ns();
        if let Err(errno) = self.connect(token, target) {
            self.slots[token.index()].socket = None;
            return Err(NotIssued { errno, called: true });
        }
        let opts = &self.plan.opts;
        if opts.confirm == Confirm::None && !opts.fastopen && self.hope.is_alive() {
            let slot = &mut self.slots[token.index()];
            let there = slot.socket.as_ref().is_some_and(|socket| is_connected(socket.as_fd()));
            self.hope.note(there);
            if there {
                slot.wants = Wants::Answer;
                self.untold.push_back((token, Seen::Connected));
                return Ok(issued);
            }
        }
        self.watch(token);
        Ok(issued)
    }

    fn foresee(&mut self, then: u64) {
        self.foreseen = Some(then);
    }

    fn wait(&mut self, until: Option<u64>) -> io::Result<()> {
        self.events.clear();
        self.looked_at = 0;
        let then = self.foreseen.take();
        let until = if self.untold.is_empty() && self.unfinished.is_empty() { until } else { Some(0) };
        self.events.extend(self.unfinished.drain(..).map(|token| (token.into(), epoll::EventFlags::IN)));
        if until != Some(0) {
            self.make_ready();
        }
        let now = monotonic_ns();
        let due = until.is_some_and(|until| until <= now);
        if let (Some(until), false) = (until, due) {
            self.alarms.set(now, until, then)?;
        }
        if self.refused {
            return self.take_events_the_old_way(due);
        }
        let timeout = due.then(Timespec::default);
        match epoll::wait(&self.set, &mut [MaybeUninit::uninit(); EVENTS], timeout.as_ref()) {
            Ok((found, _)) => {
                self.events.extend(found.iter().map(|event| (event.data.u64(), event.flags)));
                Ok(())
            }
            // A signal ends a wait early, and that is all.
            Err(Errno::INTR) => Ok(()),
            Err(Errno::NOSYS | Errno::PERM) => {
                self.refused = true;
                self.take_events_the_old_way(due)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn next(&mut self) -> Option<(Token, Seen)> {
        loop {
            if let Some(told) = self.untold.pop_front() {
                return Some(told);
            }
            let (data, flags) = *self.events.get(self.looked_at)?;
            self.looked_at += 1;
            let token = Token::from(data);
            if data != WAKE_UP
                && let Some(seen) = self.interpret(token, flags)
            {
                return Some((token, seen));
            }
        }
    }

    fn look_again(&mut self, token: Token) -> Option<Seen> {
        if let Some(at) = self.untold.iter().position(|(of, _)| *of == token) {
            return self.untold.remove(at).map(|(_, seen)| seen);
        }
        let expected = self.plan.opts.expect.bytes();
        let slot = self.slots.get_mut(token.index()).filter(|slot| slot.is_of(token))?;
        let socket = slot.socket.as_ref()?.as_fd();
        if slot.wants == Wants::Connection {
            if !attempt::is_established(socket) {
                return attempt::error(socket).map(Seen::Failed);
            }
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
            return self.interpret(token, flags);
        }
        slot.read(expected)
    }

    fn with_socket<T>(&mut self, token: Token, ask: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        self.slot(token)?.socket.as_ref().map(|socket| ask(socket.as_fd()))
    }

    fn watch_end(&mut self, token: Token) {
        let Some(slot) = self.slot(token) else { return };
        slot.wants = Wants::End;
        if !slot.named {
            self.watch(token);
        }
        let Some(slot) = self.slot(token) else { return };
        // The edge may have been before.
        let ended = slot.throw_away();
        if slot.more {
            self.unfinished.push(token);
        }
        self.untold.extend(ended.map(|ended| (token, ended)));
    }

    fn shut(&mut self, token: Token) {
        // ENOTCONN: it is over already, which reading tells.
        let _ = self.with_socket(token, |socket| shutdown(socket, Shutdown::Write));
        self.watch_end(token);
    }

    fn close(&mut self, token: Token, fit: bool) {
        let reused = self.plan.opts.sockets == Sockets::Reused;
        let Some(slot) = self.slot(token) else { return };
        slot.token = Token::NONE;
        let again = fit && reused && slot.socket.as_ref().is_some_and(|socket| connect_unspec(socket).is_ok());
        if !again {
            slot.socket = None;
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.slots.clear();
        self.ready = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
