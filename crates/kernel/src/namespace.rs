//! Private network namespaces: what the lab needs to keep a trial away from the host.
//!
//! Owns unshare(2), the id maps of a user namespace, and namespaces as descriptors. It refuses names in `/run/netns`: a
//! namespace that is only a descriptor disappears with its last process. Source: namespaces(7),
//! `network_namespaces(7)`, `user_namespaces(7)`, `pid_namespaces(7)`, unshare(2), setns(2), capabilities(7).
#![expect(
    unsafe_code,
    reason = "unshare(2) is unsafe in rustix: with CLONE_FILES, never used here, it would break I/O safety"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

/// Shown when user namespaces are refused.
const USER_NAMESPACE_HINT: &str = "an ordinary user needs user namespaces: check /proc/sys/user/max_user_namespaces (not 0), \
    kernel.unprivileged_userns_clone (1, Debian), kernel.apparmor_restrict_unprivileged_userns (0, Ubuntu) and a container's \
    seccomp profile, or run as root";

/// A namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// This machine does not let an ordinary user make user namespaces.
    #[error("{operation}: {reason} (hint: {USER_NAMESPACE_HINT})")]
    NoUserNamespaces {
        /// What was tried.
        operation: &'static str,
        /// The setting or errno that refused it.
        reason: String,
    },
    /// unshare(2) with a network or PID namespace failed.
    #[error("{operation}: {source} (hint: {hint})")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// The error of the system call.
        source: io::Error,
        /// What usually causes it.
        hint: &'static str,
    },
    /// A file below `/proc` could not be read or written.
    #[error("{operation} {path}: {source} (hint: needs /proc mounted and writable)")]
    Proc {
        /// `opening` or `writing`.
        operation: &'static str,
        /// The file.
        path: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
}

/// A network namespace held by a descriptor; it lives at least as long.
#[derive(Debug)]
pub struct NetNs(OwnedFd);

/// The calling thread's network namespace. `/proc/self` would be the thread-group leader's.
const CURRENT: &str = "/proc/thread-self/ns/net";

impl NetNs {
    /// The calling thread's network namespace.
    ///
    /// # Errors
    /// Those of open(2) on `/proc/thread-self/ns/net`.
    pub fn current() -> io::Result<Self> {
        Ok(Self(File::open(CURRENT)?.into()))
    }

    /// The network namespace that `path` stands for, such as `/proc/PID/ns/net` or a file bind-mounted on one. Not checked:
    /// [`NetNs::enter`] fails if it is something else.
    ///
    /// # Errors
    /// Those of open(2): ENOENT when there is no such process or file, EACCES or EPERM without the right to look at that
    /// process (ptrace(2), `PTRACE_MODE_READ_FSCREDS`).
    pub fn open(path: &Path) -> io::Result<Self> {
        // Whatever the path is, opening it must neither wait (a FIFO) nor take a terminal.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Moves the calling thread, and only it, into this namespace. Sockets it already has stay where they were made.
    ///
    /// # Errors
    /// EPERM without `CAP_SYS_ADMIN` over both namespaces (setns(2)), EINVAL when the descriptor is not a network
    /// namespace.
    pub fn enter(&self) -> io::Result<()> {
        Ok(rustix::thread::move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// The inode number: equal for two descriptors of the same namespace while one of them is open.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.0)?.st_ino)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for NetNs {
    /// Takes a descriptor received from another process. Not checked: [`NetNs::enter`] fails if it is something else.
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<NetNs> for OwnedFd {
    fn from(namespace: NetNs) -> Self {
        namespace.0
    }
}

/// How a process comes by a network namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    /// `CAP_SYS_ADMIN` and `CAP_NET_ADMIN` are effective: no user namespace is needed.
    Root,
    /// An ordinary user, or root in a container without those capabilities: a user namespace comes first.
    UserNamespace,
}

/// What the calling thread may do, from its effective capabilities. Capabilities in a user namespace count: whoever has
/// them there can make network namespaces owned by it.
pub fn privilege() -> Privilege {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    match rustix::thread::capabilities(None) {
        Ok(sets) if sets.effective.contains(needed) => Privilege::Root,
        _ => Privilege::UserNamespace,
    }
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES), "descriptors stay shared between threads");
    // SAFETY: no caller passes CLONE_FILES, the one flag whose effect on descriptors makes unshare(2) unsafe.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Gives the calling process a user namespace (when it needs one), a network namespace and a PID namespace for its
/// children: the next child is pid 1 there, and when that one dies the kernel kills everything in it.
///
/// The caller must be single-threaded, and cannot start threads afterwards: clone(2) with `CLONE_THREAD` fails with
/// EINVAL once the PID namespace of children differs. In the user namespace the caller becomes uid 0 and gid 0, mapped
/// to who it was.
///
/// # Errors
/// [`NamespaceError::NoUserNamespaces`] when this machine refuses user namespaces to ordinary users, in whichever of
/// the places it may do so; [`NamespaceError::Refused`] when a privileged caller is refused.
pub fn unshare_for_trial(privilege: Privilege) -> Result<(), NamespaceError> {
    unshare_with(privilege, UnshareFlags::NEWNET | UnshareFlags::NEWPID, "making the trial's network and PID namespace")
}

/// Gives the calling process a user namespace (when it needs one) and a network namespace of its own. The caller must be
/// single-threaded, and may start threads afterwards; as for the rest see [`unshare_for_trial`].
///
/// # Errors
/// Those of [`unshare_for_trial`].
pub fn unshare_net(privilege: Privilege) -> Result<(), NamespaceError> {
    unshare_with(privilege, UnshareFlags::NEWNET, "making a network namespace")
}

fn unshare_with(privilege: Privilege, flags: UnshareFlags, operation: &'static str) -> Result<(), NamespaceError> {
    if privilege == Privilege::UserNamespace {
        enter_user_namespace()?;
    }
    unshare(flags).map_err(|source| {
        if privilege == Privilege::UserNamespace && refuses_user_namespace(&source) {
            // AppArmor lets the user namespace be made and takes away its capabilities, so the refusal comes here.
            return NamespaceError::NoUserNamespaces { operation, reason: source.to_string() };
        }
        NamespaceError::Refused {
            operation,
            source,
            hint: "needs CAP_SYS_ADMIN, CONFIG_NET_NS and CONFIG_PID_NS; ENOSPC means a limit below /proc/sys/user",
        }
    })
}

/// The errnos with which unshare(2) and the id maps refuse: too many, not allowed, not compiled in.
fn refuses_user_namespace(source: &io::Error) -> bool {
    matches!(
        source.raw_os_error(),
        Some(libc::ENOSPC | libc::EPERM | libc::EINVAL | libc::EACCES | libc::EUSERS | libc::ENOSYS)
    )
}

/// A user namespace in which the caller is root.
fn enter_user_namespace() -> Result<(), NamespaceError> {
    const OPERATION: &str = "making a user namespace";
    // Before unshare(2): afterwards both are the overflow id.
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(UnshareFlags::NEWUSER).map_err(|source| {
        if refuses_user_namespace(&source) {
            return NamespaceError::NoUserNamespaces { operation: OPERATION, reason: source.to_string() };
        }
        NamespaceError::Refused { operation: OPERATION, source, hint: USER_NAMESPACE_HINT }
    })?;
    // setgroups must be denied before an unprivileged gid_map is accepted (user_namespaces(7)).
    write_map("/proc/self/setgroups", "deny")?;
    write_map("/proc/self/uid_map", &format!("0 {uid} 1\n"))?;
    write_map("/proc/self/gid_map", &format!("0 {gid} 1\n"))
}

fn write_map(path: &'static str, text: &str) -> Result<(), NamespaceError> {
    std::fs::write(path, text).map_err(|source| {
        if refuses_user_namespace(&source) {
            return NamespaceError::NoUserNamespaces {
                operation: "mapping ids in the user namespace",
                reason: format!("{path}: {source}"),
            };
        }
        NamespaceError::Proc { operation: "writing", path, source }
    })
}

/// Moves the calling thread into another fresh network namespace and returns it. What a fresh one holds is set by the
/// initial namespace, not by the one it was made from.
///
/// # Errors
/// [`NamespaceError::Refused`] without `CAP_SYS_ADMIN`, [`NamespaceError::Proc`] when `/proc` hides the result.
pub fn new_net() -> Result<NetNs, NamespaceError> {
    unshare(UnshareFlags::NEWNET).map_err(|source| NamespaceError::Refused {
        operation: "making a network namespace",
        source,
        hint: "needs CAP_SYS_ADMIN in the current user namespace; ENOSPC means /proc/sys/user/max_net_namespaces",
    })?;
    NetNs::current().map_err(|source| NamespaceError::Proc { operation: "opening", path: CURRENT, source })
}

/// Whether the settings of this machine let an ordinary user make user namespaces. Changes and spawns nothing, so it
/// cannot see what seccomp or `AppArmor` will say: only [`unshare_for_trial`] knows for certain.
///
/// # Errors
/// [`NamespaceError::NoUserNamespaces`] naming the setting that forbids it.
pub fn user_namespaces_work() -> Result<(), NamespaceError> {
    let setting = |path| std::fs::read_to_string(path).ok();
    forbidden_by(
        File::open("/proc/self/ns/user").is_ok(),
        setting("/proc/sys/user/max_user_namespaces").as_deref(),
        setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref(),
    )
    .map_or(Ok(()), |reason| {
        Err(NamespaceError::NoUserNamespaces { operation: "checking for user namespaces", reason: reason.to_owned() })
    })
}

/// The setting that forbids user namespaces. A file that does not exist forbids nothing.
fn forbidden_by(compiled_in: bool, maximum: Option<&str>, unprivileged_clone: Option<&str>) -> Option<&'static str> {
    let is_zero = |value: Option<&str>| value.is_some_and(|text| text.trim() == "0");
    if !compiled_in {
        Some("this kernel has no CONFIG_USER_NS")
    } else if is_zero(maximum) {
        Some("/proc/sys/user/max_user_namespaces is 0")
    } else if is_zero(unprivileged_clone) {
        Some("/proc/sys/kernel/unprivileged_userns_clone is 0")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_zero_forbids_user_namespaces() {
        assert_eq!(forbidden_by(true, Some("15000\n"), Some("1\n")), None);
        assert_eq!(forbidden_by(true, None, None), None);
        assert_eq!(forbidden_by(false, None, None), Some("this kernel has no CONFIG_USER_NS"));
        assert_eq!(forbidden_by(true, Some("0\n"), None), Some("/proc/sys/user/max_user_namespaces is 0"));
        assert_eq!(forbidden_by(true, Some("9"), Some("0\n")), Some("/proc/sys/kernel/unprivileged_userns_clone is 0"));
    }

    #[test]
    fn the_current_namespace_has_one_identity() {
        let (first, second) = (NetNs::current().unwrap(), NetNs::current().unwrap());
        assert_eq!(first.inode().unwrap(), second.inode().unwrap());
        assert_eq!(NetNs::from(OwnedFd::from(second)).inode().unwrap(), first.inode().unwrap());
    }

    #[test]
    fn a_namespace_is_opened_by_its_path_and_anything_else_cannot_be_entered() {
        let opened = NetNs::open(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(opened.inode().unwrap(), NetNs::current().unwrap().inode().unwrap());
        let missing = NetNs::open(Path::new("/proc/self/ns/none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        for path in ["/dev/null", "/proc/self/ns/mnt", "/"] {
            let error = NetNs::open(Path::new(path)).unwrap().enter().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{path}");
        }
    }

    #[test]
    fn the_hint_names_every_setting() {
        let text = NamespaceError::NoUserNamespaces { operation: "x", reason: "y".to_owned() }.to_string();
        for setting in ["max_user_namespaces", "unprivileged_userns_clone", "apparmor_restrict_unprivileged_userns"] {
            assert!(text.contains(setting), "{text}");
        }
    }
}
