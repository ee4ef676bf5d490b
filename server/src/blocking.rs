//! The blocking engine: one accept4(2) per connection, asleep in the kernel in between, and one connection served at a
//! time. Waiters of one listener are woken one at a time in the order they came (`inet_csk_accept`, exclusive wait).
//!
//! Nothing but a signal ends a blocking accept without touching the queue (shutdown(2) on the listener would
//! reset every connection in it), so whoever stops this engine interrupts its thread until it is gone.

use std::io;

use kernel::process::monotonic_ns;

use crate::acceptor::{Accepted, Acceptor};

/// The engine has one listener.
const LISTENER: usize = 0;

/// Time between two looks at the queue without a service time, ns: here every connection is a batch, and a look before
/// each costs 2 % of what accepting costs (`benches/accept_cost`). A queue of 50 takes longer than this to empty.
const LOOK_APART_NS: u64 = 200_000;

/// Runs until the acceptor is told to stop and its thread is interrupted.
#[expect(clippy::unnecessary_wraps, reason = "an engine may fail, this one cannot")]
pub(crate) fn run(acceptor: &mut Acceptor) -> io::Result<()> {
    let mut looked = 0;
    while !acceptor.desk.is_stopped() {
        acceptor.sit_out_stall();
        // What waits for the end of a stall that the stop cut short is not taken.
        if acceptor.desk.is_stopped() {
            break;
        }
        let now = monotonic_ns();
        // Whether somebody waits matters to the service time only.
        let waiting = (!acceptor.is_instant() || now - looked >= LOOK_APART_NS) && {
            looked = now;
            acceptor.sample(LISTENER) > 0
        };
        let accepted = acceptor.accept(LISTENER, waiting);
        match accepted {
            Accepted::Closed | Accepted::Open(_) => {
                acceptor.tally().wakeups_work.add(1);
                acceptor.tally().batch.record(1);
            }
            // Being told to stop is no wake-up of the kernel's for a connection.
            Accepted::Nothing if acceptor.desk.is_stopped() => {}
            // The kernel's time limit passed: to look after the children, not because of a connection.
            Accepted::Nothing if acceptor.has_children() => {}
            Accepted::Nothing => acceptor.tally().wakeups_empty.add(1),
            Accepted::Retry => {}
            Accepted::Exhausted => acceptor.pause(),
        }
        if let Accepted::Open(connection) = accepted {
            acceptor.serve(connection);
        }
    }
    acceptor.let_go();
    Ok(())
}
