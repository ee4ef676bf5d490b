//! Starting and ending the sampling thread, and asking it from others.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kernel::sock_diag::DiagError;
use telemetry::namespace::{Detail, Reading};

use crate::opts::Opts;
use crate::sampler::{Ask, Question, Sampler};
use crate::snapshot::Snapshot;
use crate::target::{Target, TargetError};

/// How long an answer may take. A page blocks the admin port meanwhile.
const PATIENCE: Duration = Duration::from_millis(900);

/// Watching could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The namespace cannot be watched.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is no netlink socket.
    #[error("open a NETLINK_SOCK_DIAG socket: {0}; the kernel needs CONFIG_INET_DIAG")]
    SockDiag(#[source] io::Error),
    /// The listeners cannot be listed.
    #[error(transparent)]
    Listing(DiagError),
    /// There is no thread.
    #[error("start the sampling thread: {0}; raise the limit of threads")]
    Thread(#[source] io::Error),
}

/// The sampling thread.
#[derive(Debug)]
pub struct Watcher {
    observer: Observer,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// Starts the thread, which enters the namespace, looks once and goes on looking.
    ///
    /// # Errors
    /// [`StartError`] when the namespace cannot be entered or its listeners cannot be listed.
    pub fn start(opts: &Opts) -> Result<Self, StartError> {
        let target = opts.netns.as_ref().map(Target::find).transpose()?;
        let (questions, asked) = mpsc::channel();
        let (started, start) = mpsc::sync_channel(1);
        let observer = Observer { questions, last: Arc::default() };
        let (opts, last) = (opts.clone(), Arc::clone(&observer.last));
        let body = move || sample(&opts, target, &started, &asked, &last);
        let thread = std::thread::Builder::new().name("sampler".to_owned()).spawn(body).map_err(StartError::Thread)?;
        match start.recv() {
            Ok(Ok(())) => Ok(Self { observer, thread }),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(StartError::Thread(io::Error::other("it ended at once"))),
        }
    }

    /// Somebody who may ask it.
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// Ends the thread.
    pub fn stop(self) {
        // An error means that it has ended already.
        let _ = self.observer.questions.send(Question::Stop);
        if self.thread.join().is_err() {
            tracing::error!("end the sampling thread: it had panicked, which is a bug");
        }
    }
}

/// The thread's life.
fn sample(
    opts: &Opts,
    target: Option<Target>,
    started: &SyncSender<Result<(), StartError>>,
    asked: &Receiver<Question>,
    last: &Mutex<Snapshot>,
) {
    match Sampler::begin(opts, target) {
        Ok(sampler) => {
            let _ = started.send(Ok(()));
            *lock(last) = sampler.run(asked);
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    }
}

fn lock(last: &Mutex<Snapshot>) -> MutexGuard<'_, Snapshot> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks the sampling thread. Its clones share what they learnt last.
#[derive(Debug, Clone)]
pub struct Observer {
    questions: Sender<Question>,
    last: Arc<Mutex<Snapshot>>,
}

impl Observer {
    /// What is known now. [`Detail::Scrape`] begins a new window for the maxima since the last scrape.
    ///
    /// Returns within a second: without an answer by then, or when the thread has ended because its namespace has, it is
    /// what was known last, with every source down but this process.
    pub fn snapshot(&self, detail: Detail) -> Snapshot {
        self.ask(Ask::Page(detail))
    }

    /// What is known now, for the table: its window begins anew, that of the scrapes does not.
    pub fn table(&self) -> Snapshot {
        self.ask(Ask::Table)
    }

    fn ask(&self, question: Ask) -> Snapshot {
        let (reply, answer) = mpsc::sync_channel(1);
        let sent = self.questions.send(Question::Ask(question, reply)).ok();
        let answered = sent.and_then(|()| answer.recv_timeout(PATIENCE).ok());
        let mut last = lock(&self.last);
        if let Some(snapshot) = answered {
            // What was known last has no window.
            *last = Snapshot { window_ns: 0, in_window: kernel::netstat::NetCounters::default(), ..snapshot.clone() };
            return snapshot;
        }
        let mut snapshot = last.clone();
        drop(last);
        mark_down(&mut snapshot.kernel);
        snapshot
    }
}

/// Marks what comes from the sampling thread as not read. This process can be asked about from any thread.
fn mark_down(reading: &mut Reading) {
    let process = kernel::process::stats().ok();
    for source in &mut reading.sources {
        source.up = source.name == "process" && process.is_some();
    }
    reading.process = process.unwrap_or(reading.process);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn sources(snapshot: &Snapshot) -> Vec<(&str, bool)> {
        snapshot.kernel.sources.iter().map(|source| (source.name.as_str(), source.up)).collect()
    }

    #[test]
    fn our_own_listener_is_watched_until_it_closes() {
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = ours.local_addr().unwrap().port();
        let opts = Opts { port: vec![port.to_string().parse().unwrap()], rate: 100, ..Opts::default() };
        let watcher = Watcher::start(&opts).unwrap();
        let observer = watcher.observer();
        let snapshot = observer.snapshot(Detail::Full);
        let [listener] = snapshot.listeners.as_slice() else { panic!("{snapshot:?}") };
        assert_eq!(listener.address, ours.local_addr().unwrap());
        assert!(snapshot.samples > 0 && snapshot.sources_down().is_empty(), "{snapshot:?}");
        drop(ours);
        assert_eq!(observer.snapshot(Detail::Scrape).listeners, []);

        watcher.stop();
        let after = observer.snapshot(Detail::Scrape);
        let up: Vec<&str> = sources(&after).into_iter().filter(|(_, up)| *up).map(|(name, _)| name).collect();
        assert_eq!(up, ["process"], "a thread that has ended is not waited for: {after:?}");
        assert!(after.samples >= snapshot.samples);
        let _ = observer.table();
    }

    #[test]
    fn a_namespace_that_cannot_be_entered_is_an_error_and_not_a_thread() {
        let opts = Opts { netns: Some("/dev/null".parse().unwrap()), ..Opts::default() };
        assert!(matches!(Watcher::start(&opts), Err(StartError::Target(TargetError::OtherKind(_)))));
    }
}
