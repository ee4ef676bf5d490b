//! The rules: for a knob, when its value is not asked for, or when two values come to the same. A rule gives each cell a
//! key, or none where it does not apply; cells with the same key are alike.

use crate::binding::Facts;
use crate::results::Trial;

/// One rule.
pub(super) struct Rule {
    /// Settings it is about.
    settings: &'static [&'static str],
    /// What two trials must share to be alike, and the reason in words; `None` where the rule does not apply.
    key: fn(&Facts<'_>) -> Option<(String, String)>,
    /// Where it stands.
    pub(super) source: &'static str,
}

impl Rule {
    /// The key that all trials of a cell share.
    pub(super) fn key_of(&self, trials: &[Facts<'_>]) -> Option<(String, String)> {
        let mut keys = trials.iter().map(|facts| (self.key)(facts));
        let first = keys.next()??;
        keys.all(|key| key.is_some_and(|(key, _)| key == first.0)).then_some(first)
    }
}

/// The rules about a setting.
pub(super) fn about(setting: &str) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(move |rule| rule.settings.contains(&setting))
}

const SOMAXCONN: &str = "sysctl.net.core.somaxconn";
const MAX_SYN_BACKLOG: &str = "sysctl.net.ipv4.tcp_max_syn_backlog";
const SYNCOOKIES: &str = "sysctl.net.ipv4.tcp_syncookies";
const ABORT: &str = "sysctl.net.ipv4.tcp_abort_on_overflow";
const SYN_RETRIES: [&str; 3] =
    ["sysctl.net.ipv4.tcp_syn_retries", "sysctl.net.ipv4.tcp_syn_linear_timeouts", "loadgen.syn-retries"];

/// The first retransmission timer of a SYN, ns: `TCP_TIMEOUT_INIT`, RFC 6298.
const FIRST_RETRY_NS: u64 = 1_000_000_000;

const RULES: &[Rule] = &[
    Rule {
        settings: &[SOMAXCONN, "server.backlog"],
        key: same_limit,
        source: "net/socket.c __sys_listen: backlog = min(backlog, somaxconn)",
    },
    Rule {
        settings: &[SOMAXCONN, "server.backlog"],
        key: never_full,
        source: "include/net/sock.h sk_acceptq_is_full, net/ipv4/tcp_input.c tcp_conn_request",
    },
    Rule {
        settings: &[MAX_SYN_BACKLOG],
        key: cookies_on,
        source: "net/ipv4/tcp_input.c tcp_conn_request: the quarter is kept only while tcp_syncookies is 0",
    },
    Rule { settings: &[MAX_SYN_BACKLOG], key: no_quarter_drop, source: "net/ipv4/tcp_input.c tcp_conn_request" },
    Rule {
        settings: &[SYNCOOKIES],
        key: syn_queue_never_full,
        source: "net/ipv4/tcp_input.c tcp_conn_request: 0 and 1 differ only for a SYN that meets a full SYN queue",
    },
    Rule { settings: &[ABORT], key: no_overflow, source: "net/ipv4/tcp_minisocks.c tcp_check_req" },
    Rule {
        settings: &[ABORT],
        key: cookies_always,
        source: "net/ipv4/syncookies.c tcp_get_cookie_sock: an ACK that brings a cookie is never answered with a RST",
    },
    Rule {
        settings: &SYN_RETRIES,
        key: no_retry_in_time,
        source: "net/ipv4/tcp_timer.c tcp_write_timeout, include/net/tcp.h TCP_TIMEOUT_INIT",
    },
    Rule {
        settings: &["sysctl.net.ipv4.tcp_synack_retries"],
        key: no_timer,
        source: "net/ipv4/inet_connection_sock.c reqsk_timer_handler",
    },
    Rule {
        settings: &["sysctl.net.ipv4.tcp_migrate_req"],
        key: no_listener_closed,
        source: "net/ipv4/inet_connection_sock.c inet_csk_listen_stop",
    },
    Rule {
        settings: &["sysctl.net.ipv4.tcp_fastopen"],
        key: no_fastopen,
        source: "net/ipv4/tcp_fastopen.c tcp_try_fastopen",
    },
];

/// A key with its reason.
fn alike(key: impl Into<String>, reason: impl Into<String>) -> (String, String) {
    (key.into(), reason.into())
}

/// The same key for all cells to which the rule applies.
fn by_rule(applies: bool, reason: impl Into<String>) -> Option<(String, String)> {
    applies.then(|| alike("", reason))
}

/// May the listener take data in a SYN? What a target asked for nobody knows; it matters only where clients try.
fn may_fast_open(trial: &Trial) -> bool {
    match trial.own_books() {
        Some(books) => books.opts.fastopen > 0,
        None => trial.loadgen.opts.fastopen,
    }
}

/// The limit is the smaller of the two. `TCP_FASTOPEN` has a queue of its own that somaxconn caps, too.
fn same_limit(facts: &Facts<'_>) -> Option<(String, String)> {
    let trial = facts.trial;
    if may_fast_open(trial) {
        return None;
    }
    let (limit, _) = facts.limit()?;
    let limits: Vec<String> = trial.server.listeners.iter().map(|listener| listener.limit.to_string()).collect();
    let reason = format!("the kernel made the queue limit {limit} of each: the smaller of backlog and somaxconn");
    Some(alike(limits.join(","), reason))
}

/// No SYN and no last ACK met a full queue, so how much more would have fitted was never asked. Requests that stay are
/// given up sooner in a short queue (`reqsk_timer_handler`).
fn never_full(facts: &Facts<'_>) -> Option<(String, String)> {
    let trial = facts.trial;
    let quiet = facts.overflows() == 0 && trial.server.kernel.net.listen_drops == 0 && facts.cookies() == 0;
    let settled = trial.loadgen.half_open.kept == 0 && trial.server.syn_recv == 0 && !may_fast_open(trial);
    by_rule(quiet && settled, "neither queue was ever full: ListenOverflows, ListenDrops and TCPReqQFullDoCookies 0")
}

fn cookies_on(facts: &Facts<'_>) -> Option<(String, String)> {
    let cookies = facts.sysctl("net.ipv4.tcp_syncookies")?;
    by_rule(cookies > 0, format!("it is not looked at with tcp_syncookies {cookies}"))
}

fn no_quarter_drop(facts: &Facts<'_>) -> Option<(String, String)> {
    let none = facts.quarter_drops() == 0;
    by_rule(none, "it dropped no SYN: ListenDrops is ListenOverflows and TCPReqQFullDrop, and nothing more")
}

fn syn_queue_never_full(facts: &Facts<'_>) -> Option<(String, String)> {
    let trial = facts.trial;
    let always = facts.sysctl("net.ipv4.tcp_syncookies")? == 2;
    let met = facts.syn_queue_drops() + facts.quarter_drops() + facts.cookies();
    let sent = trial.server.kernel.net.syncookies_sent;
    by_rule(!always && met + sent == 0, "no SYN met a full SYN queue, so no cookie was called for")
}

fn no_overflow(facts: &Facts<'_>) -> Option<(String, String)> {
    by_rule(facts.overflows() == 0, "no last ACK met a full accept queue: ListenOverflows 0")
}

fn cookies_always(facts: &Facts<'_>) -> Option<(String, String)> {
    let always = facts.sysctl("net.ipv4.tcp_syncookies")? == 2;
    by_rule(always, "with tcp_syncookies 2 every last ACK brings a cookie, and those are dropped without a RST")
}

/// The first retry comes a second after the SYN, whatever the retries are after it.
fn no_retry_in_time(facts: &Facts<'_>) -> Option<(String, String)> {
    let trial = facts.trial;
    let deadline = trial.loadgen.opts.deadline;
    let over = deadline.as_ns() < FIRST_RETRY_NS && facts.retries() == 0;
    by_rule(over, format!("every attempt is over at its deadline of {deadline}, the first retry comes at 1 s"))
}

fn no_timer(facts: &Facts<'_>) -> Option<(String, String)> {
    let trial = facts.trial;
    let quiet = trial.server.kernel.net.timeouts == 0 && facts.phantoms() == Some(0) && facts.syn_recv() == 0;
    by_rule(quiet, "no SYN-ACK was sent again: TCPTimeouts 0, no phantom, nobody left in SYN_RECV")
}

fn no_listener_closed(facts: &Facts<'_>) -> Option<(String, String)> {
    let trial = facts.trial;
    let server = &trial.server;
    let closed = server.destroyed() > 0 || server.listeners.iter().any(|listener| listener.retired);
    let died = server.total(|acceptor| acceptor.deaths) > 0;
    by_rule(!closed && !died, "no listener was closed while attempts went on")
}

fn no_fastopen(facts: &Facts<'_>) -> Option<(String, String)> {
    let trial = facts.trial;
    let asked = may_fast_open(trial) || trial.loadgen.opts.fastopen;
    by_rule(!asked, "no SYN carried data or asked for a cookie of fast open")
}
