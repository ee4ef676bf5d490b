//! What went wrong with an interface, and what usually causes it.

use std::io;
use std::time::Duration;

use crate::netlink::Failure;

/// An interface could not be made or configured.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The name is empty, too long, or has a character no interface may have.
    #[error("{operation} '{link}': not an interface name (hint: 1 to 15 characters without '/', ':' or blanks)")]
    Name {
        /// What was tried.
        operation: &'static str,
        /// The name as given.
        link: String,
    },
    /// The kernel refused the request.
    #[error("{operation} '{link}': {source} (hint: {hint})")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// The interface.
        link: String,
        /// The errno in the acknowledgement.
        source: io::Error,
        /// What usually causes this errno here.
        hint: &'static str,
    },
    /// The interface has no carrier, its queue is not active, or an IPv6 address cannot be found yet.
    #[error("waiting for '{link}': not running after {limit:?} (hint: both ends of a veth pair must be up)")]
    NotRunning {
        /// The interface.
        link: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The netlink socket failed.
    #[error("{operation} '{link}': netlink socket: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The interface.
        link: String,
        /// The error of the system call.
        source: io::Error,
    },
    /// The kernel's reply makes no sense.
    #[error("{operation} '{link}': malformed netlink reply: {detail}")]
    Malformed {
        /// What was tried.
        operation: &'static str,
        /// The interface.
        link: String,
        /// What is wrong.
        detail: &'static str,
    },
}

impl LinkError {
    pub(crate) fn new(operation: &'static str, link: &str, failure: Failure) -> Self {
        let link = link.to_owned();
        match failure {
            Failure::Refused(source) => Self::Refused { operation, link, hint: hint(&source), source },
            Failure::Io(source) => Self::Io { operation, link, source },
            Failure::Malformed(detail) => Self::Malformed { operation, link, detail },
        }
    }
}

/// What an errno means for these requests.
fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "needs CAP_NET_ADMIN in the user namespace that owns the network namespace",
        Some(libc::EEXIST) => "there already is one of this name, address or network",
        Some(libc::ENODEV) => "there is no interface of this name in this namespace",
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => "this kernel has no veth (CONFIG_VETH) or no IPv6",
        Some(libc::ENETDOWN) => "the interface is down",
        Some(libc::ENETUNREACH) => "the neighbour is not on this link",
        Some(libc::EINVAL) => "the kernel does not take this name, address or prefix length",
        _ => "unexpected here; the kernel log may say more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_operation_interface_and_hint() {
        let refused = Failure::Refused(io::Error::from_raw_os_error(libc::EPERM));
        let text = LinkError::new("setting up", "lo", refused).to_string();
        assert!(text.starts_with("setting up 'lo': ") && text.contains("CAP_NET_ADMIN"), "{text}");
    }
}
