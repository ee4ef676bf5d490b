//! The boards, one file each, and the panels that several of them show.

mod accept_queue;
mod listeners;
mod overview;

use crate::model::{Dashboard, Panel, Unit};
use crate::query::metric::standard;
use crate::query::{Binds, Role, sel};

/// Every board, in the order in which a reader meets them.
pub fn all() -> Vec<Dashboard> {
    vec![overview::board(), accept_queue::board(), listeners::board()]
}

/// Dropped packets as a fraction: any is worth a look, a twentieth is trouble.
const DROPPED: [(f64, &str); 2] = [(1e-9, "orange"), (0.05, "red")];

/// Something that should be 0.
const NONE_WANTED: [(f64, &str); 1] = [(1e-9, "orange")];

/// How full a queue is: beyond 1 it cannot get, at 1 it drops.
const FILL: [(f64, &str); 2] = [(0.5, "orange"), (1.0, "red")];

/// The answer to "what binds the queue limit, and what does it cost?".
fn binds() -> Panel {
    let panel = Panel::stat(
        "What binds the accept queue",
        Unit::Ratio,
        "What sets the queue limit, and the part of the packets towards a full accept queue that were \
         dropped: ListenOverflows / (ListenOverflows + PassiveOpens) of the server's network \
         namespace. Every retransmitted SYN counts again, and programs that share a namespace share \
         the number. The queue limit is min(backlog, somaxconn) at listen(2), and capacity is one \
         more. Raise the one that binds; raising the other changes nothing. Changing somaxconn later \
         does nothing until listen(2) is called again. Bad: anything above 0 %.",
    );
    let panel = Binds::ALL.into_iter().fold(panel, |panel, case| panel.target(case.query(), case.legend()));
    panel.thresholds(&DROPPED).option("orientation", "horizontal".into()).no_value("no server, or somaxconn is hidden")
}

/// The kernel parameters of the accept path, as they are for this role's programs.
fn server_sysctls(role: Role) -> Panel {
    let names = "net.core.somaxconn|net.ipv4.tcp_(max_syn_backlog|syncookies|abort_on_overflow|synack_retries|\
                 migrate_req|fastopen)";
    sysctls(
        "Kernel parameters of the listening side",
        role,
        names,
        "Effective values in the network namespace that listens. somaxconn caps the listen backlog at \
         listen(2), never afterwards; tcp_max_syn_backlog bounds the SYN queue only while \
         tcp_syncookies is 0; tcp_abort_on_overflow answers the last ACK of a handshake that meets a \
         full accept queue with a RST, and never a SYN. Bad: a value other than the one you set.",
    )
}

fn sysctls(title: &str, role: Role, names: &str, description: &'static str) -> Panel {
    let values = sel(&standard::SYSCTL_VALUE, &format!("name=~\"{names}\""));
    Panel::state_timeline(title, Unit::Plain, description)
        .target(role.only(&values), "{{name}} {{index}} · {{instance}}")
}

/// TCP sockets of the namespace in which this role's programs run.
fn tcp_sockets(role: Role) -> Panel {
    Panel::time_series(
        "TCP sockets by state",
        Unit::Short,
        "Sockets of the network namespace by state. syn_recv is the SYN queue (tcp_max_syn_backlog \
         and the listen backlog bound it), established includes what waits in accept queues, \
         time_wait grows where this side closes first and uses up ip_local_port_range where it is the \
         client. Bad: close_wait that only grows, a program that never closes.",
    )
    .target(role.gauge(&standard::TCP_SOCKETS), "{{state}} · {{instance}}")
}
