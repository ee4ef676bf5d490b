//! The admin port: pages such as `/metrics` over HTTP, from a thread of its own.
//!
//! The only place with hyper. A scrape must not disturb what it observes, so the port has a
//! single-threaded runtime on one thread and shares nothing with the hot path; it must also survive whatever connects to
//! it, so headers and idle connections time out, connections are capped, and running out of descriptors (likely, in a
//! tool that exhausts them on purpose) backs off instead of spinning. It refuses every method but GET and HEAD: nothing
//! can be changed from here.

mod connection;
mod fetch;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::exposition;
use connection::{TIMEOUTS, Timeouts};

pub use fetch::{FetchError, get_local};

/// Connections served at once. Prometheus keeps one or two; the rest is for people.
const MAX_CONNECTIONS: usize = 64;
/// Pause after accept failed for want of descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// How long connections made before the port was closed may take to send their request.
const LAST_REQUESTS: Duration = Duration::from_millis(50);
/// How long responses under way may take once the port is being closed.
const DRAIN: Duration = Duration::from_millis(500);
/// How long [`Admin::stop`] waits for the thread, a page that blocks included.
const JOIN: Duration = Duration::from_secs(1);

/// Where the admin port listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// On this address.
    Addr(SocketAddr),
}

/// A text that is neither `off` nor an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read the admin address {0:?}: it is neither \"off\" nor IP:PORT; write e.g. 127.0.0.1:9710 or [::1]:9710")]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        match text.trim() {
            "off" => Ok(Self::Off),
            addr => addr.parse().map(Self::Addr).map_err(|_| ListenError(text.to_owned())),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.pad("off"),
            Self::Addr(addr) => addr.fmt(f),
        }
    }
}

crate::string_serde!(Listen, "\"off\" or an address such as \"127.0.0.1:9710\"");

/// One answer of the admin port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The HTTP status; an impossible one is sent as 500.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Page {
    /// A Prometheus page, as rendered by [`Families`](exposition::Families). Answering one counts as a scrape.
    pub fn metrics(body: String) -> Self {
        Self { content_type: exposition::CONTENT_TYPE, status: 200, body }
    }

    /// A JSON document.
    pub fn json(body: String) -> Self {
        Self { content_type: "application/json", status: 200, body }
    }

    /// Plain text with a status, such as the answers of `/healthz` and `/readyz`.
    pub fn text(status: u16, body: String) -> Self {
        Self { content_type: "text/plain; charset=utf-8", status, body }
    }
}

/// What the admin port shows.
pub trait Pages: Send + Sync + 'static {
    /// The page at `path` (without its query), or `None` when there is none.
    ///
    /// Called on the admin thread, one call at a time; while it runs no other request is answered, so it should take
    /// a millisecond at most.
    fn get(&self, path: &str) -> Option<Page>;
}

/// Why the admin port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address could not be bound.
    #[error("open the admin port {addr}: {source}; choose another address with --admin ADDR, or --admin off")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The thread or its event loop could not be made.
    #[error(
        "start the admin thread for {addr}: {source}; raise the limits of descriptors and threads, or use --admin off"
    )]
    Start {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A running admin port. Dropping it closes the port without waiting.
#[derive(Debug)]
pub struct Admin {
    addr: SocketAddr,
    /// A second descriptor of the port, for whoever takes it over.
    socket: std::net::TcpListener,
    seen: Arc<Seen>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    /// Disconnected when the thread is about to end: a join with a time-out.
    ended: mpsc::Receiver<Infallible>,
}

/// What has been asked for so far.
#[derive(Debug, Default)]
struct Seen {
    scrapes: AtomicU64,
    /// The last scrape of each page: there are as many as [`Pages`] has, whatever is asked for.
    last_scrapes: Mutex<BTreeMap<String, Instant>>,
    /// Time between the two scrapes of one page seen last, ms; 0 before there were two.
    interval_ms: AtomicU64,
    connections: AtomicUsize,
}

impl Admin {
    /// Opens `addr` and serves `pages` on a thread of its own.
    ///
    /// # Errors
    /// [`AdminError::Bind`] when the address cannot be bound, [`AdminError::Start`] when there is no thread for it.
    pub fn start(addr: SocketAddr, pages: Arc<dyn Pages>) -> Result<Self, AdminError> {
        Self::start_with(addr, pages, TIMEOUTS)
    }

    /// Serves `pages` on a listening socket that another process had: [`Admin::listener`]. Connections that wait in its
    /// queue are answered.
    ///
    /// # Errors
    /// [`AdminError::Bind`] when `listener` is no TCP socket with an address, [`AdminError::Start`] when there is no
    /// thread for it.
    pub fn start_on(listener: OwnedFd, pages: Arc<dyn Pages>) -> Result<Self, AdminError> {
        let listener = std::net::TcpListener::from(listener);
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let addr = listener.local_addr().map_err(|source| AdminError::Bind { addr: unknown, source })?;
        Self::serve_on(listener, addr, pages, TIMEOUTS)
    }

    fn start_with(addr: SocketAddr, pages: Arc<dyn Pages>, timeouts: Timeouts) -> Result<Self, AdminError> {
        // The standard library sets SO_REUSEADDR here, so a restart does not wait for its predecessor's TIME_WAITs.
        let listener = std::net::TcpListener::bind(addr).map_err(|source| AdminError::Bind { addr, source })?;
        Self::serve_on(listener, addr, pages, timeouts)
    }

    fn serve_on(
        listener: std::net::TcpListener,
        addr: SocketAddr,
        pages: Arc<dyn Pages>,
        timeouts: Timeouts,
    ) -> Result<Self, AdminError> {
        let bind = |source| AdminError::Bind { addr, source };
        let start = |source| AdminError::Start { addr, source };
        listener.set_nonblocking(true).map_err(bind)?;
        let local = listener.local_addr().map_err(bind)?;
        let socket = listener.try_clone().map_err(start)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(start)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(start)?
        };

        let seen = Arc::new(Seen::default());
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = mpsc::channel();
        let service = Service { pages, seen: Arc::clone(&seen), timeouts };
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                serve(runtime, listener, &service, stopped);
                drop(ending);
            })
            .map_err(start)?;
        Ok(Self { addr: local, socket, seen, stop, thread, ended })
    }

    /// Like [`start`](Self::start), but takes a free port of the same address when the one asked for is in use; the
    /// second value says whether it did.
    ///
    /// # Errors
    /// As [`start`](Self::start), except that a port in use is none.
    pub fn start_or_free_port(addr: SocketAddr, pages: Arc<dyn Pages>) -> Result<(Self, bool), AdminError> {
        match Self::start(addr, Arc::clone(&pages)) {
            Err(AdminError::Bind { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
                let free = SocketAddr::new(addr.ip(), 0);
                Ok((Self::start(free, pages)?, true))
            }
            started => started.map(|admin| (admin, false)),
        }
    }

    /// The address in use, with the port the system chose where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// A duplicate of the listening socket, for the process that takes the port over. Once it answers there, too,
    /// [`stop`](Self::stop) refuses nobody.
    ///
    /// # Errors
    /// EMFILE when there are no descriptors left.
    pub fn listener(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// How many Prometheus pages were asked for by GET.
    pub fn scrapes(&self) -> u64 {
        self.seen.scrapes.load(Ordering::Relaxed)
    }

    /// When the last of them was.
    pub fn last_scrape(&self) -> Option<Instant> {
        self.seen.last_scrapes().values().max().copied()
    }

    /// Has every page that is scraped at all been asked for since `instant`?
    pub fn all_scraped_since(&self, instant: Instant) -> bool {
        self.seen.last_scrapes().values().all(|last| *last >= instant)
    }

    /// How often a page is scraped, as seen between its last two scrapes.
    pub fn scrape_interval(&self) -> Option<Duration> {
        match self.seen.interval_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }

    /// Closes the port: no new connection, 50 ms for requests about to come, up to 500 ms for responses under way. Returns
    /// within about a second, even if a page blocks (its thread is then left behind).
    pub fn stop(self) {
        drop(self.socket);
        // An error means that the thread is gone already.
        let _ = self.stop.send(());
        if let Err(mpsc::RecvTimeoutError::Timeout) = self.ended.recv_timeout(JOIN) {
            tracing::warn!(addr = %self.addr, "close the admin port: a page is still being made, its thread is left behind");
            return;
        }
        if self.thread.join().is_err() {
            tracing::error!(addr = %self.addr, "close the admin port: its thread had panicked, which is a bug");
        }
    }
}

/// What every connection shares.
#[derive(Clone)]
struct Service {
    pages: Arc<dyn Pages>,
    seen: Arc<Seen>,
    timeouts: Timeouts,
}

impl Seen {
    fn last_scrapes(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.last_scrapes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_scrape(&self, path: &str, now: Instant) {
        self.scrapes.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = self.last_scrapes().insert(path.to_owned(), now) {
            let ms = u64::try_from(now.duration_since(before).as_millis()).unwrap_or(u64::MAX);
            self.interval_ms.store(ms, Ordering::Relaxed);
        }
    }
}

impl Service {
    /// The answer to one request. Its body, should it have one, is ignored.
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let page = Page::text(405, "only GET and HEAD: nothing can be changed here\n".to_owned());
            let mut response = respond(page);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let path = request.uri().path();
        // A page shows what was before it was made, not after.
        let asked = Instant::now();
        let Some(page) = self.pages.get(path) else {
            return respond(Page::text(404, format!("no page {path}\n")));
        };
        if page.content_type == exposition::CONTENT_TYPE && request.method() == Method::GET {
            self.seen.note_scrape(path, asked);
        }
        respond(page)
    }
}

fn respond(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    response
}

/// The admin thread: accepts until told to stop (or until its [`Admin`] is dropped), then lets responses finish.
fn serve(runtime: Runtime, listener: TcpListener, service: &Service, stopped: oneshot::Receiver<()>) {
    runtime.block_on(async move {
        let graceful = GracefulShutdown::new();
        {
            let mut stopped = pin!(stopped);
            let mut accepting = pin!(accept(&listener, service, &graceful));
            poll_fn(|cx| match stopped.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => accepting.as_mut().poll(cx).map(|never| match never {}),
            })
            .await;
        }
        drop(listener);
        // A graceful shutdown closes connections that have not asked for anything yet. Who has only just connected is
        // about to, and may know no other process to ask.
        if service.seen.connections.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(LAST_REQUESTS).await;
        }
        // What is not done by then is cut off with the runtime.
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    });
    runtime.shutdown_background();
}

/// Accepts for ever.
async fn accept(listener: &TcpListener, service: &Service, graceful: &GracefulShutdown) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Some(slot) = connection::Slot::take(&service.seen) {
                    tokio::spawn(connection::run(stream, service.clone(), graceful.watcher(), slot));
                } else {
                    connection::refuse(stream);
                }
            }
            // That client gave up; the next one is no worse for it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::debug!(%error, "accept on the admin port: pausing for 50 ms");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
