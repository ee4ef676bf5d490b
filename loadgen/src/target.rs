//! The address attempts go to. A target given by name is looked up again every second, because the server behind a name
//! moves: a container that is made anew comes back with another address.
//!
//! The address changes only when the name no longer means it, so that a name with several addresses in turning order does
//! not move the load about. What a lookup costs (getaddrinfo(3), which may block for seconds) is paid by a thread of its
//! own, which nobody waits for.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use telemetry::Stop;

/// Time between two lookups of a name.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// An address that may change while it is in use.
#[derive(Debug)]
pub(crate) struct TargetAddress {
    address: Mutex<SocketAddr>,
    changes: AtomicU64,
}

impl TargetAddress {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address: Mutex::new(address), changes: AtomicU64::new(0) }
    }

    /// The address now.
    pub(crate) fn get(&self) -> SocketAddr {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Takes what a lookup found. Returns the address that replaces the one so far, if one does.
    fn found(&self, addresses: &[SocketAddr]) -> Option<SocketAddr> {
        let mut address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.contains(&address) {
            return None;
        }
        let same_family = addresses.iter().find(|found| found.is_ipv4() == address.is_ipv4());
        let new = *same_family.or(addresses.first())?;
        *address = new;
        self.changes.fetch_add(1, Ordering::Release);
        Some(new)
    }
}

/// A worker's own copy of the address: one relaxed load per attempt while nothing changes.
#[derive(Debug)]
pub(crate) struct Aim {
    shared: Arc<TargetAddress>,
    seen: u64,
    address: SocketAddr,
}

impl Aim {
    pub(crate) fn new(shared: Arc<TargetAddress>) -> Self {
        // The count first: a change in between is then seen at the next attempt.
        let seen = shared.changes();
        let address = shared.get();
        Self { shared, seen, address }
    }

    /// Where the next attempt goes.
    pub(crate) fn address(&mut self) -> SocketAddr {
        let changes = self.shared.changes();
        if changes != self.seen {
            self.seen = changes;
            self.address = self.shared.get();
        }
        self.address
    }
}

/// Looks `target` (HOST:PORT) up again and again until told to stop. Does nothing when the host is an address.
///
/// # Errors
/// When there is no thread for it.
pub(crate) fn follow(target: &str, shared: &Arc<TargetAddress>, stop: Stop) -> io::Result<()> {
    if target.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let (name, shared) = (target.to_owned(), Arc::clone(shared));
    std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
        while !stop.wait_timeout(LOOK_UP_EVERY) {
            // A name that means nothing for a while (its container is being made) keeps its last address.
            let Ok(found) = name.to_socket_addrs() else { continue };
            if let Some(new) = shared.found(&found.collect::<Vec<_>>()) {
                tracing::info!(%name, address = %new, "the target has moved");
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_address_changes_when_the_name_no_longer_means_it() {
        let target = Arc::new(TargetAddress::new(at("198.18.0.2:9700")));
        let mut aim = Aim::new(Arc::clone(&target));
        assert_eq!(target.found(&[at("198.18.0.9:9700"), at("198.18.0.2:9700")]), None, "still one of them");
        assert_eq!(target.found(&[]), None, "nothing better is known");
        assert_eq!(aim.address(), at("198.18.0.2:9700"));
        let moved = at("198.18.0.3:9700");
        assert_eq!(target.found(&[at("[fd00::1]:9700"), moved]), Some(moved), "the same family first");
        assert_eq!((aim.address(), target.changes()), (moved, 1));
        assert_eq!(target.found(&[at("[fd00::1]:9700")]), Some(at("[fd00::1]:9700")));
    }

    #[test]
    fn an_address_is_not_looked_up() {
        let target = Arc::new(TargetAddress::new(at("127.0.0.1:1")));
        follow("127.0.0.1:1", &target, Stop::new()).expect("no thread needed");
        assert_eq!(Arc::strong_count(&target), 1);
    }

    #[test]
    fn a_name_is_looked_up_again() {
        let target = Arc::new(TargetAddress::new(at("198.18.0.2:9")));
        let stop = Stop::new();
        follow("localhost:9", &target, stop.clone()).expect("a thread");
        let began = std::time::Instant::now();
        while target.changes() == 0 && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.request();
        assert!(target.get().ip().is_loopback(), "{}", target.get());
    }
}
