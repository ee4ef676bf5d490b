//! What acceptbench knows about Linux, and the only crate that talks to it in raw form.
//!
//! One file per source of truth: counters ([`netstat`]), settings ([`sysctl`]), one socket ([`sockopt`], [`socket_option`]), all sockets
//! ([`sock_diag`]) and who holds them ([`socket_owners`]), namespaces and the links between them ([`namespace`], [`link`](mod@link)), this process
//! ([`process`]) and those below it ([`descendants`]), memory and children of processes ([`shared`], [`fork`]) and the machine ([`environment`], [`allowances`], [`cgroup`], [`modules`]). Parsers take bytes and are tested without a kernel; the thin shell
//! around them does the I/O.
//!
//! It refuses to run other programs: no `ip`, `ss` or `sysctl`, only `/proc`, netlink and system calls. Every function
//! acts on the network namespace of the **calling thread**.

pub mod allowances;
pub mod cgroup;
pub mod descendants;
pub mod environment;
pub mod fork;
pub mod link;
pub mod modules;
pub mod namespace;
pub mod netstat;
pub mod process;
pub mod shared;
pub mod sock_diag;
pub mod socket_option;
pub mod socket_owners;
pub mod sockopt;
pub mod sysctl;

mod channel;
mod link_error;
mod net_counters;
mod netlink;
mod process_stats;
mod receive_stamp;
mod sysctl_names;
mod tcp_info;
