//! `TCP_INFO` as data: the states of a TCP socket and what it reports about itself.
//!
//! Owns the layout of the kernel's structure and its meaning on the accept path; reading it from a socket is
//! [`crate::sockopt::tcp_info`]. Source: `include/uapi/linux/tcp.h`, `net/ipv4/tcp.c` (`tcp_get_info`),
//! `include/net/tcp_states.h`.

/// Defines [`TcpState`] and everything that must list each state once.
macro_rules! tcp_states {
    ($($variant:ident = $number:literal, $name:literal, $doc:literal;)+) => {
        /// State of a TCP socket (`include/net/tcp_states.h`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum TcpState {
            $(#[doc = $doc] $variant,)+
            /// A number this crate does not know.
            Unknown(u8),
        }

        impl TcpState {
            /// Every known state, in the kernel's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The state of a kernel number.
            pub fn from_number(number: u8) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    unknown => Self::Unknown(unknown),
                }
            }

            /// The kernel's number.
            pub fn number(self) -> u8 {
                match self {
                    $(Self::$variant => $number,)+
                    Self::Unknown(number) => number,
                }
            }

            /// The name in `snake_case`, for labels.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::Unknown(_) => "unknown",
                }
            }
        }
    };
}

tcp_states! {
    Established = 1, "established", "Open.";
    SynSent = 2, "syn_sent", "SYN sent, no answer yet.";
    SynRecv = 3, "syn_recv", "SYN received and answered. As a full socket only with fast open; else a dump reports requests so.";
    FinWait1 = 4, "fin_wait1", "Closed here, the FIN is not acknowledged.";
    FinWait2 = 5, "fin_wait2", "Closed here, the FIN is acknowledged.";
    TimeWait = 6, "time_wait", "Closed by both, waiting for stray segments.";
    Close = 7, "close", "Not connected, or dead.";
    CloseWait = 8, "close_wait", "Closed by the peer.";
    LastAck = 9, "last_ack", "Closed by the peer first, then here.";
    Listen = 10, "listen", "Listening.";
    Closing = 11, "closing", "Closed by both at once.";
    NewSynRecv = 12, "new_syn_recv", "A request socket: half open, before there is a full socket.";
}

/// `struct tcp_info` of Linux 6.x. An older kernel fills a prefix of it; the rest stays 0.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RawTcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    window_scales: u8,
    flags: u8,
    rto: u32,
    ato: u32,
    snd_mss: u32,
    rcv_mss: u32,
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt: u32,
    rttvar: u32,
    snd_ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
    dsack_dups: u32,
    reord_seen: u32,
    rcv_ooopack: u32,
    snd_wnd: u32,
    rcv_wnd: u32,
    rehash: u32,
    total_rto: u16,
    total_rto_recoveries: u16,
    total_rto_time: u32,
}

/// The part of `TCP_INFO` that matters on the accept path. Fields a kernel lacks are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// State of the connection, or [`TcpState::Listen`].
    pub state: TcpState,
    /// Negotiated options, `TCPI_OPT_*` bits: 1 timestamps, 2 SACK, 4 window scaling, 8 ECN, 32 data in the SYN (fast
    /// open).
    pub options: u8,
    /// Segments in flight. **Listener: depth of the accept queue**.
    pub unacked: u32,
    /// Segments selectively acknowledged. **Listener: queue limit** = min(backlog, somaxconn); limit + 1 connections
    /// fit.
    pub sacked: u32,
    /// Smoothed round-trip time in µs. 1000 without a sample, and as long as the handshake when that was late.
    pub rtt_us: u32,
    /// Time since data was last sent, in ms at the resolution of the tick. Right after accept(2), before any send: time
    /// in the accept queue.
    pub last_data_sent_ms: u32,
    /// Time since data was last received, in ms at the resolution of the tick.
    pub last_data_recv_ms: u32,
    /// Segments sent again, SYN or SYN-ACK included.
    pub total_retrans: u32,
    /// Segments received, the SYN included. Linux 4.2.
    pub segs_in: u32,
    /// Segments sent. Linux 4.2.
    pub segs_out: u32,
    /// Bytes acknowledged by the peer; 1 after a handshake: the SYN. Linux 4.1.
    pub bytes_acked: u64,
    /// Payload bytes received. Linux 4.1.
    pub bytes_received: u64,
    /// Retransmission timeouts, SYN-ACK timeouts of a late handshake included. Linux 6.7.
    pub total_rto: u16,
    /// Time spent in them, in ms. Linux 6.7.
    pub total_rto_time_ms: u32,
}

impl From<&RawTcpInfo> for TcpInfo {
    fn from(raw: &RawTcpInfo) -> Self {
        Self {
            state: TcpState::from_number(raw.state),
            options: raw.options,
            unacked: raw.unacked,
            sacked: raw.sacked,
            rtt_us: raw.rtt,
            last_data_sent_ms: raw.last_data_sent,
            last_data_recv_ms: raw.last_data_recv,
            total_retrans: raw.total_retrans,
            segs_in: raw.segs_in,
            segs_out: raw.segs_out,
            bytes_acked: raw.bytes_acked,
            bytes_received: raw.bytes_received,
            total_rto: raw.total_rto,
            total_rto_time_ms: raw.total_rto_time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn the_layout_is_the_kernels() {
        // Offsets of include/uapi/linux/tcp.h on a 64-bit machine; libc knows the first part.
        assert_eq!(offset_of!(RawTcpInfo, total_retrans), offset_of!(libc::tcp_info, tcpi_total_retrans));
        assert_eq!(offset_of!(RawTcpInfo, sacked), offset_of!(libc::tcp_info, tcpi_sacked));
        assert_eq!(offset_of!(RawTcpInfo, pacing_rate), 104);
        assert_eq!(offset_of!(RawTcpInfo, segs_out), 136);
        assert_eq!(offset_of!(RawTcpInfo, total_rto), 240);
        assert_eq!(size_of::<RawTcpInfo>(), 248);
    }

    #[test]
    fn states_keep_their_numbers_and_names() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::from_number(state.number()), *state);
        }
        assert_eq!(TcpState::ALL.len(), 12);
        assert_eq!(TcpState::from_number(10).name(), "listen");
        assert_eq!((TcpState::Unknown(77).number(), TcpState::Unknown(77).name()), (77, "unknown"));
    }
}
