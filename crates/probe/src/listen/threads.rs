//! Several threads in accept: what one queue costs and what two give.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use kernel::process;
use socket2::Socket;

use super::{PORT, SOMAXCONN, SOON, depth};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually};

/// Connections taken in one round: some 2 ms, which a busy machine grants more often than more.
const CONNECTIONS: usize = 1200;
/// Undisturbed rounds of each setting; the middle one counts.
const ROUNDS: usize = 15;
/// When to be content with fewer; below [`ENOUGH`] this machine is too busy.
const PATIENCE: Duration = Duration::from_secs(8);
/// The fewest undisturbed rounds that say something.
const ENOUGH: usize = 3;
/// A round is disturbed when its threads waited for a CPU for more than this share of it.
const DISTURBED: f64 = 0.2;

/// What a second thread on the same listener must bring to be worth it: two thirds more connections a second, where two
/// listeners bring twice as many. Measured on machines of two CPUs: 0.68 to 1.25.
const WORTH_IT: f64 = 0.6;
/// What a second listener brings at least; undisturbed it is 0.5.
const FASTER: f64 = 0.9;

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.threads-on-one-listener",
        group: Group::Listen,
        notes: &["3.7"],
        facts: &["0.multi-thread"],
        says: "Taking from the head is serial, so several threads in accept raise the throughput of one listener.",
        why: "inet_csk_accept holds the listener's socket lock: two threads wait for one another and move its cache lines",
        ends: Ends::Loopback,
        takes: Takes::Alone,
        expects: &[Expect { figure: "two threads / one thread", is: Is::Between(0.0, WORTH_IT) }],
        known: Verdict::Differs,
        measure: threads_on_one_listener,
    },
    Claim {
        name: "listen.threads-on-listeners-of-their-own",
        group: Group::Listen,
        notes: &[],
        facts: &["0.multi-thread"],
        says: "Two threads with a SO_REUSEPORT listener each take connections faster than two threads on one listener.",
        why: "each listener has a lock and a queue of its own",
        ends: Ends::Loopback,
        takes: Takes::Alone,
        expects: &[Expect { figure: "two listeners / one listener", is: Is::Between(0.0, FASTER) }],
        known: Verdict::Holds,
        measure: threads_on_listeners_of_their_own,
    },
];

/// Threads, and listeners among which they are divided.
#[derive(Clone, Copy)]
struct Setting {
    threads: usize,
    listeners: usize,
}

/// The two CPUs that the threads are bound to.
fn cpus() -> Result<[usize; 2], ProbeError> {
    match process::allowed_cpus().doing("read the CPUs")?.as_slice() {
        [first, second, ..] => Ok([*first, *second]),
        _ => Err(ProbeError::CannotHere("two threads at once need two CPUs".to_owned())),
    }
}

/// How long the calling thread could have run and had no CPU.
fn waited_for_cpu() -> Result<Duration, ProbeError> {
    process::thread_run_delay_ns()
        .map(Duration::from_nanos)
        .map_err(|error| ProbeError::CannotHere(format!("reading schedstat: {error}")))
}

/// Seconds to take every connection from full queues; `None` when something else took the CPUs meanwhile.
fn drain(scene: &Scene, setting: Setting, cpus: [usize; 2]) -> Result<Option<f64>, ProbeError> {
    let mut listeners = Vec::new();
    for _ in 0..setting.listeners {
        let listener = scene.socket()?;
        listener.set_reuse_port(true).doing("set SO_REUSEPORT")?;
        listener.set_nonblocking(true).doing("set O_NONBLOCK")?;
        listener.bind(&scene.address(PORT).into()).doing("bind")?;
        listener.listen(4096).doing("listen")?;
        listeners.push(listener);
    }
    let clients = scene.connect_many(CONNECTIONS, PORT)?;
    let queued = || listeners.iter().map(depth).sum::<Result<u32, _>>();
    if !eventually(SOON, || Ok(queued()? as usize == CONNECTIONS))? {
        return Err(ProbeError::Failed(format!("{} of {CONNECTIONS} connections are queued", queued()?)));
    }
    let (ready, go) = (Barrier::new(setting.threads + 1), Barrier::new(setting.threads + 1));
    let times = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..setting.threads)
            .map(|thread| {
                let (listener, ready, go) = (&listeners[thread % setting.listeners], &ready, &go);
                let cpu = cpus[thread % 2];
                scope.spawn(move || {
                    // Nobody leaves before the barriers: the others would wait for ever.
                    let pinned = process::pin_to_cpu(cpu);
                    let mut taken = Vec::with_capacity(CONNECTIONS);
                    ready.wait();
                    go.wait();
                    let waited = waited_for_cpu();
                    let began = Instant::now();
                    take_all(listener, &mut taken);
                    let ended = Instant::now();
                    pinned.doing("pin a thread")?;
                    Ok::<_, ProbeError>((began, ended, waited_for_cpu()?.saturating_sub(waited?), taken))
                })
            })
            .collect();
        ready.wait();
        go.wait();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| ProbeError::Failed("a worker panicked".to_owned()))?)
            .collect::<Result<Vec<_>, ProbeError>>()
    })?;
    let began = times.iter().map(|(began, ..)| *began).min();
    let ended = times.iter().map(|(_, ended, ..)| *ended).max();
    let waited: Duration = times.iter().map(|(_, _, waited, _)| *waited).sum();
    drop((times, clients));
    let took = began.zip(ended).map_or(Duration::ZERO, |(began, ended)| ended - began);
    Ok((waited <= took.mul_f64(DISTURBED)).then_some(took.as_secs_f64()))
}

/// Takes connections until there are none. They are closed later, outside the measured time.
fn take_all(listener: &Socket, taken: &mut Vec<Socket>) {
    while let Ok((socket, _)) = listener.accept_raw() {
        taken.push(socket);
    }
}

/// The ratio of two settings.
fn ratio(scene: &Scene, one: Setting, other: Setting) -> Result<f64, ProbeError> {
    scene.sysctl(SOMAXCONN, 4096)?;
    let cpus = cpus()?;
    let mut rounds = [Vec::new(), Vec::new()];
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        for (rounds, setting) in rounds.iter_mut().zip([one, other]) {
            rounds.extend(drain(scene, setting, cpus)?);
        }
        if rounds.iter().all(|rounds| rounds.len() >= ROUNDS) {
            break;
        }
    }
    if rounds.iter().any(|rounds| rounds.len() < ENOUGH) {
        return Err(ProbeError::CannotHere("the CPUs are busy with something else".to_owned()));
    }
    let [one, other] = rounds.map(|mut rounds| {
        rounds.sort_unstable_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    });
    Ok(one / other)
}

fn threads_on_one_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let ratio = ratio(scene, Setting { threads: 2, listeners: 1 }, Setting { threads: 1, listeners: 1 })?;
    let what = if ratio > WORTH_IT { "far from twice as fast as" } else { "nearly twice as fast as" };
    let did = format!("two threads drain a full queue {what} one");
    Ok(Observed::new().number("two threads / one thread", ratio).did(did))
}

fn threads_on_listeners_of_their_own(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let ratio = ratio(scene, Setting { threads: 2, listeners: 2 }, Setting { threads: 2, listeners: 1 })?;
    let what = if ratio > FASTER { "no faster than" } else { "faster than" };
    let did = format!("two threads with a listener each drain {what} two threads on one");
    Ok(Observed::new().number("two listeners / one listener", ratio).did(did))
}
