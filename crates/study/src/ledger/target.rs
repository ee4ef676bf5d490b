//! The accounts of a trial with a program that is not ours in the server's place (`[target]`): what two kernels and the load
//! generator counted, and nothing that the program itself would have to tell.
//!
//! Lines 1, 2, 4 and 5 need no count of the server's own. Line 3 says what was accepted instead of checking it, line 6 holds
//! the served against that, and line 7, a second count of accepts, is not evaluated. Two things that a server's own count
//! would tell apart stay together, and are named so: a connection destroyed with a closed listener, and one that a race in
//! the kernel discarded, may be in *accepted*. It refuses to split what no counter splits: where the two ways to count
//! phantoms (lines 4 and 5) leave a choice, the line says from where to where, and is derived.

use std::fmt::Write as _;

use super::{Books, Ledger, Line, Terms, Topology, Verdict, above_zero, difference, line, signed};

/// Settles a drained trial of a target from the kernel's side of `server` and the load generator's books.
pub fn balance(server: &server::Snapshot, loadgen: &loadgen::Snapshot, topology: Topology) -> Ledger {
    let books = Books::open(server, loadgen, topology);
    let own_attempts = own_attempts(&books, topology);
    let view = View {
        own: own_connections(&books, own_attempts, topology),
        own_attempts,
        closed: server.listeners.iter().filter(|listener| listener.retired).count(),
        books,
    };
    let (terms, raced_at_most) = view.terms();
    let lines = vec![
        view.books.verdicts(),
        view.syns(topology),
        view.entered(&terms),
        view.connected(&terms, raced_at_most),
        view.request_sockets(&terms, raced_at_most),
        view.served(&terms),
        Line {
            derived: true,
            ..line(7, "acceptors", "not evaluated: a second count of accepts is the server's own".to_owned(), 0)
        },
    ];
    Ledger { lines, terms }
}

/// Connections that the target tried to open itself: in its namespace there is nobody else. Over loopback they are what the
/// generator's attempts leave of `ActiveOpens`.
fn own_attempts(books: &Books, topology: Topology) -> u64 {
    match topology {
        Topology::Loopback => {
            above_zero(signed(books.client.active_opens) - difference(books.whole.issued, books.whole.before_syn))
        }
        Topology::Veth | Topology::Attached => books.server.active_opens,
    }
}

/// Those that were established, with itself, and so are in `PassiveOpens`: a database that is not there refuses, which
/// `AttemptFails` counts. A request that a client reset counts there as well, and in `EmbryonicRsts`; one that
/// `tcp_abort_on_overflow` reset in the latter only, so fewer failures may be told than there were. Over loopback the refused
/// attempts of the generator are in the same counter.
fn own_connections(books: &Books, attempts: u64, topology: Topology) -> u64 {
    let refused_clients = if topology == Topology::Loopback { books.whole.verdict(Verdict::Refused) } else { 0 };
    let others = books.server.embryonic_resets + refused_clients;
    attempts.saturating_sub(books.server.attempt_fails.saturating_sub(others))
}

/// What is left of `PassiveOpens` was accepted.
fn accepted(terms: &Terms) -> i64 {
    signed(terms.entered) - signed(terms.left)
}

struct View {
    books: Books,
    /// Connections that the target tried to open.
    own_attempts: u64,
    /// Those of them that it has with itself.
    own: u64,
    /// Listeners that were closed during the trial.
    closed: usize,
}

impl View {
    /// Connections of others that entered, by the kernel's count.
    fn opens(&self) -> u64 {
        self.books.server.passive_opens.saturating_sub(self.own)
    }

    /// Phantoms by line 4 if nothing was counted twice.
    fn plain_phantoms(&self) -> i64 {
        difference(self.books.client_established(), self.opens())
    }

    /// Phantoms by line 5, abandoned handshakes among them and expired ones left out.
    fn requests(&self) -> i64 {
        signed(self.books.server.embryonic_resets + self.books.pending) - signed(self.books.half_open.answered)
    }

    /// The terms, with the fewest connections counted twice that explain the counters; and how many it may have been.
    fn terms(&self) -> (Terms, u64) {
        let books = &self.books;
        let timed_out = books.whole.verdict(Verdict::TimedOut);
        let cookies = books.cookies_were_sent();
        let plain = self.plain_phantoms();
        let stray_cookies = books
            .server
            .syncookies_received
            .saturating_sub(books.server.syncookies_sent.saturating_sub(books.half_open.dropped));
        let ghosts = above_zero(-plain).min(stray_cookies);
        let surplus = above_zero(-plain).saturating_sub(ghosts);
        // Twins of connections that live: only data behind the last ACK makes them.
        let twins_at_most = if books.client_speaks_first { books.whole.abrupt } else { 0 };
        let beyond = self.requests() - plain;
        let (least, most) = match (cookies, books.may_expire) {
            (true, _) => (surplus, twins_at_most),
            (false, true) => (surplus.max(above_zero(beyond - signed(timed_out))), twins_at_most),
            (false, false) => {
                (surplus.max(above_zero(beyond - signed(timed_out))), twins_at_most.min(above_zero(beyond)))
            }
        };
        let raced = least.min(twins_at_most);
        let phantoms = above_zero(plain + signed(ghosts) + signed(raced));
        let mut terms = Terms {
            entered: self.opens().saturating_sub(raced),
            left: books.left,
            raced,
            reset_at_connect: books.whole.reset_at_connect,
            phantoms,
            phantoms_derived: cookies || most > raced,
            ghosts,
            stray_cookies,
            pending: books.pending,
            half_open: books.half_open.answered,
            too_late: books.whole.verdict(Verdict::Unserved).saturating_sub(phantoms),
            ..Terms::default()
        };
        if !cookies {
            let uncounted = signed(phantoms) - self.requests();
            if books.may_expire {
                terms.expired = above_zero(uncounted);
            }
            terms.abandoned = above_zero(-uncounted).min(timed_out);
        }
        (terms, most.max(raced))
    }

    /// Line 2: over loopback the target's own connections are in the same counter.
    fn syns(&self, topology: Topology) -> Line {
        let line = self.books.syns();
        if topology != Topology::Loopback || self.own_attempts == 0 {
            return line;
        }
        let equation = format!("{} + the target's own {}", line.equation, self.own_attempts);
        Line { equation, residual: line.residual - signed(self.own_attempts), derived: true, ..line }
    }

    /// Line 3: no check, but what was accepted.
    fn entered(&self, terms: &Terms) -> Line {
        let mut what = "accepted".to_owned();
        if self.closed > 0 {
            what.push_str(" or destroyed with its listener");
        }
        if !self.books.client_speaks_first && self.books.whole.abrupt > 0 {
            what.push_str(" or raced");
        }
        let mut equation = format!(
            "{what} {} = PassiveOpens({}) {} − left {} − counted twice {}",
            accepted(terms),
            self.books.server_label,
            self.books.server.passive_opens,
            terms.left,
            terms.raced
        );
        if self.own > 0 {
            let _ = write!(equation, " − the target's own {}", self.own);
        }
        equation.push_str("; not counted by the server");
        Line { derived: true, ..line(3, "entered", equation, accepted(terms).min(0)) }
    }

    /// Line 4, as of our own server; derived where the number of those counted twice has a choice.
    fn connected(&self, terms: &Terms, raced_at_most: u64) -> Line {
        let line = self.books.connected(terms);
        let equation = format!("{}{}", line.equation, choice(terms, raced_at_most));
        Line { equation, ..line }
    }

    /// Line 5, likewise.
    fn request_sockets(&self, terms: &Terms, raced_at_most: u64) -> Line {
        let line = self.books.request_sockets(terms);
        Line { derived: line.derived || raced_at_most > terms.raced, ..line }
    }

    /// Line 6 without what the server says it answered.
    fn served(&self, terms: &Terms) -> Line {
        let served = self.books.whole.verdict(Verdict::Served);
        let unserved = self.books.whole.verdict(Verdict::Unserved);
        let entered_unserved = terms.entered.saturating_sub(served);
        let equation = format!(
            "served {served} ≤ accepted {} (line 3); unserved {unserved} ≤ phantoms {} + entered unserved {entered_unserved}",
            accepted(terms),
            terms.phantoms
        );
        let violations = [signed(served) - accepted(terms), difference(unserved, terms.phantoms + entered_unserved)];
        let residual = violations.into_iter().map(|violation| violation.max(0)).sum();
        Line { derived: true, ..line(6, "served", equation, residual) }
    }
}

/// What the counters leave open.
fn choice(terms: &Terms, raced_at_most: u64) -> String {
    if raced_at_most <= terms.raced {
        return String::new();
    }
    let more = raced_at_most - terms.raced;
    format!(
        "; phantoms {} to {}, as 0 to {more} more may have been counted twice",
        terms.phantoms,
        terms.phantoms + more
    )
}

#[cfg(test)]
mod tests;
