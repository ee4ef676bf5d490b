//! What a user may ask of the server: one flat struct that is flag, environment variable, TOML table
//! and record. Defaults live in [`Opts::default`] only. Nothing here touches a socket.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use telemetry::units::{ParseUnitError, Span};

/// Everything the server can be asked for. Field names are the kebab-case keys of `[server]` in an
/// experiment file and the long flags of `acceptbench server`.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Opts {
    /// Address and port to listen on.
    #[arg(long, env = "ACCEPTBENCH_SERVER_LISTEN", value_name = "ADDR:PORT", default_value_t = Opts::default().listen,
          value_parser = listen)]
    pub listen: SocketAddr,
    /// Listen backlog: the second argument of listen(2). The queue limit is min(backlog, somaxconn).
    #[arg(long, env = "ACCEPTBENCH_SERVER_BACKLOG", value_name = "N", default_value_t = Opts::default().backlog,
          allow_negative_numbers = true, value_parser = backlog)]
    pub backlog: u32,
    /// Threads that accept.
    #[arg(long, env = "ACCEPTBENCH_SERVER_ACCEPTORS", value_name = "N", default_value_t = Opts::default().acceptors,
          allow_negative_numbers = true, value_parser = acceptors)]
    pub acceptors: NonZeroU32,
    /// Who owns the listener: one shared by all acceptors (off), or one each, chosen by the kernel's
    /// 4-tuple hash (hash). A bare --reuseport means hash.
    #[arg(long, env = "ACCEPTBENCH_SERVER_REUSEPORT", value_name = "HOW", default_value_t = Opts::default().reuseport,
          num_args = 0..=1, require_equals = true, default_missing_value = "hash")]
    pub reuseport: Reuseport,
    /// How an acceptor waits for and takes connections.
    #[arg(long, env = "ACCEPTBENCH_SERVER_ENGINE", value_name = "ENGINE", default_value_t = Opts::default().engine)]
    pub engine: Engine,
    /// What happens to an accepted connection.
    #[arg(long, env = "ACCEPTBENCH_SERVER_ON_ACCEPT", value_name = "WHAT", default_value_t = Opts::default().on_accept)]
    pub on_accept: OnAccept,
    /// Service time per accept: 0, a time (500us), exp:MEAN (exponential) or spin:TIME (busy, exact).
    #[arg(long, env = "ACCEPTBENCH_SERVER_ACCEPT_DELAY", value_name = "DELAY", default_value_t = Opts::default().accept_delay)]
    pub accept_delay: AcceptDelay,
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
    /// Seed of random service times (exp:MEAN).
    #[arg(long, env = "ACCEPTBENCH_SERVER_SEED", value_name = "N", default_value_t = Opts::default().seed)]
    pub seed: u64,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write IP:PORT, e.g. 0.0.0.0:9700 or [::]:9700".to_owned())
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
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9700)),
            backlog: 128,
            acceptors: NonZeroU32::MIN,
            reuseport: Reuseport::Off,
            engine: Engine::Epoll,
            on_accept: OnAccept::Greet,
            accept_delay: AcceptDelay::None,
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

/// Who owns the listening sockets. socket(7), `SO_REUSEPORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reuseport {
    /// One listener, shared by every acceptor.
    Off,
    /// One listener per acceptor; the kernel picks by a hash of the 4-tuple.
    Hash,
}

/// How one acceptor waits and accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Level-triggered epoll(7), then accept4(2) until the queue is empty.
    Epoll,
    /// A blocking accept4(2) per connection.
    Blocking,
}

/// What happens to an accepted connection, after the accept delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnAccept {
    /// Send one byte, then close (FIN).
    Greet,
    /// Close at once (FIN).
    Close,
    /// Close at once with `SO_LINGER {1, 0}` (RST).
    Reset,
}

/// When listen(2) is called again. The kernel caps the backlog by somaxconn at that call only (`net/ipv4/af_inet.c`,
/// `__inet_listen_sk`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relisten {
    /// Once, at the start.
    Never,
    /// Whenever net.core.somaxconn of the server's network namespace has changed.
    OnChange,
}

telemetry::value_enum_display!(Reuseport, Engine, OnAccept, Relisten);

/// Service time per accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptDelay {
    /// No service time: accept as fast as the CPU allows.
    None,
    /// A constant time spent asleep.
    Sleep(Span),
    /// Exponentially distributed with this mean, spent asleep.
    Exponential(Span),
    /// A constant time spent busy on the CPU.
    Spin(Span),
}

impl FromStr for AcceptDelay {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let delay = match text.split_once(':') {
            Some(("exp", mean)) => Self::Exponential(mean.parse()?),
            Some(("spin", time)) => Self::Spin(time.parse()?),
            Some((other, _)) => {
                return Err(ParseUnitError::new(format!(
                    "`{other}:` is no kind of accept delay; use TIME, exp:MEAN or spin:TIME"
                )));
            }
            None => Self::Sleep(text.parse()?),
        };
        Ok(match delay {
            Self::Sleep(t) | Self::Exponential(t) | Self::Spin(t) if t.as_ns() == 0 => Self::None,
            delay => delay,
        })
    }
}

impl fmt::Display for AcceptDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("0"),
            Self::Sleep(time) => time.fmt(f),
            Self::Exponential(mean) => write!(f, "exp:{mean}"),
            Self::Spin(time) => write!(f, "spin:{time}"),
        }
    }
}
telemetry::string_serde!(AcceptDelay);

/// A window in which no acceptor accepts, counted from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// When it begins.
    pub at: Span,
    /// How long it lasts; `None` is for ever.
    pub lasts: Option<Span>,
}

impl FromStr for Stall {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (at, lasts) = text.split_once('+').ok_or_else(|| {
            ParseUnitError::new(format!("`{text}` is no stall; write AT+FOR, e.g. 1s+2s or 0s+forever"))
        })?;
        let lasts = if lasts == "forever" { None } else { Some(lasts.parse()?) };
        Ok(Self { at: at.parse()?, lasts })
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lasts {
            Some(lasts) => write!(f, "{}+{lasts}", self.at),
            None => write!(f, "{}+forever", self.at),
        }
    }
}
telemetry::string_serde!(Stall);

/// A listener to close while the run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retire {
    /// Index of the listener in the order of their listen(2) calls.
    pub listener: u32,
    /// When, counted from the start of the run.
    pub at: Span,
}

impl FromStr for Retire {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (listener, at) = text
            .split_once('@')
            .and_then(|(n, at)| Some((n.parse().ok()?, at)))
            .ok_or_else(|| ParseUnitError::new(format!("`{text}` names no listener; write N@T, e.g. 0@2s")))?;
        Ok(Self { listener, at: at.parse()? })
    }
}

impl fmt::Display for Retire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.listener, self.at)
    }
}
telemetry::string_serde!(Retire);
