//! What is known at one instant: the listeners, the namespace, and how the watching itself does. Serialised as
//! `/snapshot` and by `--once --json`.

use std::net::{Ipv4Addr, SocketAddr};

use kernel::netstat::NetCounters;
use serde::{Deserialize, Serialize};
use telemetry::listeners::Queue;
use telemetry::namespace::Reading;

/// Everything `watch` shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Snapshot {
    /// The network namespace as it was named; absent for the program's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// When, on the monotonic clock, ns.
    pub monotonic_ns: u64,
    /// How long the asker's window is: the time since its last scrape or its last table, ns.
    pub window_ns: u64,
    /// Looks taken at all listeners so far.
    pub samples: u64,
    /// CPU time of the sampling thread, ns.
    pub sampler_cpu_ns: u64,
    /// Listeners that the filters let pass and the limit does not.
    pub omitted: u64,
    /// The listeners shown, by address.
    pub listeners: Vec<Listener>,
    /// The namespace's counters, sockets and sysctls, and this process.
    pub kernel: Reading,
    /// What of the namespace's counters fell into the window.
    pub in_window: NetCounters,
}

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Listener {
    /// Its label: the address, with `#2`, `#3`, … for further sockets on the same one.
    pub listener: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Inode of the socket.
    pub inode: u32,
    /// User that made it.
    pub uid: u32,
    /// Command name of the process that holds it; empty where it cannot be seen.
    pub command: String,
    /// Connections in the accept queue at the last look.
    pub depth: u32,
    /// Queue limit; limit + 1 connections fit.
    pub limit: u32,
    /// Deepest accept queue at any look within the window.
    pub deepest: u32,
    /// Time spent full since it is watched, ns.
    pub full_ns: u64,
    /// Packets it dropped since it was made; absent where the kernel does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drops: Option<u64>,
    /// How many of them within the window.
    pub dropped_in_window: u64,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            listener: String::new(),
            address: (Ipv4Addr::UNSPECIFIED, 0).into(),
            inode: 0,
            uid: 0,
            command: String::new(),
            depth: 0,
            limit: 0,
            deepest: 0,
            full_ns: 0,
            drops: None,
            dropped_in_window: 0,
        }
    }
}

impl Listener {
    /// As every observer of a listener shows it.
    pub fn queue(&self) -> Queue {
        Queue {
            depth: self.depth.into(),
            limit: self.limit,
            deepest_since_scrape: self.deepest.into(),
            full_ns: self.full_ns,
            drops: self.drops,
        }
    }

    /// Is the accept queue full now? It holds limit + 1.
    pub fn is_full(&self) -> bool {
        self.depth > self.limit
    }
}

impl Snapshot {
    /// The window in seconds.
    pub fn window_seconds(&self) -> f64 {
        self.window_ns as f64 / 1e9
    }

    /// Names of the sources that could not be read.
    pub fn sources_down(&self) -> Vec<&str> {
        self.kernel.sources.iter().filter(|source| !source.up).map(|source| source.name.as_str()).collect()
    }
}
