//! The listeners of a target, looked at from outside: `sock_diag` tells depth, limit and drops of every socket that listens at
//! its port, whoever made it.
//!
//! A look costs 40 µs and comes every 5 ms, as the sampling thread of our own server has it. Listeners are told apart by their
//! inodes, so those of a `SO_REUSEPORT` group are several, and one that is closed and made again is another. It refuses to
//! guess the backlog argument, which the kernel does not keep, and what a closed listener took along.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use kernel::process::monotonic_ns;
use kernel::sock_diag::{DiagError, ListenerEntry, SockDiag};
use server::{Depths, ListenerCounts, ListenerOptions};
use telemetry::histogram::{HistogramSnapshot, fill_parts};
use telemetry::listeners::Widened;
use telemetry::namespace::Detail;

/// Time between two looks, ns.
pub(super) const TICK_NS: u64 = 5_000_000;

/// One socket.
#[derive(Debug)]
struct Slot {
    inode: u32,
    counts: ListenerCounts,
    drops: Widened,
    depths: Depths,
}

/// What was seen of them so far.
#[derive(Debug)]
pub(super) struct Looks {
    diag: SockDiag,
    /// Where clients connect to.
    address: SocketAddr,
    /// Of the last look, all of the namespace.
    found: Vec<ListenerEntry>,
    slots: Vec<Slot>,
    fill: HistogramSnapshot,
    last_ns: u64,
    origin_ns: Option<u64>,
}

impl Looks {
    /// At the listeners of the calling thread's namespace that a client of `address` reaches.
    pub(super) fn open(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self {
            diag: SockDiag::open()?,
            address,
            found: Vec::new(),
            slots: Vec::new(),
            fill: HistogramSnapshot::default(),
            last_ns: monotonic_ns(),
            origin_ns: None,
        })
    }

    /// Forgets those that were closed before the target was ready, and how full the others were: no client was there.
    pub(super) fn ready(&mut self) {
        self.slots.retain(|slot| !slot.counts.retired);
        self.fill = HistogramSnapshot::default();
    }

    /// Depths over time count from here (monotonic ns).
    pub(super) fn begin(&mut self, origin_ns: u64) {
        self.origin_ns = Some(origin_ns);
    }

    /// Looks once.
    pub(super) fn look(&mut self) -> Result<(), DiagError> {
        self.diag.listeners_into(&mut self.found)?;
        let now_ns = monotonic_ns();
        let elapsed_ns = now_ns.saturating_sub(self.last_ns);
        self.last_ns = now_ns;
        for slot in &mut self.slots {
            let there = self.found.iter().any(|entry| entry.inode == slot.inode);
            if !there {
                (slot.counts.retired, slot.counts.depth) = (true, 0);
            }
        }
        for entry in self.found.iter().filter(|entry| reaches(self.address, entry.local, entry.v6only)) {
            let index = self.slots.iter().position(|slot| slot.inode == entry.inode).unwrap_or_else(|| {
                self.slots.push(Slot::new(entry));
                self.slots.len() - 1
            });
            let since_ns = self.origin_ns.and_then(|origin| now_ns.checked_sub(origin));
            self.slots[index].note(entry, elapsed_ns, since_ns);
            self.fill.record(fill_parts(u64::from(entry.depth), u64::from(entry.limit) + 1));
        }
        Ok(())
    }

    /// Those there are at the last look: what must stand still before a target counts as ready.
    pub(super) fn standing(&self) -> Vec<(u32, u32)> {
        let open = self.slots.iter().filter(|slot| !slot.counts.retired);
        open.map(|slot| (slot.inode, slot.counts.limit)).collect()
    }

    /// Where somebody listens in the namespace, though no client reaches it.
    pub(super) fn elsewhere(&self) -> Vec<SocketAddr> {
        let others = self.found.iter().filter(|entry| !reaches(self.address, entry.local, entry.v6only));
        others.map(|entry| entry.local).collect()
    }

    /// Every listener so far, in the order in which they were found.
    pub(super) fn counts(&mut self, detail: Detail) -> Vec<ListenerCounts> {
        let counts = self.slots.iter().map(|slot| slot.counts.clone()).collect();
        if detail == Detail::Scrape {
            self.slots.iter_mut().for_each(|slot| slot.counts.deepest_since_scrape = slot.counts.depth);
        }
        counts
    }

    /// Depths over time, in the same order.
    pub(super) fn depths(&self) -> Vec<Depths> {
        self.slots.iter().map(|slot| slot.depths.clone()).collect()
    }

    /// Time at each fill level.
    pub(super) fn fill(&self) -> HistogramSnapshot {
        self.fill.clone()
    }
}

impl Slot {
    fn new(entry: &ListenerEntry) -> Self {
        let counts = ListenerCounts {
            address: entry.local,
            backlog_requested: None,
            limit: entry.limit,
            depth: 0,
            deepest: 0,
            deepest_since_scrape: 0,
            full_ns: 0,
            drops: 0,
            left: 0,
            destroyed: 0,
            retired: false,
            relistens: 0,
            options: ListenerOptions::default(),
        };
        Self { inode: entry.inode, counts, drops: Widened::default(), depths: Depths::default() }
    }

    fn note(&mut self, entry: &ListenerEntry, elapsed_ns: u64, since_start_ns: Option<u64>) {
        let depth = u64::from(entry.depth);
        let counts = &mut self.counts;
        (counts.limit, counts.depth) = (entry.limit, depth);
        counts.deepest = counts.deepest.max(depth);
        counts.deepest_since_scrape = counts.deepest_since_scrape.max(depth);
        if entry.depth > entry.limit {
            counts.full_ns += elapsed_ns;
        }
        if let Some(raw) = entry.drops {
            counts.drops = self.drops.update(raw);
        }
        if let Some(since_start_ns) = since_start_ns {
            self.depths.note(since_start_ns, entry.depth, TICK_NS);
        }
    }
}

/// Does a client that connects to `address` reach a socket that listens at `local`? A wildcard of IPv6 takes IPv4 too, unless
/// it is `v6only`.
fn reaches(address: SocketAddr, local: SocketAddr, v6only: bool) -> bool {
    if v6only && address.is_ipv4() {
        return false;
    }
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    };
    let wildcard =
        local.ip().is_unspecified() && (local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || address.is_ipv4());
    local.port() == address.port() && (wildcard || mapped(local.ip()) == address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_client_reaches_its_address_and_wildcards() {
        let address = "198.18.0.1:80".parse().expect("an address");
        for (local, expected) in [
            ("198.18.0.1:80", true),
            ("0.0.0.0:80", true),
            ("[::]:80", true),
            ("[::ffff:198.18.0.1]:80", true),
            ("127.0.0.1:80", false),
            ("198.18.0.1:81", false),
            ("[::1]:80", false),
        ] {
            assert_eq!(reaches(address, local.parse().expect("an address"), false), expected, "{local}");
        }
        let [six, any_four, any_six] =
            ["[2001:2::1]:80", "0.0.0.0:80", "[::]:80"].map(|text| text.parse().expect("an address"));
        assert!(!reaches(six, any_four, false));
        assert!(reaches(six, any_six, true) && !reaches(address, any_six, true), "as nginx listens beside 0.0.0.0");
    }

    #[test]
    fn depth_limit_and_the_end_of_a_listener_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut looks = Looks::open(address).expect("netlink");
        looks.look().expect("a look");
        looks.begin(monotonic_ns());
        let waiting = [TcpStream::connect(address).expect("queued"), TcpStream::connect(address).expect("queued")];
        looks.look().expect("a look");
        let counts = looks.counts(Detail::Scrape);
        assert_eq!((counts.len(), counts[0].depth, counts[0].deepest, counts[0].backlog_requested), (1, 2, 2, None));
        assert_eq!(looks.standing(), [(looks.slots[0].inode, counts[0].limit)]);
        assert_eq!(looks.depths()[0].deepest, [Some(2)]);
        drop(listener.accept().expect("accepted"));
        looks.look().expect("a look");
        assert_eq!(looks.counts(Detail::Books)[0].depth, 1);
        drop((listener, waiting));
        looks.look().expect("a look");
        let counts = looks.counts(Detail::Books);
        assert!(counts[0].retired && counts[0].depth == 0 && counts[0].deepest == 2, "{counts:?}");
        assert!(looks.standing().is_empty());
        looks.ready();
        assert!(looks.counts(Detail::Books).is_empty() && looks.fill() == HistogramSnapshot::default());
    }
}
