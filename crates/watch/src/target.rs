//! Another network namespace as what is watched: found, entered by the sampling thread, and noticed when it is over.
//!
//! The thread is what keeps an entered namespace alive, so a path that no longer leads to it is the sign that whoever named
//! it has ended. Source: setns(2), namespaces(7).

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use kernel::namespace::NetNs;

use crate::opts::Netns;

/// The namespace cannot be watched. The text begins with the name of the option.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No such process.
    #[error("netns {0}: there is no process {0} here; give the id of a running one, or a path such as /run/netns/NAME")]
    NoProcess(u32),
    /// No such file.
    #[error("netns {}: no such file; give the path of a network namespace, e.g. /run/netns/NAME, or a process id", .0.display())]
    NoPath(PathBuf),
    /// A file, but not a network namespace.
    #[error("netns {}: not a network namespace; give a path such as /run/netns/NAME or /proc/PID/ns/net, or a process id", .0.display())]
    OtherKind(PathBuf),
    /// Not without privilege.
    #[error(
        "netns {netns}: {operation} it: {source}; needs root (sudo), or CAP_SYS_ADMIN here and in the user namespace that \
         owns it"
    )]
    Forbidden {
        /// As it was named.
        netns: Netns,
        /// `opening` or `entering`.
        operation: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// Anything else.
    #[error("netns {netns}: {operation} it: {source}; give a path such as /run/netns/NAME, or a process id")]
    Io {
        /// As it was named.
        netns: Netns,
        /// `opening` or `entering`.
        operation: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
}

impl TargetError {
    /// Does this machine or user lack something, rather than the option being wrong?
    pub fn is_requirement(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }

    fn new(netns: &Netns, operation: &'static str, source: io::Error) -> Self {
        let netns = netns.clone();
        match (source.raw_os_error(), netns) {
            // ESRCH: it ended while the path was being followed.
            (Some(2 | 3), Netns::Pid(pid)) => Self::NoProcess(pid),
            (Some(2 | 20), Netns::Path(path)) => Self::NoPath(path),
            (Some(1 | 13), netns) => Self::Forbidden { netns, operation, source },
            (Some(22), netns) => Self::OtherKind(netns.path()),
            (_, netns) => Self::Io { netns, operation, source },
        }
    }
}

/// A namespace that was found.
#[derive(Debug)]
pub(crate) struct Target {
    netns: Netns,
    namespace: NetNs,
}

impl Target {
    pub(crate) fn find(netns: &Netns) -> Result<Self, TargetError> {
        let namespace = NetNs::open(&netns.path()).map_err(|source| TargetError::new(netns, "opening", source))?;
        Ok(Self { netns: netns.clone(), namespace })
    }

    /// Moves the calling thread, and only it, into the namespace. Needs no privilege when it is there already.
    pub(crate) fn enter(self) -> Result<Attached, TargetError> {
        let failed = |source| TargetError::new(&self.netns, "entering", source);
        let inode = self.namespace.inode().map_err(failed)?;
        let here = NetNs::current().and_then(|current| current.inode());
        if here.map_err(failed)? != inode {
            self.namespace.enter().map_err(failed)?;
        }
        Ok(Attached { path: self.netns.path(), inode })
    }
}

/// The namespace that a thread has entered.
#[derive(Debug)]
pub(crate) struct Attached {
    path: PathBuf,
    inode: u64,
}

impl Attached {
    /// Does the path still lead to it? Not when the process has ended or the file was removed.
    pub(crate) fn is_there(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(netns: &str) -> TargetError {
        let found = Target::find(&netns.parse().unwrap());
        found.and_then(Target::enter).unwrap_err()
    }

    #[test]
    fn the_own_namespace_needs_no_privilege_and_is_there() {
        let attached = Target::find(&Netns::Pid(std::process::id())).unwrap().enter().unwrap();
        assert!(attached.is_there());
        assert!(!Attached { inode: attached.inode + 1, ..attached }.is_there());
    }

    #[test]
    fn what_is_no_namespace_is_named() {
        assert!(matches!(refusal("2147483647"), TargetError::NoProcess(2_147_483_647)));
        assert!(matches!(refusal("/nowhere/at/all"), TargetError::NoPath(_)));
        assert!(matches!(refusal("/dev/null/x"), TargetError::NoPath(_)));
        for other in ["/dev/null", "/proc/self/ns/mnt", "/proc"] {
            let error = refusal(other);
            assert!(matches!(error, TargetError::OtherKind(_)) && !error.is_requirement(), "{other}: {error}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_needed() {
        let error = TargetError::new(&Netns::Pid(7), "entering", io::Error::from_raw_os_error(1));
        assert!(error.is_requirement());
        assert!(error.to_string().starts_with("netns 7: entering it: Operation not permitted"), "{error}");
        assert!(error.to_string().contains("needs root (sudo)"), "{error}");
    }
}
