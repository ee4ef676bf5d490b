//! What the kernel says about the network namespace of the thread that opened the reader, and about this process:
//! the part of a snapshot that server and load generator have in common.
//!
//! A source that cannot be read leaves its part at the last value and is marked down; it never fails a snapshot.

use std::collections::BTreeMap;
use std::time::Instant;

use kernel::netstat::{NetCounters, NetstatReader};
use kernel::process::ProcessStats;
use kernel::sock_diag::SockDiag;
use kernel::sysctl;
use serde::{Deserialize, Serialize};

/// How much a snapshot reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detail {
    /// Counters only: what the ledger needs, cheap enough to poll.
    Books,
    /// Everything.
    Full,
    /// Everything, and maxima "since the last scrape" start anew.
    Scrape,
}

/// One reading of a namespace and of this process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Reading {
    /// The kernel's TCP counters.
    pub net: NetCounters,
    /// Sockets by TCP state; empty in a reading of the books only.
    pub tcp_sockets: BTreeMap<String, u64>,
    /// Effective sysctls of the accept path; empty in a reading of the books only.
    pub sysctls: BTreeMap<String, String>,
    /// This process.
    pub process: ProcessStats,
    /// How each source did.
    pub sources: Vec<SourceReading>,
}

impl Reading {
    /// Adds the cumulative counts of a finished process in a namespace of its own, and keeps this one's gauges.
    pub fn absorb(&mut self, finished: &Self) {
        self.net = self.net.plus(&finished.net);
        self.process.cpu_seconds += finished.process.cpu_seconds;
        if self.tcp_sockets.is_empty() {
            // A finished namespace holds no sockets; the states stay on the page.
            self.tcp_sockets = finished.tcp_sockets.keys().map(|state| (state.clone(), 0)).collect();
        }
    }
}

/// Health and cost of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SourceReading {
    /// Its name, e.g. `netstat`.
    pub name: String,
    /// Could it be read?
    pub up: bool,
    /// What the attempt cost, s.
    pub seconds: f64,
}

/// Reads a namespace again and again on kept descriptors.
#[derive(Debug)]
pub struct NamespaceReader {
    netstat: Option<NetstatReader>,
    sock_diag: Option<SockDiag>,
    last: NetCounters,
    /// How the questions asked since the last reading did.
    asked: Vec<SourceReading>,
}

impl NamespaceReader {
    /// A reader of the calling thread's network namespace.
    pub fn open() -> Self {
        Self {
            netstat: NetstatReader::open().ok(),
            sock_diag: SockDiag::open().ok(),
            last: NetCounters::default(),
            asked: Vec::new(),
        }
    }

    /// Request sockets in `SYN_RECV` towards a local port; 0 when they cannot be counted.
    pub fn syn_recv(&mut self, port: u16) -> u64 {
        u64::from(self.ask("syn-recv", |diag| diag.syn_recv(port).ok()).unwrap_or(0))
    }

    /// Sockets towards a peer's port that still owe or are owed a FIN; 0 when they cannot be counted.
    pub fn closing_towards(&mut self, peer_port: u16) -> u64 {
        u64::from(self.ask("closing", |diag| diag.client_closing(peer_port).ok()).unwrap_or(0))
    }

    fn ask<T>(&mut self, name: &str, question: impl FnOnce(&mut SockDiag) -> Option<T>) -> Option<T> {
        let diag = &mut self.sock_diag;
        timed(name, &mut self.asked, || diag.as_mut().and_then(question))
    }

    /// Reads what `detail` asks for.
    pub fn read(&mut self, detail: Detail) -> Reading {
        let mut sources = std::mem::take(&mut self.asked);
        let netstat = &mut self.netstat;
        if let Some(net) = timed("netstat", &mut sources, || netstat.as_mut()?.read().ok()) {
            self.last = net;
        }
        let process = timed("process", &mut sources, || kernel::process::stats().ok()).unwrap_or_default();
        let mut reading = Reading { net: self.last, process, ..Reading::default() };
        if detail != Detail::Books {
            let diag = &mut self.sock_diag;
            let states = timed("tcp-sockets", &mut sources, || diag.as_mut()?.states().ok());
            reading.tcp_sockets =
                states.unwrap_or_default().into_iter().map(|(state, count)| (state.to_owned(), count)).collect();
            reading.sysctls =
                timed("sysctl", &mut sources, || Some(sysctl::recorded()).filter(|values| !values.is_empty()))
                    .unwrap_or_default();
        }
        reading.sources = sources;
        reading
    }
}

/// Runs `read` and notes whether it gave something and what it cost.
fn timed<T>(name: &str, sources: &mut Vec<SourceReading>, read: impl FnOnce() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    let value = read();
    sources.push(SourceReading { name: name.to_owned(), up: value.is_some(), seconds: began.elapsed().as_secs_f64() });
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_of_this_namespace_has_every_source_up() {
        let mut reader = NamespaceReader::open();
        reader.syn_recv(9);
        let reading = reader.read(Detail::Full);
        let names: Vec<&str> = reading.sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["syn-recv", "netstat", "process", "tcp-sockets", "sysctl"]);
        assert!(reading.sources.iter().all(|source| source.up), "{:?}", reading.sources);
        assert!(reading.tcp_sockets.contains_key("listen"), "{:?}", reading.tcp_sockets);
        assert!(reading.process.max_fds > 0);
    }

    #[test]
    fn a_source_that_fails_is_marked_down_and_keeps_the_last_value() {
        let mut reader = NamespaceReader { netstat: None, sock_diag: None, ..NamespaceReader::open() };
        reader.last.listen_overflows = 7;
        let reading = reader.read(Detail::Books);
        assert_eq!(reading.net.listen_overflows, 7);
        assert!(reading.sources.iter().any(|source| source.name == "netstat" && !source.up));
    }
}
