//! The raw baseline: connect and reset, accept and close, and nothing else. No clock, no ledger, no histogram: what is
//! left is the kernel's work, and how far a program can go here.
//!
//! `raw-server threads=N` accepts and closes until SIGTERM, one listener per thread, each pinned to a CPU that the kernel
//! steers by (`SO_INCOMING_CPU`). `raw-client mode=M threads=N in-flight=K ms=T` connects and resets, K at a time in each
//! thread, for T milliseconds.

mod epoll;
mod uring;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kernel::process::{Signal, Signals};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self as events, EventData, EventFlags};
use telemetry::counter::{Counter, Padded};

use crate::scene::ADDRESS;
use crate::sockets::{Share, accept, listener, pin};
use crate::words::Words;

/// Connections taken before the server looks whether it must wait again.
const BATCH: usize = 64;

/// How a client thread drives its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A system call per step.
    Epoll,
    /// A chain of linked requests per connection.
    Uring,
    /// The same sockets again and again: connect, and connect to `AF_UNSPEC`.
    UringReused,
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "epoll" => Ok(Self::Epoll),
            "io-uring" => Ok(Self::Uring),
            "io-uring-reused" => Ok(Self::UringReused),
            _ => Err("use epoll, io-uring or io-uring-reused"),
        }
    }
}

/// What one thread has to do, and what it did.
#[derive(Debug)]
struct Worker {
    target: SocketAddr,
    in_flight: usize,
    stop: AtomicBool,
    connected: Padded<Counter>,
    failed: Padded<Counter>,
}

impl Worker {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The role `raw-client`: one line about what it did.
///
/// # Errors
/// An argument is wrong, or a thread could not go on.
pub(crate) fn client(words: &[String]) -> anyhow::Result<String> {
    let (mode, threads, in_flight, milliseconds) = client_words(words).map_err(anyhow::Error::msg)?;
    let target: SocketAddr = ADDRESS.parse()?;
    let worker = || {
        let (connected, failed) = (Padded(Counter::new()), Padded(Counter::new()));
        Arc::new(Worker { target, in_flight, stop: AtomicBool::new(false), connected, failed })
    };
    let workers: Vec<Arc<Worker>> = (0..threads).map(|_| worker()).collect();
    let began = Instant::now();
    let start = |(number, worker): (usize, &Arc<Worker>)| {
        let worker = Arc::clone(worker);
        std::thread::spawn(move || -> anyhow::Result<()> {
            pin(number)?;
            match mode {
                Mode::Epoll => epoll::run(&worker),
                Mode::Uring => uring::run(&worker, uring::Sockets::Fresh),
                Mode::UringReused => uring::run(&worker, uring::Sockets::Reused),
            }
        })
    };
    let running: Vec<_> = workers.iter().enumerate().map(start).collect();
    std::thread::sleep(Duration::from_millis(milliseconds));
    // Read first: what is in flight when time is up does not count.
    let sum = |which: fn(&Worker) -> &Counter| workers.iter().map(|worker| which(worker).get()).sum::<u64>();
    let (connected, failed) = (sum(|worker| &worker.connected), sum(|worker| &worker.failed));
    let seconds = began.elapsed().as_secs_f64();
    for worker in &workers {
        worker.stop.store(true, Ordering::Relaxed);
    }
    for thread in running {
        thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    Ok(format!("connected {connected} failed {failed} seconds {seconds:.6}"))
}

fn client_words(words: &[String]) -> Result<(Mode, usize, usize, u64), String> {
    let mut words = Words::read(words)?;
    let read = (words.take("mode")?, words.take("threads")?, words.take("in-flight")?, words.take("ms")?);
    words.end()?;
    Ok(read)
}

/// The role `raw-server`: one line about what it did, after SIGTERM.
///
/// # Errors
/// An argument is wrong, or a thread could not listen.
pub(crate) fn server(words: &[String]) -> anyhow::Result<String> {
    let threads = threads(words).map_err(anyhow::Error::msg)?;
    let signals = Signals::block_and_watch(&[Signal::TERM])?;
    let accepted: Vec<_> = (0..threads).map(|_| Arc::new(Padded(Counter::new()))).collect();
    for (number, accepted) in accepted.iter().enumerate() {
        let accepted = Arc::clone(accepted);
        // Ends with the process.
        std::thread::spawn(move || {
            if let Err(error) = take(number, &accepted) {
                eprintln!("raw-server: {error:#}");
                std::process::exit(1);
            }
        });
    }
    signals.wait()?;
    Ok(format!("accepted {}", accepted.iter().map(|accepted| accepted.get()).sum::<u64>()))
}

/// `threads=N`, which is all that the servers of the bench are told.
pub(crate) fn threads(words: &[String]) -> Result<usize, String> {
    let mut words = Words::read(words)?;
    let threads = words.take("threads")?;
    words.end()?;
    Ok(threads)
}

/// One acceptor: waits, accepts and closes, for ever.
fn take(number: usize, accepted: &Counter) -> anyhow::Result<()> {
    let listener = listener(ADDRESS.parse()?, Share::Cpu(pin(number)?))?;
    let epoll = events::create(events::CreateFlags::CLOEXEC).context("make an epoll")?;
    events::add(&epoll, &listener, EventData::new_u64(0), EventFlags::IN)?;
    let mut ready = Vec::with_capacity(1);
    loop {
        ready.clear();
        match events::wait(&epoll, spare_capacity(&mut ready), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => bail!("wait for connections: {errno}"),
        }
        for _ in 0..BATCH {
            let Some(connection) = accept(&listener)? else { break };
            drop(connection);
            accepted.add(1);
        }
    }
}
