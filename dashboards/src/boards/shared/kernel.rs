//! Kernel parameters and sockets of a network namespace.

use super::KERNEL_PARAMETERS;
use crate::model::{Panel, Unit};
use crate::query::metric::standard;
use crate::query::{Role, sel};

/// The kernel parameters of the accept path, as they are for this role's programs.
pub(in crate::boards) fn server_sysctls(role: Role) -> Panel {
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
    .leads_to(KERNEL_PARAMETERS)
}

/// The kernel parameters that matter to clients.
pub(in crate::boards) fn client_sysctls() -> Panel {
    let names =
        "net.ipv4.(ip_local_port_range|tcp_(syn_retries|syn_linear_timeouts|tw_reuse|fin_timeout|max_tw_buckets))";
    sysctls(
        "Kernel parameters of the client's side",
        Role::Loadgen,
        names,
        "Effective values in the load generator's network namespace. tcp_syn_retries and \
         tcp_syn_linear_timeouts make the grid on which dropped SYNs come again; ip_local_port_range \
         and tcp_tw_reuse bound how many connections to one target there can be per second when the \
         client closes first. Bad: a value other than the one you set.",
    )
    .leads_to(KERNEL_PARAMETERS)
}

fn sysctls(title: &str, role: Role, names: &str, description: &'static str) -> Panel {
    let values = sel(&standard::SYSCTL_VALUE, &format!("name=~\"{names}\""));
    Panel::state_timeline(title, Unit::Plain, description)
        .target(role.only(&values), "{{name}} {{index}} · {{instance}}")
}

/// TCP sockets of the namespace in which this role's programs run.
pub(in crate::boards) fn tcp_sockets(role: Role) -> Panel {
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
