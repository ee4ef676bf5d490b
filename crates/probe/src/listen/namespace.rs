//! Network namespaces: whose limits and counters a listener's are. What a container has is decided here.

use kernel::{namespace, sysctl};

use super::{PORT, SOON};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually};

/// The limit of listen(2).
const SOMAXCONN: &str = "net.core.somaxconn";
/// Buckets of the hash of established connections; negative when it is another namespace's.
const EHASH: &str = "net.ipv4.tcp_ehash_entries";

/// The claims of this subject.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.fresh-namespace-has-the-default-somaxconn",
        group: Group::Listen,
        notes: &[],
        facts: &["8.fresh-values"],
        says: "A fresh network namespace has somaxconn 4096, whatever the namespace had that it was made from: containers \
               do not inherit it.",
        why: "each network namespace starts from the kernel's own defaults (net/core/net_namespace.c)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "maker", is: Is::Text("77") },
            Expect { figure: "fresh", is: Is::Text("4096") },
            Expect { figure: "maker-afterwards", is: Is::Text("77") },
        ],
        known: Verdict::Holds,
        measure: fresh_somaxconn,
    },
    Claim {
        name: "listen.namespaces-share-the-hash",
        group: Group::Listen,
        notes: &[],
        facts: &["8.shared-hash"],
        says: "A fresh network namespace keeps its connections and requests in the hash of the whole machine.",
        why: "tcp_ehash_entries is negative where the hash is not the namespace's own (Documentation/networking/ip-sysctl.rst)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "hash", is: Is::Text("shared") }],
        known: Verdict::Holds,
        measure: shared_hash,
    },
    Claim {
        name: "listen.overflows-are-counted-in-their-namespace",
        group: Group::Listen,
        notes: &[],
        facts: &["8.counters"],
        says: "Each namespace counts for itself: ListenOverflows grows at the server's end only, ActiveOpens at the client's.",
        why: "/proc/net/netstat and snmp show the counters of one network namespace (net/ipv4/proc.c)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "server.ListenOverflows", is: Is::Exactly(3.0) },
            Expect { figure: "client.ListenOverflows", is: Is::Exactly(0.0) },
            Expect { figure: "server.ActiveOpens", is: Is::Exactly(0.0) },
            Expect { figure: "client.ActiveOpens", is: Is::Exactly(4.0) },
        ],
        known: Verdict::Holds,
        measure: counted_apart,
    },
    Claim {
        name: "listen.proc-net-is-the-first-threads",
        group: Group::Listen,
        notes: &[],
        facts: &["8.proc-net"],
        says: "In a thread that moved to another namespace /proc/net still shows the first thread's; /proc/thread-self/net its own.",
        why: "/proc/net is a link to /proc/self/net, and self is the process, that is its first thread (proc(5))",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "/proc/net", is: Is::Exactly(0.0) },
            Expect { figure: "/proc/thread-self/net", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: proc_net,
    },
];

fn read(name: &str) -> Result<String, ProbeError> {
    sysctl::read(name).map_err(|error| ProbeError::CannotHere(error.to_string()))
}

fn fresh_somaxconn(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SOMAXCONN, 77)?;
    let maker = read(SOMAXCONN)?;
    // A thread of its own: it stays in the namespace it makes.
    let fresh = std::thread::spawn(|| {
        namespace::new_net().map_err(|error| ProbeError::CannotHere(error.to_string()))?;
        read(SOMAXCONN)
    });
    let fresh = fresh.join().map_err(|_| ProbeError::Failed("a thread panicked".to_owned()))??;
    let did = format!("somaxconn {maker} in the namespace it was made from, {fresh} in the fresh one");
    let observed = Observed::new().text("maker", maker.as_str()).text("fresh", fresh.as_str());
    Ok(observed.text("maker-afterwards", read(SOMAXCONN)?).did(did))
}

fn shared_hash(_: &mut Scene) -> Result<Observed, ProbeError> {
    let entries = read(EHASH)?;
    let hash = if entries.starts_with('-') { "shared" } else { "own" };
    Ok(Observed::new().text("hash", hash).did(format!("tcp_ehash_entries {entries}: the hash is {hash}")))
}

fn counted_apart(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let _listener = scene.listen(PORT, 0)?;
    let _queued = scene.connect(PORT)?;
    eventually(SOON, || Ok(scene.server_counter("PassiveOpens")? == 1))?;
    let _dropped = scene.connect_many(3, PORT)?;
    eventually(SOON, || Ok(scene.server_counter("ListenOverflows")? >= 3))?;
    let did = format!(
        "ListenOverflows +{} at the server's end, +{} at the client's; ActiveOpens +{} and +{}",
        scene.server_counter("ListenOverflows")?,
        scene.client_counter("ListenOverflows")?,
        scene.server_counter("ActiveOpens")?,
        scene.client_counter("ActiveOpens")?
    );
    Ok(Observed::new().did(did))
}

fn proc_net(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let _listener = scene.listen(PORT, 0)?;
    let _client = scene.connect(PORT)?;
    let read = || {
        scene.enter_client()?;
        Ok::<_, ProbeError>((active_opens("/proc/net")?, active_opens("/proc/thread-self/net")?))
    };
    let read = std::thread::scope(|scope| scope.spawn(read).join());
    let (process, thread) = read.map_err(|_| ProbeError::Failed("a thread panicked".to_owned()))??;
    let did =
        format!("after a connect there, ActiveOpens is {process} in /proc/net and {thread} in /proc/thread-self/net");
    Ok(Observed::new().number("/proc/net", process).number("/proc/thread-self/net", thread).did(did))
}

/// `ActiveOpens` as this directory shows it.
fn active_opens(directory: &str) -> Result<u32, ProbeError> {
    let path = format!("{directory}/snmp");
    let text = std::fs::read_to_string(&path).doing(&format!("read {path}"))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let value = pairs.find(|(name, _)| *name == "ActiveOpens").and_then(|(_, value)| value.parse().ok());
    value.ok_or_else(|| ProbeError::Failed(format!("no ActiveOpens in {path}")))
}
