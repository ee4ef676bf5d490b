//! What a user may ask of the load generator: one flat struct that is flag, environment variable, TOML table
//! and record. Defaults live in [`Opts::default`] only. Nothing here touches a socket.

mod trace;
mod what;
mod when;
mod whence;

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::str::FromStr;

use clap::{ArgAction, Args, ValueEnum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::units::{ParseUnitError, Rate, SPAN_PATTERN, Span};
use telemetry::{Cpus, Scheduling};

pub(crate) use trace::Instants;
pub use trace::{Step, Trace};
pub use what::{Expectation, Message, Spin};
pub use when::{ArrivalKind, Profile, Shard, Stage, StartAt};
pub use whence::{PortRange, Sources};

/// Everything the load generator can be asked for. Field names are the kebab-case keys of `[loadgen]` in an
/// experiment file and the long flags of `acceptbench loadgen`.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
#[schemars(rename = "Loadgen")]
pub struct Opts {
    /// Where to connect to: HOST:PORT or `[V6]:PORT`.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_TARGET", value_name = "HOST:PORT", default_value_t = Opts::default().target)]
    pub target: Target,
    /// When attempts are planned: constant or poisson (at --rate), burst:N/D (N at once every D), profile:STAGES
    /// (2000x30s,ramp:2000-8000x60s,repeat), trace:@FILE (given instants), or closed:N (N in flight at all times, no schedule).
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_ARRIVALS", value_name = "HOW", default_value_t = Opts::default().arrivals)]
    pub arrivals: ArrivalKind,
    /// Attempts per second, over all workers.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_RATE", value_name = "RATE", default_value_t = Opts::default().rate,
          allow_negative_numbers = true)]
    pub rate: Rate,
    /// What proves that the server served: its first byte (greeting), its first bytes after the client's (reply), or nothing
    /// beyond the handshake (none).
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_CONFIRM", value_name = "WHAT", default_value_t = Opts::default().confirm)]
    pub confirm: Confirm,
    /// What the client says with confirm reply: a text, in which \r, \n, \t, \\ and \xHH stand for bytes, or @FILE.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_SEND", value_name = "TEXT|@FILE", default_value_t = Opts::default().send)]
    pub send: Message,
    /// How what comes first must begin: a text as for --send, or `any`. What begins otherwise is an unexpected answer.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_EXPECT", value_name = "PREFIX", default_value_t = Opts::default().expect)]
    pub expect: Expectation,
    /// How long an attempt may take from the instant it was issued.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_DEADLINE", value_name = "TIME", default_value_t = Opts::default().deadline)]
    pub deadline: Span,
    /// How long a confirmed connection is kept open before it is closed.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_HOLD", value_name = "TIME", default_value_t = Opts::default().hold)]
    pub hold: Span,
    /// Keep confirmed connections open until there are more than N, then close the oldest; all at the end of the load.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_KEEP", value_name = "N", value_parser = kept)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<NonZeroU32>,
    /// How a finished attempt's socket is closed: reset (RST, leaves no `TIME_WAIT`), fin, or shutdown (a FIN by
    /// shutdown(2), then the server's FIN is waited for).
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_CLOSE", value_name = "HOW", default_value_t = Opts::default().close)]
    pub close: Close,
    /// How long attempts are planned after the warm-up, or `forever`.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_DURATION", value_name = "TIME", default_value_t = Opts::default().duration)]
    pub duration: RunTime,
    /// Attempts planned in this first stretch are counted apart.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_WARM_UP", value_name = "TIME", default_value_t = Opts::default().warm_up)]
    pub warm_up: Span,
    /// Threads that open connections: a number, or `auto` for one per CPU.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_WORKERS", value_name = "N", default_value_t = Opts::default().workers)]
    pub workers: AutoCount,
    /// How sockets are driven: `io-uring`, `epoll`, or `auto`: io-uring in a closed loop where it can do what is asked here,
    /// else epoll.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_ENGINE", value_name = "ENGINE", default_value_t = Opts::default().engine)]
    pub engine: Engine,
    /// CPUs that workers are pinned to: off, auto (one each, round and round) or a list (0,2-3).
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_CPUS", value_name = "CPUS", default_value_t = Opts::default().cpus)]
    pub cpus: Cpus,
    /// The workers' scheduling policy: normal, or batch (`SCHED_BATCH`: a waking worker does not interrupt the server).
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_SCHEDULING", value_name = "POLICY", default_value_t = Opts::default().scheduling)]
    pub scheduling: Scheduling,
    /// How long before a planned instant a sleeping worker is awake and looks at the clock: auto (what wake-ups take here,
    /// at most 25us), off, or a time.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_SPIN", value_name = "TIME", default_value_t = Opts::default().spin)]
    pub spin: Spin,
    /// A socket per attempt (fresh), or sockets that are disconnected and connected again (reused, by connect(2) to
    /// `AF_UNSPEC`): another life of the same socket. Never compare the two.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_SOCKETS", value_name = "WHICH", default_value_t = Opts::default().sockets)]
    pub sockets: Sockets,
    /// Send the first bytes in the SYN (`TCP_FASTOPEN`); with confirm reply.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_FASTOPEN", value_name = "BOOL", default_value_t = Opts::default().fastopen,
          action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub fastopen: bool,
    /// How often a SYN is sent again before the kernel gives up (`TCP_SYNCNT`), instead of `net.ipv4.tcp_syn_retries`.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_SYN_RETRIES", value_name = "N", value_parser = syn_retries)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 127))]
    pub syn_retries: Option<NonZeroU8>,
    /// How long what is sent may stay unacknowledged (`TCP_USER_TIMEOUT`, in whole ms).
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_USER_TIMEOUT", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_timeout: Option<Span>,
    /// Most attempts in flight; what comes on top is shed, and counted. `auto` is what descriptors allow.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_MAX_IN_FLIGHT", value_name = "N", default_value_t = Opts::default().max_in_flight)]
    pub max_in_flight: AutoCount,
    /// Local addresses that attempts come from in turn: addresses and networks (127.0.0.2,198.18.1.0/26). Each has its own
    /// ports.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_SOURCES", value_name = "LIST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Sources>,
    /// Local ports that attempts come from, within `net.ipv4.ip_local_port_range` (20000-29999).
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_SOURCE_PORTS", value_name = "LOW-HIGH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<PortRange>,
    /// Only every Nth attempt, beginning with the Ith: I/N. The N parts together are exactly the whole load. index:I/N
    /// counts I from 0.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_SHARD", value_name = "[index:]I/N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// Start at this instant rather than at once: 2030-01-31T12:00:00Z, or @SECONDS since 1970.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_START_AT", value_name = "INSTANT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<StartAt>,
    /// Seed of random arrivals: the same seed plans the same instants.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_SEED", value_name = "N", default_value_t = Opts::default().seed)]
    pub seed: u64,
}

impl Default for Opts {
    fn default() -> Self {
        Self {
            target: Target("127.0.0.1:9700".to_owned()),
            arrivals: ArrivalKind::Constant,
            rate: Rate::THOUSAND,
            confirm: Confirm::Greeting,
            send: Message::default(),
            expect: Expectation::Any,
            deadline: Span::from_secs(5),
            hold: Span::ZERO,
            keep: None,
            close: Close::Reset,
            duration: RunTime::For(Span::from_secs(10)),
            warm_up: Span::ZERO,
            workers: AutoCount::Auto,
            engine: Engine::Auto,
            cpus: Cpus::Off,
            scheduling: Scheduling::Normal,
            spin: Spin::Auto,
            sockets: Sockets::Fresh,
            fastopen: false,
            syn_retries: None,
            user_timeout: None,
            max_in_flight: AutoCount::Auto,
            sources: None,
            source_ports: None,
            shard: None,
            start_at: None,
            seed: 1,
        }
    }
}

impl Opts {
    /// The arguments of `acceptbench loadgen` that give exactly these options: only what differs from the
    /// default, by name.
    pub fn to_args(&self) -> Vec<String> {
        telemetry::command_line::to_args(self, &Self::default())
    }
}

fn kept(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| "write a whole number of 1 or more, or leave it out to keep none".to_owned())
}

/// `TCP_SYNCNT` takes 1 to 127.
fn syn_retries(text: &str) -> Result<NonZeroU8, String> {
    let count = text.parse().ok().filter(|count: &NonZeroU8| count.get() <= 127);
    count.ok_or_else(|| "write a whole number from 1 to 127".to_owned())
}

/// HOST:PORT as typed; resolved when the plan is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(String);

impl Target {
    /// The text, fit for `ToSocketAddrs`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<std::net::SocketAddr> for Target {
    fn from(address: std::net::SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl FromStr for Target {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<NonZeroU16Port>().is_ok() => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(ParseUnitError::new(format!(
                "`{text}` is no target; write HOST:PORT, e.g. 127.0.0.1:9700 or [::1]:9700"
            ))),
        }
    }
}

type NonZeroU16Port = std::num::NonZeroU16;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
telemetry::string_serde!(Target);
telemetry::text_schema!(Target, ".+:[0-9]+");

/// What proves that an attempt was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Confirm {
    /// The server's first byte; the client sends nothing.
    Greeting,
    /// The server's first byte, after the client has sent one.
    Reply,
    /// Nothing: an attempt ends when connect(2) succeeds, which does not say that anybody accepted.
    None,
}

/// How the client closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "LoadgenClose")]
pub enum Close {
    /// `SO_LINGER {1, 0}`: a RST, no `TIME_WAIT`, the port is free at once.
    Reset,
    /// close(2): a FIN.
    Fin,
    /// shutdown(2) with `SHUT_WR`: a FIN; close(2) when the server's FIN has come.
    Shutdown,
}

/// What drives sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "LoadgenEngine")]
pub enum Engine {
    /// `io-uring` in a closed loop, where the kernel has it and it can do what is asked, else `epoll`.
    Auto,
    /// `io_uring(7)`: a linked chain of requests per attempt on a registered file. Linux 6.8.
    IoUring,
    /// epoll(7), edge-triggered, and a system call per step.
    Epoll,
}

/// The life of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sockets {
    /// One attempt.
    Fresh,
    /// Many: connect(2) to `AF_UNSPEC` resets the connection and makes the socket fit for the next.
    Reused,
}

telemetry::value_enum_display!(Confirm, Close, Engine, Sockets);

/// How long attempts are planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunTime {
    /// This long.
    For(Span),
    /// Until told to stop.
    Forever,
}

impl FromStr for RunTime {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        match text.parse::<Span>()? {
            Span::ZERO => Err(ParseUnitError::new("a duration must be above 0".to_owned())),
            span => Ok(Self::For(span)),
        }
    }
}

impl fmt::Display for RunTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(span) => span.fmt(f),
            Self::Forever => f.write_str("forever"),
        }
    }
}
telemetry::string_serde!(RunTime);
telemetry::text_schema!(RunTime, format!("forever|{SPAN_PATTERN}"));

/// A number of something, or the number that fits this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCount {
    /// Chosen from what the machine has.
    Auto,
    /// This many.
    Exactly(NonZeroU32),
}

impl FromStr for AutoCount {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Exactly).map_err(|_| {
                ParseUnitError::new(format!("`{text}` is no count; use auto or a whole number of 1 or more"))
            }),
        }
    }
}

impl fmt::Display for AutoCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(n) => n.fmt(f),
        }
    }
}
telemetry::string_serde!(AutoCount);
telemetry::text_schema!(AutoCount, "auto|[1-9][0-9]*", or { "type": "integer", "minimum": 1 });
