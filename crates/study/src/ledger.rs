//! The accounts of a whole trial: seven equations between what the generator planned, what both kernels counted and what
//! the server accepted. A residual that is not 0 means that somebody miscounted, so the trial does not count.
//!
//! Evaluated from zero to drained: fresh namespaces, arrivals over, every client socket closed, accepting stopped. It
//! refuses to repair: a difference is either a term that the kernel is known to produce without a counter of its own
//! (each bounded, see [`Terms`]) or a residual. Sources: `net/ipv4/tcp_input.c` (`tcp_conn_request`),
//! `net/ipv4/tcp_minisocks.c` (`tcp_check_req`), `net/ipv4/inet_connection_sock.c`, `net/ipv4/syncookies.c`; each rule was
//! measured on Linux 6.18.

pub mod target;
pub mod window;

use kernel::netstat::NetCounters;
use loadgen::opts::Confirm;
use loadgen::snapshot::{HalfOpenCounts, PhaseCounts};
use loadgen::verdict::Verdict;
use serde::{Deserialize, Serialize};

use crate::results::Topology;

/// A trial's accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ledger {
    /// The equations, by number.
    pub lines: Vec<Line>,
    /// The quantities that only the equations as a whole know; left out where they are not known, as in a window.
    #[serde(default, skip_serializing_if = "Terms::are_unknown")]
    pub terms: Terms,
}

/// One equation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// 1 to 7.
    pub number: u8,
    /// Stable identifier, kebab-case.
    pub name: String,
    /// The equation with its figures.
    pub equation: String,
    /// Left side − right side (of an inequality: by how much it is violated), connections.
    pub residual: i64,
    /// How far off the line may be and still balance: 0 but in a [window], whose books are read while they move.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub allowance: u64,
    /// The line defines a term instead of checking it, so that its balance proves little.
    pub derived: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(allowance: &u64) -> bool {
    *allowance == 0
}

impl Line {
    /// Is it off by no more than it may be?
    pub fn balances(&self) -> bool {
        self.residual.unsigned_abs() <= self.allowance
    }

    /// What is shown of its residual: 0 when it balances.
    pub fn imbalance(&self) -> i64 {
        if self.balances() { 0 } else { self.residual }
    }
}

/// Terms of the equations, connections unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Terms {
    /// Connections that entered an accept queue: accepted, left, destroyed, lost or raced. With confirm reply without the
    /// raced ones: each of them is the second child of a connection that is counted already.
    pub entered: u64,
    /// Left in the accept queues when accepting stopped.
    pub left: u64,
    /// Destroyed with a listener that was closed during the trial.
    pub destroyed: u64,
    /// Accepted by an acceptor process that was killed before it could count them: at most one per kill, or what its
    /// `io_uring` had completed and not looked at.
    pub lost: u64,
    /// Counted as entered by the kernel, then discarded without a counter: the final ACK and the client's next segment
    /// were handled on two CPUs. At most the attempts whose next segment came at once: all that were established with
    /// confirm none (a RST or FIN) and with confirm reply (data), otherwise those closed unserved within 10 ms of
    /// connecting, just before their deadline.
    pub raced: u64,
    /// Attempts for which connect(2) itself gave ECONNRESET: established first, whether accepted or not.
    pub reset_at_connect: u64,
    /// Connected for the client, never entered the accept queue; those that `tcp_abort_on_overflow` reset included.
    pub phantoms: u64,
    /// A SYN cookie was sent, which leaves no trace to count: phantoms are the difference of line 4 and nothing else.
    pub phantoms_derived: bool,
    /// Entered the queue though the client had no such connection any more: a stray segment carried a valid cookie. At
    /// most `stray_cookies`. Hides as many phantoms where both occur.
    pub ghosts: u64,
    /// Segments with a valid cookie beyond the cookies sent (segments), those aside that half-open sockets may have dropped.
    pub stray_cookies: u64,
    /// Request sockets still in `SYN_RECV` at the end.
    pub pending: u64,
    /// Sockets kept half open on purpose that were answered, as these sockets count what they drop. Without cookies each of
    /// them has a request socket, which is pending at the end or expired.
    pub half_open: u64,
    /// Request sockets that the kernel dropped after their last SYN-ACK: no counter. Only where the trial lasted long
    /// enough for one to expire, or a listener was closed, whose requests go at their next timer.
    pub expired: u64,
    /// Handshakes whose client gave up in `SYN_SENT` before the SYN-ACK came: the RST it drew counts in `EmbryonicRsts`
    /// though the client never was connected. At most the timed-out attempts.
    pub abandoned: u64,
    /// Attempts that ended unserved although they were no phantoms: accepted after the client's deadline, left, or
    /// closed without a byte.
    pub too_late: u64,
}

impl Terms {
    /// No trial that did anything has only zeros.
    fn are_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl Ledger {
    /// Does every line balance?
    pub fn balances(&self) -> bool {
        self.lines.iter().all(Line::balances)
    }

    /// The residual of line `number`, connections; `None` when there is no such line.
    pub fn residual(&self, number: u8) -> Option<i64> {
        self.lines.iter().find(|line| line.number == number).map(|line| line.residual)
    }

    /// The line that does not balance with the greatest residual, the first of equals; `None` when all balance.
    pub fn worst(&self) -> Option<&Line> {
        self.lines.iter().rev().filter(|line| !line.balances()).max_by_key(|line| line.residual.unsigned_abs())
    }
}

/// Settles a drained trial from the final snapshots of both ends; a trial that does not start from zero is for
/// [`window::balance`], one whose server is not ours for [`target::balance`]. `topology` names the namespace whose counters are
/// quoted: over loopback both ends read the same ones.
pub fn balance(server: &server::Snapshot, loadgen: &loadgen::Snapshot, topology: Topology) -> Ledger {
    let books = Books::open(server, loadgen, topology);
    let terms = books.terms();
    let lines = vec![
        books.verdicts(),
        books.syns(),
        books.entered(&terms),
        books.connected(&terms),
        books.request_sockets(&terms),
        books.served(&terms),
        books.acceptors(),
    ];
    Ledger { lines, terms }
}

/// The figures the equations are made of, from both snapshots.
struct Books {
    client_label: &'static str,
    server_label: &'static str,
    /// The generator's books, warm-up and measured phase together.
    whole: PhaseCounts,
    client: NetCounters,
    server: NetCounters,
    accepted: u64,
    left: u64,
    destroyed: u64,
    /// Connections that got a first byte.
    answered: u64,
    /// Connections that may have died uncounted with a killed acceptor, at most.
    lost_at_most: u64,
    /// Connections by the acceptors' batch histogram: a second count of `accepted`.
    batched: u64,
    pending: u64,
    half_open: HalfOpenCounts,
    /// Does the client send data right behind its last ACK? Then a raced child has a twin that lives.
    client_speaks_first: bool,
    /// Could a request socket have expired by now?
    may_expire: bool,
}

/// A count as a side of an equation. No trial comes near 2^63 connections.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn difference(left: u64, right: u64) -> i64 {
    signed(left) - signed(right)
}

/// The part of `value` above zero.
fn above_zero(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn line(number: u8, name: &str, equation: String, residual: i64) -> Line {
    Line { number, name: name.to_owned(), equation, residual, allowance: 0, derived: false }
}

/// The age at which the youngest possible victim is dropped from the SYN queue, ns. The nth SYN-ACK timer fires at
/// 2^n − 1 s; the last one frees the request, and a crowded queue frees the surplus at the third (7.1 s measured).
fn earliest_expiry_ns(synack_retries: Option<u32>) -> u64 {
    let timers = synack_retries.map_or(3, |retries| retries.saturating_add(1).min(3));
    ((1 << timers) - 1) * 1_000_000_000
}

impl Books {
    fn open(server: &server::Snapshot, loadgen: &loadgen::Snapshot, topology: Topology) -> Self {
        let (client_label, server_label) = match topology {
            Topology::Veth | Topology::Attached => ("client", "server"),
            Topology::Loopback => ("shared", "shared"),
        };
        let retries =
            server.kernel.sysctls.get("net.ipv4.tcp_synack_retries").and_then(|text| text.trim().parse().ok());
        let lasted_ns = loadgen.monotonic_ns.saturating_sub(loadgen.origin_ns);
        Self {
            client_label,
            server_label,
            whole: loadgen.whole(),
            client: loadgen.kernel.net,
            server: server.kernel.net,
            accepted: server.accepted(),
            left: server.left(),
            destroyed: server.destroyed(),
            answered: server.total(server::AcceptorCounts::answered),
            lost_at_most: server.total(|acceptor| acceptor.lost_at_most),
            batched: server.batch.sum,
            pending: server.syn_recv,
            half_open: loadgen.half_open,
            client_speaks_first: loadgen.opts.confirm == Confirm::Reply,
            may_expire: lasted_ns > earliest_expiry_ns(retries) || server.listeners.iter().any(|l| l.retired),
        }
    }

    /// Attempts that were established for the client's kernel. A self-connect is none of them.
    fn client_established(&self) -> u64 {
        self.whole.established + self.whole.reset_at_connect
    }

    fn cookies_were_sent(&self) -> bool {
        self.server.syncookies_sent > 0
    }

    fn terms(&self) -> Terms {
        let seen_to_enter = self.accepted + self.left + self.destroyed;
        let uncounted = self.server.passive_opens.saturating_sub(seen_to_enter);
        let lost = uncounted.min(self.lost_at_most);
        // Only a client that sends right after its last ACK can race it; a difference beyond those is a residual.
        let raced = (uncounted - lost).min(self.whole.abrupt);
        // Data behind the ACK makes a second child, which gives way to the first: `inet_csk_complete_hashdance`.
        let entered = seen_to_enter + lost + if self.client_speaks_first { 0 } else { raced };
        // A cookie sent to a socket that drops it never comes back.
        let cookies = self.server.syncookies_sent.saturating_sub(self.half_open.dropped);
        let stray_cookies = self.server.syncookies_received.saturating_sub(cookies);
        let ghosts = entered.saturating_sub(self.client_established()).min(stray_cookies);
        let phantoms = (self.client_established() + ghosts).saturating_sub(entered);
        let mut terms = Terms {
            entered,
            left: self.left,
            destroyed: self.destroyed,
            lost,
            raced,
            reset_at_connect: self.whole.reset_at_connect,
            phantoms,
            phantoms_derived: self.cookies_were_sent(),
            ghosts,
            stray_cookies,
            pending: self.pending,
            half_open: self.half_open.answered,
            expired: 0,
            abandoned: 0,
            too_late: self.whole.verdict(Verdict::Unserved).saturating_sub(phantoms),
        };
        if !self.cookies_were_sent() {
            let requests = phantoms + terms.half_open;
            let uncounted = difference(requests, self.server.embryonic_resets + self.pending);
            if self.may_expire {
                terms.expired = above_zero(uncounted);
            }
            terms.abandoned = above_zero(-uncounted).min(self.whole.verdict(Verdict::TimedOut));
        }
        terms
    }

    /// Line 1: every planned attempt has exactly one verdict.
    fn verdicts(&self) -> Line {
        let (planned, concluded) = (self.whole.planned, self.whole.concluded());
        line(1, "verdicts", format!("planned {planned} = verdicts {concluded}"), difference(planned, concluded))
    }

    /// Line 2: the client's kernel opened what the generator says left as a SYN. A self-connect is such an attempt.
    fn syns(&self) -> Line {
        let (opens, issued, before) = (self.client.active_opens, self.whole.issued, self.whole.before_syn);
        let equation = format!("ActiveOpens({}) {opens} = issued {issued} − before SYN {before}", self.client_label);
        line(2, "syns", equation, signed(opens) - difference(issued, before))
    }

    /// Line 3: what entered the accept queues, by the kernel and by the server.
    fn entered(&self, terms: &Terms) -> Line {
        let opens = self.server.passive_opens;
        let equation = format!(
            "PassiveOpens({}) {opens} = accepted {} + left {} + destroyed {}{} + raced {}",
            self.server_label,
            self.accepted,
            self.left,
            self.destroyed,
            self.lost(terms),
            terms.raced
        );
        let counted = self.accepted + self.left + self.destroyed + terms.lost + terms.raced;
        line(3, "entered", equation, difference(opens, counted))
    }

    /// Line 4: what was connected for the clients either entered or is a phantom. It defines phantoms, so only more
    /// entries than clients (and stray cookies) can explain are a residual; line 5 checks the number.
    fn connected(&self, terms: &Terms) -> Line {
        let equation = format!(
            "established {} + reset at connect {} = entered {} + phantoms {} − ghosts {}",
            self.whole.established, terms.reset_at_connect, terms.entered, terms.phantoms, terms.ghosts
        );
        let right = signed(terms.entered) + signed(terms.phantoms) - signed(terms.ghosts);
        Line {
            derived: terms.phantoms_derived,
            ..line(4, "connected", equation, signed(self.client_established()) - right)
        }
    }

    /// Line 5: phantoms counted a second time, by the fate of their request sockets. A cookie phantom has none. Sockets that
    /// are kept half open have one too, and know it.
    fn request_sockets(&self, terms: &Terms) -> Line {
        const NAME: &str = "request-sockets";
        if self.cookies_were_sent() {
            let equation = format!(
                "not applicable: {} cookies sent, phantoms {} derived by line 4",
                self.server.syncookies_sent, terms.phantoms
            );
            return Line { derived: true, ..line(5, NAME, equation, 0) };
        }
        let resets = self.server.embryonic_resets;
        let equation = format!(
            "phantoms {} + abandoned {}{} = EmbryonicRsts({}) {resets} + SYN_RECV {} + expired {}",
            terms.phantoms,
            terms.abandoned,
            self.kept_half_open(terms),
            self.server_label,
            terms.pending,
            terms.expired
        );
        let left = terms.phantoms + terms.abandoned + terms.half_open;
        let residual = difference(left, resets + terms.pending + terms.expired);
        line(5, NAME, equation, residual)
    }

    /// The term of sockets kept half open, where there are any.
    fn kept_half_open(&self, terms: &Terms) -> String {
        if self.half_open.kept == 0 { String::new() } else { format!(" + half open {}", terms.half_open) }
    }

    /// Line 6: nobody is served without a greeting or greeted without an accept, and who stayed unserved either never
    /// entered or entered without being served.
    fn served(&self, terms: &Terms) -> Line {
        let served = self.whole.verdict(Verdict::Served);
        let unserved = self.whole.verdict(Verdict::Unserved);
        let entered_unserved = terms.entered.saturating_sub(served);
        let equation = format!(
            "served {served} ≤ answered {}{} ≤ accepted {}{}; unserved {unserved} ≤ phantoms {} + entered unserved \
             {entered_unserved}",
            self.answered,
            self.uncounted(),
            self.accepted,
            self.lost(terms),
            terms.phantoms
        );
        let violations = [
            difference(served, self.answered + self.lost_at_most),
            difference(self.answered, self.accepted + terms.lost),
            difference(unserved, terms.phantoms + entered_unserved),
        ];
        line(6, "served", equation, violations.into_iter().map(|violation| violation.max(0)).sum())
    }

    /// The term of killed acceptors, where one was killed.
    fn lost(&self, terms: &Terms) -> String {
        if self.lost_at_most == 0 { String::new() } else { format!(" + lost with the process {}", terms.lost) }
    }

    /// An acceptor may also be killed between the byte and its count.
    fn uncounted(&self) -> String {
        if self.lost_at_most == 0 { String::new() } else { format!(" (+ at most {} uncounted)", self.lost_at_most) }
    }

    /// Line 7: the acceptors' counters against their batch histogram, which is written in another place.
    fn acceptors(&self) -> Line {
        let equation = format!("accepts by acceptor {} = accepts by batch {}", self.accepted, self.batched);
        line(7, "acceptors", equation, difference(self.accepted, self.batched))
    }
}

#[cfg(test)]
mod tests;
