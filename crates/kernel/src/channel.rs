//! The control channel between two processes of a run: a Unix stream that also carries descriptors.
//!
//! Safe shell over socketpair(2), sendmsg(2) and recvmsg(2) with `SCM_RIGHTS`. Source: unix(7), cmsg(3).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// Most descriptors the kernel passes in one message (`SCM_MAX_FD`, `include/net/scm.h`).
const MOST_DESCRIPTORS: usize = 253;

/// A connected pair of stream sockets, both close-on-exec.
///
/// # Errors
/// EMFILE or ENFILE when there are no descriptors left.
pub fn channel() -> io::Result<(UnixStream, UnixStream)> {
    UnixStream::pair()
}

/// Sends all of `payload`, with `fds` attached to its first byte. The payload must not be empty: a stream carries
/// descriptors only with data.
///
/// # Errors
/// `InvalidInput` for an empty payload or more than 253 descriptors, EPIPE when the other end is closed, ETOOMANYREFS
/// when too many are in flight. The stream must block: after `WouldBlock` it is not known what was sent.
pub fn send_fds(stream: &UnixStream, payload: &[u8], fds: &[BorrowedFd]) -> io::Result<()> {
    if payload.is_empty() || fds.len() > MOST_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "sending {} descriptors with {} bytes: needs 1 byte or more, at most 253",
                fds.len(),
                payload.len()
            ),
        ));
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("no room for the descriptors in the control message"));
    }
    let mut sent = rustix::io::retry_on_intr(|| {
        // NOSIGNAL: a dead peer is an error here, not a SIGPIPE.
        rustix::net::sendmsg(stream, &[IoSlice::new(payload)], &mut control, SendFlags::NOSIGNAL)
    })?;
    while sent < payload.len() {
        sent += rustix::io::retry_on_intr(|| rustix::net::send(stream, &payload[sent..], SendFlags::NOSIGNAL))?;
    }
    Ok(())
}

/// Receives once: the number of bytes put in `buf` (0 at the end of the stream) and the descriptors that came with
/// them, close-on-exec. A read never reaches past data that has other descriptors attached.
///
/// # Errors
/// `InvalidData` when more than `max` descriptors came: all are closed, none is lost in silence. Else those of
/// recvmsg(2).
pub fn recv_fds(stream: &UnixStream, buf: &mut [u8], max: usize) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(max))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(buf)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    // The padding of the control buffer may let one more than `max` through without CTRUNC.
    if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("receiving descriptors: more than the {max} expected came"),
        ));
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::FdFlags;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_arrive_with_their_bytes_and_close_on_exec() {
        let (left, right) = channel().unwrap();
        let (mut far, near) = channel().unwrap();
        send_fds(&left, b"plan", &[near.as_fd()]).unwrap();
        drop(near);
        let mut buffer = [0; 16];
        let (length, mut received) = recv_fds(&right, &mut buffer, 3).unwrap();
        assert_eq!((&buffer[..length], received.len()), (b"plan".as_slice(), 1));
        let descriptor = received.remove(0);
        assert!(rustix::io::fcntl_getfd(&descriptor).unwrap().contains(FdFlags::CLOEXEC));
        UnixStream::from(descriptor).write_all(b"hello").unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn an_unexpected_descriptor_is_an_error_and_is_closed() {
        for (max, sent) in [(0, 1), (1, 2), (1, 3)] {
            let (left, right) = channel().unwrap();
            let (mut far, near) = channel().unwrap();
            send_fds(&left, b"x", &vec![near.as_fd(); sent]).unwrap();
            drop(near);
            let error = recv_fds(&right, &mut [0; 4], max).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{max} {sent}");
            assert_eq!(far.read(&mut [0]).unwrap(), 0, "every copy was closed");
        }
    }

    #[test]
    fn a_long_payload_arrives_whole_and_the_end_is_zero() {
        let (left, right) = channel().unwrap();
        let payload = vec![7u8; 1_000_000];
        let sender = std::thread::spawn(move || send_fds(&left, &payload, &[left.as_fd()]));
        let (mut total, mut fds, mut buffer) = (0, 0, vec![0; 65536]);
        loop {
            let (length, received) = recv_fds(&right, &mut buffer, 1).unwrap();
            fds += received.len();
            total += length;
            if length == 0 {
                break;
            }
        }
        sender.join().unwrap().unwrap();
        assert_eq!((total, fds), (1_000_000, 1));
    }

    #[test]
    fn a_closed_peer_and_an_empty_payload_are_errors() {
        let (left, right) = channel().unwrap();
        assert_eq!(send_fds(&left, b"", &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop(right);
        assert_eq!(send_fds(&left, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
