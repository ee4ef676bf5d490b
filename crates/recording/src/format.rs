//! The lines of a recording: JSON, one a line. The first is the [`Header`], the last the [`End`], and between them stand
//! samples, an array of whole numbers each, and changes of the queue limit.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// No recording takes longer, µs: a century. Sums of what is read can then never overflow.
const LONGEST_US: u64 = 100 * 366 * 86_400 * 1_000_000;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Header {
    /// [`VERSION`].
    pub acceptbench_recording: u32,
    /// Where the listener listens.
    pub listener: SocketAddr,
    /// The first look (UTC).
    pub started: Timestamp,
    /// Time between two looks as it was asked for, µs.
    pub interval_us: u64,
    /// Queue limit at the first look; the queue holds one more.
    pub limit: u32,
    /// Connections in the accept queue at the first look.
    pub depth: u32,
    /// Other listeners of the network namespace: what they take in is counted with this one's.
    pub other_listeners: u32,
    /// Release of the kernel.
    pub kernel: String,
    /// Sysctls of the network namespace at the first look.
    pub sysctls: BTreeMap<String, String>,
}

/// What changed from one look to the next. Written as `[since, over, entered, depth, dropped,
/// listen-drops, cookies, resets, deferred]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When it was looked, µs from the first look. Written as the time since the line before.
    pub at: u64,
    /// Time since the look before, µs: what is told of here happened within it.
    pub over: u64,
    /// Connections that entered an accept queue of the namespace (`PassiveOpens`).
    pub entered: u64,
    /// Connections in this listener's accept queue at this look.
    pub depth: u32,
    /// What this listener dropped (`sk_drops`): a SYN is one, a last ACK of a known request two, a client's RST for a request
    /// one, a bare ACK that `TCP_DEFER_ACCEPT` holds back one.
    pub dropped: u32,
    /// What all listeners of the namespace dropped (`ListenDrops`): a SYN is one, a last ACK one.
    pub listen_drops: u64,
    /// SYNs of the namespace that were answered with a cookie (`SyncookiesSent`).
    pub cookies: u64,
    /// Requests of the namespace that a RST ended (`EmbryonicRsts`).
    pub resets: u64,
    /// Bare ACKs of the namespace that `TCP_DEFER_ACCEPT` held back (`TCPDeferAcceptDrop`).
    pub deferred: u64,
}

/// The instant of a line, unless no recording takes so long.
pub(crate) fn later(before: u64, since: u64) -> Option<u64> {
    before.checked_add(since).filter(|at| *at <= LONGEST_US)
}

/// A sample as it is written.
pub(crate) type Columns = [u64; 9];

impl Sample {
    /// As it is written, after a line about the instant `before`.
    pub(crate) fn columns(&self, before: u64) -> Columns {
        let Self { at, over, entered, depth, dropped, listen_drops, cookies, resets, deferred } = *self;
        [
            at.saturating_sub(before),
            over,
            entered,
            depth.into(),
            dropped.into(),
            listen_drops,
            cookies,
            resets,
            deferred,
        ]
    }

    /// What is written after a line about the instant `before`; the name of the column that cannot be.
    pub(crate) fn read(columns: Columns, before: u64) -> Result<Self, &'static str> {
        let [since, over, ..] = columns;
        let at = later(before, since).ok_or("since")?;
        if over > at {
            return Err("over");
        }
        let names = ["entered", "depth", "dropped", "listen-drops", "cookies", "resets", "deferred"];
        let mut counts = [0; 7];
        for ((count, name), value) in counts.iter_mut().zip(names).zip(&columns[2..]) {
            *count = u32::try_from(*value).map_err(|_| name)?;
        }
        let [entered, depth, dropped, listen_drops, cookies, resets, deferred] = counts;
        Ok(Self {
            at,
            over,
            entered: entered.into(),
            depth,
            dropped,
            listen_drops: listen_drops.into(),
            cookies: cookies.into(),
            resets: resets.into(),
            deferred: deferred.into(),
        })
    }

    /// When the look before was, µs from the first look.
    pub fn began(&self) -> u64 {
        self.at - self.over
    }
}

/// The listener has another queue limit from here on: somebody called listen(2) again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LimitChange {
    /// The new limit.
    pub limit: u32,
    /// µs since the line before.
    pub since_us: u64,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Somebody stopped it.
    Stopped,
    /// It has as many bytes as it may.
    Size,
    /// It took as long as it may.
    Time,
    /// The listener was closed, or another socket has its address now.
    ListenerClosed,
}

/// The last line. A recording without one was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct End {
    /// Why.
    pub end: Ending,
    /// µs since the line before.
    pub since_us: u64,
    /// Looks taken.
    pub looks: u64,
    /// Looks that came so late that one or more before them were left out.
    pub late: u64,
    /// CPU time that looking took, µs.
    pub cpu_us: u64,
}
