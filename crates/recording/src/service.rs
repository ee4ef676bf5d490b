//! How fast connections were accepted while some waited, and the longest time that nobody accepted.
//!
//! Accepts are not counted by the kernel: they are what entered the queue less what it is deeper. While the queue is never
//! seen empty, the time between two accepts is one service, whoever serves; from accept to accept is counted, so that
//! neither the end of a service that began before the first nor the idle time after the last is in it.

use crate::reading::Recording;

/// Fewer accepts than this are no measure of what a stall is, and the last of each stretch is counted too.
const FEWEST: u64 = 5;

/// A pause is a stall if it takes so many service times and so long, µs.
const STALL_SERVICES: f64 = 10.0;
const STALL_US: u64 = 20_000;

/// What was seen of the acceptors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Service {
    /// Time from one accept to the next while connections waited, µs, the stall aside; `None` where none was seen.
    pub mean_us: Option<f64>,
    /// Accepts that it is the mean of.
    pub accepts: u64,
    /// The longest time that connections waited and nobody accepted, if it stands out: from and to, µs from the first look.
    pub stall: Option<(u64, u64)>,
}

/// Instants at which something was accepted while others waited, in one stretch in which the queue was never seen empty.
#[derive(Debug, Default)]
struct Stretch {
    /// The look before the one that first saw somebody waiting.
    began: u64,
    /// When, how many, and whether somebody was left.
    accepts: Vec<(u64, u64, bool)>,
    /// When the queue was empty again, or the recording over.
    ended: u64,
}

/// Stretches in which somebody waited at every look.
fn stretches(recording: &Recording) -> Vec<Stretch> {
    let mut found = Vec::new();
    let mut open = (recording.header.depth > 0).then(Stretch::default);
    // Accepts never become fewer, though depth and counters are read one after the other.
    let (mut entered, mut accepted) = (u64::from(recording.header.depth), 0);
    for sample in &recording.samples {
        entered += sample.entered;
        let now = entered.saturating_sub(sample.depth.into()).max(accepted);
        let accepts = now - accepted;
        accepted = now;
        if let Some(stretch) = &mut open {
            if accepts > 0 {
                stretch.accepts.push((sample.at, accepts, sample.depth > 0));
            }
            stretch.ended = sample.at;
        }
        if sample.depth == 0 {
            found.extend(open.take());
        } else {
            open.get_or_insert_with(|| Stretch { began: sample.began(), ..Stretch::default() });
        }
    }
    if let Some(mut stretch) = open {
        stretch.ended = recording.lasts;
        found.push(stretch);
    }
    found
}

/// The time and the accepts from the first accept of each stretch to its last: to the last that left somebody waiting, or
/// (`to_the_end`) to the one that emptied the queue, which is told with the time until the look after it.
fn from_accept_to_accept(stretches: &[Stretch], to_the_end: bool) -> (u64, u64) {
    let of = |stretch: &Stretch| {
        let counted = || stretch.accepts.iter().filter(|(_, _, left)| to_the_end || *left);
        let (Some(first), Some(last)) = (counted().next(), counted().next_back()) else { return (0, 0) };
        (last.0 - first.0, counted().skip(1).map(|(_, count, _)| count).sum())
    };
    stretches.iter().map(of).fold((0, 0), |sum: (u64, u64), more: (u64, u64)| (sum.0 + more.0, sum.1 + more.1))
}

/// A time in which somebody waited and nobody accepted.
#[derive(Clone, Copy, Debug)]
struct Pause {
    from: u64,
    to: u64,
    /// Was an accept before it, and one that left somebody waiting after it? Then it is between two that are counted.
    between: bool,
}

/// The longest pause.
fn longest_pause(stretches: &[Stretch]) -> Option<Pause> {
    let pauses = stretches.iter().flat_map(|stretch| {
        let starts = std::iter::once(stretch.began).chain(stretch.accepts.iter().map(|(at, _, _)| *at));
        let ends = stretch.accepts.iter().map(|(at, _, left)| (*at, *left)).chain([(stretch.ended, false)]);
        starts.zip(ends).enumerate().map(|(index, (from, (to, left)))| Pause { from, to, between: index > 0 && left })
    });
    pauses.max_by_key(|pause| pause.to - pause.from)
}

impl Service {
    /// What a recording says.
    pub fn of(recording: &Recording) -> Self {
        let stretches = stretches(recording);
        let (mut time, mut accepts) = from_accept_to_accept(&stretches, false);
        let to_the_end = accepts < FEWEST;
        if to_the_end {
            (time, accepts) = from_accept_to_accept(&stretches, true);
        }
        let mut stall = None;
        if let Some(Pause { from, to, between }) = longest_pause(&stretches) {
            let lasts = to - from;
            let counted = between && !to_the_end;
            let rest = if counted { (time.saturating_sub(lasts), accepts.saturating_sub(1)) } else { (time, accepts) };
            let stands_out = match rest {
                // Nobody was ever seen to accept while others waited.
                (_, 0) => accepts == 0,
                (_, 1..FEWEST) => false,
                (time, accepts) => lasts as f64 >= STALL_SERVICES * time as f64 / accepts as f64,
            };
            if stands_out && lasts >= STALL_US {
                (time, accepts) = rest;
                stall = Some((from, to));
            }
        }
        Self { mean_us: (accepts > 0).then(|| time as f64 / accepts as f64), accepts, stall }
    }
}

#[cfg(test)]
mod tests;
