//! What an experiment needs of the machine, read off its file: what `list` shows and `doctor` looks for.

use std::collections::BTreeSet;

use lab::{Experiment, Place, Wiring};
use loadgen::opts::Engine as LoadgenEngine;
use serde::{Serialize, Serializer};
use server::opts::Engine as ServerEngine;

/// One thing an experiment cannot do without.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Network namespaces of its own.
    Namespaces,
    /// A veth pair between two of them.
    Veth,
    /// IPv6 in them.
    Ipv6,
    /// A server and load generators that run already.
    Deployment,
    /// `io_uring` for the server: a ring.
    ServerRing,
    /// A ring whose accepts go on by themselves: `server.engine = "io-uring-multishot"`.
    ServerMultishot,
    /// `io_uring` for the load generator: a ring, and the requests of an attempt.
    LoadgenRing,
    /// The request that binds an attempt to its source.
    LoadgenRingSources,
    /// A program to put in the server's place.
    Program(String),
    /// A kernel parameter, in a namespace of its own where there is one.
    Sysctl(String),
}

impl Need {
    /// Its name in JSON.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Namespaces => "network-namespaces".to_owned(),
            Self::Veth => "veth".to_owned(),
            Self::Ipv6 => "ipv6".to_owned(),
            Self::Deployment => "running-deployment".to_owned(),
            Self::ServerRing => "server.io-uring".to_owned(),
            Self::ServerMultishot => "server.io-uring-multishot".to_owned(),
            Self::LoadgenRing => "loadgen.io-uring".to_owned(),
            Self::LoadgenRingSources => "loadgen.io-uring-sources".to_owned(),
            Self::Program(name) => format!("program.{name}"),
            Self::Sysctl(name) => format!("sysctl.{name}"),
        }
    }
}

impl Serialize for Need {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.name())
    }
}

/// Everything an experiment needs, in order.
pub(crate) fn of(experiment: &Experiment) -> Vec<Need> {
    let mut needs = BTreeSet::new();
    match experiment.place {
        Place::Attached(_) => {
            needs.insert(Need::Deployment);
        }
        Place::Private { wiring, family } => {
            needs.insert(Need::Namespaces);
            if wiring == Wiring::Veth {
                needs.insert(Need::Veth);
            }
            if family == lab::experiment::Family::Ipv6 {
                needs.insert(Need::Ipv6);
            }
            needs.extend(experiment.resolved.iter().flat_map(rings));
            needs.extend(programs(experiment).into_iter().map(Need::Program));
        }
    }
    let sysctls = experiment.resolved.iter().flat_map(|cell| cell.sysctl.keys());
    needs.extend(sysctls.cloned().map(Need::Sysctl));
    needs.into_iter().collect()
}

/// The programs of its targets, each once. Those that it writes itself are no need.
pub(crate) fn programs(experiment: &Experiment) -> BTreeSet<String> {
    let targets = experiment.resolved.iter().filter_map(|cell| cell.target.as_ref());
    // A target that cannot be filled in is no part of a checked experiment.
    targets.filter_map(|target| target.program().ok().flatten()).collect()
}

/// What the engines of a cell need of `io_uring`. The load generator's `auto` does without where it must.
fn rings(cell: &lab::Resolved) -> Vec<Need> {
    let mut needs = match cell.server.engine {
        ServerEngine::IoUring => vec![Need::ServerRing],
        ServerEngine::IoUringMultishot => vec![Need::ServerRing, Need::ServerMultishot],
        _ => Vec::new(),
    };
    if cell.loadgen.engine == LoadgenEngine::IoUring {
        needs.push(Need::LoadgenRing);
        needs.extend(cell.loadgen.sources.is_some().then_some(Need::LoadgenRingSources));
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped::find;

    fn names(experiment: &str) -> Vec<String> {
        of(&find(experiment).expect("shipped")).iter().map(Need::name).collect()
    }

    #[test]
    fn each_end_needs_the_ring_that_it_asks_for() {
        let rings = |settings: &str| {
            let text = format!("[experiment]\nname = \"x\"\nquestion = \"?\"\n{settings}");
            let experiment = Experiment::parse("x.toml", &text).expect("valid");
            of(&experiment).iter().map(Need::name).filter(|name| name.contains("io-uring")).collect::<Vec<_>>()
        };
        assert_eq!(rings("[server]\nengine = \"io-uring\"\n"), ["server.io-uring"]);
        let multishot = ["server.io-uring", "server.io-uring-multishot"];
        assert_eq!(rings("[server]\nengine = \"io-uring-multishot\"\n"), multishot);
        assert_eq!(rings("[loadgen]\nengine = \"io-uring\"\n"), ["loadgen.io-uring"]);
        let sources = "[loadgen]\nengine = \"io-uring\"\nsources = \"10.1.0.0/24\"\n";
        assert_eq!(rings(sources), ["loadgen.io-uring", "loadgen.io-uring-sources"]);
        assert_eq!(rings("[loadgen]\nengine = \"auto\"\narrivals = \"closed:4\"\n"), [""; 0]);
        assert!(names("engines").contains(&"server.io-uring".to_owned()));
        assert!(!names("engines").contains(&"loadgen.io-uring".to_owned()));
    }

    #[test]
    fn what_is_shipped_needs_what_its_file_says() {
        let backlog = ["network-namespaces", "veth", "sysctl.net.core.somaxconn", "sysctl.net.ipv4.tcp_syncookies"];
        assert_eq!(names("backlog"), backlog);
        assert_eq!(names("phantoms"), ["network-namespaces", "sysctl.net.ipv4.tcp_syncookies"], "over loopback");
        assert_eq!(names("nginx-backlog")[2], "program.nginx");
        assert_eq!(names("sweep"), ["running-deployment", "sysctl.net.core.somaxconn"]);
    }
}
