//! The counters of the accept path: one list of field, group, kernel name and meaning.
//!
//! Owns the values and their arithmetic; [`crate::netstat`] reads them. Source: `include/uapi/linux/snmp.h`,
//! `net/ipv4/proc.c` (the names), `Documentation/networking/snmp_counter.rst` (the meanings).

use serde::{Deserialize, Serialize};

/// What one counter is: its field here, its name in the kernel and its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name of the field of [`NetCounters`], `snake_case`.
    pub name: &'static str,
    /// Prefix of the kernel's line: `TcpExt` (netstat) or `Tcp` (snmp).
    pub group: &'static str,
    /// The kernel's name of the column.
    pub kernel_name: &'static str,
    /// What one count means.
    pub help: &'static str,
}

/// Defines [`NetCounters`] and everything that must list each counter once.
macro_rules! net_counters {
    ($($group:literal { $($field:ident = $kernel:literal, $help:literal;)+ })+) => {
        /// Counters of one network namespace since it was made. All count events, none is a gauge.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case", default)]
        pub struct NetCounters {
            $($(#[doc = concat!($help, " (", $group, " ", $kernel, ")")] pub $field: u64,)+)+
        }

        impl NetCounters {
            /// Every counter, in the order of [`NetCounters::iter`].
            pub const FIELDS: &'static [Field] = &[$($(
                Field { name: stringify!($field), group: $group, kernel_name: $kernel, help: $help },
            )+)+];

            /// Values in the order of [`NetCounters::FIELDS`].
            fn values(&self) -> [u64; Self::FIELDS.len()] {
                [$($(self.$field,)+)+]
            }

            /// The same counters with `combine(mine, theirs)` applied to each.
            fn zip_with(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
                Self { $($($field: combine(self.$field, other.$field),)+)+ }
            }

            /// The field that holds a kernel column, if it is one of ours.
            pub(crate) fn slot(&mut self, group: &str, kernel_name: &str) -> Option<&mut u64> {
                match (group, kernel_name) {
                    $($(($group, $kernel) => Some(&mut self.$field),)+)+
                    _ => None,
                }
            }
        }
    };
}

net_counters! {
    "TcpExt" {
        listen_overflows = "ListenOverflows", "segments dropped because an accept queue was full (packets, not connections)";
        listen_drops = "ListenDrops", "segments dropped by a listener for any reason, overflows included";
        request_queue_full_drops = "TCPReqQFullDrop", "SYNs dropped because the SYN queue was full and cookies were off";
        request_queue_full_cookies = "TCPReqQFullDoCookies", "SYNs for which the full SYN queue asked for a cookie, sent or not";
        syncookies_sent = "SyncookiesSent", "SYN-ACKs sent with a cookie";
        syncookies_received = "SyncookiesRecv", "segments with a valid cookie; data retransmits count again";
        syncookies_failed = "SyncookiesFailed", "segments with an invalid cookie";
        syn_retransmits = "TCPSynRetrans", "SYNs and SYN-ACKs sent again";
        timeouts = "TCPTimeouts", "retransmission timers that fired";
        embryonic_resets = "EmbryonicRsts", "half-open connections that ended in a reset";
        backlog_drops = "TCPBacklogDrop", "segments dropped because a socket's own backlog was full";
        defer_accept_drops = "TCPDeferAcceptDrop", "bare ACKs held back by TCP_DEFER_ACCEPT";
        time_wait_overflows = "TCPTimeWaitOverflow", "sockets that skipped TIME_WAIT because its table was full";
        challenge_acks = "TCPChallengeACK", "challenge ACKs sent (RFC 5961)";
        abort_on_data = "TCPAbortOnData", "connections reset at close because of unread data or zero linger";
        abort_on_timeout = "TCPAbortOnTimeout", "connections given up after the last retransmission";
        abort_on_close = "TCPAbortOnClose", "connections closed with unread data";
        fastopen_active = "TCPFastOpenActive", "outgoing fast opens accepted by the peer";
        fastopen_passive = "TCPFastOpenPassive", "incoming fast opens accepted";
        fastopen_listen_overflow = "TCPFastOpenListenOverflow", "fast opens refused because the listener's fast open queue was full";
        fastopen_cookie_required = "TCPFastOpenCookieReqd", "fast open cookies asked for by clients";
        migrate_request_success = "TCPMigrateReqSuccess", "requests moved to another SO_REUSEPORT listener";
        migrate_request_failure = "TCPMigrateReqFailure", "requests that could not be moved to another listener";
        lost_retransmits = "TCPLostRetransmit", "retransmissions that were lost themselves";
    }
    "Tcp" {
        active_opens = "ActiveOpens", "connections begun here: SYN_SENT entered, whatever followed";
        passive_opens = "PassiveOpens", "connections that entered an accept queue";
        attempt_fails = "AttemptFails", "handshakes that failed";
        established_resets = "EstabResets", "established connections that were reset; counts each end";
        resets_sent = "OutRsts", "RST segments sent";
        segments_retransmitted = "RetransSegs", "segments sent again, SYNs included";
        in_errors = "InErrs", "segments received in error; challenge ACKs raise it on healthy retransmits";
        in_segments = "InSegs", "segments received";
        out_segments = "OutSegs", "segments sent, without pure retransmissions";
    }
}

impl NetCounters {
    /// Each counter with its description, in the order of [`NetCounters::FIELDS`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static Field, u64)> {
        Self::FIELDS.iter().zip(self.values())
    }

    /// What was counted since `earlier`; saturates at 0 per field, so a restarted source never yields a huge number.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.zip_with(earlier, u64::saturating_sub)
    }

    /// The sum of two namespaces or of two periods.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip_with(other, u64::saturating_add)
    }

    /// The value of the field called `name` (`snake_case`), or `None` when there is no such field.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.iter().find(|(field, _)| field.name == name).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_saturate_and_sums_add_field_by_field() {
        let early = NetCounters { listen_drops: 5, active_opens: 9, ..NetCounters::default() };
        let late = NetCounters { listen_drops: 7, active_opens: 3, ..NetCounters::default() };
        let since = late.since(&early);
        assert_eq!((since.listen_drops, since.active_opens), (2, 0));
        let sum = late.plus(&early);
        assert_eq!((sum.listen_drops, sum.active_opens), (12, 12));
    }

    #[test]
    fn fields_iterate_in_order_and_are_found_by_name() {
        let counters = NetCounters { listen_overflows: 1, out_segments: 2, ..NetCounters::default() };
        let seen: Vec<_> =
            counters.iter().filter(|(_, value)| *value > 0).map(|(field, value)| (field.kernel_name, value)).collect();
        assert_eq!(seen, [("ListenOverflows", 1), ("OutSegs", 2)]);
        assert_eq!(counters.get("out_segments"), Some(2));
        assert_eq!(counters.get("OutSegs"), None);
        assert_eq!(NetCounters::FIELDS.len(), 33);
    }
}
