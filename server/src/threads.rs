//! Acceptors as threads of this process.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::acceptor::Acceptor;
use crate::opts::Engine;
use crate::tally::Desks;
use crate::tokio as tokio_engines;

type Handle = JoinHandle<io::Result<()>>;

/// The threads that accept.
#[derive(Debug)]
pub(crate) struct Threads {
    desks: Desks,
    /// Does a thread wait in accept4(2), where only a signal wakes it?
    blocking: bool,
    /// By number of the acceptor; tokio's multi-thread runtime is one for all.
    handles: Mutex<Vec<(usize, Handle)>>,
}

impl Threads {
    /// Nobody yet.
    pub(crate) fn new(engine: Engine, desks: Desks) -> Self {
        Self { desks, blocking: engine == Engine::Blocking, handles: Mutex::default() }
    }

    /// Starts them. After an error some may run: end them.
    pub(crate) fn start(&self, engine: Engine, acceptors: Vec<Acceptor>) -> io::Result<()> {
        if engine == Engine::Tokio {
            return self.spawn("acceptors".to_owned(), 0, || tokio_engines::run_together(acceptors));
        }
        for (index, acceptor) in acceptors.into_iter().enumerate() {
            self.spawn(format!("acceptor-{index}"), index, || acceptor.run())?;
        }
        Ok(())
    }

    fn spawn(
        &self,
        name: String,
        index: usize,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let handle = std::thread::Builder::new().name(name).spawn(run)?;
        self.lock().push((index, handle));
        Ok(())
    }

    /// Wakes those that are to stop and wait where an eventfd does not reach them. One signal just before the call blocks
    /// is lost, so this is to be repeated.
    pub(crate) fn nudge(&self) {
        if !self.blocking {
            return;
        }
        for (index, handle) in self.lock().iter() {
            if self.desks[*index].is_stopped() && !handle.is_finished() {
                // A failure leaves the wait to the next connection.
                let _ = kernel::process::interrupt(handle);
            }
        }
    }

    /// Have all ended?
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().iter().all(|(_, handle)| handle.is_finished())
    }

    /// Takes their results, once all have ended.
    pub(crate) fn join(&self) {
        let ended = std::mem::take(&mut *self.lock());
        for (_, handle) in ended {
            match handle.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "an acceptor ended early"),
                Err(_) => tracing::error!("an acceptor panicked"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, Handle)>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
