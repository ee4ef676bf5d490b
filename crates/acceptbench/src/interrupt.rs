//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends the program at once. SIGUSR2 asks a server for a
//! hot restart; nobody else watches it.

use std::sync::mpsc::{self, Receiver};

use kernel::process::Signals;
use rustix::process::Signal;
use telemetry::Stop;

use crate::exit::Failure;
use crate::terminal;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// An orderly end.
    Stop,
    /// A hot restart.
    Restart,
}

/// The requests of a program that can be restarted while it runs.
#[derive(Debug)]
pub(crate) struct Requests {
    /// Requested together with [`Request::Stop`], for those who wait for something else meanwhile.
    pub(crate) stop: Stop,
    queue: Receiver<Request>,
}

impl Requests {
    /// Waits for the next one; a stop goes before everything.
    pub(crate) fn next(&self) -> Request {
        if self.stop.is_requested() {
            return Request::Stop;
        }
        // The thread that sends ends only when it cannot read signals: nobody could ask for an end then.
        self.queue.recv().unwrap_or(Request::Stop)
    }

    /// Forgets the restarts asked for so far: while one was under way, it is the answer to all.
    pub(crate) fn forget_restarts(&self) {
        // A stop among them is remembered by `stop`.
        while self.queue.try_recv().is_ok() {}
    }
}

/// Takes over SIGINT and SIGTERM. Call it before any other thread is started: they inherit the blocked mask.
pub(crate) fn watch() -> Result<Stop, Failure> {
    Ok(watch_for(&[Signal::INT, Signal::TERM])?.stop)
}

/// Takes over SIGUSR2, too.
pub(crate) fn watch_with_restarts() -> Result<Requests, Failure> {
    watch_for(&[Signal::INT, Signal::TERM, Signal::USR2])
}

fn watch_for(signals: &[Signal]) -> Result<Requests, Failure> {
    let signals = Signals::block_and_watch(signals).map_err(Failure::requirement)?;
    let stop = Stop::new();
    let (sender, queue) = mpsc::channel();
    let requested = stop.clone();
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            if signal == Signal::USR2 {
                let _ = sender.send(Request::Restart);
            } else if requested.is_requested() {
                terminal::leave_screen();
                std::process::exit(130);
            } else {
                requested.request();
                let _ = sender.send(Request::Stop);
            }
        }
    });
    thread.map_err(Failure::requirement)?;
    Ok(Requests { stop, queue })
}
