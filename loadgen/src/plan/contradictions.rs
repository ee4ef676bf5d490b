//! Options that can never work, or not together: what is refused on any machine, before anything is opened.

use super::{MAX_WORKERS, PlanError};
use crate::opts::{ArrivalKind, AutoCount, Close, Confirm, Engine, Opts, Sockets};

/// What can be checked without a machine: used before a run, on every cell of an experiment.
///
/// # Errors
/// The first setting that can never work.
pub fn check(opts: &Opts) -> Result<(), PlanError> {
    if opts.deadline.as_ns() == 0 {
        return Err(PlanError::Deadline);
    }
    if let ArrivalKind::Closed(n) = opts.arrivals {
        if let Some(shard) = opts.shard {
            return Err(PlanError::Shard(shard));
        }
        if let AutoCount::Exactly(bound) = opts.max_in_flight
            && bound < n
        {
            return Err(PlanError::Closed { bound: bound.get(), closed: n.get() });
        }
    }
    if let Some(contradiction) = contradiction(opts) {
        return Err(PlanError::Contradiction(contradiction));
    }
    match opts.workers {
        AutoCount::Exactly(n) if n.get() > MAX_WORKERS => Err(PlanError::Workers(n.get())),
        _ => Ok(()),
    }
}

/// Settings that cannot work together, in words.
fn contradiction(opts: &Opts) -> Option<String> {
    let defaults = Opts::default();
    let reused = opts.sockets == Sockets::Reused;
    let rules = [
        (
            opts.send != defaults.send && opts.confirm != Confirm::Reply,
            "send is what the client says first, and with confirm greeting or none it says nothing; set confirm to reply",
        ),
        (
            opts.expect != defaults.expect && opts.confirm == Confirm::None,
            "expect compares what comes first, and with confirm none nothing is waited for; set confirm to reply or greeting",
        ),
        (
            opts.fastopen && opts.confirm != Confirm::Reply,
            "fastopen sends the client's first bytes in the SYN, so it needs confirm reply",
        ),
        (
            opts.fastopen && opts.engine == Engine::IoUring,
            "fastopen is beyond engine io-uring; use engine epoll, or auto",
        ),
        (reused && opts.close != Close::Reset, "sockets reused are disconnected by a RST, so close must be reset"),
        (reused && opts.fastopen, "sockets reused cannot have fastopen"),
        (
            opts.keep.is_some() && matches!(opts.arrivals, ArrivalKind::Closed(_)),
            "keep holds connections beyond their attempt, which arrivals closed:N count as in flight; use hold, or another N",
        ),
        (
            opts.user_timeout
                .is_some_and(|span| span.as_ns() < 1_000_000 || span.as_ns() / 1_000_000 > i32::MAX as u64),
            "user-timeout is a number of ms, 1 or more",
        ),
    ];
    rules.into_iter().find(|(broken, _)| *broken).map(|(_, words)| words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Opts);

    fn after(change: Change) -> Result<(), PlanError> {
        let mut opts = Opts::default();
        change(&mut opts);
        check(&opts)
    }

    fn closed(opts: &mut Opts) {
        opts.arrivals = "closed:4".parse().expect("arrivals");
    }

    fn fast(opts: &mut Opts) {
        (opts.fastopen, opts.confirm) = (true, Confirm::Reply);
    }

    fn reused(opts: &mut Opts) {
        opts.sockets = Sockets::Reused;
    }

    fn says(opts: &mut Opts) {
        opts.send = "x".parse().expect("a message");
    }

    fn expects(opts: &mut Opts) {
        opts.expect = "x".parse().expect("a prefix");
    }

    #[test]
    fn what_cannot_work_is_refused_by_the_name_of_a_flag_and_with_a_way_out() {
        let broken: [(Change, &str, &str); 15] = [
            (|o| o.deadline = "0s".parse().expect("a time"), "deadline", "above 0"),
            (|o| (closed(o), o.shard = "1/2".parse().ok()).0, "shard 1/2", "its own N"),
            (
                |o| (closed(o), o.max_in_flight = "3".parse().expect("a count")).0,
                "max-in-flight 3",
                "leave max-in-flight out",
            ),
            (|o| o.workers = "1025".parse().expect("a count"), "workers 1025", "1024"),
            (says, "send", "set confirm to reply"),
            (|o| (says(o), o.confirm = Confirm::None).0, "send", "set confirm to reply"),
            (|o| (expects(o), o.confirm = Confirm::None).0, "expect", "set confirm to reply or greeting"),
            (|o| o.fastopen = true, "fastopen", "needs confirm reply"),
            (|o| (fast(o), o.engine = Engine::IoUring).0, "fastopen", "use engine epoll, or auto"),
            (|o| (reused(o), o.close = Close::Fin).0, "sockets reused", "close must be reset"),
            (|o| (reused(o), o.close = Close::Shutdown).0, "sockets reused", "close must be reset"),
            (|o| (reused(o), fast(o)).0, "sockets reused", "fastopen"),
            (|o| (closed(o), o.keep = "3".parse().ok()).0, "keep", "use hold, or another N"),
            (|o| o.user_timeout = "900us".parse().ok(), "user-timeout", "1 or more"),
            (|o| o.user_timeout = "600h".parse().ok(), "user-timeout", "a number of ms"),
        ];
        for (change, begins, says) in broken {
            let error = after(change).expect_err(says).to_string();
            assert!(error.starts_with(begins) && error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_is_next_to_it_is_not() {
        let fine: [Change; 8] = [
            |o| (says(o), o.confirm = Confirm::Reply).0,
            expects,
            fast,
            |o| (fast(o), o.engine = Engine::Epoll).0,
            |o| (reused(o), o.hold = "1s".parse().expect("a time")).0,
            |o| (reused(o), o.keep = "3".parse().ok()).0,
            |o| (closed(o), o.hold = "1s".parse().expect("a time")).0,
            |o| o.user_timeout = "1ms".parse().ok(),
        ];
        for change in fine {
            after(change).expect("nothing wrong");
        }
    }
}
