//! One connection to the admin port: its place among the 64, its time-outs, its end.
//!
//! The time-outs are kept here because hyper has one for both: its header time-out also runs while a kept-alive
//! connection waits for its next request, and 5 s would cut every scraper with an interval above that.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{MAX_CONNECTIONS, Seen, Service};

/// How patient the port is. Only tests use other than [`TIMEOUTS`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For a request's header from its first byte, and for a new connection's first header from the accept.
    pub(super) header: Duration,
    /// For the next request to begin, the last response's departure included.
    pub(super) idle: Duration,
}

/// A header takes milliseconds; idle covers the usual scrape intervals.
pub(super) const TIMEOUTS: Timeouts = Timeouts { header: Duration::from_secs(5), idle: Duration::from_secs(30) };
/// Header bytes hyper buffers; more is answered with 431.
const MAX_HEADER: usize = 16 * 1024;

/// One of the places for connections, given back on drop.
pub(super) struct Slot(Arc<Seen>);

impl Slot {
    /// A place, if one is left. Only the admin thread takes places, so the count cannot move in between.
    pub(super) fn take(seen: &Arc<Seen>) -> Option<Self> {
        if seen.connections.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            return None;
        }
        seen.connections.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(seen)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says 503 to a connection there is no place for, as far as that is possible without waiting, and closes it.
pub(super) fn refuse(stream: TcpStream) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    // Back to a plain non-blocking socket: tokio would not try before its reactor has seen this one.
    let Ok(mut stream) = stream.into_std() else {
        return;
    };
    // A new socket's send buffer takes this at once; a client that is gone already is no loss.
    let _ = stream.write(FULL);
    // Closing with unread input sends a reset, which may overtake the answer in the client: take what has come.
    let _ = stream.read(&mut [0; 4096]);
}

/// When a connection's time is up.
#[derive(Debug, Clone)]
struct Deadline {
    timeouts: Timeouts,
    stage: Arc<Mutex<Stage>>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// A header is expected or has begun; it must be complete by then.
    Header(Instant),
    /// A request was answered; the next must have begun by then.
    Idle(Instant),
}

impl Deadline {
    fn new(timeouts: Timeouts) -> Self {
        let stage = Stage::Header(Instant::now() + timeouts.header);
        Self { timeouts, stage: Arc::new(Mutex::new(stage)) }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self) -> Instant {
        match *self.stage() {
            Stage::Header(at) | Stage::Idle(at) => at,
        }
    }

    /// Bytes came in: where none were due, a header has begun.
    fn read(&self) {
        let mut stage = self.stage();
        if matches!(*stage, Stage::Idle(_)) {
            *stage = Stage::Header(Instant::now() + self.timeouts.header);
        }
    }

    /// A header is complete and its response made.
    fn answered(&self) {
        *self.stage() = Stage::Idle(Instant::now() + self.timeouts.idle);
    }
}

/// Serves one connection until it closes, its time is up or the port closes.
pub(super) async fn run(stream: TcpStream, service: Service, watcher: Watcher, slot: Slot) {
    let deadline = Deadline::new(service.timeouts);
    let io = TokioIo::new(Timed { stream, deadline: deadline.clone() });
    let answering = service_fn(|request| {
        let response = service.answer(&request);
        deadline.answered();
        async move { Ok::<_, Infallible>(response) }
    });
    let connection =
        http1::Builder::new().header_read_timeout(None).max_buf_size(MAX_HEADER).serve_connection(io, answering);

    let mut serving = pin!(watcher.watch(connection));
    let mut alarm = pin!(tokio::time::sleep_until(deadline.at()));
    poll_fn(|cx| {
        if let Poll::Ready(end) = serving.as_mut().poll(cx) {
            if let Err(error) = end {
                tracing::debug!(%error, "serve an admin connection: it ended early");
            }
            return Poll::Ready(());
        }
        // The deadline only moves while the connection is polled, so setting the alarm after that never misses a move.
        if alarm.deadline() != deadline.at() {
            alarm.as_mut().reset(deadline.at());
        }
        alarm.as_mut().poll(cx)
    })
    .await;
    drop(slot);
}

/// A stream that tells its deadline when bytes come in.
struct Timed {
    stream: TcpStream,
    deadline: Deadline,
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.deadline.read();
        }
        polled
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
