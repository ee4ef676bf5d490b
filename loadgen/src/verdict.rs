//! How one attempt ended.

use serde::{Deserialize, Serialize};

macro_rules! verdicts {
    ($($(#[$doc:meta])+ $variant:ident = $label:literal,)+) => {
        /// How one attempt ended. Every attempt gets exactly one verdict.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Verdict { $($(#[$doc])+ $variant,)+ }

        impl Verdict {
            /// All verdicts, in the order of their counters.
            pub const ALL: [Self; [$(Self::$variant),+].len()] = [$(Self::$variant),+];

            /// The verdict as a metric label (`snake_case`).
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

verdicts! {
    /// The first byte came, or all that an answer had to begin with.
    Served = "served",
    /// connect(2) succeeded and no confirmation was asked for.
    Connected = "connected",
    /// Connected, but no byte came by the deadline (or the server closed without one).
    Unserved = "unserved",
    /// The answer did not begin as expected: somebody else answered, or with an error.
    Unexpected = "unexpected",
    /// ECONNRESET, at connect or after; neither says whether the server accepted.
    Reset = "reset",
    /// ECONNREFUSED: a RST answered the SYN.
    Refused = "refused",
    /// No answer to any SYN by the deadline (or the kernel gave up).
    TimedOut = "timed_out",
    /// ENETUNREACH, EHOSTUNREACH: no route, or a router said so.
    Unreachable = "unreachable",
    /// EADDRNOTAVAIL: no local port left towards the target.
    NoPorts = "no_ports",
    /// EMFILE, ENFILE: no descriptor left.
    NoFds = "no_fds",
    /// The kernel connected the socket to itself (simultaneous open on an ephemeral port).
    SelfConnect = "self_connect",
    /// Never issued: as many attempts were in flight as allowed.
    Shed = "shed",
    /// Kept half open on purpose (experiment files only): the socket drops every answer to its SYN.
    HalfOpen = "half_open",
    /// Any other error, counted by errno.
    Other = "other",
}
