//! What a user may ask of the server: one flat struct that is flag, environment variable, TOML table
//! and record. Defaults live in [`Opts::default`] only. Nothing here touches a socket.

mod places;
mod timing;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;

use clap::{ArgAction, Args, ValueEnum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::units::{ParseUnitError, Span};

pub use places::Addresses;
pub use telemetry::{Cpus, Scheduling};
pub use timing::{AcceptDelay, Retire, Stall};

/// Everything the server can be asked for. Field names are the kebab-case keys of `[server]` in an
/// experiment file and the long flags of `acceptbench server`.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
#[schemars(rename = "Server")]
pub struct Opts {
    /// Where to listen: IP:PORT, IP:FIRST-LAST for a range of ports, several separated by commas.
    #[arg(long, env = "ACCEPTBENCH_SERVER_LISTEN", value_name = "ADDR:PORT", default_value_t = Opts::default().listen)]
    pub listen: Addresses,
    /// Listen backlog: the second argument of listen(2). The queue limit is min(backlog, somaxconn).
    #[arg(long, env = "ACCEPTBENCH_SERVER_BACKLOG", value_name = "N", default_value_t = Opts::default().backlog,
          allow_negative_numbers = true, value_parser = backlog)]
    #[schemars(range(max = 2_147_483_647))]
    pub backlog: u32,
    /// How many accept: threads or processes.
    #[arg(long, env = "ACCEPTBENCH_SERVER_ACCEPTORS", value_name = "N", default_value_t = Opts::default().acceptors,
          allow_negative_numbers = true, value_parser = acceptors)]
    pub acceptors: NonZeroU32,
    /// What an acceptor is: a thread, or a process forked before the first connection (and replaced when it dies).
    #[arg(long, env = "ACCEPTBENCH_SERVER_WORKERS", value_name = "WHAT", default_value_t = Opts::default().workers)]
    pub workers: Workers,
    /// Who owns the listener: one shared by all acceptors (off), or one each, chosen by the kernel's 4-tuple hash (hash), by
    /// a BPF program on the CPU (cpu), or by `SO_INCOMING_CPU` (incoming-cpu). A bare --reuseport means hash.
    #[arg(long, env = "ACCEPTBENCH_SERVER_REUSEPORT", value_name = "HOW", default_value_t = Opts::default().reuseport,
          num_args = 0..=1, require_equals = true, default_missing_value = "hash")]
    pub reuseport: Reuseport,
    /// How an acceptor waits for and takes connections.
    #[arg(long, env = "ACCEPTBENCH_SERVER_ENGINE", value_name = "ENGINE", default_value_t = Opts::default().engine)]
    pub engine: Engine,
    /// Connections taken per wake-up at most: a number, or `all` until the queue is empty.
    #[arg(long, env = "ACCEPTBENCH_SERVER_ACCEPT_BATCH", value_name = "N", default_value_t = Opts::default().accept_batch)]
    pub accept_batch: Batch,
    /// CPUs that acceptors are pinned to: off, auto (one each, round and round) or a list (0,2-3).
    #[arg(long, env = "ACCEPTBENCH_SERVER_CPUS", value_name = "CPUS", default_value_t = Opts::default().cpus)]
    pub cpus: Cpus,
    /// The acceptors' scheduling policy: normal, or batch (`SCHED_BATCH`: an acceptor that wakes up does not interrupt who
    /// runs, and so takes more connections at a time).
    #[arg(long, env = "ACCEPTBENCH_SERVER_SCHEDULING", value_name = "POLICY", default_value_t = Opts::default().scheduling)]
    pub scheduling: Scheduling,
    /// Who deals with an accepted connection: the acceptor itself (inline), or a child process forked for it (fork).
    #[arg(long, env = "ACCEPTBENCH_SERVER_HANDLER", value_name = "WHO", default_value_t = Opts::default().handler)]
    pub handler: Handler,
    /// Children per acceptor at most (handler fork); at this number the acceptor waits for one to end.
    #[arg(long, env = "ACCEPTBENCH_SERVER_MAX_CHILDREN", value_name = "N", default_value_t = Opts::default().max_children,
          allow_negative_numbers = true, value_parser = acceptors)]
    pub max_children: NonZeroU32,
    /// What happens to an accepted connection.
    #[arg(long, env = "ACCEPTBENCH_SERVER_ON_ACCEPT", value_name = "WHAT", default_value_t = Opts::default().on_accept)]
    pub on_accept: OnAccept,
    /// How long a connection is kept open before it is closed (on-accept greet or hold).
    #[arg(long, env = "ACCEPTBENCH_SERVER_HOLD", value_name = "TIME", default_value_t = Opts::default().hold)]
    pub hold: Span,
    /// Who closes first, and how: the server by close(2), the server by shutdown(2) of its sending side, which waits for
    /// the client's FIN (half-close), or the client (wait).
    #[arg(long, env = "ACCEPTBENCH_SERVER_CLOSE", value_name = "HOW", default_value_t = Opts::default().close)]
    pub close: Close,
    /// Service time per accept: 0, a time (500us), exp:MEAN (exponential), spin:TIME (busy, exact) or spin:exp:MEAN (both).
    #[arg(long, env = "ACCEPTBENCH_SERVER_ACCEPT_DELAY", value_name = "DELAY", default_value_t = Opts::default().accept_delay)]
    pub accept_delay: AcceptDelay,
    /// Set `SO_REUSEADDR`: listen although connections of an earlier server are in `TIME_WAIT`.
    #[arg(long, env = "ACCEPTBENCH_SERVER_REUSEADDR", value_name = "BOOL", default_value_t = Opts::default().reuseaddr,
          action = ArgAction::Set)]
    pub reuseaddr: bool,
    /// Set `IPV6_V6ONLY`: a listener on `[::]` takes no IPv4.
    #[arg(long, env = "ACCEPTBENCH_SERVER_V6ONLY", value_name = "BOOL", default_value_t = Opts::default().v6only,
          action = ArgAction::Set)]
    pub v6only: bool,
    /// Keep connections out of the accept queue until they have data, for about this many seconds (`TCP_DEFER_ACCEPT`);
    /// 0s is off.
    #[arg(long, env = "ACCEPTBENCH_SERVER_DEFER_ACCEPT", value_name = "TIME", default_value_t = Opts::default().defer_accept)]
    pub defer_accept: Span,
    /// Take data in the SYN from at most this many requests at once (`TCP_FASTOPEN`); 0 is off.
    #[arg(long, env = "ACCEPTBENCH_SERVER_FASTOPEN", value_name = "N", default_value_t = Opts::default().fastopen)]
    pub fastopen: u16,
    /// When somaxconn changes: leave the queue limit as it is (never), or call listen(2) again with the same backlog,
    /// which applies the new limit at once (on-change).
    #[arg(long, env = "ACCEPTBENCH_SERVER_RELISTEN", value_name = "WHEN", default_value_t = Opts::default().relisten)]
    pub relisten: Relisten,
    /// Accept nothing for a while: AT+FOR after the start (1s+2s); FOR may be `forever`.
    #[arg(long, env = "ACCEPTBENCH_SERVER_STALL", value_name = "AT+FOR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// Close listener number N (from 0) at time T after the start: N@T (0@2s). What waits in its accept
    /// queue is reset by the kernel and counted as destroyed.
    #[arg(long, env = "ACCEPTBENCH_SERVER_RETIRE", value_name = "N@T")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retire: Option<Retire>,
    /// Seed of random service times (exp:MEAN, spin:exp:MEAN).
    #[arg(long, env = "ACCEPTBENCH_SERVER_SEED", value_name = "N", default_value_t = Opts::default().seed)]
    pub seed: u64,
}

/// The argument of listen(2) is a C int.
fn backlog(text: &str) -> Result<u32, String> {
    let backlog = text.parse().ok().filter(|backlog| i32::try_from(*backlog).is_ok());
    backlog.ok_or_else(|| format!("write a whole number from 0 to {}", i32::MAX))
}

fn acceptors(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| "write a whole number of 1 or more".to_owned())
}

impl Default for Opts {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9700)).into(),
            backlog: 128,
            acceptors: NonZeroU32::MIN,
            workers: Workers::Threads,
            reuseport: Reuseport::Off,
            engine: Engine::Epoll,
            accept_batch: Batch::All,
            cpus: Cpus::Off,
            scheduling: Scheduling::Normal,
            handler: Handler::Inline,
            max_children: const { NonZeroU32::new(64).unwrap() },
            on_accept: OnAccept::Greet,
            hold: Span::ZERO,
            close: Close::Close,
            accept_delay: AcceptDelay::None,
            reuseaddr: true,
            v6only: true,
            defer_accept: Span::ZERO,
            fastopen: 0,
            relisten: Relisten::Never,
            stall: None,
            retire: None,
            seed: 1,
        }
    }
}

impl Opts {
    /// The arguments of `acceptbench server` that give exactly these options: only what differs from the
    /// default, by name.
    pub fn to_args(&self) -> Vec<String> {
        telemetry::command_line::to_args(self, &Self::default())
    }
}

/// What an acceptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Workers {
    /// A thread of the server.
    Threads,
    /// A process, forked before the first connection; one that dies is replaced.
    Processes,
}

/// Who owns the listening sockets. socket(7), `SO_REUSEPORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reuseport {
    /// One listener, shared by every acceptor.
    Off,
    /// One listener per acceptor; the kernel picks by a hash of the 4-tuple.
    Hash,
    /// One listener per acceptor; a classic BPF program picks number CPU mod acceptors (`SO_ATTACH_REUSEPORT_CBPF`).
    Cpu,
    /// One listener per acceptor; the kernel prefers the one whose `SO_INCOMING_CPU` is the CPU that handles the packet.
    IncomingCpu,
}

/// How one acceptor waits and accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Level-triggered epoll(7), then accept4(2) until the queue is empty.
    Epoll,
    /// Edge-triggered epoll(7) (`EPOLLET`): one wake-up per arrival, so the queue must be emptied each time.
    EpollEdge,
    /// epoll(7) with `EPOLLEXCLUSIVE`: an arrival wakes one waiter, the first that is idle.
    EpollExclusive,
    /// A blocking accept4(2) per connection.
    Blocking,
    /// `io_uring` with one accept in flight, submitted again after each completion.
    IoUring,
    /// `io_uring` with a multishot accept: the kernel accepts by itself and empties the accept queue into the completion
    /// queue, however slow the server is.
    IoUringMultishot,
    /// tokio's multi-thread runtime: one task per acceptor, as many worker threads, work stealing.
    Tokio,
    /// One current-thread tokio runtime per acceptor.
    TokioLocal,
}

/// Who deals with an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Handler {
    /// The acceptor.
    Inline,
    /// A child process forked for the connection, which closes the listener and serves: the classic concurrent server.
    Fork,
}

/// What happens to an accepted connection, after the accept delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnAccept {
    /// Send one byte, then close, after the hold time if there is one.
    Greet,
    /// Close at once.
    Close,
    /// Close at once with `SO_LINGER {1, 0}` (RST).
    Reset,
    /// Wait for the client's first bytes, send one byte, then close.
    Reply,
    /// Send back what comes until the client closes.
    Echo,
    /// Send nothing; close after the hold time.
    Hold,
}

/// Who closes a connection first, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Close {
    /// The server, by close(2).
    Close,
    /// The server, by shutdown(2) with `SHUT_WR`; it closes when the client has.
    HalfClose,
    /// The client: the server closes when it sees the end.
    Wait,
}

/// When listen(2) is called again. The kernel caps the backlog by somaxconn at that call only (`net/ipv4/af_inet.c`,
/// `__inet_listen_sk`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Relisten {
    /// Once, at the start.
    Never,
    /// Whenever net.core.somaxconn of the server's network namespace has changed.
    OnChange,
}

telemetry::value_enum_display!(Workers, Reuseport, Engine, Handler, OnAccept, Close, Relisten);

/// Every value of a choice, in the order of its help.
pub fn values<T: ValueEnum>() -> &'static [T] {
    T::value_variants()
}

/// How many connections one wake-up takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Until the queue is empty.
    All,
    /// This many at most.
    AtMost(NonZeroU32),
}

impl FromStr for Batch {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            _ => text.parse().map(Self::AtMost).map_err(|_| {
                ParseUnitError::new(format!("`{text}` is no batch; use all or a whole number of 1 or more"))
            }),
        }
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::AtMost(n) => n.fmt(f),
        }
    }
}
telemetry::string_serde!(Batch);
telemetry::text_schema!(Batch, "all|[1-9][0-9]*", or { "type": "integer", "minimum": 1 });
