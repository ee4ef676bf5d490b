//! Recording one listener: a thread that looks at it, and at the namespace's counters, a thousand times a second.
//!
//! It is a thread of its own beside the sampler, since it looks at one socket by its address and not at all. What it finds
//! goes into a file of bounded size (`recording::Writer`). What half-open requests there are it does not ask: that walks a
//! table that all namespaces share, 0.3 ms each time.

mod opts;

use std::fs::File;
use std::io::{self, BufWriter};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use kernel::netstat::{NetCounters, NetstatReader, ReadError};
use kernel::process::{monotonic_ns, set_timer_slack_min, thread_cpu_ns};
use kernel::sock_diag::{DiagError, ListenerEntry, SockDiag};
use recording::{Ending, Header, Look, VERSION, Writer, Written};
use telemetry::Stop;

use crate::filter::Filter;
use crate::opts::Opts;
use crate::sampler::following_tick;
use crate::target::{Target, TargetError};

pub use opts::{RecordOpts, Size};

const SECOND: u64 = 1_000_000_000;

/// How often counters are read that only drops move, when nothing was dropped, ns.
const SELDOM: u64 = SECOND / 10;

/// Nothing could be recorded, or not on.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The namespace cannot be watched.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is not one listener to record. The text begins with the name of an option.
    #[error("{0}")]
    Choice(String),
    /// The file cannot be made.
    #[error("record {}: {source}; name a new file in a directory that can be written to", path.display())]
    Create {
        /// As it was named.
        path: PathBuf,
        /// The error of open(2).
        source: io::Error,
    },
    /// The file cannot be written to.
    #[error("write the recording {}: {source}; what was written until then can be replayed", path.display())]
    Write {
        /// As it was named.
        path: PathBuf,
        /// The error of write(2).
        source: io::Error,
    },
    /// The kernel cannot be asked for counters.
    #[error(transparent)]
    Counters(#[from] ReadError),
    /// The kernel cannot be asked for the listener.
    #[error(transparent)]
    Listener(#[from] DiagError),
    /// There is no netlink socket.
    #[error("open a NETLINK_SOCK_DIAG socket: {0}; the kernel needs CONFIG_INET_DIAG")]
    SockDiag(#[source] io::Error),
    /// There is no thread.
    #[error("start the recording thread: {0}; raise the limit of threads")]
    Thread(#[source] io::Error),
}

impl RecordError {
    /// Does this machine or user lack something, rather than an option being wrong?
    pub fn is_requirement(&self) -> bool {
        match self {
            Self::Target(error) => error.is_requirement(),
            Self::Choice(_) | Self::Create { .. } => false,
            _ => true,
        }
    }
}

/// A recording that is being made.
#[derive(Debug)]
pub struct Recorder {
    listener: SocketAddr,
    thread: JoinHandle<Result<Written, RecordError>>,
}

impl Recorder {
    /// Starts the thread, which enters the namespace, chooses the listener and makes the file `path`. It records until
    /// `stop` is requested, and requests it itself when the recording ends for another reason.
    ///
    /// # Errors
    /// [`RecordError`] when there is not one listener to record, or no file.
    pub fn start(opts: &Opts, record: &RecordOpts, path: PathBuf, stop: &Stop) -> Result<Self, RecordError> {
        let target = opts.netns.as_ref().map(Target::find).transpose()?;
        let (started, start) = mpsc::sync_channel(1);
        let (opts, record, stop) = (opts.clone(), record.clone(), stop.clone());
        let body = move || {
            let result = Work::begin(&opts, target, path, record).and_then(|work| work.run(&stop, &started));
            stop.request();
            result
        };
        let thread =
            std::thread::Builder::new().name("recorder".to_owned()).spawn(body).map_err(RecordError::Thread)?;
        match start.recv() {
            Ok(listener) => Ok(Self { listener, thread }),
            Err(mpsc::RecvError) => Err(ended(thread).err().unwrap_or_else(at_once)),
        }
    }

    /// What is recorded.
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// Waits for the end of the recording, which `stop` brings about.
    ///
    /// # Errors
    /// [`RecordError`] when it could not go on.
    pub fn finish(self) -> Result<Written, RecordError> {
        ended(self.thread)
    }
}

fn at_once() -> RecordError {
    RecordError::Thread(io::Error::other("it ended at once"))
}

fn ended(thread: JoinHandle<Result<Written, RecordError>>) -> Result<Written, RecordError> {
    thread.join().unwrap_or_else(|_| Err(RecordError::Thread(io::Error::other("it panicked, which is a bug"))))
}

/// What the thread works on.
struct Work {
    path: PathBuf,
    record: RecordOpts,
    eyes: Eyes,
    chosen: ListenerEntry,
    writer: Writer<BufWriter<File>>,
    /// ns; the first look.
    began: u64,
}

/// Where it looks.
struct Eyes {
    diag: SockDiag,
    counters: NetstatReader,
    /// Counters that only drops move, as they were last read, when (ns), and the drops then.
    seldom: NetCounters,
    read_at: u64,
    drops_then: u32,
}

impl Eyes {
    /// One look, `at` µs after the first. `None` when the listener is gone.
    fn look(&mut self, chosen: &ListenerEntry, at: u64, now: u64) -> Result<Option<Look>, RecordError> {
        // Before the depth: see `Look::passive_opens`.
        let passive_opens = self.counters.read_tcp()?.passive_opens;
        let found = self.diag.listener(chosen.local, chosen.interface)?.filter(|found| found.inode == chosen.inode);
        let Some(ListenerEntry { depth, limit, drops, .. }) = found else { return Ok(None) };
        let drops = drops.unwrap_or(0);
        if drops != self.drops_then || now.saturating_sub(self.read_at) >= SELDOM {
            self.seldom = self.counters.read()?;
            (self.drops_then, self.read_at) = (drops, now);
        }
        let NetCounters { listen_drops, syncookies_sent: cookies, .. } = self.seldom;
        let NetCounters { embryonic_resets: resets, defer_accept_drops: deferred, .. } = self.seldom;
        Ok(Some(Look { at, passive_opens, depth, limit, drops, listen_drops, cookies, resets, deferred }))
    }
}

impl Work {
    /// Enters the namespace and takes the first look. To be called on the thread that records.
    fn begin(opts: &Opts, target: Option<Target>, path: PathBuf, record: RecordOpts) -> Result<Self, RecordError> {
        let _attached = target.map(Target::enter).transpose()?;
        set_timer_slack_min();
        let mut diag = SockDiag::open().map_err(RecordError::SockDiag)?;
        let listeners = diag.listeners()?;
        let chosen = choose(&listeners, opts)?;
        let counters = NetstatReader::open()?;
        let mut eyes = Eyes { diag, counters, seldom: NetCounters::default(), read_at: 0, drops_then: 0 };
        let began = monotonic_ns();
        let gone = || RecordError::Choice(format!("port: the listener {} was just closed; look again", chosen.local));
        let first = eyes.look(&chosen, 0, began)?.ok_or_else(gone)?;
        let header = Header {
            acceptbench_recording: VERSION,
            listener: chosen.local,
            started: Timestamp::now(),
            interval_us: record.record_interval.as_ns() / 1000,
            limit: first.limit,
            depth: first.depth,
            other_listeners: u32::try_from(listeners.len() - 1).unwrap_or(u32::MAX),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            sysctls: kernel::sysctl::recorded(),
        };
        // Not what somebody may still want to replay.
        let file = File::create_new(&path).map_err(|source| RecordError::Create { path: path.clone(), source })?;
        let written = Writer::begin(BufWriter::new(file), record.record_limit.bytes(), &header, first);
        let writer = written.map_err(|source| RecordError::Write { path: path.clone(), source })?;
        Ok(Self { path, record, eyes, chosen, writer, began })
    }

    /// Looks until told to stop or until there is a reason to end.
    fn run(mut self, stop: &Stop, started: &SyncSender<SocketAddr>) -> Result<Written, RecordError> {
        let _ = started.send(self.chosen.local);
        let period = self.record.record_interval.as_ns();
        let (mut tick, mut flushed, mut looks, mut late) = (self.began + period, self.began, 1, 0);
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source| RecordError::Write { path, source }
        };
        let end = loop {
            std::thread::sleep(Duration::from_nanos(tick.saturating_sub(monotonic_ns())));
            let now = monotonic_ns();
            if stop.is_requested() {
                break Ending::Stopped;
            }
            if self.record.record_for.is_some_and(|time| now - self.began >= time.as_ns()) {
                break Ending::Time;
            }
            late += u64::from(now >= tick + period);
            tick = following_tick(tick, now, period);
            let Some(look) = self.eyes.look(&self.chosen, (now - self.began) / 1000, now)? else {
                break Ending::ListenerClosed;
            };
            looks += 1;
            if !self.writer.look(look).map_err(failed(&self.path))? {
                break Ending::Size;
            }
            if now - flushed >= SECOND {
                self.writer.flush().map_err(failed(&self.path))?;
                flushed = now;
            }
        };
        let at = (monotonic_ns() - self.began) / 1000;
        self.writer.end(end, at, looks, late, thread_cpu_ns() / 1000).map_err(failed(&self.path))
    }
}

/// The one listener that passes the filters.
fn choose(listeners: &[ListenerEntry], opts: &Opts) -> Result<ListenerEntry, RecordError> {
    let filter = Filter::new(opts);
    let mut fitting: Vec<&ListenerEntry> =
        listeners.iter().filter(|entry| filter.passes_address(entry.local)).collect();
    // A listener of both families is in a dump once; one that was seen twice is one.
    fitting.sort_unstable_by_key(|entry| (entry.local, entry.inode));
    fitting.dedup_by_key(|entry| (entry.local, entry.inode));
    let refuse = |text: String| Err(RecordError::Choice(text));
    match fitting.as_slice() {
        [] => refuse(
            "record: no TCP listener passes --port and --address; acceptbench watch --once shows what listens"
                .to_owned(),
        ),
        [one] => Ok((*one).clone()),
        [one, rest @ ..] if rest.iter().all(|other| other.local == one.local) => refuse(format!(
            "record: {} sockets share {} (SO_REUSEPORT), and the kernel does not say which of them a connection entered: \
             record a listener of its own",
            fitting.len(),
            one.local
        )),
        several => {
            let shown: Vec<String> = several.iter().take(4).map(|entry| entry.local.to_string()).collect();
            let more = if several.len() > shown.len() { ", …" } else { "" };
            refuse(format!(
                "record: one listener is recorded, and {} pass the filters ({}{more}): choose one by --port, and --address \
                 if need be",
                several.len(),
                shown.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests;
