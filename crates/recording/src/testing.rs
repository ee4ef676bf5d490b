//! A listener that is simulated, looked at, and recorded.

use std::collections::BTreeMap;

use crate::format::{Ending, Header, VERSION};
use crate::reading::Recording;
use crate::writer::{Look, Writer};

pub(crate) fn header(limit: u32) -> Header {
    Header {
        acceptbench_recording: VERSION,
        listener: "198.18.0.1:80".parse().unwrap(),
        started: "2026-01-31T12:00:00Z".parse().unwrap(),
        interval_us: 1000,
        limit,
        depth: 0,
        other_listeners: 0,
        kernel: "6.18.0".to_owned(),
        sysctls: BTreeMap::from([("net.core.somaxconn".to_owned(), "4096".to_owned())]),
    }
}

/// What clients do to a server.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    /// First SYNs, µs, in order.
    pub(crate) arrivals: Vec<u64>,
    pub(crate) limit: u32,
    pub(crate) service_us: u64,
    /// Nobody accepts from here to there.
    pub(crate) stall: (u64, u64),
    /// Clients give up after, µs.
    pub(crate) patience_us: u64,
    /// How long is looked, µs.
    pub(crate) lasts: u64,
    /// Time between looks, µs.
    pub(crate) interval: u64,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            arrivals: Vec::new(),
            limit: 16,
            service_us: 1000,
            stall: (0, 0),
            patience_us: 500_000,
            lasts: 3_000_000,
            interval: 1000,
        }
    }
}

impl Scene {
    /// Its recording, and how many attempts never got in.
    pub(crate) fn record(&self) -> (Recording, u64) {
        let mut file = Vec::new();
        let header = header(self.limit);
        let first = Look { limit: self.limit, ..Look::default() };
        let mut writer = Writer::begin(&mut file, 1 << 20, &header, first).unwrap();
        // (when, when first, which SYN)
        let mut syns: Vec<(u64, u64, u32)> = self.arrivals.iter().map(|at| (*at, *at, 0)).collect();
        syns.sort_unstable();
        let (mut look, mut busy_until, mut lost, mut next) = (first, 0_u64, 0, self.interval);
        for now in 0..=self.lasts {
            while syns.first().is_some_and(|syn| syn.0 <= now) {
                let (_, began, number) = syns.remove(0);
                if look.depth > self.limit {
                    (look.drops, look.listen_drops) = (look.drops + 1, look.listen_drops + 1);
                    // 1 s and 2 % late, with linear timeouts.
                    let again = now + 1_020_000;
                    if again <= began + self.patience_us {
                        syns.push((again, began, number + 1));
                        syns.sort_unstable();
                    } else {
                        lost += 1;
                    }
                } else {
                    (look.depth, look.passive_opens) = (look.depth + 1, look.passive_opens + 1);
                }
            }
            let stalled = (self.stall.0..self.stall.1).contains(&now);
            if look.depth > 0 && now >= busy_until && !stalled {
                look.depth -= 1;
                busy_until = now + self.service_us;
            }
            if now == next {
                writer.look(Look { at: now, ..look }).unwrap();
                next += self.interval;
            }
        }
        writer.end(Ending::Stopped, self.lasts, self.lasts / self.interval, 0, 0).unwrap();
        (Recording::parse("x", &file).unwrap(), lost)
    }
}
