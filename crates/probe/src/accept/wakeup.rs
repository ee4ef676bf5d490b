//! Which of several waiting workers a new connection wakes: four of them, one connection at a time.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};
use socket2::Socket;

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually};
use crate::talk::{self, SOON};

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9700;

/// Workers, and connections one after the other.
const WORKERS: usize = 4;
const CONNECTIONS: usize = 40;

/// What a connection costs a busy worker.
const BUSY: Duration = Duration::from_millis(3);

/// One wake-up per connection; a worker may sleep once more for a reason of its own.
const ONE_EACH: Is = Is::Between(0.9, 1.3);
/// All workers wake for each.
const ALL_EACH: Is = Is::Between(3.5, 4.3);

/// Claims about wake-ups.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "accept.wakes-one-in-turn",
        group: Group::Accept,
        notes: &[],
        facts: &["5.blocking-round-robin"],
        says: "Of the workers blocked in accept on one listener, a connection wakes one: the one that has waited longest.",
        why: "inet_csk_wait_for_connect waits exclusively at the tail (prepare_to_wait_exclusive), and a wake-up takes the head",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "accepted", is: Is::Text("10, 10, 10, 10") },
            Expect { figure: "wake-ups-per-connection", is: ONE_EACH },
        ],
        known: Verdict::Holds,
        measure: |scene| spaced(scene, Wait::Accept),
    },
    Claim {
        name: "accept.epoll-herd",
        group: Group::Accept,
        notes: &[],
        facts: &["5.epoll-herd"],
        says: "With an epoll set of its own for each worker, every connection wakes all of them and one gets it.",
        why: "epoll waits on the listener without WQ_FLAG_EXCLUSIVE, so a wake-up runs ep_poll_callback of every set",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "total", is: Is::Exactly(40.0) },
            Expect { figure: "wake-ups-per-connection", is: ALL_EACH },
        ],
        known: Verdict::Holds,
        measure: |scene| spaced(scene, Wait::Own(epoll::EventFlags::empty())),
    },
    Claim {
        name: "accept.epoll-edge-herd",
        group: Group::Accept,
        notes: &[],
        facts: &["5.epoll-herd"],
        says: "Edge-triggered epoll sets of their own do not help: every connection still wakes all workers.",
        why: "EPOLLET decides what epoll_wait reports again, not whom the listener's wake-up reaches",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "total", is: Is::Exactly(40.0) },
            Expect { figure: "wake-ups-per-connection", is: ALL_EACH },
        ],
        known: Verdict::Holds,
        measure: |scene| spaced(scene, Wait::Own(epoll::EventFlags::ET)),
    },
    Claim {
        name: "accept.epollexclusive-favours-the-first",
        group: Group::Accept,
        notes: &[],
        facts: &["5.epoll-exclusive"],
        says: "With EPOLLEXCLUSIVE and idle workers, the one whose set took the listener first gets every connection.",
        why: "an exclusive wake-up stops at the first set with a waiter, and the order of the listener's wait queue never changes",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "accepted", is: Is::Text("40, 0, 0, 0") },
            Expect { figure: "wake-ups-per-connection", is: ONE_EACH },
            Expect { figure: "spurious", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| spaced(scene, Wait::Own(epoll::EventFlags::EXCLUSIVE)),
    },
    Claim {
        name: "accept.epollexclusive-shares-when-busy",
        group: Group::Accept,
        notes: &[],
        facts: &["5.epoll-exclusive"],
        says: "With EPOLLEXCLUSIVE and workers that are busy for a while, connections that come together are shared.",
        why: "ep_poll_callback takes an exclusive wake-up only when its set has a waiter (waitqueue_active); else the next set gets it",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "total", is: Is::Exactly(40.0) },
            Expect { figure: "least", is: Is::Between(6.0, 10.0) },
            Expect { figure: "most", is: Is::Between(10.0, 16.0) },
        ],
        known: Verdict::Holds,
        measure: busy,
    },
    Claim {
        name: "accept.shared-edge-epoll-favours-the-last",
        group: Group::Accept,
        notes: &[],
        facts: &["5.epoll-shared"],
        says: "With one edge-triggered epoll set for all, the worker that came last gets every connection while they are idle.",
        why: "ep_poll adds waiters at the head of the set's queue (__add_wait_queue_exclusive): last in, first out",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "most", is: Is::Exactly(40.0) },
            Expect { figure: "wake-ups-per-connection", is: ONE_EACH },
            Expect { figure: "spurious", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| spaced(scene, Wait::Shared(epoll::EventFlags::ET)),
    },
    Claim {
        name: "accept.shared-level-epoll-wakes-more",
        group: Group::Accept,
        notes: &[],
        facts: &["5.epoll-shared"],
        says: "With one level-triggered epoll set for all, a connection wakes more than one worker.",
        why: "a level-triggered item goes back to the ready list once reported (ep_send_events), which wakes the next waiter",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "total", is: Is::Exactly(40.0) },
            Expect { figure: "wake-ups-per-connection", is: Is::Between(1.5, 4.3) },
        ],
        known: Verdict::Holds,
        measure: |scene| spaced(scene, Wait::Shared(epoll::EventFlags::empty())),
    },
];

/// How the workers wait.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// In a blocking accept.
    Accept,
    /// Each in an epoll set of its own; the flags beside EPOLLIN.
    Own(epoll::EventFlags),
    /// All in one epoll set.
    Shared(epoll::EventFlags),
}

/// What the workers have done so far.
#[derive(Debug, Default)]
struct Done {
    /// Thread ids, in the workers' order; 0 before they run.
    threads: [AtomicUsize; WORKERS],
    accepted: [AtomicUsize; WORKERS],
    /// Accepts that found nothing.
    spurious: AtomicUsize,
    total: AtomicUsize,
    failure: Mutex<Option<String>>,
}

impl Done {
    fn per_worker(&self) -> Vec<usize> {
        self.accepted.iter().map(|accepted| accepted.load(Ordering::Relaxed)).collect()
    }

    /// How often the workers have gone to sleep, and whether all sleep now.
    fn status(&self) -> Result<(u64, bool), ProbeError> {
        let (mut switches, mut asleep) = (0, true);
        for thread in &self.threads {
            let (times, sleeps) = talk::sleeps(&format!("self/task/{}", thread.load(Ordering::Acquire)))?;
            asleep &= sleeps;
            switches += times;
        }
        Ok((switches, asleep))
    }

    /// Waits until `total` connections are accepted and every worker waits again.
    fn settled(&self, total: usize) -> Result<u64, ProbeError> {
        let mut switches = 0;
        let settled = eventually(SOON, || {
            if self.threads.iter().any(|thread| thread.load(Ordering::Acquire) == 0)
                || self.total.load(Ordering::Acquire) < total
            {
                return Ok(false);
            }
            let (now, asleep) = self.status()?;
            // Asleep twice in a row without a switch between: not merely on the way to sleep.
            let still = asleep && now == switches;
            switches = now;
            Ok(still)
        })?;
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failure {
            Some(failure) => Err(ProbeError::Failed(failure)),
            None if settled => Ok(switches),
            None => Err(ProbeError::Failed("the workers did not come to rest".to_owned())),
        }
    }
}

/// A stop sign that every waiter sees, and the sets in which the workers wait for it and for the listener.
struct Sets {
    stop: OwnedFd,
    sets: Vec<OwnedFd>,
}

const LISTENER: u64 = 0;
const STOP: u64 = 1;

impl Sets {
    fn new(listener: &Socket, wait: Wait) -> Result<Self, ProbeError> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC).doing("make an eventfd")?;
        let (count, flags) = match wait {
            Wait::Accept => (0, epoll::EventFlags::empty()),
            Wait::Own(flags) => (WORKERS, flags),
            Wait::Shared(flags) => (1, flags),
        };
        let mut sets = Vec::new();
        for _ in 0..count {
            let set = epoll::create(epoll::CreateFlags::CLOEXEC).doing("make an epoll set")?;
            let listen = epoll::EventFlags::IN | flags;
            epoll::add(&set, listener, epoll::EventData::new_u64(LISTENER), listen).doing("add the listener")?;
            epoll::add(&set, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)
                .doing("add the stop sign")?;
            sets.push(set);
        }
        Ok(Self { stop, sets })
    }

    /// The set of a worker; none when it waits in accept.
    fn of(&self, worker: usize) -> Option<&OwnedFd> {
        self.sets.get(worker).or(self.sets.first())
    }
}

/// Waits, accepts one, and so on until it is stopped.
fn work(
    worker: usize,
    listener: &Socket,
    set: Option<&OwnedFd>,
    done: &Done,
    cost: Duration,
) -> Result<(), ProbeError> {
    let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs() as usize;
    done.threads[worker].store(thread, Ordering::Release);
    let mut events = Vec::with_capacity(1);
    loop {
        if let Some(set) = set {
            events.clear();
            rustix::io::retry_on_intr(|| epoll::wait(set, rustix::buffer::spare_capacity(&mut events), None))
                .doing("wait for events")?;
            if events.iter().any(|event| event.data.u64() == STOP) {
                return Ok(());
            }
        }
        match listener.accept() {
            Ok((accepted, _)) => {
                done.accepted[worker].fetch_add(1, Ordering::Relaxed);
                if cost > Duration::ZERO {
                    thread::sleep(cost);
                }
                drop(accepted);
                done.total.fetch_add(1, Ordering::Release);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                done.spurious.fetch_add(1, Ordering::Relaxed);
            }
            // Blocking workers are stopped by shutdown(2) of the listener.
            Err(_) if set.is_none() => return Ok(()),
            Err(error) => return Err(error).doing("accept"),
        }
    }
}

/// Runs the workers while `clients` connects, and hands back what it returns.
fn with_workers<T>(
    listener: &Socket,
    wait: Wait,
    cost: Duration,
    clients: impl FnOnce(&Done) -> Result<T, ProbeError>,
) -> Result<(T, Done), ProbeError> {
    let sets = Sets::new(listener, wait)?;
    listener.set_nonblocking(!matches!(wait, Wait::Accept)).doing("set O_NONBLOCK")?;
    let done = Done::default();
    let result = thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (sets, done) = (&sets, &done);
            scope.spawn(move || {
                if let Err(error) = work(worker, listener, sets.of(worker), done, cost) {
                    *done.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                }
            });
            // One after the other, so that the first is the first to wait.
            eventually(SOON, || Ok(done.threads[worker].load(Ordering::Acquire) != 0))?;
        }
        let result = clients(&done);
        rustix::io::write(&sets.stop, &1u64.to_ne_bytes()).doing("stop the workers")?;
        listener.shutdown(std::net::Shutdown::Both).doing("stop the workers")?;
        result
    })?;
    Ok((result, done))
}

/// One connection at a time, each when all workers wait.
fn spaced(scene: &mut Scene, wait: Wait) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 64)?;
    let (switches, done) = with_workers(&listener, wait, Duration::ZERO, |done| {
        let before = done.settled(0)?;
        let mut after = before;
        let mut clients = Vec::new();
        for connection in 1..=CONNECTIONS {
            clients.push(scene.connect(PORT)?);
            after = done.settled(connection)?;
        }
        Ok(after - before)
    })?;
    let per_connection = switches as f64 / CONNECTIONS as f64;
    let observed = observed(&done).number("wake-ups-per-connection", per_connection);
    let shares: Vec<String> = done.per_worker().iter().map(usize::to_string).collect();
    let did = match wait {
        Wait::Shared(flags) if flags.contains(epoll::EventFlags::ET) => {
            format!(
                "one worker accepts {} of {CONNECTIONS}; each connection wakes one",
                done.per_worker().iter().max().unwrap_or(&0)
            )
        }
        Wait::Shared(_) => "each connection wakes several workers, one of which accepts it".to_owned(),
        Wait::Own(flags) if !flags.contains(epoll::EventFlags::EXCLUSIVE) => {
            format!("each connection wakes {per_connection:.0} workers, one of which accepts it")
        }
        _ => format!("accepts per worker: {}; each connection wakes {per_connection:.0}", shares.join(", ")),
    };
    Ok(observed.did(did))
}

/// As many connections at once as there are workers, each of which is busy with its one for a while.
fn busy(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 64)?;
    let wait = Wait::Own(epoll::EventFlags::EXCLUSIVE);
    let ((), done) = with_workers(&listener, wait, BUSY, |done| {
        done.settled(0)?;
        let mut clients = Vec::new();
        for round in 1..=CONNECTIONS / WORKERS {
            clients.extend(scene.connect_many(WORKERS, PORT)?);
            done.settled(round * WORKERS)?;
        }
        Ok(())
    })?;
    Ok(observed(&done).did("connections that come together are spread over all workers"))
}

fn observed(done: &Done) -> Observed {
    let shares = done.per_worker();
    let text: Vec<String> = shares.iter().map(usize::to_string).collect();
    Observed::new()
        .text("accepted", text.join(", "))
        .number("total", shares.iter().sum::<usize>() as f64)
        .number("least", shares.iter().min().copied().unwrap_or(0) as f64)
        .number("most", shares.iter().max().copied().unwrap_or(0) as f64)
        .number("spurious", done.spurious.load(Ordering::Relaxed) as f64)
}
