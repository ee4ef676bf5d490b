//! The parts alone: a count, a record, a scrape.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use server::Opts;
use server::opts::Reuseport;
use telemetry::counter::{Counter, Padded};
use telemetry::exposition::Families;
use telemetry::histogram::Histogram;
use telemetry::namespace::Detail;

use crate::{load, median, start};

/// How often a part is measured; the median counts.
const LOOPS: usize = 15;

/// Calls per loop.
const CALLS: u32 = 1_000_000;

/// ns per count.
pub(crate) fn counter_ns() -> f64 {
    let counter = Padded(Counter::new());
    per_call(|_| black_box(&*counter).add(black_box(1)))
}

/// ns per record, of values from 1 to 60 ms, so that neither the bucket nor its line is always the same.
pub(crate) fn histogram_ns() -> f64 {
    let histogram = Histogram::new();
    per_call(|call| black_box(&histogram).record(1_000_000 + u64::from(call.wrapping_mul(2_654_435_761) >> 6)))
}

fn per_call(call: impl Fn(u32)) -> f64 {
    let one = |_| {
        let began = Instant::now();
        (0..CALLS).for_each(&call);
        began.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    median(&mut (0..LOOPS).map(one).collect::<Vec<_>>())
}

/// µs per scrape of a server of 64 acceptors with a listener each, which has seen `connections`: reading the books and
/// writing the page, and the two together.
pub(crate) fn scrape_us(connections: u32) -> io::Result<[f64; 3]> {
    let acceptors = const { std::num::NonZeroU32::new(64).unwrap() };
    let server = start(Opts { acceptors, reuseport: Reuseport::Hash, ..Opts::default() })?;
    let listener = server.listeners()?.swap_remove(0);
    load(&listener, server.observer().addresses()[0], connections)?;
    let observer = server.observer();
    let one = || {
        let began = Instant::now();
        let books = observer.snapshot(Detail::Scrape);
        let read = began.elapsed();
        let mut families = Families::new();
        server::metrics::expose(&books, &mut families);
        black_box(families.render());
        let whole = began.elapsed();
        [read, whole.saturating_sub(read), whole].map(|time| time.as_secs_f64() * 1e6)
    };
    // The first opens files; the sampler's dump comes a second after the start.
    one();
    std::thread::sleep(Duration::from_millis(1100));
    let times: Vec<[f64; 3]> = (0..4 * LOOPS).map(|_| one()).collect();
    Ok([0, 1, 2].map(|part| median(&mut times.iter().map(|time| time[part]).collect::<Vec<_>>())))
}
