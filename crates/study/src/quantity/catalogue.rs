//! The definitions themselves.

use loadgen::verdict::Verdict;

use super::{
    Better, Quantity, Unit, confirmed_ratio, demand::DEMAND, greatest, mean, quantile, ratio, verdict, verdict_ratio,
};
use crate::results::{Topology, Trial};

macro_rules! quantity {
    ($name:expr, $title:expr, $unit:ident, $better:ident, $help:expr, $read:expr) => {
        Quantity { name: $name, title: $title, unit: Unit::$unit, better: Better::$better, help: $help, read: $read }
    };
}

/// The same six statistics of a histogram of the cohort, recorded in nanoseconds.
macro_rules! times {
    ($name:literal, $short:literal, $help:literal, $histogram:ident) => {
        &[
            quantity!(
                concat!($name, ".p50"),
                concat!($short, " p50"),
                Seconds,
                Lower,
                concat!("Median ", $help),
                |t| { quantile(&t.loadgen.measured.$histogram, 0.5) }
            ),
            quantity!(
                concat!($name, ".p90"),
                concat!($short, " p90"),
                Seconds,
                Lower,
                concat!("90th percentile of ", $help),
                |t| { quantile(&t.loadgen.measured.$histogram, 0.9) }
            ),
            quantity!(
                concat!($name, ".p99"),
                concat!($short, " p99"),
                Seconds,
                Lower,
                concat!("99th percentile of ", $help),
                |t| { quantile(&t.loadgen.measured.$histogram, 0.99) }
            ),
            quantity!(
                concat!($name, ".p999"),
                concat!($short, " p99.9"),
                Seconds,
                Lower,
                concat!("99.9th percentile of ", $help),
                |t| { quantile(&t.loadgen.measured.$histogram, 0.999) }
            ),
            quantity!(
                concat!($name, ".max"),
                concat!($short, " max"),
                Seconds,
                Lower,
                concat!("Greatest ", $help),
                |t| { greatest(&t.loadgen.measured.$histogram) }
            ),
            quantity!(
                concat!($name, ".mean"),
                concat!($short, " mean"),
                Seconds,
                Lower,
                concat!("Mean ", $help),
                |t| { mean(&t.loadgen.measured.$histogram) }
            ),
        ]
    };
}

mod accept_path;

use accept_path::{QUEUE, SERVER};

/// All quantities, in groups.
pub(super) const CATALOGUE: &[&[Quantity]] =
    &[RATIOS, ATTEMPTS, CONFIRM_LATENCY, CONNECT_LATENCY, CONFIRM_SERVICE, LAG, KERNEL, SERVER, QUEUE, DEMAND];

/// Quantities that our own server's books alone can tell, the group [`SERVER`] aside.
const OF_OWN_BOOKS: [&str; 3] = ["lost", "service-rate", "utilisation"];

pub(super) fn is_the_servers_own(name: &str) -> bool {
    SERVER.iter().any(|quantity| quantity.name == name) || OF_OWN_BOOKS.contains(&name)
}

pub(super) const RATIOS: &[Quantity] = &[
    quantity!(
        "served-ratio",
        "served of planned",
        Ratio,
        Higher,
        "Attempts that got the server's first byte, of those planned; no value without a greeting",
        |t| confirmed_ratio(t, Verdict::Served)
    ),
    quantity!(
        "unserved-ratio",
        "unserved of planned",
        Ratio,
        Lower,
        "Attempts connected that got no byte by the deadline, of those planned; no value without a greeting",
        |t| confirmed_ratio(t, Verdict::Unserved)
    ),
    quantity!(
        "connected-ratio",
        "connected of planned",
        Ratio,
        Higher,
        "Attempts for which connect(2) succeeded, served or not, of those planned",
        |t| ratio(t.loadgen.measured.established, t.loadgen.measured.planned)
    ),
    quantity!(
        "timed-out-ratio",
        "timed out of planned",
        Ratio,
        Lower,
        "Attempts whose SYNs stayed unanswered until the deadline, of those planned",
        |t| verdict_ratio(t, Verdict::TimedOut)
    ),
    quantity!(
        "reset-ratio",
        "reset of planned",
        Ratio,
        Lower,
        "Attempts reset at connect or after, of those planned",
        |t| verdict_ratio(t, Verdict::Reset)
    ),
    quantity!(
        "refused-ratio",
        "refused of planned",
        Ratio,
        Lower,
        "Attempts refused by a RST to the SYN, of those planned",
        |t| verdict_ratio(t, Verdict::Refused)
    ),
    quantity!(
        "shed-ratio",
        "shed of planned",
        Ratio,
        Lower,
        "Attempts never issued because too many were in flight, of those planned",
        |t| verdict_ratio(t, Verdict::Shed)
    ),
];

const ATTEMPTS: &[Quantity] = &[
    quantity!("planned", "planned", Count, Neither, "Attempts planned in the measured phase", |t| Some(
        t.loadgen.measured.planned as f64
    )),
    quantity!("served", "served", Count, Higher, "Attempts that got the server's first byte", |t| Some(verdict(
        t,
        Verdict::Served
    ) as f64)),
    quantity!("unserved", "unserved", Count, Lower, "Attempts connected that got no byte by the deadline", |t| Some(
        verdict(t, Verdict::Unserved) as f64
    )),
    quantity!("connected", "connected", Count, Higher, "Attempts for which connect(2) succeeded, served or not", |t| {
        Some(t.loadgen.measured.established as f64)
    }),
    quantity!(
        "timed-out",
        "timed out",
        Count,
        Lower,
        "Attempts whose SYNs stayed unanswered until the deadline",
        |t| Some(verdict(t, Verdict::TimedOut) as f64)
    ),
    quantity!("reset", "reset", Count, Lower, "Attempts reset at connect or after", |t| Some(
        verdict(t, Verdict::Reset) as f64
    )),
    quantity!("refused", "refused", Count, Lower, "Attempts refused by a RST to the SYN", |t| Some(verdict(
        t,
        Verdict::Refused
    ) as f64)),
    quantity!("shed", "shed", Count, Lower, "Attempts never issued because too many were in flight", |t| Some(
        verdict(t, Verdict::Shed) as f64
    )),
];

pub(super) const CONFIRM_LATENCY: &[Quantity] = times!(
    "confirm-latency",
    "first byte",
    "time from the planned instant to the server's first byte",
    confirm_latency
);
const CONNECT_LATENCY: &[Quantity] = times!(
    "connect-latency",
    "connect",
    "time from the planned instant to the established connection",
    connect_latency
);
const CONFIRM_SERVICE: &[Quantity] = times!(
    "confirm-service",
    "uncorrected",
    "time from the issued instant to the server's first byte, blind to the generator's own lag",
    confirm_service
);
const LAG: &[Quantity] = times!(
    "schedule-lag",
    "schedule lag",
    "time from the planned to the issued instant: the generator's own fault",
    lag
);

const KERNEL: &[Quantity] = &[
    quantity!(
        "overflows",
        "ListenOverflows",
        Count,
        Lower,
        "Segments dropped because an accept queue was full (packets, not connections), whole trial",
        |t| Some(t.server.kernel.net.listen_overflows as f64)
    ),
    quantity!(
        "listen-drops",
        "ListenDrops",
        Count,
        Lower,
        "Segments dropped by a listener for any reason, overflows included, whole trial",
        |t| Some(t.server.kernel.net.listen_drops as f64)
    ),
    quantity!("cookies-sent", "cookies sent", Count, Neither, "SYN-ACKs sent with a cookie, whole trial", |t| Some(
        t.server.kernel.net.syncookies_sent as f64
    )),
    quantity!(
        "syn-retransmits",
        "SYN retransmits",
        Count,
        Lower,
        "SYNs sent again in the client's namespace, whole trial; over loopback SYN-ACKs sent again are in it",
        |t| Some(t.loadgen.kernel.net.syn_retransmits as f64)
    ),
    quantity!(
        "request-queue-full-drops",
        "SYN queue drops",
        Count,
        Lower,
        "SYNs dropped because a SYN queue held backlog + 1 requests (TCPReqQFullDrop; listen-drops has also those over 3/4 of tcp_max_syn_backlog), whole trial",
        |t| Some(t.server.kernel.net.request_queue_full_drops as f64)
    ),
    quantity!(
        "fast-opens",
        "fast opens",
        Count,
        Neither,
        "Connections the server opened by data in a SYN (TCPFastOpenPassive), whole trial",
        |t| Some(t.server.kernel.net.fastopen_passive as f64)
    ),
    quantity!(
        "fast-open-overflows",
        "fast opens refused",
        Count,
        Lower,
        "SYNs whose data was left because TCP_FASTOPEN of the listener had no room (TCPFastOpenListenOverflow), whole trial",
        |t| Some(t.server.kernel.net.fastopen_listen_overflow as f64)
    ),
    quantity!(
        "syn-recv",
        "SYN_RECV at the end",
        Count,
        Neither,
        "Request sockets in SYN_RECV at the end of the trial; no value in a window",
        |t| whole(t).then_some(t.server.syn_recv as f64)
    ),
    quantity!(
        "half-open",
        "half-open sockets",
        Count,
        Neither,
        "Sockets that the load generator keeps half open on purpose; no value in a window",
        |t| whole(t).then_some(t.loadgen.half_open.kept as f64)
    ),
    quantity!(
        "phantoms",
        "phantoms",
        Count,
        Lower,
        "Connections established for the client that never entered the accept queue, whole trial, from the ledger",
        |t| whole(t).then_some(t.ledger.terms.phantoms as f64)
    ),
    quantity!(
        "raced",
        "raced",
        Count,
        Neither,
        "Connections that entered the queue and were discarded by a race in the kernel, whole trial, from the ledger",
        |t| whole(t).then_some(t.ledger.terms.raced as f64)
    ),
    quantity!(
        "lost",
        "lost with a process",
        Count,
        Lower,
        "Connections accepted by a process that was killed before it counted them, whole trial, from the ledger; no value of a target",
        |t| (whole(t) && t.target.is_none()).then_some(t.ledger.terms.lost as f64)
    ),
    quantity!(
        "residual",
        "ledger residual",
        Count,
        Neither,
        "The greatest residual of the ledger, with its sign; 0 when it balances",
        |t| Some(t.ledger.worst().map_or(0.0, |line| line.residual as f64))
    ),
];

/// Was the trial seen from zero to its end? Of a window neither phantoms nor maxima are known.
fn whole(trial: &Trial) -> bool {
    trial.topology != Topology::Attached
}
