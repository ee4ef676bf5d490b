//! What one TCP socket says about itself, and options that neither the standard library nor socket2 has.
//!
//! Owns `TCP_INFO`, `SO_MEMINFO`, socket filters, accept timestamps and steering among `SO_REUSEPORT` listeners. It
//! refuses to duplicate what socket2 and rustix offer. Source: tcp(7), socket(7), ip(7), `include/uapi/linux/tcp.h`,
//! `net/ipv4/tcp.c` (`tcp_get_info`), `net/core/sock.c`.
#![expect(unsafe_code, reason = "getsockopt(2), setsockopt(2) and recvmsg(2) for options that rustix and socket2 lack")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_int;
use socket2::{SockFilter, SockRef};

pub use crate::receive_stamp::ReceiveStamp;
use crate::receive_stamp::stamp_in;
use crate::socket_option::SocketOption;
use crate::tcp_info::RawTcpInfo;
pub use crate::tcp_info::{TcpInfo, TcpState};

/// A type made of integers only: any bytes are a value of it.
///
/// # Safety
/// Every bit pattern must be valid, and there must be no padding that anyone reads.
unsafe trait Plain: Copy {}
// SAFETY: integers.
unsafe impl Plain for RawTcpInfo {}
// SAFETY: an array of integers.
unsafe impl Plain for [u32; 9] {}
// SAFETY: an integer.
unsafe impl Plain for c_int {}

/// getsockopt(2) into `value`. An older kernel may write fewer bytes: the rest keeps its value.
fn get<T: Plain>(fd: &impl AsFd, level: c_int, option: c_int, value: &mut T) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is borrowed, so it is open; `value` has `length` bytes, any of which the kernel may write
    // because T is Plain.
    let result =
        unsafe { libc::getsockopt(fd.as_fd().as_raw_fd(), level, option, (&raw mut *value).cast(), &raw mut length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// setsockopt(2) with `size_of::<T>()` bytes.
pub(crate) fn set<T>(fd: &impl AsFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is borrowed, so it is open; the kernel reads `length` bytes of `value`, which is borrowed.
    let result = unsafe { libc::setsockopt(fd.as_fd().as_raw_fd(), level, option, (&raw const *value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `TCP_INFO` of a connection or listener, at about 0.2 µs. On a listener [`TcpInfo::unacked`] and [`TcpInfo::sacked`]
/// are depth and limit of its accept queue.
///
/// # Errors
/// Those of getsockopt(2): EOPNOTSUPP when it is not a TCP socket.
pub fn tcp_info(fd: impl AsFd) -> io::Result<TcpInfo> {
    let mut raw = RawTcpInfo::default();
    get(&fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut raw)?;
    Ok(TcpInfo::from(&raw))
}

/// Segments this socket dropped since it was made (`SO_MEMINFO`, `SK_MEMINFO_DROPS`), wrapping at 2^32. On a listener:
/// overflows, SYN queue drops, filtered and deferred ACKs; an ACK dropped on a full accept queue counts twice.
///
/// # Errors
/// Those of getsockopt(2).
pub fn socket_drops(fd: impl AsFd) -> io::Result<u32> {
    const DROPS: usize = 8; // SK_MEMINFO_DROPS
    let mut values = [0u32; 9];
    get(&fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut values)?;
    Ok(values[DROPS])
}

/// Makes a socket drop every segment it receives (a classic BPF program `ret 0`). On a listener about to be closed:
/// nothing enters its queue between reading the depth and close(2). On a client before connect(2): it stays half open,
/// because SYN-ACKs never arrive.
///
/// # Errors
/// EPERM without `CAP_NET_ADMIN` where unprivileged filters are refused.
pub fn drop_all_filter(fd: impl AsFd) -> io::Result<()> {
    const RETURN_CONSTANT: u16 = 0x06; // BPF_RET | BPF_K
    SockRef::from(&fd).attach_filter(&[SockFilter::new(RETURN_CONSTANT, 0, 0, 0)])
}

/// Takes the socket's filter off again.
///
/// # Errors
/// ENOENT when it has none.
pub fn detach_filter(fd: impl AsFd) -> io::Result<()> {
    SockRef::from(&fd).detach_filter()
}

/// Sets how often a SYN is sent again before connect(2) fails (`TCP_SYNCNT`), instead of `tcp_syn_retries`.
///
/// # Errors
/// EINVAL outside 1..=127.
pub fn set_syn_count(fd: impl AsFd, count: u8) -> io::Result<()> {
    SocketOption::syn_count(count).apply(fd)
}

/// Sets how long unacknowledged data or a SYN may stay so, in ms (`TCP_USER_TIMEOUT`); 0 is the default. Checked only
/// when a retransmission timer fires.
///
/// # Errors
/// EINVAL above 2^31 - 1.
pub fn set_user_timeout(fd: impl AsFd, milliseconds: u32) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_user_timeout(fd, milliseconds)?)
}

/// Lets bind(2) to an address with port 0 leave the choice of port to connect(2) (`IP_BIND_ADDRESS_NO_PORT`), so that
/// one port serves several destinations. Works on IPv6 sockets too.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_bind_address_no_port(fd: impl AsFd, on: bool) -> io::Result<()> {
    set(&fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &c_int::from(on))
}

/// Holds connections back from the accept queue until they have data, for about this many seconds (`TCP_DEFER_ACCEPT`;
/// rounded to 1, 3, 7, 15, 31); 0 turns it off. Returns the effective value.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_defer_accept(fd: impl AsFd, seconds: u16) -> io::Result<u32> {
    set(&fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &c_int::from(seconds))?;
    defer_accept(fd)
}

/// The effective `TCP_DEFER_ACCEPT` in seconds; 0 is off.
///
/// # Errors
/// Those of getsockopt(2).
pub fn defer_accept(fd: impl AsFd) -> io::Result<u32> {
    get_int(&fd, libc::TCP_DEFER_ACCEPT)
}

/// The effective `TCP_FASTOPEN`: pending requests at most; 0 is off.
///
/// # Errors
/// Those of getsockopt(2).
pub fn fastopen(fd: impl AsFd) -> io::Result<u32> {
    get_int(&fd, libc::TCP_FASTOPEN)
}

/// An integer option of TCP that is never negative.
fn get_int(fd: &impl AsFd, option: c_int) -> io::Result<u32> {
    let mut value: c_int = 0;
    get(fd, libc::IPPROTO_TCP, option, &mut value)?;
    Ok(value.unsigned_abs())
}

/// Lets a listener take data in the SYN, with at most `pending` such requests at once (`TCP_FASTOPEN`). Also needs bit
/// 2 of `net.ipv4.tcp_fastopen`.
///
/// # Errors
/// EINVAL on a socket in a wrong state.
pub fn set_fastopen(fd: impl AsFd, pending: u16) -> io::Result<()> {
    set(&fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &c_int::from(pending))
}

/// Steers connections among the listeners of a `SO_REUSEPORT` group to number CPU mod `listeners`, counted in the order
/// of their listen(2) (`SO_ATTACH_REUSEPORT_CBPF`). Call it on one of them; a closed one is replaced by the last, so
/// attach again after a change.
///
/// # Errors
/// EINVAL when the socket has no `SO_REUSEPORT`, or `listeners` is 0.
pub fn steer_by_cpu(fd: impl AsFd, listeners: u32) -> io::Result<()> {
    const LOAD_CPU: u32 = 0xffff_f000 + 36; // SKF_AD_OFF + SKF_AD_CPU
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    // BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_MOD|BPF_K, BPF_RET|BPF_A.
    let mut program = [statement(0x20, LOAD_CPU), statement(0x94, listeners), statement(0x16, 0)];
    let program = libc::sock_fprog { len: 3, filter: program.as_mut_ptr() };
    set(&fd, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Has the kernel stamp what a socket receives (`SO_TIMESTAMPNS`). Set on a listener, accepted sockets inherit it; see
/// [`recv_stamped`].
///
/// The first socket of the machine to ask turns stamping on in a work item (`net/core/dev.c`, `net_enable_timestamp`):
/// what arrives in the first moments has no stamp. Set it well before the first client.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_receive_timestamps(fd: impl AsFd, on: bool) -> io::Result<()> {
    set(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &c_int::from(on))
}

/// recv(2) with the stamp of the last segment it took bytes from; `None` when [`set_receive_timestamps`] is off.
/// Returns 0 bytes at the end of the stream.
///
/// # Errors
/// Those of recvmsg(2): `WouldBlock`, ECONNRESET.
pub fn recv_stamped(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<ReceiveStamp>)> {
    // A cmsghdr with a timespec takes 4; u64 for their alignment.
    const CONTROL_WORDS: usize = 8;
    let mut control = [0u64; CONTROL_WORDS];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = MaybeUninit::<libc::msghdr>::zeroed();
    // SAFETY: all zero bytes are a valid msghdr: null pointers and zero lengths.
    let message = unsafe { message.assume_init_mut() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the descriptor is borrowed, so it is open; the message points to `buffer` and `control`, both borrowed
    // mutably until after the call, with their true lengths.
    let received = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut *message, 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut bytes = [0u8; size_of::<[u64; CONTROL_WORDS]>()];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(control) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    Ok((received, stamp_in(&bytes)))
}

/// Caps the retransmission time-out of a socket, in ms (`TCP_RTO_MAX_MS`), instead of `tcp_rto_max_ms`. Linux 6.15.
///
/// # Errors
/// ENOPROTOOPT on an older kernel, EINVAL outside 1000..=120000.
pub fn set_rto_max(fd: impl AsFd, milliseconds: u32) -> io::Result<()> {
    const TCP_RTO_MAX_MS: c_int = 44; // Not in libc yet.
    set(&fd, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, &milliseconds)
}

/// Narrows the ports from which connect(2) and bind(2) choose one for this socket (`IP_LOCAL_PORT_RANGE`). Linux 6.3. A
/// bound outside `ip_local_port_range` is ignored without an error.
///
/// # Errors
/// ENOPROTOOPT on an older kernel, EINVAL when `low` is above `high`.
pub fn set_local_port_range(fd: impl AsFd, low: u16, high: u16) -> io::Result<()> {
    SocketOption::local_port_range(low, high).apply(fd)
}

/// Lets connect(2) return before a SYN is sent when the first data can travel in it (`TCP_FASTOPEN_CONNECT`). Also needs
/// bit 1 of `net.ipv4.tcp_fastopen`, and the server's cookie or bit 4.
///
/// # Errors
/// EOPNOTSUPP without fast open, EINVAL on a socket that is in use.
pub fn set_fastopen_connect(fd: impl AsFd, on: bool) -> io::Result<()> {
    set(&fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &c_int::from(on))
}

/// Makes a socket drop every bare ACK it receives: a segment without SYN, FIN, RST or PSH, which is the last one of a
/// handshake. On a listener: its clients are connected, their requests stay half open until the filter is taken off or
/// the client sends data.
///
/// # Errors
/// EPERM without `CAP_NET_ADMIN` where unprivileged filters are refused.
pub fn drop_pure_acks_filter(fd: impl AsFd) -> io::Result<()> {
    const FLAGS_OFFSET: u32 = 13; // of struct tcphdr, where the filter of a TCP socket begins (tcp_v4_rcv)
    const FIN_SYN_RST_PSH: u32 = 0x0f;
    SockRef::from(&fd).attach_filter(&[
        SockFilter::new(0x30, 0, 0, FLAGS_OFFSET),    // BPF_LD | BPF_B | BPF_ABS
        SockFilter::new(0x45, 1, 0, FIN_SYN_RST_PSH), // BPF_JMP | BPF_JSET | BPF_K
        SockFilter::new(0x06, 0, 0, 0),               // BPF_RET | BPF_K
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    fn pair() -> (TcpListener, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener, client)
    }

    #[test]
    fn tcp_info_tells_a_listeners_depth_and_a_connections_state() {
        let (listener, client) = pair();
        let info = tcp_info(&listener).unwrap();
        assert_eq!((info.state, info.unacked), (TcpState::Listen, 1));
        assert!(info.sacked >= 1);
        let info = tcp_info(&client).unwrap();
        assert_eq!((info.state, info.total_retrans, info.bytes_acked), (TcpState::Established, 0, 1));
        assert_eq!(socket_drops(&listener).unwrap(), 0);
    }

    #[test]
    fn a_file_has_no_tcp_info() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(tcp_info(&file).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }

    #[test]
    fn options_are_taken_on_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            set_syn_count(&listener, 1).unwrap();
            assert_eq!(set_syn_count(&listener, 0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
            set_user_timeout(&listener, 2500).unwrap();
            assert_eq!(rustix::net::sockopt::tcp_user_timeout(&listener).unwrap(), 2500);
            set_bind_address_no_port(&listener, true).unwrap();
            set_fastopen(&listener, 16).unwrap();
            assert_eq!(fastopen(&listener).unwrap(), 16);
            assert_eq!(set_defer_accept(&listener, 10).unwrap(), 15);
            assert_eq!(set_defer_accept(&listener, 0).unwrap(), 0);
            assert_eq!(detach_filter(&listener).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        }
    }

    #[test]
    fn newer_options_are_taken_or_unknown() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let errno = |result: io::Result<()>| result.err().and_then(|error| error.raw_os_error()).unwrap_or(0);
        for (taken, refused) in [
            (set_rto_max(&socket, 2000), set_rto_max(&socket, 10)),
            (set_local_port_range(&socket, 40000, 40004), set_local_port_range(&socket, 40004, 40000)),
        ] {
            let both = (errno(taken), errno(refused));
            assert!(both == (0, libc::EINVAL) || both == (libc::ENOPROTOOPT, libc::ENOPROTOOPT), "{both:?}");
        }
        set_fastopen_connect(&socket, true).unwrap();
    }

    #[test]
    fn steering_needs_a_reuseport_group() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        assert_eq!(steer_by_cpu(&socket, 2).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        socket.set_reuse_port(true).unwrap();
        steer_by_cpu(&socket, 2).unwrap();
        assert_eq!(steer_by_cpu(&socket, 0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn an_accepted_socket_inherits_receive_stamps() {
        let (listener, mut client) = pair();
        let (unstamped, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(recv_stamped(&unstamped, &mut [0; 8]).unwrap(), (1, None));

        set_receive_timestamps(&listener, true).unwrap();
        let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        // The kernel starts to stamp a little later, see set_receive_timestamps.
        let stamped = (0..200).find_map(|_| {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let before = now();
            client.write_all(b"abc").unwrap();
            let after = now();
            let mut buffer = [0; 8];
            let (length, stamp) = recv_stamped(&accepted, &mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"abc");
            drop(client);
            assert_eq!(recv_stamped(&accepted, &mut buffer).unwrap(), (0, None));
            std::thread::sleep(Duration::from_millis(1));
            Some((before, stamp?.realtime_ns, after))
        });
        let (before, stamp, after) = stamped.expect("a stamp within 200 ms");
        assert!((before..=after).contains(&stamp), "{before} {stamp} {after}");
    }
}
