//! What a namespace lets a program set and see: which sysctls are its own, what needs no capability, what looking costs.

use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use kernel::sock_diag::SockDiag;
use kernel::{sockopt, sysctl};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{PORT, SOMAXCONN, SOON, depth, diag, drops};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, errno_name, eventually, info, result_name};

/// Sysctls of the accept path, each with a value that is not its default.
const OWN: [(&str, &str); 10] = [
    (SOMAXCONN, "77"),
    ("net.ipv4.ip_local_port_range", "40000 50000"),
    ("net.ipv4.tcp_abort_on_overflow", "1"),
    ("net.ipv4.tcp_fastopen", "519"),
    ("net.ipv4.tcp_max_syn_backlog", "99"),
    ("net.ipv4.tcp_migrate_req", "1"),
    ("net.ipv4.tcp_syn_retries", "3"),
    ("net.ipv4.tcp_synack_retries", "2"),
    ("net.ipv4.tcp_syncookies", "2"),
    ("net.ipv4.tcp_tw_reuse", "1"),
];

/// Sysctls of the whole machine that another namespace does not see.
const HIDDEN: [&str; 5] = [
    "net.core.default_qdisc",
    "net.core.netdev_budget",
    "net.core.netdev_max_backlog",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_mem",
];

/// Sysctls of the whole machine that another namespace may read.
const READ_ONLY: [&str; 5] = [
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.ipv4.tcp_ehash_entries",
];

/// Buckets of the hash of established connections.
const EHASH: &str = "net.ipv4.tcp_ehash_entries";

/// With fewer buckets the cost of walking them, about a nanosecond each, is lost in the rest of a dump.
const BUCKETS: u64 = 65_536;

/// Dumps of each kind; their median counts.
const DUMPS: usize = 21;

/// The claims of this subject.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.sysctls-of-a-namespace",
        group: Group::Listen,
        notes: &[],
        facts: &["8.sysctl-writable"],
        says: "A network namespace has a somaxconn, a port range and TCP sysctls of its own, and whoever made it may write them.",
        why: "these tables are registered for each network namespace, and CAP_NET_ADMIN over it gives root's access to them \
              (net/sysctl_net.c, net_ctl_permissions)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "written", is: Is::Exactly(10.0) },
            Expect { figure: "not-written", is: Is::Text("none") },
        ],
        known: Verdict::Holds,
        measure: own_sysctls,
    },
    Claim {
        name: "listen.sysctls-of-the-machine",
        group: Group::Listen,
        notes: &[],
        facts: &["8.sysctl-hidden"],
        says: "Limits of the whole machine cannot be changed from another namespace: buffer limits are read-only there, \
               tcp_mem and netdev_max_backlog absent.",
        why: "outside of the initial namespace net.core loses its write bits, and tables that are registered for the \
              initial one alone do not appear (net/core/sysctl_net_core.c, net/ipv4/sysctl_net_ipv4.c)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "absent", is: Is::Exactly(5.0) },
            Expect { figure: "read-only", is: Is::Exactly(5.0) },
        ],
        known: Verdict::Holds,
        measure: machine_sysctls,
    },
    Claim {
        name: "listen.looking-needs-no-capability",
        group: Group::Listen,
        notes: &[],
        facts: &["8.no-capability"],
        says: "Without any capability a program sees a listener's queue, limit and drops, steers SO_REUSEPORT listeners \
               and sets TCP_FASTOPEN; IP_TRANSPARENT is refused.",
        why: "these socket options and sock_diag's dumps check no capability; IP_TRANSPARENT asks for CAP_NET_RAW or \
              CAP_NET_ADMIN (net/ipv4/ip_sockglue.c)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "capabilities", is: Is::Exactly(0.0) },
            Expect { figure: "tcp-info-queue", is: Is::Exactly(1.0) },
            Expect { figure: "drops-agree", is: Is::Exactly(1.0) },
            Expect { figure: "reuseport-program", is: Is::Text("ok") },
            Expect { figure: "incoming-cpu", is: Is::Text("ok") },
            Expect { figure: "local-port-range", is: Is::Text("ok") },
            Expect { figure: "fastopen", is: Is::Text("ok") },
            Expect { figure: "ip-transparent", is: Is::Text("EPERM") },
        ],
        known: Verdict::Holds,
        measure: without_capabilities,
    },
    Claim {
        name: "listen.cost-of-looking",
        group: Group::Listen,
        notes: &[],
        facts: &["9.cost"],
        says: "TCP_INFO costs less than half of a dump of listeners, and that less than half of a dump of SYN_RECV, with \
               nothing to find.",
        why: "requests are in the hash of established connections: a dump walks every bucket of it, which all namespaces \
              share (inet_diag_dump_icsk); listeners have a smaller hash",
        ends: Ends::Loopback,
        takes: Takes::Alone,
        expects: &[
            Expect { figure: "listeners-by-tcp-info", is: Is::Between(2.0, 100_000.0) },
            Expect { figure: "syn-recv-by-listeners", is: Is::Between(2.0, 100_000.0) },
        ],
        known: Verdict::Holds,
        measure: cost_of_looking,
    },
];

fn own_sysctls(_: &mut Scene) -> Result<Observed, ProbeError> {
    if !sysctl::exists(SOMAXCONN) {
        return Err(ProbeError::CannotHere(format!("this kernel hides {SOMAXCONN} in this namespace")));
    }
    let took = |name: &str, value: &str| sysctl::write(name, value).is_ok_and(|effective| effective == value);
    let not: Vec<_> = OWN.iter().filter(|(name, value)| !took(name, value)).map(|(name, _)| *name).collect();
    let written = OWN.len() - not.len();
    let not = if not.is_empty() { "none".to_owned() } else { not.join(" ") };
    let did = format!("{written} of {} sysctls took another value; not written: {not}", OWN.len());
    Ok(Observed::new().number("written", written as f64).text("not-written", not).did(did))
}

fn machine_sysctls(_: &mut Scene) -> Result<Observed, ProbeError> {
    let absent = HIDDEN.iter().filter(|name| !sysctl::exists(name)).count();
    let mut read_only = 0;
    for name in READ_ONLY {
        let path = sysctl::path_of(name).map_err(|error| ProbeError::Failed(error.to_string()))?;
        // Opened, never written to.
        let refused = OpenOptions::new().write(true).open(path).err().map(|error| errno_name(&error));
        read_only += usize::from(sysctl::read(name).is_ok() && refused.as_deref() == Some("EACCES"));
    }
    let did = format!(
        "{read_only} of {} can be read and not written (EACCES), {absent} of {} do not exist there",
        READ_ONLY.len(),
        HIDDEN.len()
    );
    Ok(Observed::new().number("absent", absent as f64).number("read-only", read_only as f64).did(did))
}

fn without_capabilities(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const STEERED: u16 = PORT + 1;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).doing("drop every capability")?;
    let left = rustix::thread::capabilities(None).doing("read the capabilities")?;
    let listener = scene.listen(PORT, 0)?;
    let _queued = scene.connect(PORT)?;
    eventually(SOON, || Ok(depth(&listener)? == 1))?;
    let _dropped = scene.connect(PORT)?;
    // Each resent SYN is another drop: both are read until no SYN came between.
    let agree = eventually(SOON, || {
        let own = drops(&listener)?;
        Ok(own > 0 && diag(PORT)?.drops == Some(own))
    })?;
    let steered = scene.socket()?;
    steered.set_reuse_port(true).doing("set SO_REUSEPORT")?;
    steered.bind(&scene.address(STEERED).into()).doing("bind")?;
    steered.listen(1).doing("listen")?;
    let refused = result_name(&scene.socket()?.set_ip_transparent_v4(true));
    let client = scene.client_socket()?;
    let allowed = [
        ("reuseport-program", result_name(&sockopt::steer_by_cpu(&steered, 1))),
        ("incoming-cpu", result_name(&steered.set_cpu_affinity(0))),
        ("local-port-range", result_name(&sockopt::set_local_port_range(&client, 40000, 40009))),
        ("fastopen", result_name(&sockopt::set_fastopen(&steered, 1))),
    ];
    let told = allowed.iter().map(|(name, result)| format!("{name} {result}")).collect::<Vec<_>>().join(", ");
    let seen = if agree { "drops seen" } else { "drops not seen" };
    let did = format!("without capabilities: {seen}; {told}; IP_TRANSPARENT {refused}");
    let observed = Observed::new()
        .number("capabilities", left.effective.bits().count_ones() + left.permitted.bits().count_ones())
        .number("tcp-info-queue", depth(&listener)?)
        .number("drops-agree", u8::from(agree))
        .text("ip-transparent", refused);
    let observed = allowed.into_iter().fold(observed, |observed, (name, result)| observed.text(name, result));
    Ok(observed.did(did))
}

fn cost_of_looking(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let entries = sysctl::read(EHASH).map_err(|error| ProbeError::CannotHere(error.to_string()))?;
    let buckets: u64 = entries.trim_start_matches('-').parse().unwrap_or(0);
    if buckets < BUCKETS {
        return Err(ProbeError::CannotHere(format!("the hash has {buckets} buckets: too few for the cost to show")));
    }
    let listener = scene.listen(PORT, 8)?;
    let mut diag = SockDiag::open().doing("open a sock_diag socket")?;
    let failed = |error: kernel::sock_diag::DiagError| ProbeError::Failed(error.to_string());
    let info = median(|| info(&listener).map(drop))?;
    let listeners = median(|| diag.listeners().map(drop).map_err(failed))?;
    let syn_recv = median(|| diag.syn_recv(PORT).map(drop).map_err(failed))?;
    let ratio = |dear: Duration, cheap: Duration| dear.as_secs_f64() / cheap.as_secs_f64();
    let (by_info, by_listeners) = (ratio(listeners, info), ratio(syn_recv, listeners));
    let than = |ratio: f64| if ratio >= 2.0 { "more" } else { "less" };
    let did = format!(
        "a dump of listeners cost {} than twice a TCP_INFO, a dump of SYN_RECV {} than twice a dump of listeners",
        than(by_info),
        than(by_listeners)
    );
    Ok(Observed::new().number("listeners-by-tcp-info", by_info).number("syn-recv-by-listeners", by_listeners).did(did))
}

/// Median time of [`DUMPS`] runs.
fn median(mut run: impl FnMut() -> Result<(), ProbeError>) -> Result<Duration, ProbeError> {
    let mut times = Vec::with_capacity(DUMPS);
    for _ in 0..DUMPS {
        let began = Instant::now();
        run()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[DUMPS / 2])
}
