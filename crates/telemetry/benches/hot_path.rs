//! What counting costs: per count, per record and per scrape. `cargo bench -p telemetry`.
//!
//! The numbers of the documentation come from here. A locked increment stands beside the counter to show what the
//! single-writer rule buys.

mod scrape;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use divan::{Bencher, black_box};
use scrape::Workers;
use telemetry::counter::{Counter, Padded};
use telemetry::histogram::Histogram;

fn main() {
    divan::main();
}

#[divan::bench]
fn counter_add(bencher: Bencher) {
    let counter = Padded(Counter::new());
    bencher.bench_local(|| black_box(&*counter).add(black_box(1)));
}

#[divan::bench]
fn locked_add_for_comparison(bencher: Bencher) {
    let counter = Padded(AtomicU64::new(0));
    bencher.bench_local(|| black_box(&*counter).fetch_add(black_box(1), Ordering::Relaxed));
}

#[divan::bench]
fn histogram_record(bencher: Bencher) {
    let histogram = Histogram::new();
    // Spread as a run's latencies are, so that neither the bucket nor its line is always the same.
    let mut values = [0; 1024];
    values.iter_mut().zip(scrape::latencies(1)).for_each(|(slot, ns)| *slot = ns);
    let next = Cell::new(0);
    bencher.bench_local(|| {
        next.set((next.get() + 1) % 1024);
        black_box(&histogram).record(values[next.get()]);
    });
}

#[divan::bench]
fn sum_of_64_workers(bencher: Bencher) {
    let workers = Workers::new(64);
    bencher.bench_local(|| black_box(&workers).sum());
}

#[divan::bench]
fn page_of_64_acceptors(bencher: Bencher) {
    let totals = Workers::new(64).sum();
    bencher.bench_local(|| scrape::page(black_box(&totals)));
}

#[divan::bench]
fn scrape_of_64_acceptors(bencher: Bencher) {
    let workers = Workers::new(64);
    bencher.bench_local(|| scrape::page(&black_box(&workers).sum()));
}
