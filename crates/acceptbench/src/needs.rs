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
    /// `io_uring` for one of its ends.
    IoUring,
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
            Self::IoUring => "io-uring".to_owned(),
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
            let asked = |cell: &lab::Resolved| {
                matches!(cell.server.engine, ServerEngine::IoUring | ServerEngine::IoUringMultishot)
                    || cell.loadgen.engine == LoadgenEngine::IoUring
            };
            if experiment.resolved.iter().any(asked) {
                needs.insert(Need::IoUring);
            }
        }
    }
    let sysctls = experiment.resolved.iter().flat_map(|cell| cell.sysctl.keys());
    needs.extend(sysctls.cloned().map(Need::Sysctl));
    needs.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped::find;

    fn names(experiment: &str) -> Vec<String> {
        of(&find(experiment).expect("shipped")).iter().map(Need::name).collect()
    }

    #[test]
    fn what_is_shipped_needs_what_its_file_says() {
        let backlog = ["network-namespaces", "veth", "sysctl.net.core.somaxconn", "sysctl.net.ipv4.tcp_syncookies"];
        assert_eq!(names("backlog"), backlog);
        assert_eq!(names("phantoms"), ["network-namespaces", "sysctl.net.ipv4.tcp_syncookies"], "over loopback");
        assert_eq!(names("sweep"), ["running-deployment", "sysctl.net.core.somaxconn"]);
    }
}
