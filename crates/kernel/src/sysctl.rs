//! Kernel parameters of a network namespace, through `/proc/sys`.
//!
//! Owns names (dots or slashes), which of them may be set for a private namespace, and reading and writing with the
//! effective value read back. It refuses to write anything that would change the whole machine.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens the file (`net/sysctl_net.c`, `net_ctl_header_lookup`
//! uses `current->nsproxy->net_ns`), so every function acts on the calling thread's namespace. Tables that are not per
//! namespace are hidden or read-only outside the initial one. Source: `proc_sys(5)`,
//! `Documentation/networking/ip-sysctl.rst`, `Documentation/admin-guide/sysctl/net.rst`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::sysctl_names::{PROC_SYS, components};
pub use crate::sysctl_names::{classify, path_of};

/// Settings of the accept path that are worth recording with every trial. Those a kernel lacks are left out of
/// [`recorded`].
pub const RECORDED: &[&str] = &[
    "net.core.somaxconn",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_child_ehash_entries",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_early_demux",
    "net.ipv4.tcp_ecn",
    "net.ipv4.tcp_ehash_entries",
    "net.ipv4.tcp_fastopen",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_no_metrics_save",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_rto_max_ms",
    "net.ipv4.tcp_sack",
    "net.ipv4.tcp_syn_linear_timeouts",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_tw_reuse_delay",
    "net.ipv4.tcp_window_scaling",
    "net.ipv4.tcp_wmem",
];

/// A sysctl could not be named, read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The name is not one of a sysctl.
    #[error(
        "sysctl '{name}': {reason} (hint: write it like net.core.somaxconn, or with slashes when an interface name has dots)"
    )]
    Invalid {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The setting belongs to the whole machine.
    #[error("sysctl '{name}' cannot be set for a private network namespace: {reason} (hint: {hint})")]
    Global {
        /// The name as given.
        name: String,
        /// Why it is not private.
        reason: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// There is no such file here.
    #[error(
        "{operation} sysctl '{name}': {path} does not exist (hint: this kernel lacks it, or hides it in this namespace; \
             net.core.somaxconn on Linux 6.1, for one, needs root instead of a user namespace)"
    )]
    Missing {
        /// `reading` or `writing`.
        operation: &'static str,
        /// The name as given.
        name: String,
        /// The file that is missing.
        path: PathBuf,
    },
    /// EINVAL, ERANGE or ENOENT at write(2).
    #[error("writing sysctl '{name}': the kernel does not accept the value '{value}' ({source})")]
    Value {
        /// The name as given.
        name: String,
        /// The value as given.
        value: String,
        /// The error of write(2).
        source: io::Error,
    },
    /// EACCES, EPERM or EROFS.
    #[error(
        "{operation} sysctl '{name}': {source} (hint: needs CAP_NET_ADMIN in the namespace's user namespace and a \
             /proc/sys that is not mounted read-only, as it is in containers)"
    )]
    Denied {
        /// `reading` or `writing`.
        operation: &'static str,
        /// The name as given.
        name: String,
        /// The error of the system call.
        source: io::Error,
    },
    /// Any other error.
    #[error("{operation} sysctl '{name}': {source}")]
    Io {
        /// `reading` or `writing`.
        operation: &'static str,
        /// The name as given.
        name: String,
        /// The error of the system call.
        source: io::Error,
    },
}

/// A view of `/proc/sys/net`, possibly another namespace's mounted elsewhere (a sidecar's volume).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetTree {
    root: PathBuf,
}

impl Default for NetTree {
    /// The calling thread's own `/proc/sys/net`.
    fn default() -> Self {
        Self::new(Path::new(PROC_SYS).join("net"))
    }
}

impl NetTree {
    /// The tree at `root`, a directory that stands for `/proc/sys/net`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The file of `name` in this tree. Names outside `net` resolve below `/proc/sys`.
    fn path_of(&self, name: &str) -> Result<PathBuf, SysctlError> {
        let parts = components(name)?;
        if parts[0] == "net" { Ok(self.root.join(parts[1..].join("/"))) } else { path_of(name) }
    }

    /// See [`exists`].
    pub fn exists(&self, name: &str) -> bool {
        self.path_of(name).is_ok_and(|path| path.is_file())
    }

    /// See [`read`].
    ///
    /// # Errors
    /// Those of [`read`].
    pub fn read(&self, name: &str) -> Result<String, SysctlError> {
        let path = self.path_of(name)?;
        let text = std::fs::read_to_string(&path).map_err(|source| explain("reading", name, &path, None, source))?;
        Ok(normalise(&text))
    }

    /// Could [`NetTree::write`] write it? Changes nothing.
    ///
    /// # Errors
    /// Those of [`write()`], but for [`SysctlError::Value`].
    pub fn check_writable(&self, name: &str) -> Result<(), SysctlError> {
        classify(name)?;
        self.open_to_write(name).map(drop)
    }

    /// See [`write()`].
    ///
    /// # Errors
    /// Those of [`write()`].
    pub fn write(&self, name: &str, value: &str) -> Result<String, SysctlError> {
        classify(name)?;
        let (mut file, path) = self.open_to_write(name)?;
        io::Write::write_all(&mut file, value.as_bytes())
            .map_err(|source| explain("writing", name, &path, Some(value), source))?;
        self.read(name)
    }

    /// Not as `fs::write` does: it would create the file in a tree that is not procfs.
    fn open_to_write(&self, name: &str) -> Result<(File, PathBuf), SysctlError> {
        let path = self.path_of(name)?;
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => Ok((file, path)),
            Err(source) => Err(explain("writing", name, &path, None, source)),
        }
    }

    /// See [`recorded`].
    pub fn recorded(&self) -> BTreeMap<String, String> {
        RECORDED.iter().filter_map(|name| Some(((*name).to_owned(), self.read(name).ok()?))).collect()
    }
}

/// Maps an errno to what it means for a sysctl. `value` is given for write(2) only, where ENOENT is about the value (an
/// unknown congestion control), not about the file.
fn explain(operation: &'static str, name: &str, path: &Path, value: Option<&str>, source: io::Error) -> SysctlError {
    let name = name.to_owned();
    match (source.raw_os_error(), value) {
        (Some(libc::ENOENT), None) => SysctlError::Missing { operation, name, path: path.to_owned() },
        (Some(libc::EACCES | libc::EPERM | libc::EROFS), _) => SysctlError::Denied { operation, name, source },
        (Some(libc::EINVAL | libc::ERANGE | libc::ENOENT), Some(value)) => {
            SysctlError::Value { name, value: value.to_owned(), source }
        }
        _ => SysctlError::Io { operation, name, source },
    }
}

/// One line without surrounding blanks, several values separated by one space: the kernel uses tabs.
fn normalise(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// True when the calling thread's namespace has this sysctl. False for an invalid name.
pub fn exists(name: &str) -> bool {
    NetTree::default().exists(name)
}

/// The value in the calling thread's namespace, trimmed, several values separated by one space.
///
/// # Errors
/// [`SysctlError::Invalid`] for a bad name, [`SysctlError::Missing`] when there is none here, else the I/O error.
pub fn read(name: &str) -> Result<String, SysctlError> {
    NetTree::default().read(name)
}

/// The leading numbers of a value; none of one that is missing or no number.
pub fn numbers(name: &str) -> Vec<u64> {
    let text = read(name).unwrap_or_default();
    text.split_whitespace().map_while(|number| number.parse().ok()).collect()
}

/// The first number of a value; `None` of one that is missing or no number.
pub fn number(name: &str) -> Option<u64> {
    numbers(name).first().copied()
}

/// The ports that the kernel picks from, first and last (`net.ipv4.ip_local_port_range`).
pub fn port_range() -> Option<(u16, u16)> {
    match numbers("net.ipv4.ip_local_port_range").as_slice() {
        [low, high] => u16::try_from(*low).ok().zip(u16::try_from(*high).ok()),
        _ => None,
    }
}

/// Writes a value in the calling thread's namespace and returns the effective value, read back: the kernel may clamp or
/// round what it was given.
///
/// # Errors
/// [`SysctlError::Global`] without writing anything when [`classify`] refuses it, [`SysctlError::Value`] when the
/// kernel does not take the value, [`SysctlError::Denied`] without the privilege, else as [`read`].
pub fn write(name: &str, value: &str) -> Result<String, SysctlError> {
    NetTree::default().write(name, value)
}

/// The values of [`RECORDED`] that exist in the calling thread's namespace and can be read.
pub fn recorded() -> BTreeMap<String, String> {
    NetTree::default().recorded()
}

/// The same values, read again and again on kept descriptors: opening the files costs ten times as much as reading them.
#[derive(Debug)]
pub struct Recorder(Vec<(&'static str, File)>);

impl Recorder {
    /// Opens the files of [`RECORDED`] that exist in the calling thread's namespace, which later readings are of, too.
    pub fn open() -> Self {
        let open = |name: &&'static str| Some((*name, File::open(path_of(name).ok()?).ok()?));
        Self(RECORDED.iter().filter_map(open).collect())
    }

    /// The values that can be read.
    pub fn read(&self) -> BTreeMap<String, String> {
        let mut buffer = [0; 256];
        let mut value = |file: &File| {
            // From the beginning each time: a sysctl has no position worth keeping.
            let length = file.read_at(&mut buffer, 0).ok()?;
            Some(normalise(std::str::from_utf8(&buffer[..length]).ok()?))
        };
        self.0.iter().filter_map(|(name, file)| Some(((*name).to_owned(), value(file)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_global_setting_is_not_written_and_the_error_says_why() {
        let error = write("net.core.netdev_max_backlog", "1000").unwrap_err();
        assert!(error.to_string().starts_with(
            "sysctl 'net.core.netdev_max_backlog' cannot be set for a private network namespace: in net.core only"
        ));
    }

    #[test]
    fn kept_descriptors_read_what_fresh_ones_do() {
        let recorder = Recorder::open();
        assert_eq!(recorder.read(), recorded());
        assert_eq!(recorder.read(), recorded(), "and again");
        assert!(recorded().contains_key("net.ipv4.tcp_syncookies"));
    }

    #[test]
    fn errnos_become_what_they_mean() {
        let explained =
            |errno, value| explain("writing", "net.a", Path::new("/x"), value, io::Error::from_raw_os_error(errno));
        assert!(matches!(explained(libc::EINVAL, Some("7")), SysctlError::Value { value, .. } if value == "7"));
        assert!(matches!(explained(libc::EINVAL, None), SysctlError::Io { .. }));
        assert!(matches!(explained(libc::EROFS, Some("7")), SysctlError::Denied { .. }));
        assert!(matches!(explained(libc::ENOENT, None), SysctlError::Missing { .. }));
        assert!(matches!(explained(libc::ENOENT, Some("cubicle")), SysctlError::Value { .. }));
    }

    #[test]
    fn a_tree_elsewhere_is_read_and_written_without_creating_files() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("ipv4")).unwrap();
        std::fs::write(directory.path().join("ipv4/ip_local_port_range"), "32768\t60999\n").unwrap();
        let tree = NetTree::new(directory.path());
        assert_eq!(tree.read("net.ipv4.ip_local_port_range").unwrap(), "32768 60999");
        assert_eq!(tree.write("net.ipv4.ip_local_port_range", "40000 50000").unwrap(), "40000 50000");
        assert!(matches!(tree.write("net.ipv4.tcp_sack", "1"), Err(SysctlError::Missing { .. })));
        assert!(!tree.exists("net.ipv4.tcp_sack"));
        assert!(matches!(tree.check_writable("net.ipv4.tcp_sack"), Err(SysctlError::Missing { .. })));
        tree.check_writable("net.ipv4.ip_local_port_range").unwrap();
        assert_eq!(tree.read("net.ipv4.ip_local_port_range").unwrap(), "40000 50000", "nothing was written");
        assert_eq!(tree.recorded().len(), 1);
    }

    #[test]
    fn this_machine_records_the_essential_settings() {
        let recorded = recorded();
        for name in ["net.ipv4.tcp_syncookies", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.ip_local_port_range"] {
            assert!(recorded.contains_key(name), "{name}");
        }
    }
}
