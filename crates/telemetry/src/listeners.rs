//! What every observer of listening sockets shows of each: the server of its own, `watch` of all of a namespace.
//!
//! Owns the metrics of one accept queue and the widening of its drop counter. It reads nothing itself. Depth and limit are
//! the kernel's (`sk_ack_backlog`, `sk_max_ack_backlog`; net/ipv4/tcp.c `tcp_get_info`, `net/ipv4/inet_diag.c`).

use crate::exposition::{Families, Metric};

crate::metrics! {
    DEPTH = Gauge "listener_accept_queue_depth" ["listener"] "Connections waiting in the accept queue (tcpi_unacked of the listener, idiag_rqueue).";
    LIMIT = Gauge "listener_accept_queue_limit" ["listener"] "Queue limit as read back from the kernel (tcpi_sacked, idiag_wqueue): min(backlog, somaxconn) at listen(2). The queue holds one more.";
    MAX = Gauge "listener_accept_queue_max" ["listener"] "Deepest accept queue since the last scrape.";
    MAX_FILL = Gauge "listener_accept_queue_max_fill_ratio" ["listener"] "Deepest accept queue since the last scrape / (limit + 1): 1 is full.";
    FULL = Counter "listener_full_seconds_total" ["listener"] "Time the accept queue was full.";
    DROPS = Counter "listener_drops_total" ["listener"] "Packets dropped by the listener (sk_drops); an ACK-stage drop of a request socket counts twice.";
}

/// One accept queue at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    /// Connections in it now.
    pub depth: u64,
    /// Queue limit as the kernel has it; limit + 1 connections fit.
    pub limit: u32,
    /// Deepest since the last scrape.
    pub deepest_since_scrape: u64,
    /// Time spent full, ns.
    pub full_ns: u64,
    /// Packets dropped, widened over wraps of the kernel's u32; `None` where the kernel does not tell.
    pub drops: Option<u64>,
}

impl Queue {
    /// Deepest since the last scrape over capacity (limit + 1). Above 1 when two CPUs overfilled the queue.
    pub fn max_fill(&self) -> f64 {
        self.deepest_since_scrape as f64 / (f64::from(self.limit) + 1.0)
    }
}

/// Adds one accept queue. `listener` is its number or address.
pub fn expose(f: &mut Families, listener: &str, queue: &Queue) {
    let mut gauge = |metric: &Metric, value: f64| f.gauge(metric, &[listener], value);
    gauge(&DEPTH, queue.depth as f64);
    gauge(&LIMIT, f64::from(queue.limit));
    gauge(&MAX, queue.deepest_since_scrape as f64);
    gauge(&MAX_FILL, queue.max_fill());
    f.counter_seconds(&FULL, &[listener], queue.full_ns);
    if let Some(drops) = queue.drops {
        f.counter(&DROPS, &[listener], drops);
    }
}

/// A u32 counter of the kernel, followed over its wraps: right while it is read at least once per 2^32.
#[derive(Debug, Clone, Copy, Default)]
pub struct Widened {
    last: u32,
    total: u64,
}

impl Widened {
    /// Takes a reading and returns the total since the counter was made.
    pub fn update(&mut self, raw: u32) -> u64 {
        self.total += u64::from(raw.wrapping_sub(self.last));
        self.last = raw;
        self.total
    }

    /// The total at the last reading.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_followed_over_the_wrap() {
        let mut drops = Widened::default();
        assert_eq!(drops.update(u32::MAX - 1), u64::from(u32::MAX - 1));
        assert_eq!(drops.update(3), u64::from(u32::MAX - 1) + 5);
        assert_eq!(drops.total(), u64::from(u32::MAX - 1) + 5);
    }

    #[test]
    fn a_queue_that_holds_limit_plus_one_is_full() {
        let queue = Queue { limit: 127, deepest_since_scrape: 128, drops: Some(9), ..Queue::default() };
        let mut families = Families::new();
        expose(&mut families, "0.0.0.0:80", &queue);
        let page = families.render();
        assert!(
            page.contains("acceptbench_listener_accept_queue_max_fill_ratio{listener=\"0.0.0.0:80\"} 1\n"),
            "{page}"
        );
        assert!(page.contains("acceptbench_listener_drops_total{listener=\"0.0.0.0:80\"} 9\n"), "{page}");
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_absent() {
        let mut families = Families::new();
        expose(&mut families, "0", &Queue::default());
        assert!(!families.render().contains("drops_total{"));
    }
}
