//! One listener by its address, for those who look a thousand times a second: no walk through a table
//! (`inet_diag_find_one_icsk`).

use std::net::{IpAddr, SocketAddr};

use super::{
    AF_INET, DiagError, Filter, INTERFACE, ListenerEntry, SockDiag, TCPDIAG_GETSOCK, WITH_SKMEMINFO, listener, mask,
    request,
};
use crate::netlink::{ACK, Failure, Message};
use crate::sockopt::TcpState;

const AF_INET6: u8 = 10;

impl SockDiag {
    /// The listener that connections to this address over this network device reach, if there is one. `interface` is its
    /// index, 0 for a listener that is bound to none. Of several on one address (`SO_REUSEPORT`) it is any: compare the inode.
    ///
    /// # Errors
    /// [`DiagError`] when the kernel cannot be asked.
    pub fn listener(&mut self, local: SocketAddr, interface: u32) -> Result<Option<ListenerEntry>, DiagError> {
        const WHAT: &str = "a listener";
        let mut message = Message::new(TCPDIAG_GETSOCK, ACK);
        message.push(&request_for(local, interface));
        let mut found = None;
        let asked = self.socket.exchange(message, |reply| {
            found = Some(listener(reply).ok_or(Failure::Malformed("a listener's entry is too short"))?);
            Ok(())
        });
        match asked {
            Ok(()) => Ok(found),
            Err(Failure::Refused(source)) if source.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(failure) => Err(DiagError::new(WHAT, failure)),
        }
    }
}

/// The request whose socket is named by its local address; nothing is at the other end.
fn request_for(local: SocketAddr, interface: u32) -> [u8; 60] {
    let filter = Filter {
        states: mask(&[TcpState::Listen]),
        local_port: local.port(),
        extensions: WITH_SKMEMINFO,
        ..Filter::default()
    };
    let mut bytes = request(filter);
    bytes[INTERFACE..INTERFACE + 4].copy_from_slice(&interface.to_ne_bytes());
    match local.ip() {
        IpAddr::V4(address) => {
            bytes[0] = AF_INET;
            bytes[8..12].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            bytes[0] = AF_INET6;
            bytes[8..24].copy_from_slice(&address.octets());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_one_listener_is_what_the_dump_says_and_gone_with_its_socket() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(ours) = TcpListener::bind(address) else { continue };
            let local = ours.local_addr().unwrap();
            let connected =
                TcpStream::connect((if local.is_ipv4() { "127.0.0.1" } else { "::1" }, local.port())).unwrap();
            let mut diag = SockDiag::open().unwrap();
            let one = diag.listener(local, 0).unwrap().expect("our own");
            let all = diag.listeners().unwrap();
            assert_eq!(Some(&one), all.iter().find(|entry| entry.inode == one.inode), "{address}");
            assert_eq!((one.local, one.depth, one.drops), (local, 1, Some(0)));
            drop((ours, connected));
            assert_eq!(diag.listener(local, 0).unwrap(), None, "{address}");
        }
    }

    #[test]
    fn a_listener_of_one_device_is_found_by_it() {
        let ours = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        ours.bind_device(Some(b"lo")).unwrap();
        ours.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        ours.listen(4).unwrap();
        let local = ours.local_addr().unwrap().as_socket().unwrap();
        let mut diag = SockDiag::open().unwrap();
        let all = diag.listeners().unwrap();
        let entry = all.iter().find(|entry| entry.local == local).expect("our own");
        assert_eq!(entry.interface, 1, "the loopback is the first device of any namespace");
        assert_eq!(diag.listener(local, entry.interface).unwrap().as_ref(), Some(entry));
        assert_eq!(diag.listener(local, 0).unwrap(), None);
    }
}
