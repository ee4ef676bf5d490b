//! Measures many claims at once, each in a process of its own, and judges them.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::claim::{Claim, Group, Observed, Takes, Verdict, judge, unmet};
use crate::process::{PROBE, READY, Said};

/// Claims that wait measured at once; their processes sleep nearly all the time.
const WAITERS: usize = 24;

/// Beyond what a claim says it takes, this much is allowed before its process is killed.
const GRACE: Duration = Duration::from_secs(20);

/// How often the machine is looked at.
const TICK: Duration = Duration::from_millis(10);

/// A thread that sleeps a tick and wakes so much later was not let run: nor were the claims' processes, whose times then
/// say something about the machine and nothing about TCP.
const STALL: Duration = Duration::from_millis(100);

/// A claim that was measured across a stall is measured again, so often in all; the last measurement counts.
const TRIES: usize = 3;

/// One claim and what became of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// The claim's name.
    pub name: &'static str,
    /// Where it stands.
    pub group: Group,
    /// Numbers of the notes that say so.
    pub notes: &'static [&'static str],
    /// Rows of the measured facts it covers.
    pub facts: &'static [&'static str],
    /// The claim.
    pub says: &'static str,
    /// What became of it.
    pub verdict: Verdict,
    /// What Linux 6.18 makes of it.
    pub known: Verdict,
    /// What this kernel did, or why it was not observed.
    pub did: String,
    /// Why the kernel does so.
    pub why: &'static str,
    /// Figures that differ from the claim's.
    pub unmet: Vec<String>,
    /// What was measured; nothing when it was not observed.
    pub observed: Option<Observed>,
    /// Did the measurement itself fail? A mistake of this program or a machine in trouble.
    pub failed: bool,
    /// Wall time it took, seconds.
    pub seconds: f64,
}

/// Measures `claims` with this program (`program` has the roles of [`crate::process::process`]) and returns their rows in
/// the same order. `done` is called after each, with how many are finished.
pub fn run(program: &Path, claims: &[Claim], done: &(dyn Fn(usize) + Sync)) -> Vec<Row> {
    let rows: Mutex<Vec<Option<Row>>> = Mutex::new(vec![None; claims.len()]);
    let machine = Machine::default();
    let measure = |index: usize| {
        let row = undisturbed(program, &claims[index], &machine);
        let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows[index] = Some(row);
        done(rows.iter().flatten().count());
    };
    let (alone, together): (Vec<usize>, Vec<usize>) =
        (0..claims.len()).partition(|index| claims[*index].takes == Takes::Alone);
    let (mut waiting, moments): (Vec<usize>, Vec<usize>) =
        together.into_iter().partition(|index| limit(&claims[*index]) > Duration::ZERO);
    // The longest first: they decide when everything is done.
    waiting.sort_by_key(|index| std::cmp::Reverse(limit(&claims[*index])));
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        scope.spawn(|| machine.watch());
        std::thread::scope(|scope| {
            for (queue, threads) in [(waiting, WAITERS), (moments, cpus)] {
                let threads = threads.min(queue.len());
                let queue = Arc::new(Mutex::new(VecDeque::from(queue)));
                for _ in 0..threads {
                    let (queue, measure) = (Arc::clone(&queue), &measure);
                    scope.spawn(move || {
                        loop {
                            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                            let Some(index) = next else { return };
                            measure(index);
                        }
                    });
                }
            }
        });
        alone.into_iter().for_each(measure);
        machine.finished.store(true, Ordering::Relaxed);
    });
    rows.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

/// Whether this machine lets a thread run when it is due.
struct Machine {
    finished: AtomicBool,
    /// When the watching thread ran last, and when it last ran late.
    seen: Mutex<(Instant, Option<Instant>)>,
}

impl Default for Machine {
    fn default() -> Self {
        Self { finished: AtomicBool::new(false), seen: Mutex::new((Instant::now(), None)) }
    }
}

impl Machine {
    /// Until it is finished, notes when it runs late.
    fn watch(&self) {
        while !self.finished.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if now.duration_since(seen.0) > STALL {
                seen.1 = Some(now);
            }
            seen.0 = now;
        }
    }

    /// Was there a stall since then? One that goes on counts too.
    fn stalled_since(&self, then: Instant) -> bool {
        let (last, late) = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed() > STALL || late.is_some_and(|late| late >= then)
    }
}

/// The claim measured again until no stall fell into it, whatever came out.
fn undisturbed(program: &Path, claim: &Claim, machine: &Machine) -> Row {
    for _ in 1..TRIES {
        let began = Instant::now();
        let row = one(program, claim);
        if !machine.stalled_since(began) {
            return row;
        }
    }
    one(program, claim)
}

/// What a claim says it waits for.
fn limit(claim: &Claim) -> Duration {
    match claim.takes {
        Takes::Seconds(seconds) | Takes::Full(seconds) => Duration::from_secs(seconds.into()),
        Takes::Moment | Takes::Alone => Duration::ZERO,
    }
}

fn one(program: &Path, claim: &Claim) -> Row {
    let began = Instant::now();
    let said = ask(program, claim);
    let seconds = began.elapsed().as_secs_f64();
    let row = Row {
        name: claim.name,
        group: claim.group,
        notes: claim.notes,
        facts: claim.facts,
        says: claim.says,
        verdict: Verdict::NotObserved,
        known: claim.known,
        did: String::new(),
        why: claim.why,
        unmet: Vec::new(),
        observed: None,
        failed: false,
        seconds,
    };
    match said {
        Said::Observed(observed) => Row {
            verdict: judge(claim.expects, &observed),
            did: observed.did.clone(),
            unmet: claim.expects.iter().filter_map(|expect| unmet(expect, &observed)).collect(),
            observed: Some(observed),
            ..row
        },
        Said::CannotHere(reason) => Row { did: reason, ..row },
        Said::Failed(reason) => Row { did: reason, failed: true, ..row },
    }
}

/// Can a process of this program make the namespaces that every claim needs?
///
/// # Errors
/// Why not, in one line.
pub fn ready(program: &Path) -> Result<(), String> {
    match answer(program, &[READY], GRACE) {
        Said::Observed(_) => Ok(()),
        Said::CannotHere(reason) | Said::Failed(reason) => Err(reason),
    }
}

fn ask(program: &Path, claim: &Claim) -> Said {
    answer(program, &[PROBE, claim.name], limit(claim) + GRACE)
}

/// Runs a measuring process to its end, or to the end of its time.
fn answer(program: &Path, args: &[&str], allowed: Duration) -> Said {
    let mut command = Command::new(program);
    command.args(args).arg(std::process::id().to_string()).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Said::Failed(format!("start a process: {error}")),
    };
    let ended = wait(&mut child, allowed);
    let text = |stream: Option<&mut dyn Read>| {
        let mut text = String::new();
        // What cannot be read was not said.
        let _ = stream.map(|stream| stream.read_to_string(&mut text));
        text
    };
    let out = text(child.stdout.as_mut().map(|stream| stream as &mut dyn Read));
    let err = text(child.stderr.as_mut().map(|stream| stream as &mut dyn Read));
    match serde_json::from_str(out.trim()) {
        Ok(said) => said,
        Err(_) if !ended => Said::Failed(format!("not done after {} s", allowed.as_secs())),
        Err(_) => Said::Failed(format!("the measuring process ended early: {}", err.trim())),
    }
}

/// Waits for the child; kills it when the time is up. Did it end by itself?
fn wait(child: &mut Child, allowed: Duration) -> bool {
    let end = Instant::now() + allowed;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= end {
            // It fails only when the child ended this very moment.
            let _ = child.kill();
            let _ = child.wait();
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_noticed_while_it_lasts_and_afterwards() {
        let machine = Machine::default();
        let began = Instant::now();
        assert!(!machine.stalled_since(began));
        std::thread::sleep(STALL * 2);
        assert!(machine.stalled_since(began), "nobody watched for so long");
        let late = Instant::now();
        *machine.seen.lock().expect("the lock") = (late, Some(late));
        assert!(machine.stalled_since(began));
        let later = late + TICK;
        *machine.seen.lock().expect("the lock") = (later, Some(late));
        assert!(!machine.stalled_since(later));
    }
}
