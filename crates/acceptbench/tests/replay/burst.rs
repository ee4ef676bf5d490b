//! Bursts by number: when their attempts come, at what server, and with what other knobs.

use std::fmt;

use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A burst, the server it was recorded at, and the knobs of the replay.
#[derive(Debug)]
pub(crate) struct Burst {
    /// When its attempts are planned, µs, in order, the first at 0.
    pub(crate) instants: Vec<u64>,
    pub(crate) service_us: u64,
    pub(crate) backlog: u64,
    pub(crate) cookies: bool,
    pub(crate) deadline_ms: u64,
    /// What the other server has.
    pub(crate) other_backlog: u64,
    pub(crate) other_somaxconn: u64,
}

impl Burst {
    /// Burst number `number`: within some ten ms, slower, or in two clumps; every third of clients that try again. None is so
    /// fast that the machine cannot issue it: then its pace would be the generator's, here and there.
    pub(crate) fn seeded(number: u32) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(u64::from(number) + 1);
        let mut between = |low: u64, high: u64| low + random.next_u64() % (high - low + 1);
        let attempts = between(150, 450);
        let window =
            [between(30_000, 80_000), between(50_000, 150_000), between(200_000, 400_000)][number as usize % 3];
        let mut instants: Vec<u64> = (0..attempts)
            .map(|_| match number % 3 {
                2 if between(0, 1) == 1 => window + between(0, 10_000),
                2 => between(0, 10_000),
                _ => between(0, window),
            })
            .collect();
        instants.sort_unstable();
        let first = instants[0];
        for at in &mut instants {
            *at -= first;
        }
        let backlog = between(8, 64);
        // Every fifth is worse off: somaxconn caps what was there.
        let (other_backlog, other_somaxconn) = match number % 5 {
            4 => (backlog, between(2, backlog / 2)),
            _ => (backlog * between(2, 6), 4096),
        };
        Self {
            instants,
            service_us: between(500, 3000),
            backlog,
            cookies: number % 4 != 1,
            deadline_ms: if number % 3 == 1 { 2500 } else { 800 },
            other_backlog,
            other_somaxconn,
        }
    }

    /// As `--arrivals` takes them.
    pub(crate) fn arrivals(&self) -> String {
        let mut last = 0;
        let gaps = self.instants.iter().map(|at| (at - std::mem::replace(&mut last, *at)).to_string());
        format!("trace:1us:{}", gaps.collect::<Vec<_>>().join(","))
    }

    pub(crate) fn knobs(&self) -> String {
        format!("{}/{}", self.other_backlog, self.other_somaxconn)
    }

    /// Attempts by which a recording may be off. Of clients who do not try again every packet is one, but counters are read one
    /// after the other; who tries again is told by the time, which is the less certain the busier the machine is.
    pub(crate) fn miscounted(&self) -> f64 {
        self.instants.len() as f64 * if self.deadline_ms < 1000 { 0.01 } else { 0.05 }
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instants, service_us, backlog, cookies, deadline_ms, .. } = self;
        let lasts = instants.last().copied().unwrap_or(0) as f64 / 1000.0;
        f.pad(&format!(
            "{} in {lasts:.1} ms, {service_us} us, {backlog}, {deadline_ms} ms{}",
            instants.len(),
            if *cookies { "" } else { ", no cookies" }
        ))
    }
}
