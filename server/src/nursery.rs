//! Acceptors as processes. The server may have threads, so it never forks: it starts a process of one thread by exec, the
//! nursery (the private child module `child`), which forks every acceptor and replaces those that die.
//!
//! They meet in shared memory (the desks) and at the eventfds (the bells): that is how acceptors are told to stop and how
//! everything is counted. The control socket carries the start, the closing of a listener, and, by its end, the word that
//! the server has gone. The nursery's standard output is a lifeline: all acceptors inherit it and nobody writes to it, so
//! its end of file says that every process below has ended, however it did.
//!
//! No `PR_SET_PDEATHSIG` binds the nursery to the server: the signal comes when the *thread* ends that started it, which
//! need not be the one that lives longest. The control socket, which the kernel closes with the server's last thread, can
//! neither miss the end nor mistake another for it. Acceptors are bound to the nursery, which has one thread.

mod child;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kernel::process::{channel, send_fds};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::listener::Listener;
use crate::opts::{Engine, Handler, Opts};
use crate::plan::Plan;
use crate::staff::Bells;
use crate::tally::{Desk, Desks};
use crate::uring;

/// The first argument of the nursery's process.
const ROLE: &str = "__nursery";

/// How long the nursery may take to fork its acceptors: milliseconds, or something is wrong.
const START: Duration = Duration::from_secs(10);

/// How long the nursery may take to close a listener.
const CLOSE: Duration = Duration::from_secs(1);

/// How long the nursery may take to end once the control socket is closed: it gives its acceptors [`child::GRACE`].
const LEAVE: Duration = Duration::from_secs(3);

/// Listeners per message; the kernel takes 253 descriptors.
const LISTENERS: usize = 200;

/// What the nursery is told at the start. Three descriptors come with it: the desks and the two bells. The listeners
/// follow, [`LISTENERS`] at a time with one byte each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Orders {
    opts: Opts,
    listeners: usize,
    /// The listeners of each acceptor.
    listeners_of: Vec<Vec<usize>>,
    /// The CPU of each acceptor.
    cpus: Vec<Option<usize>>,
    /// The acceptors that watch the bell of the listener to be retired.
    to_retire: Vec<usize>,
}

/// The process that forks acceptors, as its server sees it.
#[derive(Debug)]
pub(crate) struct Nursery {
    desks: Desks,
    engine: Engine,
    handler: Handler,
    process: Mutex<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// `None` once the nursery was told to end.
    control: Option<UnixStream>,
    lifeline: OwnedFd,
    /// Have all processes ended?
    gone: bool,
}

impl Nursery {
    /// Starts the nursery and its acceptors.
    ///
    /// # Errors
    /// When the program cannot be started, or the nursery says that it cannot fork, or says nothing for 10 s. Nothing is
    /// left behind.
    pub(crate) fn start(
        plan: &Plan,
        program: &Path,
        listeners: &[Arc<Listener>],
        desks: &Desks,
        bells: &Bells,
        cpus: &[Option<usize>],
    ) -> io::Result<Self> {
        let orders = Orders {
            opts: plan.opts().clone(),
            listeners: listeners.len(),
            listeners_of: (0..desks.len()).map(|acceptor| plan.listeners_of(acceptor)).collect(),
            cpus: cpus.to_vec(),
            to_retire: bells.to_retire().to_vec(),
        };
        let (control, theirs) = channel()?;
        let mut command = Command::new(program);
        command.arg(ROLE).env_clear().stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        // It holds the other end of the control socket.
        drop(command);
        let told = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("a process without standard output"))
            .and_then(|lifeline| tell(&control, &orders, listeners, desks, bells).map(|()| lifeline));
        match told {
            Ok(lifeline) => {
                let process = Process { child, control: Some(control), lifeline: OwnedFd::from(lifeline), gone: false };
                let Opts { engine, handler, .. } = orders.opts;
                Ok(Self { desks: Arc::clone(desks), engine, handler, process: Mutex::new(process) })
            }
            Err(error) => {
                // Its acceptors, if there are any, die with it.
                let _ = child.kill();
                let _ = child.wait();
                Err(match error.kind() {
                    // It closed its end with or without having read everything.
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                        io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before its acceptors ran")
                    }
                    _ => error,
                })
            }
        }
    }

    /// Closes the nursery's own descriptor of a listener whose acceptors have let go of it.
    pub(crate) fn close_listener(&self, listener: usize) {
        let mut process = self.process();
        let Some(control) = &mut process.control else { return };
        let number = u32::try_from(listener).unwrap_or(u32::MAX).to_le_bytes();
        let closed = control
            .set_read_timeout(Some(CLOSE))
            .and_then(|()| control.write_all(&number))
            .and_then(|()| control.read_exact(&mut [0]));
        if let Err(error) = closed {
            tracing::error!(%error, listener, "the nursery of the acceptors did not close a listener");
        }
    }

    /// Have all acceptors ended, with none to follow?
    pub(crate) fn is_empty(&self) -> bool {
        self.desks.iter().all(Desk::is_over) || self.is_gone()
    }

    /// Have the nursery and all acceptors ended? If they did so untold, this says so in the log and sets the books.
    pub(crate) fn is_gone(&self) -> bool {
        let mut process = self.process();
        if !process.gone && hung_up(process.lifeline.as_fd(), Duration::ZERO) {
            process.gone = true;
            let ended = process.child.wait();
            if process.control.is_some() {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::error!(%how, "the nursery of the acceptors died, and they with it: nobody accepts any more");
            }
            // Nobody else writes there any more.
            for desk in self.desks.iter().filter(|desk| !desk.is_over()) {
                desk.bury(lost_at_most(self.engine, self.handler, desk));
                desk.set_over();
            }
        }
        process.gone
    }

    /// Ends the nursery, and with it acceptors that have not ended. May be called again.
    pub(crate) fn end(&self) {
        {
            let mut process = self.process();
            process.control = None;
            let began = Instant::now();
            while !process.gone && !hung_up(process.lifeline.as_fd(), LEAVE.saturating_sub(began.elapsed())) {
                if began.elapsed() >= LEAVE {
                    tracing::error!("the nursery of the acceptors does not end: killing it");
                    let _ = process.child.kill();
                    hung_up(process.lifeline.as_fd(), CLOSE);
                    break;
                }
            }
        }
        self.is_gone();
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends all that the nursery needs and waits until it says that its acceptors run.
fn tell(
    control: &UnixStream,
    orders: &Orders,
    listeners: &[Arc<Listener>],
    desks: &Desks,
    bells: &Bells,
) -> io::Result<()> {
    // A nursery that hangs must not make the server hang.
    control.set_write_timeout(Some(START))?;
    control.set_read_timeout(Some(START))?;
    let [retired, others] = bells.fds();
    let text = serde_json::to_vec(orders)?;
    // The length travels apart, so that no read reaches into data with other descriptors.
    send_fds(control, &(text.len() as u64).to_le_bytes(), &[desks.as_fd(), retired, others])?;
    send_fds(control, &text, &[])?;
    for listeners in listeners.chunks(LISTENERS) {
        let fds: Vec<BorrowedFd<'_>> = listeners.iter().map(|listener| listener.as_fd()).collect();
        send_fds(control, b"+", &fds)?;
    }
    let mut line = String::new();
    match BufReader::new(control).read_line(&mut line) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => serde_json::from_str::<Result<(), String>>(&line)?.map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("it said nothing for {} s", START.as_secs())))
        }
        Err(error) => Err(error),
    }
}

/// Connections that a dead acceptor may have left uncounted, at most: one between accept4(2) and the count, all that
/// its `io_uring` had completed, and the answers of children that it had not waited for.
fn lost_at_most(engine: Engine, handler: Handler, desk: &Desk) -> u64 {
    match (engine, handler) {
        (Engine::IoUringMultishot, _) => u64::from(uring::COMPLETIONS),
        (_, Handler::Fork) => 1 + desk.tally.accepts.get().saturating_sub(desk.tally.all_closed()),
        _ => 1,
    }
}

/// Waits at most `limit`; true when the other end is closed in every process.
fn hung_up(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    let limit = Timespec::try_from(limit).ok();
    poll(&mut fds, limit.as_ref()).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// The process of a server that this argument asks for; `None` for anything a user types.
pub fn process(role: &str) -> Option<fn() -> ExitCode> {
    (role == ROLE).then_some(child::nursery)
}
