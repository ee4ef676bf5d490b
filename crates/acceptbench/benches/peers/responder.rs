//! The least HTTP/1.1 server that every tool accepts: one fixed answer to each request, with `Connection: close`, then
//! close. So a request is a connection for every tool, whatever it would rather do.
//!
//! `responder threads=N` serves until SIGTERM, one listener per thread as the raw server has them.

use std::os::fd::OwnedFd;

use anyhow::Context;
use kernel::process::{Signal, Signals};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::{Errno, read};
use rustix::net::{SendFlags, send};

use crate::raw::threads;
use crate::scene::ADDRESS;
use crate::sockets::{Share, accept, listener, pin};

/// What every request gets.
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: peers\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// How a request without a body ends.
const END: &[u8] = b"\r\n\r\n";

/// User data of the listener; a connection has its slot.
const LISTENER: u64 = u64::MAX;

/// Events taken per wait.
const EVENTS: usize = 256;

/// Connections taken before those that are open have their turn.
const BATCH: usize = 64;

/// The connections of one thread whose request has not come yet.
pub(crate) struct Desk {
    epoll: OwnedFd,
    open: Vec<Option<OwnedFd>>,
    free: Vec<usize>,
    ready: Vec<epoll::Event>,
}

impl Desk {
    /// An empty one.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll")?;
        Ok(Self { epoll, open: Vec::new(), free: Vec::new(), ready: Vec::with_capacity(EVENTS) })
    }

    /// Has [`Desk::serve`] say when somebody waits at `listener`.
    pub(crate) fn watch(&self, listener: &OwnedFd) -> anyhow::Result<()> {
        Ok(epoll::add(&self.epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?)
    }

    /// Answers a new connection, now or when its request comes.
    pub(crate) fn admit(&mut self, connection: OwnedFd) -> anyhow::Result<()> {
        if answer(&connection) {
            return Ok(());
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        epoll::add(&self.epoll, &connection, EventData::new_u64(slot as u64), EventFlags::IN)?;
        self.open[slot] = Some(connection);
        Ok(())
    }

    /// Waits at most `longest` (for ever without), and answers whoever has asked. Does somebody wait at the listener?
    pub(crate) fn serve(&mut self, longest: Option<&Timespec>) -> anyhow::Result<bool> {
        self.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), longest) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for requests"),
        }
        let mut arrived = false;
        for event in &self.ready {
            let slot = event.data.u64();
            if slot == LISTENER {
                arrived = true;
                continue;
            }
            let slot = usize::try_from(slot)?;
            if self.open[slot].as_ref().is_some_and(answer) {
                // Closing it takes it out of the epoll too.
                self.open[slot] = None;
                self.free.push(slot);
            }
        }
        Ok(arrived)
    }
}

/// Reads what there is; is the connection to be closed? Everything must be read before, or closing would send a RST.
fn answer(connection: &OwnedFd) -> bool {
    let mut request = [0; 4096];
    loop {
        match read(connection, &mut request) {
            Ok(0) => return true,
            Ok(length) if request[..length].ends_with(END) => {
                // A client that has gone already misses nothing.
                let _ = send(connection, ANSWER, SendFlags::NOSIGNAL);
                return true;
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
}

/// The role `responder`.
///
/// # Errors
/// An argument is wrong, or a thread could not listen.
pub(crate) fn respond(words: &[String]) -> anyhow::Result<String> {
    let threads = threads(words).map_err(anyhow::Error::msg)?;
    let signals = Signals::block_and_watch(&[Signal::TERM])?;
    for number in 0..threads {
        // Ends with the process.
        std::thread::spawn(move || {
            if let Err(error) = work(number) {
                eprintln!("responder: {error:#}");
                std::process::exit(1);
            }
        });
    }
    signals.wait()?;
    Ok(String::new())
}

/// One thread: accepts and answers, for ever.
fn work(number: usize) -> anyhow::Result<()> {
    let listener = listener(ADDRESS.parse()?, Share::Cpu(pin(number)?))?;
    let mut desk = Desk::new()?;
    desk.watch(&listener)?;
    loop {
        if desk.serve(None)? {
            for _ in 0..BATCH {
                let Some(connection) = accept(&listener)? else { break };
                desk.admit(connection)?;
            }
        }
    }
}
