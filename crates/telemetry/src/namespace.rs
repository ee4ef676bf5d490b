//! What the kernel says about the network namespace of the thread that opened the reader, and about this process:
//! the part of a snapshot that server and load generator have in common.
//!
//! A source that cannot be read leaves its part at the last value and is marked down; it never fails a snapshot.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kernel::netstat::{NetCounters, NetstatReader};
use kernel::process::ProcessStats;
use kernel::sock_diag::SockDiag;
use kernel::sysctl::Recorder;
use serde::{Deserialize, Serialize};

/// How much a snapshot reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detail {
    /// What the program itself counted; nothing is read of the namespace. Cheap enough to show several times a second.
    Own,
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
    /// Opened when first needed.
    sysctls: Option<Recorder>,
    last: NetCounters,
    /// What the sockets were at the last [`refresh`](Self::refresh).
    dumped: Option<Dumped>,
    /// How the questions asked since the last reading did.
    asked: Vec<SourceReading>,
}

impl NamespaceReader {
    /// A reader of the calling thread's network namespace.
    pub fn open() -> Self {
        Self {
            netstat: NetstatReader::open().ok(),
            sock_diag: SockDiag::open().ok(),
            sysctls: None,
            last: NetCounters::default(),
            dumped: None,
            asked: Vec::new(),
        }
    }

    /// Asks now what walks the table of all sockets of the machine (0.3 ms and more), so that scrapes within the next
    /// second and a half need not: for a thread that does so once a second. `ports` are those of
    /// [`syn_recv`](Self::syn_recv).
    pub fn refresh(&mut self, ports: &[u16]) {
        let began = Instant::now();
        let dumped = self.sock_diag.as_mut().and_then(|diag| diag.states_and_syn_recv(ports).ok());
        self.dumped = dumped.map(|(states, syn_recv)| Dumped {
            at: began,
            seconds: began.elapsed().as_secs_f64(),
            states: named(states),
            syn_recv,
        });
    }

    fn fresh(&self, detail: Detail) -> Option<&Dumped> {
        self.dumped.as_ref().filter(|dumped| detail == Detail::Scrape && dumped.at.elapsed() < FRESH)
    }

    /// Request sockets in `SYN_RECV` towards these local ports; 0 when they cannot be counted.
    pub fn syn_recv(&mut self, ports: &[u16], detail: Detail) -> u64 {
        if detail == Detail::Own {
            return 0;
        }
        if let Some((count, seconds)) = self.fresh(detail).map(|dumped| (dumped.syn_recv, dumped.seconds)) {
            self.asked.push(SourceReading { name: "syn-recv".to_owned(), up: true, seconds });
            return count;
        }
        self.ask("syn-recv", |diag| diag.syn_recv_of(ports).ok()).unwrap_or(0)
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
        if detail == Detail::Own {
            return Reading { net: self.last, sources, ..Reading::default() };
        }
        let netstat = &mut self.netstat;
        if let Some(net) = timed("netstat", &mut sources, || netstat.as_mut()?.read().ok()) {
            self.last = net;
        }
        let process = timed("process", &mut sources, || kernel::process::stats().ok()).unwrap_or_default();
        let mut reading = Reading { net: self.last, process, ..Reading::default() };
        if detail != Detail::Books {
            if let Some(dumped) = self.fresh(detail) {
                reading.tcp_sockets.clone_from(&dumped.states);
                sources.push(SourceReading { name: "tcp-sockets".to_owned(), up: true, seconds: dumped.seconds });
            } else {
                let diag = &mut self.sock_diag;
                let states = timed("tcp-sockets", &mut sources, || diag.as_mut()?.states().ok());
                reading.tcp_sockets = states.map(named).unwrap_or_default();
            }
            let sysctls = self.sysctls.get_or_insert_with(Recorder::open);
            reading.sysctls =
                timed("sysctl", &mut sources, || Some(sysctls.read()).filter(|values| !values.is_empty()))
                    .unwrap_or_default();
        }
        reading.sources = sources;
        reading
    }
}

/// How long a refreshed dump counts as the present.
const FRESH: Duration = Duration::from_millis(1500);

/// What dumps of the socket table said.
#[derive(Debug)]
struct Dumped {
    at: Instant,
    /// What they cost, s.
    seconds: f64,
    states: BTreeMap<String, u64>,
    syn_recv: u64,
}

fn named(states: BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    states.into_iter().map(|(state, count)| (state.to_owned(), count)).collect()
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
        reader.syn_recv(&[9], Detail::Full);
        let reading = reader.read(Detail::Full);
        let names: Vec<&str> = reading.sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["syn-recv", "netstat", "process", "tcp-sockets", "sysctl"]);
        assert!(reading.sources.iter().all(|source| source.up), "{:?}", reading.sources);
        assert!(reading.tcp_sockets.contains_key("listen"), "{:?}", reading.tcp_sockets);
        assert!(reading.process.max_fds > 0);
    }

    #[test]
    fn of_its_own_counts_alone_the_kernel_is_not_asked() {
        let mut reader = NamespaceReader::open();
        reader.last.listen_overflows = 7;
        let reading = reader.read(Detail::Own);
        assert!(reading.sources.is_empty() && reading.tcp_sockets.is_empty() && reading.sysctls.is_empty());
        assert_eq!((reading.net.listen_overflows, reading.process.max_fds), (7, 0));
    }

    #[test]
    fn a_scrape_takes_what_was_refreshed_and_books_do_not() {
        let mut reader = NamespaceReader::open();
        reader.refresh(&[9]);
        reader.dumped.as_mut().expect("dumped").syn_recv = 77;
        assert_eq!((reader.syn_recv(&[9], Detail::Scrape), reader.syn_recv(&[9], Detail::Books)), (77, 0));
        let reading = reader.read(Detail::Scrape);
        assert!(reading.tcp_sockets.contains_key("listen") && reading.sources.iter().all(|source| source.up));
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
