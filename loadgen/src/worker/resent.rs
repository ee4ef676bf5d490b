//! Whether any SYN was sent again lately: what is left to know of an attempt whose socket cannot be asked any more.

use kernel::netstat::NetstatReader;
use kernel::process::monotonic_ns;

/// `TcpExt TCPSynRetrans` of the worker's network namespace, and since when it has been what it is. Whoever shares the
/// namespace counts there, too: that the counter stood still is proof, that it moved is not.
#[derive(Debug, Default)]
pub(super) struct Resent {
    counters: Option<NetstatReader>,
    count: Option<u64>,
    /// When the count was first read as it is, monotonic ns.
    since: u64,
    /// Was it read since the kernel last told of anything? One reading costs 70 µs and serves all that was told together.
    fresh: bool,
}

impl Resent {
    /// Opens the counters in the calling thread's namespace and reads the first time.
    pub(super) fn begin(&mut self) {
        self.counters = NetstatReader::open().ok();
        self.read();
    }

    /// The kernel is about to tell, or has told, of more.
    pub(super) fn expire(&mut self) {
        self.fresh = false;
    }

    /// Was no SYN sent again from `begin` (monotonic ns) to the last thing told? False also where nobody can tell.
    pub(super) fn nothing_since(&mut self, begin: u64) -> bool {
        if !self.fresh {
            self.read();
            self.fresh = true;
        }
        self.count.is_some() && self.since <= begin
    }

    fn read(&mut self) {
        let count = self.counters.as_mut().and_then(|counters| counters.read().ok()).map(|all| all.syn_retransmits);
        if count.is_none() || count != self.count {
            (self.count, self.since) = (count, monotonic_ns());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_stands_still_is_proof_and_one_that_moved_is_not() {
        let mut resent = Resent::default();
        assert!(!resent.nothing_since(monotonic_ns()), "nobody reads it");
        let before = monotonic_ns();
        resent.begin();
        let after = monotonic_ns();
        assert!(!resent.nothing_since(before), "not read before the first time");
        // Other programs of this machine may send a SYN again at any time, so that the proof may have to be tried again.
        let proven = (0..50).any(|_| {
            let begin = monotonic_ns().max(after);
            resent.expire();
            resent.nothing_since(begin)
        });
        assert!(proven);
        resent.count = resent.count.map(|count| count.wrapping_sub(1));
        assert!(resent.nothing_since(monotonic_ns()), "one reading serves all that was told together");
        resent.expire();
        assert!(!resent.nothing_since(after), "it moved");
    }
}
