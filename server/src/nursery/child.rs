//! The nursery itself: the process that forks acceptors, watches them by pidfd and replaces those that die. It has one
//! thread for ever and waits in one poll(2).

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use kernel::fork::{Child, Forked, OneThread, exit_now};
use kernel::process::{self, ExitSummary, Signal, Signals, monotonic_ns, recv_fds};
use kernel::shared::Shared;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{LISTENERS, Orders, lost_at_most};
use crate::acceptor::Acceptor;
use crate::listener::Listener;
use crate::opts::Engine;
use crate::staff::Bells;
use crate::tally::{Desk, DeskOf, Desks};

/// How long acceptors that were told to end at once may take once the server has taken leave.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Time between two signals to an acceptor that is to leave its accept4(2).
const NUDGE_NS: u64 = 1_000_000;

/// An acceptor that lived less than this gives reason to wait before the next one.
const SHORT_LIFE_NS: u64 = 100_000_000;

/// The first wait, which doubles with each short life in a row.
const SHORTEST_DELAY_NS: u64 = 20_000_000;

/// The longest wait before an acceptor is replaced.
const LONGEST_DELAY_NS: u64 = 1_000_000_000;

/// More would be no message of ours: 1024 acceptors and 4096 listeners take less.
const LONGEST_ORDERS: u64 = 1 << 20;

/// The `__nursery` process.
pub(super) fn nursery() -> ExitCode {
    match attend() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the nursery of the acceptors");
            ExitCode::FAILURE
        }
    }
}

fn attend() -> io::Result<()> {
    // Ctrl-C and a service manager signal the whole group, but it is for the server to say when to stop.
    drop(Signals::block_and_watch(&[Signal::INT, Signal::TERM])?);
    process::interruptible()?;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Nobody below is to hold the control socket.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    match House::open(&control) {
        Ok(house) => house.keep(control),
        // The server says why.
        Err(error) => tell(&control, &Err(error)),
    }
}

/// Says how the start went.
fn tell(mut control: &UnixStream, how: &io::Result<()>) -> io::Result<()> {
    let how: Result<(), String> = how.as_ref().copied().map_err(ToString::to_string);
    let mut line = serde_json::to_vec(&how)?;
    line.push(b'\n');
    control.write_all(&line)
}

/// One acceptor's place.
#[derive(Debug, Default)]
struct Place {
    child: Option<Child>,
    /// When the child was forked, monotonic ns.
    born: u64,
    /// Lives shorter than [`SHORT_LIFE_NS`] in a row.
    short_lives: u32,
    /// When a replacement is due, monotonic ns.
    due: Option<u64>,
}

impl Place {
    /// The child has died at `now`: plans the next one.
    fn plan_next(&mut self, now: u64) {
        let short = now.saturating_sub(self.born) < SHORT_LIFE_NS;
        self.short_lives = if short { self.short_lives.saturating_add(1) } else { 0 };
        self.due = Some(now + delay_ns(self.short_lives));
    }
}

/// How long to wait after so many short lives in a row: 0, 20, 40, 80 ms … 1 s.
fn delay_ns(short_lives: u32) -> u64 {
    match short_lives.checked_sub(1) {
        None => 0,
        Some(doublings) => (SHORTEST_DELAY_NS << doublings.min(16)).min(LONGEST_DELAY_NS),
    }
}

/// What the nursery was woken for.
#[derive(Debug, Default)]
struct News {
    /// Does the control socket say something?
    asked: bool,
    /// The places of acceptors that have ended.
    ended: Vec<usize>,
}

/// All that the nursery holds.
struct House {
    one_thread: OneThread,
    orders: Orders,
    /// `None` once closed.
    listeners: Vec<Option<OwnedFd>>,
    desks: Desks,
    bells: Bells,
    places: Vec<Place>,
    /// `None` once the server has gone.
    control: Option<UnixStream>,
}

impl House {
    /// Receives everything.
    fn open(control: &UnixStream) -> io::Result<Self> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut length = [0; 8];
        let (got, fds) = recv_fds(control, &mut length, 3)?;
        let length = u64::from_le_bytes(length);
        let [desks, retired, others] =
            <[OwnedFd; 3]>::try_from(fds).map_err(|_| wrong("orders without descriptors"))?;
        if got != 8 || length > LONGEST_ORDERS {
            return Err(wrong("orders of no sensible length"));
        }
        let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
        let mut stream = control;
        stream.read_exact(&mut text)?;
        let orders: Orders = serde_json::from_slice(&text)?;
        let mut listeners = Vec::new();
        while listeners.len() < orders.listeners {
            let (got, fds) = recv_fds(control, &mut [0], LISTENERS)?;
            if got == 0 || fds.is_empty() {
                return Err(wrong("fewer listeners than announced"));
            }
            listeners.extend(fds.into_iter().map(Some));
        }
        let acceptors = orders.listeners_of.len();
        if orders.cpus.len() != acceptors || orders.listeners_of.iter().flatten().any(|l| *l >= listeners.len()) {
            return Err(wrong("orders that contradict themselves"));
        }
        Ok(Self {
            one_thread: OneThread::check()?,
            listeners,
            desks: Arc::new(Shared::open(desks, acceptors)?),
            bells: Bells::from_fds([retired, others], orders.to_retire.clone()),
            places: (0..acceptors).map(|_| Place::default()).collect(),
            control: None,
            orders,
        })
    }

    /// Forks the acceptors, says so, and watches over them until the server has gone and they have.
    fn keep(mut self, control: UnixStream) -> io::Result<()> {
        // From here on what is forked drops it with the rest.
        self.control = Some(control);
        let filled;
        (self, filled) = self.fill();
        if let Some(control) = &self.control {
            tell(control, &filled)?;
        }
        filled?;
        self.attend()
    }

    /// Forks the first acceptors.
    fn fill(mut self) -> (Self, io::Result<()>) {
        for index in 0..self.places.len() {
            let seated;
            (self, seated) = self.seat(index);
            if seated.is_err() {
                return (self, seated);
            }
        }
        (self, Ok(()))
    }

    /// Forks an acceptor. Only the nursery returns.
    fn seat(mut self, index: usize) -> (Self, io::Result<()>) {
        let nursery = std::process::id();
        let child = match self.one_thread.fork() {
            Ok(Forked::Child) => self.accept(index, nursery),
            Ok(Forked::Parent(child)) => child,
            Err(error) => return (self, Err(error)),
        };
        self.desks[index].pid.set(u64::from(child.id()));
        let place = &mut self.places[index];
        (place.child, place.born, place.due) = (Some(child), monotonic_ns(), None);
        (self, Ok(()))
    }

    /// What an acceptor does with its life. Nothing of the nursery's is flushed or run at its end.
    fn accept(self, index: usize, nursery: u32) -> ! {
        let ended = process::die_with_parent(Some(nursery)).and_then(|()| self.into_acceptor(index)?.run());
        if let Err(error) = &ended {
            tracing::error!(acceptor = index, %error, "an acceptor ended early");
        }
        exit_now(u8::from(ended.is_err()))
    }

    /// Keeps what acceptor number `index` needs and closes everything else.
    fn into_acceptor(mut self, index: usize) -> io::Result<Acceptor> {
        let mut own = Vec::new();
        for listener in &self.orders.listeners_of[index] {
            let socket = self.listeners[*listener].take().ok_or_else(|| io::Error::other("a closed listener"))?;
            own.push(Arc::new(Listener::from_fd(socket, self.orders.opts.backlog)?));
        }
        let bell = self.bells.into_of(index);
        let desk = DeskOf::new(&self.desks, index);
        Ok(Acceptor::new(&self.orders.opts, index, own, desk, bell, self.orders.cpus[index]))
    }

    fn attend(mut self) -> io::Result<()> {
        // Once the server has gone: when those who are left are killed, monotonic ns.
        let mut kill_at = None;
        let mut rung = [false; 2];
        loop {
            let news = self.wait(&mut rung, kill_at)?;
            self.reap(&news.ended);
            if news.asked && !self.close_listener() {
                self.control = None;
                // A server that ended its acceptors first has taken leave; any other was killed.
                let grace = if self.desks.iter().all(Desk::must_end) { GRACE } else { Duration::ZERO };
                kill_at = Some(monotonic_ns() + u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX));
            }
            if kill_at.is_some_and(|at| monotonic_ns() >= at) {
                self.kill_all();
            }
            if self.control.is_none() && self.places.iter().all(|place| place.child.is_none()) {
                return Ok(());
            }
            self = self.replace();
            self.nudge();
        }
    }

    /// Waits until something is to be done.
    fn wait(&self, rung: &mut [bool; 2], kill_at: Option<u64>) -> io::Result<News> {
        let due = self.places.iter().filter_map(|place| place.due).chain(kill_at);
        let nudge = self.to_nudge().next().map(|_| monotonic_ns() + NUDGE_NS);
        let limit = due.chain(nudge).min().map(|due| Duration::from_nanos(due.saturating_sub(monotonic_ns())));
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut fds: Vec<PollFd<'_>> = self.control.iter().map(|control| PollFd::new(control, PollFlags::IN)).collect();
        // A bell once rung stays readable.
        let bells = self.bells.fds();
        let listening: Vec<usize> = (0..2).filter(|bell| !rung[*bell]).collect();
        fds.extend(listening.iter().map(|bell| PollFd::new(&bells[*bell], PollFlags::IN)));
        let children = || self.places.iter().enumerate().filter_map(|(at, place)| Some((at, place.child.as_ref()?)));
        let first_child = fds.len();
        fds.extend(children().map(|(_, child)| PollFd::new(child, PollFlags::IN)));
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(News::default()),
            Err(errno) => return Err(errno.into()),
        }
        let controls = usize::from(self.control.is_some());
        for (fd, bell) in fds[controls..].iter().zip(listening) {
            rung[bell] = !fd.revents().is_empty();
        }
        let has_news = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ended = children().zip(&fds[first_child..]).filter(|(_, fd)| has_news(fd)).map(|((at, _), _)| at).collect();
        Ok(News { asked: fds[..controls].iter().any(has_news), ended })
    }

    /// Takes leave of those who have ended, and plans who follows.
    fn reap(&mut self, ended: &[usize]) {
        for index in ended.iter().copied() {
            let place = &mut self.places[index];
            let Some(child) = &place.child else { continue };
            let pid = child.id();
            // Nobody can tell any more once it was waited for.
            let cpu_ns = process::process_cpu_ns(pid).unwrap_or(0);
            let Ok(Some(ended)) = child.try_wait() else { continue };
            place.child = None;
            let desk = &self.desks[index];
            desk.cpu_ns.add(cpu_ns);
            let told = desk.is_stopped();
            if told && ended == ExitSummary::Code(0) {
                desk.set_over();
                continue;
            }
            desk.bury(lost_at_most(self.orders.opts.engine, self.orders.opts.handler, desk));
            tracing::error!(acceptor = index, pid, reason = %reason(ended), "an acceptor died");
            if told {
                desk.set_over();
            } else {
                place.plan_next(monotonic_ns());
            }
        }
    }

    /// Forks those who are due, unless nobody is needed any more.
    fn replace(mut self) -> Self {
        for index in 0..self.places.len() {
            let Some(due) = self.places[index].due else { continue };
            if self.desks[index].is_stopped() || self.control.is_none() {
                self.places[index].due = None;
                self.desks[index].set_over();
            } else if monotonic_ns() >= due {
                let seated;
                (self, seated) = self.seat(index);
                match seated {
                    Ok(()) => self.desks[index].restarts.add(1),
                    Err(error) => {
                        tracing::error!(acceptor = index, %error, "an acceptor that died cannot be replaced yet");
                        self.places[index].due = Some(monotonic_ns() + LONGEST_DELAY_NS);
                    }
                }
            }
        }
        self
    }

    /// Acceptors that may sit in accept4(2), where only a signal reaches them, and are to stop.
    fn to_nudge(&self) -> impl Iterator<Item = &Child> {
        let blocking = self.orders.opts.engine == Engine::Blocking;
        let all = self.places.iter().zip(self.desks.iter()).filter(move |_| blocking);
        all.filter(|(_, desk)| desk.is_stopped() && !desk.is_gone()).filter_map(|(place, _)| place.child.as_ref())
    }

    fn nudge(&self) {
        for child in self.to_nudge() {
            // ESRCH: it has ended.
            let _ = child.signal(Signal::USR1);
        }
    }

    /// Kills whoever is left and waits for them.
    fn kill_all(&mut self) {
        for child in self.places.iter().filter_map(|place| place.child.as_ref()) {
            let _ = child.signal(Signal::KILL);
        }
        for (place, desk) in self.places.iter_mut().zip(self.desks.iter()) {
            if let Some(child) = place.child.take() {
                let _ = child.wait();
                desk.bury(lost_at_most(self.orders.opts.engine, self.orders.opts.handler, desk));
                desk.set_over();
            }
        }
    }

    /// Does what the server asks: closes a listener, and says so. False when the server has gone.
    fn close_listener(&mut self) -> bool {
        let Some(control) = &mut self.control else { return false };
        let mut number = [0; 4];
        if control.read_exact(&mut number).is_err() {
            return false;
        }
        let number = usize::try_from(u32::from_le_bytes(number)).unwrap_or(usize::MAX);
        if let Some(listener) = self.listeners.get_mut(number) {
            *listener = None;
        }
        control.write_all(b"-").is_ok()
    }
}

fn reason(ended: ExitSummary) -> String {
    match ended {
        ExitSummary::Code(code) => format!("it exited with code {code}"),
        ExitSummary::Signal(signal) => format!("signal {signal} ended it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lives_in_a_row_are_replaced_ever_later() {
        let ms = 1_000_000;
        let delays: Vec<u64> = (0..9).map(|lives| delay_ns(lives) / ms).collect();
        assert_eq!(delays, [0, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(delay_ns(u32::MAX), LONGEST_DELAY_NS);
    }

    #[test]
    fn a_long_life_is_replaced_at_once() {
        let mut place = Place { born: 5, ..Place::default() };
        place.plan_next(6);
        assert_eq!((place.short_lives, place.due), (1, Some(6 + SHORTEST_DELAY_NS)));
        let died = 5 + SHORT_LIFE_NS;
        place.plan_next(died);
        assert_eq!((place.short_lives, place.due), (0, Some(died)));
    }
}
