//! The course of a load, step by step: how many ports are taken at each instant, and when there are none.
//!
//! Attempts are a fluid: each step plans the mean of its attempts, and gives back the ports that were taken a life ago.
//! Sources are taken in turn, so their ports run out together and count as one pool.

/// Steps in a life: at best, and at least.
const STEPS_PER_LIFE: [f64; 2] = [1000.0, 20.0];

/// Steps at most: what comes after them is taken to go on in the same way.
const MOST_STEPS: f64 = 200_000.0;

/// Lives that a load without an end is followed for.
const LIVES: f64 = 4.0;

/// `TCP_TIMEWAIT_LEN`, s.
const TIME_WAIT: f64 = 60.0;

/// A load.
pub(super) struct Load<'a> {
    /// Attempts planned before an instant, in ns from the start.
    pub(super) planned: &'a dyn Fn(u64) -> f64,
    /// s from the start; `None`: never.
    pub(super) ends: Option<f64>,
}

/// The life of an attempt, s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// From connect(2) to the confirmation.
    pub(super) flight: f64,
    /// From there until the connection is closed.
    pub(super) hold: f64,
    /// Connections that stay open on top, until others take their place.
    pub(super) keep: f64,
    /// From the close until the port may be used again.
    pub(super) rests: f64,
    /// Sockets that may be in `TIME_WAIT` at once.
    pub(super) time_waits: f64,
    /// Does the next connection through a port end its `TIME_WAIT`?
    pub(super) reused: bool,
}

/// What ports there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool {
    pub(super) ports: f64,
    /// Of them, in `TIME_WAIT` at the start.
    pub(super) leftover: f64,
    /// s until those are back.
    pub(super) leftover_rests: f64,
    /// Attempts in flight at most: what comes on top is shed, and takes no port.
    pub(super) in_flight: f64,
}

/// What a load came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) no_ports: f64,
    /// s from the start.
    pub(super) runs_out_after: Option<f64>,
    pub(super) most_taken: f64,
    pub(super) most_time_waits: f64,
    /// s from the start.
    pub(super) overflows_after: Option<f64>,
}

/// Follows a load from its start to its end.
pub(super) fn follow(load: &Load<'_>, life: &Life, pool: &Pool) -> Outcome {
    let whole_life = life.flight + life.hold + life.rests;
    if whole_life <= 0.0 && life.keep <= 0.0 {
        return Outcome::default();
    }
    let ends = load.ends.unwrap_or(LIVES * whole_life.max(TIME_WAIT));
    let scale = if whole_life > 0.0 { whole_life.min(ends) } else { ends };
    let [fine, coarse] = STEPS_PER_LIFE.map(|steps| scale / steps);
    let step = (ends / MOST_STEPS).clamp(fine, coarse);
    let steps = (ends / step).ceil().min(MOST_STEPS);
    let mut state = State::new(life, pool, step, ends);
    let mut planned = 0.0;
    for number in 0..whole(steps) {
        let from = number as f64 * step;
        let until = (load.planned)(ns((from + step).min(ends)));
        state.step(until - planned, from);
        planned = until;
    }
    state.outcome.no_ports *= (ends / (steps * step)).max(1.0);
    state.outcome
}

/// Ports by what they are taken for.
struct State<'a> {
    life: &'a Life,
    pool: &'a Pool,
    step: f64,
    flying: Delay,
    holding: Delay,
    resting: Delay,
    waiting: Delay,
    leftover: f64,
    free: f64,
    in_flight: f64,
    kept: f64,
    /// Ports not free.
    taken: f64,
    /// Sockets in `TIME_WAIT`.
    time_waits: f64,
    outcome: Outcome,
}

impl<'a> State<'a> {
    fn new(life: &'a Life, pool: &'a Pool, step: f64, ends: f64) -> Self {
        // What comes out after the end need not be kept longer.
        let delay = |seconds: f64| Delay::new(seconds.min(ends + step), step);
        let leftover = pool.leftover.min(pool.ports);
        Self {
            life,
            pool,
            step,
            flying: delay(life.flight),
            holding: delay(life.hold),
            resting: delay(life.rests),
            waiting: delay(TIME_WAIT),
            leftover,
            free: pool.ports - leftover,
            in_flight: 0.0,
            kept: 0.0,
            taken: leftover,
            time_waits: leftover,
            outcome: Outcome::default(),
        }
    }

    /// One step that begins at `from` (s) and plans `planned` attempts.
    fn step(&mut self, planned: f64, from: f64) {
        if self.leftover > 0.0 && from >= self.pool.leftover_rests {
            self.release(self.leftover);
            self.time_waits -= self.leftover;
            self.leftover = 0.0;
        }
        self.release(self.resting.due());
        self.time_waits -= self.waiting.due();

        let admitted = planned.min((self.pool.in_flight - self.in_flight).max(0.0));
        let started = admitted.min(self.free.max(0.0));
        if admitted - started > 1e-6 {
            let within = self.step * started / admitted;
            self.outcome.runs_out_after.get_or_insert(from + within);
            self.outcome.no_ports += admitted - started;
        }
        self.free -= started;
        self.taken += started;
        self.in_flight += started;
        self.outcome.most_taken = self.outcome.most_taken.max(self.taken);

        let confirmed = self.flying.pass(started);
        self.in_flight -= confirmed;
        self.kept += self.holding.pass(confirmed);
        let closed = (self.kept - self.life.keep).max(0.0);
        self.kept -= closed;
        self.close(closed, from);
    }

    /// Connections closed by the client: into `TIME_WAIT` as far as there is room.
    fn close(&mut self, closed: f64, from: f64) {
        // Of ports that are used again each is in `TIME_WAIT` once at most.
        let now = if self.life.reused { self.time_waits.min(self.pool.ports) } else { self.time_waits };
        let room = (self.life.time_waits - now).max(0.0);
        let (waits, skips) =
            if self.life.rests > 0.0 { (closed.min(room), (closed - room).max(0.0)) } else { (0.0, 0.0) };
        if skips > 1e-6 && (!self.life.reused || self.life.time_waits < self.pool.ports) {
            self.outcome.overflows_after.get_or_insert(from + self.step * waits / closed);
        }
        self.time_waits += waits;
        self.outcome.most_time_waits = self.outcome.most_time_waits.max(self.time_waits);
        let over = self.waiting.put(waits);
        self.time_waits -= over;
        let rested = self.resting.put(waits);
        self.release(closed - waits + rested);
    }

    fn release(&mut self, ports: f64) {
        self.free += ports;
        self.taken -= ports;
    }
}

/// What goes in comes out after a fixed time.
struct Delay {
    slots: Vec<f64>,
    next: usize,
}

impl Delay {
    fn new(seconds: f64, step: f64) -> Self {
        Self { slots: vec![0.0; usize::try_from(whole((seconds / step).round())).unwrap_or(0)], next: 0 }
    }

    /// What comes out at the beginning of this step.
    fn due(&self) -> f64 {
        self.slots.get(self.next).copied().unwrap_or(0.0)
    }

    /// Ends the step with what goes in. Returns what comes out at once, because the time is less than a step.
    fn put(&mut self, amount: f64) -> f64 {
        let Some(slot) = self.slots.get_mut(self.next) else { return amount };
        *slot = amount;
        self.next = (self.next + 1) % self.slots.len();
        0.0
    }

    /// All that comes out in this step, in which this much goes in.
    fn pass(&mut self, amount: f64) -> f64 {
        self.due() + self.put(amount)
    }
}

fn ns(seconds: f64) -> u64 {
    whole((seconds * 1e9).round())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
fn whole(number: f64) -> u64 {
    number as u64
}
