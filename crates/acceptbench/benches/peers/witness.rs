//! An independent witness of arrivals: accepts, notes the instant, answers, and says how even it was.
//!
//! It shares no code with the load generator or the server. Its thread has a CPU of its own, which the generator may not
//! use, and asks for connections without a pause: a waking thread would add 25 µs to each stamp, and not the same 25 µs.
//! What remains is what it does between two stamps: an answer takes it some µs, so two arrivals closer than that are seen
//! that far apart. On a machine with one CPU it must wait, and says so.
//!
//! `witness rate=R` stamps until SIGTERM; R is the planned rate, which only the Kolmogorov-Smirnov statistic needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use kernel::process::{Signal, Signals, allowed_cpus, monotonic_ns, pin_to_cpu};
use rustix::event::Timespec;
use serde::{Deserialize, Serialize};

use crate::responder::Desk;
use crate::scene::ADDRESS;
use crate::sockets::{Share, accept, listener};
use crate::statistics::Spacing;
use crate::words::Words;

/// Stamps for which there is room from the start: growing would pause for a page fault per page, or for a copy.
const ROOM: usize = 4_000_000;

/// A spinning witness that has not looked for this long was not on its CPU. A turn with an answer takes a tenth of it.
const AWAY_NS: u64 = 200_000;

/// What the witness has to say.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Statement {
    /// How what arrived was spaced.
    pub(crate) spacing: Spacing,
    /// The share of the time in which it was not looking: others had its CPU, and its stamps are as late as that.
    pub(crate) away: f64,
}

/// What it has seen.
#[derive(Debug)]
struct Seen {
    stamps: Vec<u64>,
    away: f64,
}

/// How the witness learns of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attention {
    /// It asks again and again, on a CPU of its own.
    Spins,
    /// It sleeps until it is woken.
    Sleeps,
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
    let Seen { stamps, away } = watching.join().map_err(|_| anyhow::anyhow!("the witness panicked"))??;
    let count = stamps.len();
    let spacing =
        Spacing::of(&stamps, rate).with_context(|| format!("{count} arrivals are too few to say anything"))?;
    Ok(Statement { spacing, away })
}

fn rate(words: &[String]) -> Result<f64, String> {
    let mut words = Words::read(words)?;
    let rate = words.take("rate")?;
    words.end()?;
    Ok(rate)
}

/// Stamps what arrives until told to stop.
fn watch(stop: &AtomicBool) -> anyhow::Result<Seen> {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let (cpu, others) = cpus()?;
    pin_to_cpu(cpu)?;
    let attention = if others.contains(&cpu) { Attention::Sleeps } else { Attention::Spins };
    // Written once, so that every page is there before the first arrival.
    let mut stamps = vec![1u64; ROOM];
    stamps.clear();
    let listener = listener(ADDRESS.parse()?, Share::Alone)?;
    let mut desk = Desk::new()?;
    if attention == Attention::Sleeps {
        desk.watch(&listener)?;
    }
    let began = monotonic_ns();
    let (mut last, mut away_ns) = (began, 0);
    while !stop.load(Ordering::Relaxed) {
        while let Some(connection) = accept(&listener)? {
            stamps.push(monotonic_ns());
            desk.admit(connection)?;
        }
        match attention {
            Attention::Sleeps => drop(desk.serve(Some(&LOOK))?),
            Attention::Spins if desk.is_idle() => {}
            Attention::Spins => drop(desk.serve(Some(&AT_ONCE))?),
        }
        let now = monotonic_ns();
        if attention == Attention::Spins && now - last > AWAY_NS {
            away_ns += now - last;
        }
        last = now;
    }
    Ok(Seen { stamps, away: away_ns as f64 / (last - began).max(1) as f64 })
}
