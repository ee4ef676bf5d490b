//! An independent witness of arrivals: accepts, notes the instant, answers, and says how even it was.
//!
//! It shares no code with the load generator or the server, and has a CPU of its own, which the generator may not use. It
//! sleeps between arrivals: one that asks without a pause sees them sooner, but takes the CPU away from the kernel's own
//! threads, which on a machine with two CPUs disturbs the generator more than waking up blurs the stamps. So each stamp is
//! late by a wake-up, 25 µs more or less, for every tool alike; two arrivals closer than that may be seen at once. On a
//! machine with one CPU it shares that.
//!
//! `witness rate=R` stamps until SIGTERM; R is the planned rate, which only the Kolmogorov-Smirnov statistic needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use kernel::process::{Signal, Signals, allowed_cpus, monotonic_ns, pin_to_cpu, thread_run_delay_ns};
use rustix::event::Timespec;
use serde::{Deserialize, Serialize};

use crate::responder::Desk;
use crate::scene::ADDRESS;
use crate::sockets::{Share, accept, listener};
use crate::statistics::Spacing;
use crate::words::Words;

/// Stamps for which there is room from the start: growing would pause for a page fault per page, or for a copy.
const ROOM: usize = 4_000_000;

/// What the witness has to say.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Statement {
    /// How what arrived was spaced.
    pub(crate) spacing: Spacing,
    /// The share of the time in which it was ready to run and did not: others had its CPU, and its stamps are as late.
    pub(crate) kept_waiting: f64,
}

/// What it has seen.
#[derive(Debug)]
struct Seen {
    stamps: Vec<u64>,
    kept_waiting: f64,
}

/// The CPU of the witness, and those that are left to a generator. All of them when there is only one.
pub(crate) fn cpus() -> anyhow::Result<(usize, Vec<usize>)> {
    let mut cpus = allowed_cpus()?;
    let own = *cpus.last().context("no CPU to run on")?;
    if cpus.len() > 1 {
        cpus.pop();
    }
    Ok((own, cpus))
}

/// The role `witness`: what arrived, after SIGTERM.
///
/// # Errors
/// An argument is wrong, it could not listen, or too little arrived.
pub(crate) fn witness(words: &[String]) -> anyhow::Result<Statement> {
    let rate = rate(words).map_err(anyhow::Error::msg)?;
    let signals = Signals::block_and_watch(&[Signal::TERM])?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let watching = std::thread::spawn(move || watch(&told));
    signals.wait()?;
    stop.store(true, Ordering::Relaxed);
    let Seen { stamps, kept_waiting } = watching.join().map_err(|_| anyhow::anyhow!("the witness panicked"))??;
    let count = stamps.len();
    let spacing =
        Spacing::of(&stamps, rate).with_context(|| format!("{count} arrivals are too few to say anything"))?;
    Ok(Statement { spacing, kept_waiting })
}

fn rate(words: &[String]) -> Result<f64, String> {
    let mut words = Words::read(words)?;
    let rate = words.take("rate")?;
    words.end()?;
    Ok(rate)
}

/// Stamps what arrives until told to stop.
fn watch(stop: &AtomicBool) -> anyhow::Result<Seen> {
    const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let (cpu, _) = cpus()?;
    pin_to_cpu(cpu)?;
    // Written once, so that every page is there before the first arrival.
    let mut stamps = vec![1u64; ROOM];
    stamps.clear();
    let listener = listener(ADDRESS.parse()?, Share::Alone)?;
    let mut desk = Desk::new()?;
    desk.watch(&listener)?;
    let (began, waited) = (monotonic_ns(), thread_run_delay_ns()?);
    while !stop.load(Ordering::Relaxed) {
        while let Some(connection) = accept(&listener)? {
            stamps.push(monotonic_ns());
            desk.admit(connection)?;
        }
        desk.serve(Some(&LOOK))?;
    }
    let kept_waiting = (thread_run_delay_ns()? - waited) as f64 / (monotonic_ns() - began).max(1) as f64;
    Ok(Seen { stamps, kept_waiting })
}
