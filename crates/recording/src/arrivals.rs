//! When new attempts came. What entered the queue in an interval is counted, and so is what was dropped; but the kernel
//! counts packets, and who was dropped tries again: a SYN after 1 s and on, the last ACK of a known request when the
//! server's SYN-ACK is sent again (`net/ipv4/tcp_timer.c`, `tcp_retransmit_timer`, `reqsk_timer_handler`).
//!
//! Every drop is therefore owed one more packet at the time of its next timer, as long as the client is as patient as it is
//! taken to be. What comes at that time is taken for what is owed, oldest first, and only what is beyond it for new.
//!
//! Counters of the kernel: a dropped SYN is one of `ListenDrops` and one of the listener's `sk_drops`; a dropped last ACK of
//! a request is one and two; a client's RST for a request none and one, and one of `EmbryonicRsts` (`tcp_v4_rcv`,
//! `tcp_v4_syn_recv_sock`, `tcp_check_req`). So the last ACKs can be told, while no other listener of the namespace drops
//! anything. What the namespace counted in a look in which this listener dropped less is another's, and left out.

use crate::format::Sample;
use crate::reading::Recording;

/// Timers fire late, by up to 3 % and a tick or two (measured: SYNs at 1.02, 2.04, 3.07 s); a SYN-ACK of 1 s was seen at
/// 1.06 s. µs and share.
const EARLY_US: u64 = 5_000;
const LATE_US: u64 = 25_000;
const LATE_SHARE: u64 = 20;

/// `TCP_TIMEOUT_INIT`, µs.
const FIRST_TIMEOUT_US: u64 = 1_000_000;

const ABORT: &str = "net.ipv4.tcp_abort_on_overflow";

/// New attempts of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// When the interval began, µs from the first look.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// How many.
    pub count: u64,
}

/// What came, told from what came again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// New attempts, in order.
    pub batches: Vec<Batch>,
    /// New attempts in all.
    pub attempts: u64,
    /// Packets that were taken for earlier attempts trying again.
    pub retries: u64,
    /// Attempts that entered the queue.
    pub entered: u64,
    /// Attempts whose last packet was dropped: their clients gave up, or had not tried again at the end.
    pub lost: u64,
    /// Of these, those that had not tried again at the end of the recording and would have.
    pub undecided: u64,
    /// Last ACKs that were dropped: clients that were connected and not in the queue.
    pub last_acks: u64,
}

/// Who is taken to have tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients {
    /// How long after its first SYN a client gives up, µs.
    pub patience_us: u64,
    /// `net.ipv4.tcp_syn_linear_timeouts` of the clients: so many SYNs come at the same distance before it doubles.
    pub linear_timeouts: u64,
}

/// A packet whose loss is made good by a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Syn,
    LastAck,
}

/// Attempts that were dropped in one interval, and what their timers will do.
#[derive(Clone, Copy, Debug)]
struct Owed {
    kind: Kind,
    count: u64,
    /// When they tried first, µs.
    first: u64,
    /// Between which instants they try again.
    due: (u64, u64),
    /// How often this kind of packet of theirs was dropped.
    times: u32,
}

impl Clients {
    /// From the drop number `times` to the next packet, µs.
    fn wait(self, kind: Kind, times: u32) -> u64 {
        let linear = match kind {
            Kind::Syn => u32::try_from(self.linear_timeouts).unwrap_or(u32::MAX),
            Kind::LastAck => 0,
        };
        // The first of the doubling timers still waits 1 s.
        FIRST_TIMEOUT_US << times.saturating_sub(1).saturating_sub(linear).min(7)
    }

    /// What is owed by `count` attempts whose first packet came at `first` and that were dropped between two looks.
    fn owe(self, kind: Kind, count: u64, first: u64, sample: &Sample, times: u32) -> Option<Owed> {
        let wait = self.wait(kind, times);
        let due = (sample.began() + wait - EARLY_US, sample.at + wait + wait / LATE_SHARE + LATE_US);
        // Closed at the end of its patience, a client sends no SYN any more. Requests do not depend on the client.
        (count > 0 && sample.at + wait <= first.saturating_add(self.patience_us)).then_some(Owed {
            kind,
            count,
            first,
            due,
            times,
        })
    }
}

/// SYNs and last ACKs among what was dropped in each interval. Counters are read one after the other while they move, so a
/// total may be too high for a moment. The true ones only grow: none is greater than any later one.
fn drops(recording: &Recording, abort: bool) -> Vec<[u64; 2]> {
    // `aside` is neither a SYN nor a last ACK that met a full queue, and one of `dropped`.
    let (mut dropped, mut listens, mut aside) = (0, 0, 0);
    let mut early = [0; 2];
    let total = |sample: &Sample| {
        let new = u64::from(sample.dropped);
        dropped += new;
        listens += own(&mut early[0], sample.listen_drops, new);
        // With abort_on_overflow every dropped last ACK is a reset of a request, too.
        aside += own(&mut early[1], sample.deferred + if abort { 0 } else { sample.resets }, new);
        // dropped = SYNs + 2 × last ACKs + aside, listen drops = SYNs + last ACKs.
        let last_acks: u64 = u64::saturating_sub(dropped, listens + aside);
        [u64::saturating_sub(dropped, 2 * last_acks + aside), last_acks]
    };
    let mut totals: Vec<[u64; 2]> = recording.samples.iter().map(total).collect();
    let mut least = [u64::MAX; 2];
    for total in totals.iter_mut().rev() {
        least = [least[0].min(total[0]), least[1].min(total[1])];
        *total = least;
    }
    let mut before = [0; 2];
    for total in &mut totals {
        let new = [total[0] - before[0], total[1] - before[1]];
        before = std::mem::replace(total, new);
    }
    totals
}

/// Of what the namespace counted until a look, what can be of this listener, which dropped so many; the rest is another's.
/// But while drops go on, some may be counted that are told as dropped by the next look: `early`.
fn own(early: &mut u64, told: u64, dropped: u64) -> u64 {
    let all = told + *early;
    let own = all.min(dropped);
    *early = if dropped > 0 { (all - own).min(told) } else { 0 };
    own
}

impl Arrivals {
    /// The attempts of a recording, if its clients were such.
    pub fn of(recording: &Recording, clients: Clients) -> Self {
        let mut arrivals = Self::default();
        let mut owed: Vec<Owed> = Vec::new();
        let abort = recording.sysctl(ABORT).is_some_and(|abort| abort > 0);
        // Who was reset does not try again.
        let ends = |kind: Kind| abort && kind == Kind::LastAck;
        // What waits already came at some time before: it arrives at once.
        arrivals.add(0, 0, recording.header.depth.into());
        arrivals.entered = recording.header.depth.into();
        for (sample, [syns, last_acks]) in recording.samples.iter().zip(drops(recording, abort)) {
            let packets = sample.entered + syns + last_acks;
            let gave_up = owed.extract_if(.., |owed| owed.due.1 < sample.began());
            arrivals.lost += gave_up.map(|owed| owed.count).sum::<u64>();
            let again = take(&mut owed, sample, packets);
            let retries: u64 = again.iter().map(|owed| owed.count).sum();
            let new = packets - retries;
            arrivals.add(sample.began(), sample.at, new);
            arrivals.retries += retries;
            arrivals.entered += sample.entered;
            arrivals.last_acks += last_acks;
            // Whether the old or the new ones were dropped nobody knows: in proportion.
            let mut left = [(Kind::Syn, syns), (Kind::LastAck, last_acks)];
            for old in again {
                for (kind, dropped) in &mut left {
                    let all = if *kind == Kind::Syn { syns } else { last_acks };
                    let count = share(all, old.count, packets).min(*dropped);
                    *dropped -= count;
                    // Who got a request at last has a timer of its own now.
                    let times = if old.kind == *kind { old.times + 1 } else { 1 };
                    let again = clients.owe(*kind, count, old.first, sample, times).filter(|owed| !ends(owed.kind));
                    arrivals.drop(&mut owed, again, count);
                }
            }
            for (kind, count) in left {
                let again = clients.owe(kind, count, sample.began(), sample, 1).filter(|owed| !ends(owed.kind));
                arrivals.drop(&mut owed, again, count);
            }
        }
        arrivals.lost += owed.iter().map(|owed| owed.count).sum::<u64>();
        let undecided = owed.iter().filter(|owed| owed.due.1 > recording.lasts);
        arrivals.undecided = undecided.map(|owed| owed.count).sum();
        arrivals
    }

    fn add(&mut self, began: u64, ended: u64, count: u64) {
        if count > 0 {
            self.attempts += count;
            self.batches.push(Batch { began, ended, count });
        }
    }

    /// Attempts that were dropped are owed again, or lost.
    fn drop(&mut self, list: &mut Vec<Owed>, owed: Option<Owed>, count: u64) {
        match owed {
            Some(owed) => list.push(owed),
            None => self.lost += count,
        }
    }

    /// When the first attempt came, µs from the first look.
    pub fn first(&self) -> Option<u64> {
        self.batches.first().map(|batch| batch.began)
    }

    /// Attempts within any ms, at most.
    pub fn most_per_ms(&self) -> u64 {
        let rate = |batch: &Batch| (batch.count * 1000).div_ceil((batch.ended - batch.began).max(1000));
        self.batches.iter().map(rate).max().unwrap_or(0)
    }
}

/// Takes up to `most` of what is due within the interval, what has been owed longest first.
fn take(owed: &mut Vec<Owed>, sample: &Sample, mut most: u64) -> Vec<Owed> {
    let mut taken = Vec::new();
    owed.sort_by_key(|owed| owed.due);
    for owed in owed.iter_mut().take_while(|owed| owed.due.0 <= sample.at) {
        let count = owed.count.min(most);
        if count > 0 {
            (owed.count, most) = (owed.count - count, most - count);
            taken.push(Owed { count, ..*owed });
        }
    }
    owed.retain(|owed| owed.count > 0);
    taken
}

/// `part` of `all` in `whole`, rounded to the nearest.
fn share(all: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(all) * u128::from(part) + u128::from(whole / 2);
    product.checked_div(whole.into()).and_then(|share| u64::try_from(share).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
