//! Socket options as data, so that one list serves both setsockopt(2) and `io_uring`'s requests.
//!
//! Source: socket(7), tcp(7), ip(7).

use std::io;
use std::os::fd::AsFd;

use libc::c_int;

use crate::sockopt;

/// Not in libc yet.
const IP_LOCAL_PORT_RANGE: c_int = 51;

/// One option and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOption {
    level: c_int,
    name: c_int,
    value: [c_int; 2],
    /// Integers of `value` that count: 1 or 2.
    integers: usize,
}

impl SocketOption {
    const fn one(level: c_int, name: c_int, value: c_int) -> Self {
        Self { level, name, value: [value, 0], integers: 1 }
    }

    /// `SO_LINGER {1, 0}`: closing sends a RST, leaves no `TIME_WAIT`.
    pub const fn reset_on_close() -> Self {
        Self { level: libc::SOL_SOCKET, name: libc::SO_LINGER, value: [1, 0], integers: 2 }
    }

    /// `IP_BIND_ADDRESS_NO_PORT`: see [`sockopt::set_bind_address_no_port`].
    pub const fn bind_address_no_port() -> Self {
        Self::one(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
    }

    /// `IP_LOCAL_PORT_RANGE`: see [`sockopt::set_local_port_range`].
    pub const fn local_port_range(low: u16, high: u16) -> Self {
        Self::one(libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, ((high as u32) << 16 | low as u32).cast_signed())
    }

    /// `TCP_SYNCNT`: see [`sockopt::set_syn_count`].
    pub const fn syn_count(count: u8) -> Self {
        Self::one(libc::IPPROTO_TCP, libc::TCP_SYNCNT, count as c_int)
    }

    /// `TCP_USER_TIMEOUT`, ms: see [`sockopt::set_user_timeout`].
    pub const fn user_timeout(milliseconds: u32) -> Self {
        Self::one(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, milliseconds.cast_signed())
    }

    /// setsockopt(2).
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn apply(&self, fd: impl AsFd) -> io::Result<()> {
        if self.integers == 1 {
            sockopt::set(&fd, self.level, self.name, &self.value[0])
        } else {
            sockopt::set(&fd, self.level, self.name, &self.value)
        }
    }

    /// Level and name, as setsockopt(2) takes them.
    pub fn level_and_name(&self) -> (u32, u32) {
        (self.level.cast_unsigned(), self.name.cast_unsigned())
    }

    /// The value's memory and its length in bytes.
    pub fn value(&self) -> &[c_int] {
        &self.value[..self.integers]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt as rx;
    use std::time::Duration;

    #[test]
    fn options_are_set_and_read_back() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        SocketOption::reset_on_close().apply(&socket).unwrap();
        assert_eq!(rx::socket_linger(&socket).unwrap(), Some(Duration::ZERO));
        SocketOption::user_timeout(2500).apply(&socket).unwrap();
        assert_eq!(rx::tcp_user_timeout(&socket).unwrap(), 2500);
        SocketOption::bind_address_no_port().apply(&socket).unwrap();
        SocketOption::syn_count(3).apply(&socket).unwrap();
        assert_eq!(SocketOption::syn_count(0).apply(&socket).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(SocketOption::reset_on_close().value(), [1, 0]);
        assert_eq!(SocketOption::local_port_range(1, 2).value(), [0x0002_0001]);
    }
}
