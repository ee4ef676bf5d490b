//! The tokio engines: an asynchronous accept loop, as servers on tokio have it, with exact books. One current-thread
//! runtime per acceptor (`tokio-local`), or one multi-thread runtime with a worker thread per acceptor (`tokio`).
//!
//! An acceptor is one task, and its open connections are futures inside that task ([`FuturesUnordered`], which polls
//! only those that were woken), not tasks of their own: the counters have one writer, and the runtime runs a task on one
//! thread at a time with a happens-before edge between two threads, so no count is lost when work is stolen. What is not
//! measured that way is the cost of a spawn per connection.
//!
//! tokio watches descriptors edge-triggered (`EPOLLET`) and remembers what was reported: only an empty queue clears that
//! memory, so a full batch and a listener left alone strand nobody. Acceptors that share a listener are all woken by an
//! arrival. tokio's timers have steps of 1 ms: a hold and a pause last up to 1 ms longer than asked. A service time or a
//! stall blocks the worker thread, as a handler that does not yield does.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::{FuturesUnordered, StreamExt};
use kernel::process::{monotonic_ns, set_timer_slack_min};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};

use crate::acceptor::{Acceptor, Left, RESOURCE_PAUSE};
use crate::connection::{Connection, End};
use crate::tally::{Desk, Tally};

/// How often an acceptor that only serves what is open looks whether it must end at once.
const LOOK: Duration = Duration::from_millis(10);

/// One acceptor in a runtime of its own, in the calling thread.
pub(crate) fn run_local(acceptor: &mut Acceptor) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(accept(acceptor))
}

/// All acceptors in one runtime, each a task. Returns when all have ended, with the first error if there is one.
pub(crate) fn run_together(mut acceptors: Vec<Acceptor>) -> io::Result<()> {
    let runtime = match runtime_for(&acceptors) {
        Ok(runtime) => runtime,
        Err(error) => {
            acceptors.iter_mut().for_each(Acceptor::let_go);
            return Err(error);
        }
    };
    let task = |mut acceptor: Acceptor| async move {
        let ended = accept(&mut acceptor).await;
        // On success this has been done, before what was open was served.
        acceptor.let_go();
        ended
    };
    let tasks: Vec<_> = acceptors.into_iter().map(|acceptor| runtime.spawn(task(acceptor))).collect();
    let mut result = Ok(());
    for task in tasks {
        let ended = runtime.block_on(task).unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        result = result.and(ended);
    }
    result
}

/// A runtime with a worker thread per acceptor, each pinned where an acceptor would be. Which acceptor runs where is the
/// scheduler's business.
fn runtime_for(acceptors: &[Acceptor]) -> io::Result<Runtime> {
    let settings: Vec<_> = acceptors.iter().map(Acceptor::place).collect();
    let started = AtomicUsize::new(0);
    let on_start = move || {
        set_timer_slack_min();
        let number = started.fetch_add(1, Ordering::Relaxed);
        if let Some((scheduling, cpu)) = settings.get(number % settings.len().max(1)).copied()
            && let Err(error) = scheduling.settle(cpu)
        {
            tracing::error!(%error, %scheduling, cpu, "a worker thread of tokio is not scheduled as asked");
        }
    };
    Builder::new_multi_thread()
        .worker_threads(acceptors.len())
        .thread_name("tokio-worker")
        .on_thread_start(on_start)
        .enable_io()
        .enable_time()
        .build()
}

/// Accepts until told to stop, lets go of the listeners, then serves what is open.
async fn accept(acceptor: &mut Acceptor) -> io::Result<()> {
    let desk = acceptor.desk.clone();
    let mut open = FuturesUnordered::new();
    let mut doors = Doors::watch(acceptor)?;
    while !desk.is_stopped() {
        let Some((index, mut guard)) = doors.next(&mut open, &desk.tally).await? else { continue };
        match acceptor.take(index, |connection| open.push(serve(connection, &desk.tally))) {
            Left::Nobody => guard.clear_ready(),
            Left::Somebody => yield_now().await,
            Left::Alone => doors.shut[index] = Some(Box::pin(sleep(RESOURCE_PAUSE))),
        }
    }
    drop(doors);
    acceptor.let_go();
    serve_what_is_open(open, &desk).await;
    Ok(())
}

async fn serve_what_is_open<F: Future<Output = End>>(mut open: FuturesUnordered<F>, desk: &Desk) {
    while !open.is_empty() && !desk.must_end() {
        if let Ok(Some(end)) = timeout(LOOK, open.next()).await {
            desk.tally.close(end);
        }
    }
    (0..open.len()).for_each(|_| desk.tally.close(End::Server));
}

/// What an acceptor waits for besides its connections. It keeps the listeners open, so it goes before
/// [`Acceptor::let_go`].
struct Doors {
    /// Duplicates: one runtime's epoll takes a descriptor once, and acceptors may share a listener.
    listeners: Vec<AsyncFd<OwnedFd>>,
    /// The rest of the pause of a listener that is left alone.
    shut: Vec<Option<Pin<Box<Sleep>>>>,
    stop: AsyncFd<OwnedFd>,
    /// The listener whose turn it is, so that a busy one does not starve the others.
    turn: usize,
}

impl Doors {
    fn watch(acceptor: &Acceptor) -> io::Result<Self> {
        let duplicates = acceptor.listeners.iter().map(|listener| listener.as_fd().try_clone_to_owned());
        let listeners = duplicates.map(|fd| watch(fd?, Interest::READABLE)).collect::<io::Result<Vec<_>>>()?;
        let shut = listeners.iter().map(|_| None).collect();
        Ok(Self { listeners, shut, stop: watch(acceptor.stop.try_clone()?, Interest::READABLE)?, turn: 0 })
    }

    /// Waits until somebody stands at a listener: its number, and the report that is to be cleared if nobody is left.
    /// `None` when the acceptor is to stop. Meanwhile serves the open connections.
    async fn next(
        &mut self,
        open: &mut (impl Stream<Item = End> + Unpin),
        tally: &Tally,
    ) -> io::Result<Option<(usize, AsyncFdReadyGuard<'_, OwnedFd>)>> {
        let Self { listeners, shut, stop, turn } = self;
        let listeners = &*listeners;
        poll_fn(|cx| {
            while let Poll::Ready(Some(end)) = open.poll_next_unpin(cx) {
                tally.close(end);
            }
            if stop.poll_read_ready(cx)?.is_ready() {
                return Poll::Ready(Ok(None));
            }
            for _ in listeners {
                *turn = (*turn + 1) % listeners.len();
                if is_shut(&mut shut[*turn], cx) {
                    continue;
                }
                if let Poll::Ready(report) = listeners[*turn].poll_read_ready(cx)? {
                    return Poll::Ready(Ok(Some((*turn, report))));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Does the pause of a listener last? If so, its end wakes the task.
fn is_shut(pause: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    if pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_ready()) {
        *pause = None;
    }
    pause.is_some()
}

/// Registers a descriptor with the runtime, which owns it from here on.
#[expect(deprecated, reason = "its successor is an unsafe fn, lest `as_raw_fd` lie; those used here are plain owners")]
fn watch<T: AsRawFd>(descriptor: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(descriptor, interest)
}

/// Sees a connection to its end.
async fn serve(connection: Connection, tally: &Tally) -> End {
    // ENOSPC (fs.epoll.max_user_watches) or ENOMEM: nobody would ever look at it again.
    let Ok(mut connection) = watch(connection, Interest::READABLE | Interest::WRITABLE) else { return End::Error };
    loop {
        match connection.get_ref().until() {
            Some(until) => {
                let left = Duration::from_nanos(until.saturating_sub(monotonic_ns()));
                // Due: the same as ready.
                let _ = timeout_at(Instant::now() + left, ready(&connection)).await;
            }
            None => ready(&connection).await,
        }
        if let Some(end) = connection.get_mut().advance(monotonic_ns(), tally) {
            return end;
        }
    }
}

/// Waits until a connection can go on. The report is cleared first: what comes from now on is reported anew.
async fn ready(connection: &AsyncFd<Connection>) {
    let sends = connection.get_ref().wants_to_send();
    let report = if sends { connection.writable().await } else { connection.readable().await };
    // An error means that the runtime is being shut down, and then nothing goes on.
    if let Ok(mut report) = report {
        report.clear_ready();
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
