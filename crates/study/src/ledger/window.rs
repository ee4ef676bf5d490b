//! The ledger of a window of programs that run on: the lines that can be told from differences, each with how far off
//! it may be.
//!
//! Lines 1, 2, 3 and 7 hold between the counters of one program and its own kernel at every instant, so they hold
//! between differences once what is under way at both ends of the window is a term. Lines 4 to 6 compare two programs,
//! whose books are not read at one instant, and need the fate of every connection that the window cuts: they are left
//! out, and with them phantoms, raced and ghosts. The allowance of a line is what its counters moved while the window's
//! two moments were read ([`Twice`](crate::window::Twice)), and one for each thread that may be between two counters.

use telemetry::Warning;
use telemetry::namespace::Reading;

use super::{Ledger, Line, Terms, difference, line, signed};
use crate::window::Between;

/// Connections of other programs that pass without a word: scrapes and health checks, this many per window and per mille
/// of what was counted.
const QUIET_OTHERS: u64 = 50;
const QUIET_PER_MILLE: u64 = 20;

/// Makes up the accounts of a window: the lines that can be evaluated, and what deserves attention.
pub fn balance(server: &Between<server::Snapshot>, loadgens: &[Between<loadgen::Snapshot>]) -> (Ledger, Vec<Warning>) {
    let (syns, other_opens) = syns(loadgens);
    let (entered, other_accepts) = entered(server);
    let mut warnings = Vec::new();
    for (others, of, counter, whose) in [
        (other_opens, total(loadgens, |books| books.whole().issued), "ActiveOpens", "the load generators'"),
        (other_accepts, server.counted(server::Snapshot::accepted), "PassiveOpens", "the server's"),
    ] {
        if others > QUIET_OTHERS + of * QUIET_PER_MILLE / 1000 {
            warnings.push(Warning::new(
                "other-connections",
                format!("{others} connections of other programs in {whose} network namespace count in {counter}"),
                "its counters are not this load's alone, and a namespace that two generators share counts twice; give each its own",
            ));
        }
    }
    // Without the kernel's counters there is nothing to hold against.
    let syns = loadgens.iter().all(|books| books.all(|books| has_kernel(&books.kernel))).then_some(syns);
    let entered = server.all(|books| has_kernel(&books.kernel)).then_some(entered);
    let lines = [Some(verdicts(loadgens)), syns, entered, Some(acceptors(server))];
    (Ledger { lines: lines.into_iter().flatten().collect(), terms: Terms::default() }, warnings)
}

/// Could the namespace's counters be read?
fn has_kernel(reading: &Reading) -> bool {
    reading.sources.iter().all(|source| source.name != "netstat" || source.up)
}

/// A sum over the generators of what a counter counted.
fn total(loadgens: &[Between<loadgen::Snapshot>], counter: impl Fn(&loadgen::Snapshot) -> u64) -> u64 {
    loadgens.iter().map(|books| books.counted(&counter)).sum()
}

/// A sum over the generators of what a counter moved while it was read.
fn moved(loadgens: &[Between<loadgen::Snapshot>], counter: impl Fn(&loadgen::Snapshot) -> u64) -> u64 {
    loadgens.iter().map(|books| books.moved(&counter)).sum()
}

/// One for each worker: it may be between two counters at either moment.
fn workers(loadgens: &[Between<loadgen::Snapshot>]) -> u64 {
    loadgens.iter().map(|books| 2 * books.end.first.workers as u64).sum()
}

/// Line 1: every attempt planned has its verdict, or is under way at the end and was not at the beginning.
fn verdicts(loadgens: &[Between<loadgen::Snapshot>]) -> Line {
    let under_way = |books: &loadgen::Snapshot| signed(books.connecting + books.confirming);
    let planned = total(loadgens, |books| books.whole().planned);
    let concluded = total(loadgens, |books| books.whole().concluded());
    let in_flight: i64 = loadgens.iter().map(|books| under_way(&books.end.first) - under_way(&books.begin.first)).sum();
    let equation = format!("planned {planned} = verdicts {concluded} + Δ in flight {in_flight}");
    // An attempt is seen in two places, or in none, only if it moved on between the reading of both.
    let allowance = moved(loadgens, |books| books.whole().planned)
        + moved(loadgens, |books| books.whole().established)
        + moved(loadgens, |books| books.whole().concluded())
        + workers(loadgens);
    Line { allowance, ..line(1, "verdicts", equation, difference(planned, concluded) - in_flight) }
}

/// Line 2: the client's kernel opened what left as a SYN, and what other programs of its namespace opened. More opens
/// are theirs, so only too few are a residual.
fn syns(loadgens: &[Between<loadgen::Snapshot>]) -> (Line, u64) {
    let opens = total(loadgens, |books| books.kernel.net.active_opens);
    let issued = total(loadgens, |books| books.whole().issued);
    let before = total(loadgens, |books| books.whole().before_syn);
    let excess = signed(opens) - difference(issued, before);
    let others = u64::try_from(excess).unwrap_or(0);
    let equation = format!("ActiveOpens(client) {opens} = issued {issued} − before SYN {before} + others {others}");
    let allowance = moved(loadgens, |books| books.kernel.net.active_opens)
        + moved(loadgens, |books| books.whole().issued)
        + moved(loadgens, |books| books.whole().before_syn)
        + workers(loadgens);
    (Line { allowance, ..line(2, "syns", equation, excess.min(0)) }, others)
}

/// Line 3: what entered the accept queues was accepted, destroyed with its listener, or waits at the end and did not at
/// the beginning; others are connections to other programs of the namespace (its admin port is one) and raced ones.
fn entered(server: &Between<server::Snapshot>) -> (Line, u64) {
    let opens = server.counted(|books| books.kernel.net.passive_opens);
    let accepted = server.counted(server::Snapshot::accepted);
    let destroyed = server.counted(server::Snapshot::destroyed);
    let depth = difference(server.end.first.depth(), server.begin.first.depth());
    let excess = signed(opens) - signed(accepted) - signed(destroyed) - depth;
    let others = u64::try_from(excess).unwrap_or(0);
    let equation = format!(
        "PassiveOpens(server) {opens} = accepted {accepted} + Δ depth {depth} + destroyed {destroyed} + others {others}"
    );
    let allowance = server.moved(|books| books.kernel.net.passive_opens)
        + server.moved(server::Snapshot::accepted)
        + server.moved(server::Snapshot::destroyed)
        + 2 * server.end.first.acceptors.len() as u64;
    (Line { allowance, ..line(3, "entered", equation, excess.min(0)) }, others)
}

/// Line 7: a batch is written down when it is over, so batches may lag behind accepts but never lead.
fn acceptors(server: &Between<server::Snapshot>) -> Line {
    let open = |books: &server::Snapshot| difference(books.accepted(), books.batch.sum);
    let accepted = server.counted(server::Snapshot::accepted);
    let batched = server.counted(|books| books.batch.sum);
    let (before, after) = (open(&server.begin.first), open(&server.end.first));
    let equation = format!(
        "accepts by acceptor {accepted} = accepts by batch {batched} + Δ open batches {}; open ≥ 0: {before}, {after}",
        after - before
    );
    let allowance = server.moved(server::Snapshot::accepted) + server.moved(|books| books.batch.sum);
    Line { allowance, ..line(7, "acceptors", equation, before.min(0) + after.min(0)) }
}

#[cfg(test)]
mod tests;
