//! One trial from the runner's side: start the processes, drive the load, wait until the books stand still, read
//! them, and see everything gone.

pub(crate) mod addresses;
mod preparing;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kernel::process::{self, monotonic_ns};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use study::results::Timings;
use telemetry::Stop;
use telemetry::namespace::Detail;
use thiserror::Error;

use crate::control::{Channel, ControlError, Failure, LoadgenRequest, ServerRequest};
use crate::experiment::{Family, Wiring};
use crate::inside::{Built, SetUp, TRIAL, command_of};
use crate::settings::Resolved;
use crate::target::Order;
use crate::trial::addresses::addresses;
use crate::trial::preparing::{channel_pair, prepare_server, wait_readable};

/// The port servers of trials listen on: below every ephemeral range.
const PORT: u16 = 9700;

/// Nothing but a broken machine makes a process of a trial answer later than this.
const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// Time between the decision to start and the first planned arrival, so that both ends know before it comes.
const HEAD_START_NS: u64 = 3_000_000;

/// How often the runner asks during the drain.
const POLL: Duration = Duration::from_millis(10);

/// Two readings this far apart must agree before the books count as standing still.
const SETTLE: Duration = Duration::from_millis(50);

/// A queue whose depth and accepts have not moved for this long will not empty by itself.
const STUCK: Duration = Duration::from_millis(300);

/// What a trial is made of.
#[derive(Clone, Debug)]
pub(crate) struct Recipe<'a> {
    pub(crate) wiring: Wiring,
    pub(crate) family: Family,
    pub(crate) resolved: &'a Resolved,
    /// What runs in the server's place.
    pub(crate) target: Option<&'a Order>,
    /// Seed of this trial's arrivals and service times.
    pub(crate) seed: u64,
}

/// What a trial came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) server: server::Snapshot,
    pub(crate) loadgen: loadgen::Snapshot,
    pub(crate) timings: Timings,
    /// Did the books stand still before they were read?
    pub(crate) settled: bool,
}

/// Why a trial came to nothing.
#[derive(Debug, Error)]
pub enum TrialError {
    /// The trial was told to stop.
    #[error("interrupted")]
    Interrupted,
    /// A process could not be started.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What was to be started.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A process said no.
    #[error("{0}")]
    Refused(Failure),
    /// A process died or misbehaved.
    #[error("{who}: {source}; its log is {log}")]
    Broken {
        /// Which one.
        who: &'static str,
        /// How.
        source: ControlError,
        /// Where it may have said why.
        log: String,
    },
}

/// The control sockets of a running trial, shared with whoever answers scrapes.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    server: Arc<Mutex<Channel>>,
    loadgen: Arc<Mutex<Channel>>,
}

fn lock(channel: &Mutex<Channel>) -> MutexGuard<'_, Channel> {
    channel.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ends {
    /// The server's books.
    pub(crate) fn server(&self, detail: Detail) -> Result<server::Snapshot, ControlError> {
        lock(&self.server).snapshot(&ServerRequest::Snapshot(detail))
    }

    /// The load generator's books.
    pub(crate) fn loadgen(&self, detail: Detail) -> Result<loadgen::Snapshot, ControlError> {
        lock(&self.loadgen).snapshot(&LoadgenRequest::Snapshot(detail))
    }
}

/// A trial whose processes are ready. Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Trial {
    holder: Holder,
    pub(crate) ends: Ends,
    sysctls: BTreeMap<String, String>,
    set_up: Duration,
}

/// A trial's first process, which waits to be told what to build. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Holder {
    process: Child,
    /// To `__trial`; closing it ends the trial.
    control: Channel,
    log: String,
}

impl Holder {
    /// Starts the process; it writes to `log`.
    pub(crate) fn spawn(program: &Path, log: &Path) -> Result<Self, TrialError> {
        let start = |what| move |source| TrialError::Start { what, source };
        let (ours, theirs) = channel_pair()?;
        let file = File::create(log).map_err(start("the trial's log"))?;
        // A process group of its own: an interrupt typed at the terminal reaches the runner only. The command goes at
        // once, since it holds the trial's end of the control socket: while that is open its death goes unnoticed.
        let process = command_of(program, TRIAL, Stdio::from(OwnedFd::from(theirs)))
            .stderr(file)
            .process_group(0)
            .spawn()
            .map_err(start("the trial's process"))?;
        Ok(Self { process, control: Channel::new(ours), log: log.display().to_string() })
    }

    /// Has the process ended?
    fn is_over(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_))))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // `__init` dies with `__trial`, and everything inside with `__init`.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Trial {
    /// Has `holder` build what the recipe says, and waits until both ends are ready.
    pub(crate) fn start(recipe: &Recipe<'_>, holder: Holder, stop: &Stop) -> Result<Self, TrialError> {
        let began = Instant::now();
        let (server, server_end) = channel_pair()?;
        let (loadgen, loadgen_end) = channel_pair()?;
        let mut started = Self {
            holder,
            ends: Ends {
                server: Arc::new(Mutex::new(Channel::new(server))),
                loadgen: Arc::new(Mutex::new(Channel::new(loadgen))),
            },
            sysctls: BTreeMap::new(),
            set_up: Duration::ZERO,
        };
        let addresses = addresses(recipe.wiring, recipe.family);
        let set_up = SetUp {
            runner: std::process::id(),
            wiring: recipe.wiring,
            server: addresses.server,
            client: addresses.client,
            sources: recipe.resolved.loadgen.sources.clone(),
            sysctls: recipe.resolved.sysctl.clone(),
        };
        let message = serde_json::to_vec(&set_up).map_err(|error| started.broken("the trial", error.into()))?;
        process::send_fds(started.holder.control.stream(), &message, &[server_end.as_fd(), loadgen_end.as_fd()])
            .map_err(|error| started.broken("the trial", error.into()))?;
        // Only the children hold these ends: when they die, we read end of file.
        drop((server_end, loadgen_end));
        let port = recipe.target.map_or(PORT, |target| target.port.get());
        started.prepare(recipe, SocketAddr::new(addresses.server.0, port), stop)?;
        started.set_up = began.elapsed();
        Ok(started)
    }

    fn prepare(&mut self, recipe: &Recipe<'_>, address: SocketAddr, stop: &Stop) -> Result<(), TrialError> {
        let mut loadgen_opts = recipe.resolved.loadgen.clone();
        loadgen_opts.target = address.into();
        loadgen_opts.seed = recipe.seed;
        let prepare_loadgen =
            LoadgenRequest::Prepare { opts: Box::new(loadgen_opts), half_open: recipe.resolved.half_open };
        let ends = self.ends.clone();
        let (mut server, mut loadgen) = (lock(&ends.server), lock(&ends.loadgen));
        for channel in [&self.holder.control, &*server, &*loadgen] {
            channel.set_timeout(Some(REPLY_LIMIT)).map_err(|error| self.broken("the trial", error.into()))?;
        }
        // The ends find it when they come up; then the answers.
        server
            .send(&prepare_server(recipe, address))
            .and_then(|()| loadgen.send(&prepare_loadgen))
            .map_err(|error| self.broken("the trial", error))?;
        let built: Result<Built, Failure> =
            self.holder.control.receive().map_err(|error| self.broken("the trial", error))?;
        self.sysctls = built.map_err(TrialError::Refused)?.sysctls;
        if let Some(target) = recipe.target {
            wait_readable(&server, target.ready.duration() + REPLY_LIMIT, stop)?;
        }
        server.done().map_err(|error| self.broken("the server", error))?;
        loadgen.done().map_err(|error| self.broken("the load generator", error))
    }

    fn broken(&self, who: &'static str, source: ControlError) -> TrialError {
        match source {
            ControlError::Refused(failure) => TrialError::Refused(failure),
            source => {
                // The kernel ends the processes one after the other: give it a moment before asking who was first.
                std::thread::sleep(Duration::from_millis(20));
                let who = if self.holder.is_over() { "the trial" } else { who };
                TrialError::Broken { who, source, log: self.holder.log.clone() }
            }
        }
    }

    /// Runs the load from the first arrival to books that stand still. Interrupted by `stop`, it ends at once.
    pub(crate) fn run(self, recipe: &Recipe<'_>, stop: &Stop) -> Result<Outcome, TrialError> {
        let ends = self.ends.clone();
        if recipe.resolved.half_open > 0 {
            // Takes 10 µs for each, so the first arrival is planned only then.
            lock(&ends.loadgen)
                .ask(&LoadgenRequest::KeepHalfOpen)
                .map_err(|error| self.broken("the load generator", error))?;
        }
        let origin = monotonic_ns() + HEAD_START_NS;
        lock(&ends.server).ask(&ServerRequest::Begin(origin)).map_err(|error| self.broken("the server", error))?;
        lock(&ends.loadgen)
            .ask(&LoadgenRequest::Begin(origin))
            .map_err(|error| self.broken("the load generator", error))?;
        let load_began = Instant::now();
        let opts = &recipe.resolved.loadgen;
        let planned_ns = opts.warm_up.as_ns()
            + match opts.duration {
                loadgen::opts::RunTime::For(span) => span.as_ns(),
                loadgen::opts::RunTime::Forever => 0,
            };
        sleep_or_stop(Duration::from_nanos(planned_ns + HEAD_START_NS), stop)?;
        let grace = Duration::from_nanos(opts.deadline.as_ns()) + Duration::from_secs(5);
        self.until_concluded(Instant::now() + grace, stop)?;
        let load = load_began.elapsed();
        let drain_began = Instant::now();
        let settled = self.drain(stop)?;
        let drain = drain_began.elapsed();
        self.tear_down(settled, load, drain)
    }

    /// Waits until every attempt has its verdict.
    fn until_concluded(&self, limit: Instant, stop: &Stop) -> Result<(), TrialError> {
        loop {
            let books = self.ends.loadgen(Detail::Books).map_err(|error| self.broken("the load generator", error))?;
            if books.finished || Instant::now() > limit {
                return Ok(());
            }
            sleep_or_stop(POLL, stop)?;
        }
    }

    /// Waits until the accept queue is empty (or accepting has been ended because nothing moves), no client socket
    /// owes a FIN, no request socket is left, and two readings agree. False when they never did.
    fn drain(&self, stop: &Stop) -> Result<bool, TrialError> {
        let server = |detail| self.ends.server(detail).map_err(|error| self.broken("the server", error));
        let mut last = server(Detail::Books)?;
        let mut moved = Instant::now();
        while last.depth() > 0 {
            sleep_or_stop(POLL, stop)?;
            let now = server(Detail::Books)?;
            if (now.depth(), now.accepted()) != (last.depth(), last.accepted()) {
                moved = Instant::now();
            }
            last = now;
            if moved.elapsed() > STUCK {
                lock(&self.ends.server)
                    .ask(&ServerRequest::StopAccepting)
                    .map_err(|error| self.broken("the server", error))?;
                break;
            }
        }
        // Requests in SYN_RECV end by the client's RST at once, or by retransmits that nobody waits for.
        let limit = Instant::now() + Duration::from_secs(2);
        loop {
            let before = self.still()?;
            sleep_or_stop(SETTLE, stop)?;
            let after = self.still()?;
            if before == after && (after.waiting == 0 || Instant::now() > limit) {
                return Ok(true);
            }
            if Instant::now() > limit + Duration::from_secs(3) {
                return Ok(false);
            }
        }
    }

    fn still(&self) -> Result<Still, TrialError> {
        let server = self.ends.server(Detail::Books).map_err(|error| self.broken("the server", error))?;
        let loadgen = self.ends.loadgen(Detail::Books).map_err(|error| self.broken("the load generator", error))?;
        Ok(Still {
            accepted: server.accepted(),
            depth: server.depth(),
            // The requests of sockets kept half open stay until these are closed.
            waiting: server.syn_recv.saturating_sub(loadgen.half_open.answered) + loadgen.closing,
            half_open: (server.syn_recv, loadgen.half_open.answered),
            passive_opens: server.kernel.net.passive_opens,
            embryonic_resets: server.kernel.net.embryonic_resets,
            resets_sent: server.kernel.net.resets_sent + loadgen.kernel.net.resets_sent,
            active_opens: loadgen.kernel.net.active_opens,
            concluded: loadgen.whole().concluded(),
        })
    }

    /// Both ends read their books a last time, at once, and exit.
    fn finish(&self) -> Result<(loadgen::Snapshot, server::Snapshot), TrialError> {
        let (mut loadgen, mut server) = (lock(&self.ends.loadgen), lock(&self.ends.server));
        loadgen.send(&LoadgenRequest::Finish).map_err(|error| self.broken("the load generator", error))?;
        server.send(&ServerRequest::Finish).map_err(|error| self.broken("the server", error))?;
        let last: loadgen::Snapshot =
            loadgen.snapshot_reply().map_err(|error| self.broken("the load generator", error))?;
        let books = server.snapshot_reply().map_err(|error| self.broken("the server", error))?;
        if last.half_open.kept > 0 {
            loadgen.send(&LoadgenRequest::Leave).map_err(|error| self.broken("the load generator", error))?;
        }
        Ok((last, books))
    }

    fn tear_down(mut self, settled: bool, load: Duration, drain: Duration) -> Result<Outcome, TrialError> {
        let began = Instant::now();
        let (mut loadgen, mut server) = self.finish()?;
        // Both ends exit, then `__init`, then `__trial`.
        self.holder
            .process
            .wait()
            .map_err(|source| TrialError::Start { what: "waiting for the trial's end", source })?;
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let timings = Timings {
            set_up_ms: ms(self.set_up),
            load_ms: ms(load),
            drain_ms: ms(drain),
            tear_down_ms: ms(began.elapsed()),
        };
        // Read back once, when they were set: nobody else can change them in here.
        loadgen.kernel.sysctls.clone_from(&self.sysctls);
        server.kernel.sysctls.clone_from(&self.sysctls);
        Ok(Outcome { sysctls: std::mem::take(&mut self.sysctls), server, loadgen, timings, settled })
    }
}

/// What must not move between two readings.
#[derive(Debug, PartialEq, Eq)]
struct Still {
    accepted: u64,
    depth: u64,
    waiting: u64,
    /// Request sockets, and sockets kept half open that were answered.
    half_open: (u64, u64),
    passive_opens: u64,
    embryonic_resets: u64,
    resets_sent: u64,
    active_opens: u64,
    concluded: u64,
}

/// Sleeps, unless told to stop.
pub(crate) fn sleep_or_stop(time: Duration, stop: &Stop) -> Result<(), TrialError> {
    if stop.wait_timeout(time) { Err(TrialError::Interrupted) } else { Ok(()) }
}
