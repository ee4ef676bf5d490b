//! Just enough netlink: messages with attributes, acknowledged requests and dumps.
//!
//! Owns the framing shared by [`crate::link`] and [`crate::sock_diag`]. It refuses to guess: a reply that does not fit
//! its own lengths is [`Failure::Malformed`]. Everything is in host byte order. Source: netlink(7),
//! `include/uapi/linux/netlink.h`, `Documentation/userspace-api/netlink/intro.rst`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `sizeof(struct nlmsghdr)`.
const HEADER: usize = 16;
/// `sizeof(struct nlattr)`.
const ATTRIBUTE_HEADER: usize = 4;

/// `NLM_F_REQUEST`: every message to the kernel.
pub(crate) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: answer with an error message, errno 0 when it worked.
pub(crate) const ACK: u16 = 0x4;
/// `NLM_F_ROOT | NLM_F_MATCH`: list everything.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`: fail when the object exists.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`: make the object.
pub(crate) const CREATE: u16 = 0x400;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A netlink exchange failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A system call on the socket failed.
    Io(io::Error),
    /// The kernel refused the request with this errno.
    Refused(io::Error),
    /// The reply contradicts its own lengths.
    Malformed(&'static str),
}

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Rounds up to the 4-byte alignment of messages and attributes.
const fn align(length: usize) -> usize {
    (length + 3) & !3
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..offset + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The `u32` in host byte order at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// A request under construction. Its length and sequence number are filled in when it is sent.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of type `kind` (`nlmsg_type`) with [`REQUEST`] and `flags`.
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Self { bytes }
    }

    /// Appends a fixed structure, padded to 4 bytes.
    pub(crate) fn push(&mut self, structure: &[u8]) {
        self.bytes.extend_from_slice(structure);
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    /// Appends an attribute with the given payload.
    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) {
        self.nested(kind, |message| message.bytes.extend_from_slice(payload));
    }

    /// Appends an attribute whose payload is what `fill` appends.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.resize(start + ATTRIBUTE_HEADER, 0);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    /// The message as it goes out.
    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// One message of a received datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// `NLMSG_ERROR` or `NLMSG_DONE` with this errno; 0 is success and the end.
    End(i32),
    /// Any other message: its payload.
    Payload(&'a [u8]),
}

/// The messages of one datagram that answer `sequence`; others (an earlier, abandoned exchange) are skipped.
pub(crate) fn messages(datagram: &[u8], sequence: u32) -> impl Iterator<Item = Result<Received<'_>, Failure>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let Some((header, payload, next)) = split_message(rest) else {
                rest = &[];
                return Some(Err(Failure::Malformed("a message is longer than its datagram")));
            };
            rest = next;
            if u32_at(header, 8) != Some(sequence) {
                continue;
            }
            return Some(match u16_at(header, 4) {
                Some(NLMSG_ERROR | NLMSG_DONE) => match u32_at(payload, 0) {
                    Some(code) => Ok(Received::End(code.cast_signed().saturating_neg())),
                    None => Err(Failure::Malformed("an end message has no error code")),
                },
                _ => Ok(Received::Payload(payload)),
            });
        }
    })
}

/// Header, payload and what follows.
fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let payload = bytes.get(HEADER..length)?;
    Some((&bytes[..HEADER], payload, bytes.get(align(length)..).unwrap_or(&[])))
}

/// The attributes of a payload, as (type, value). Ends at the first one that does not fit.
pub(crate) fn attributes(payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)?;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(align(length)..).unwrap_or(&[]);
        // The two top bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        Some((kind & 0x3fff, value))
    })
}

/// A netlink socket of the namespace in which it was opened, for good.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket for `protocol`; `None` is `NETLINK_ROUTE`, which has number 0.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let descriptor =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        // The kernel fills a dump's datagrams up to the largest buffer it has seen, at most 32 KiB (af_netlink.c,
        // netlink_recvmsg): a large buffer means fewer calls.
        Ok(Self { descriptor, sequence: 0, buffer: vec![0; 64 * 1024] })
    }

    /// The descriptor, for ioctls that need any socket of this namespace.
    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// Sends a request that has [`ACK`] and waits for its acknowledgement.
    pub(crate) fn request(&mut self, message: Message) -> Result<(), Failure> {
        self.exchange(message, |_| Ok(()))
    }

    /// Sends `message` and hands every payload to `each` until the end message. The kernel always answers, so this
    /// waits without a time limit.
    pub(crate) fn exchange(
        &mut self,
        message: Message,
        mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        // An unconnected, unbound netlink socket sends to port 0: the kernel.
        rustix::io::retry_on_intr(|| rustix::net::send(&self.descriptor, &bytes, SendFlags::empty()))?;
        loop {
            let (_, length) = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.descriptor, self.buffer.as_mut_slice(), RecvFlags::TRUNC)
            })?;
            let datagram =
                self.buffer.get(..length).ok_or(Failure::Malformed("a datagram is longer than the buffer"))?;
            for received in messages(datagram, self.sequence) {
                match received? {
                    Received::End(0) => return Ok(()),
                    Received::End(errno) => {
                        return Err(Failure::Refused(io::Error::from_raw_os_error(errno)));
                    }
                    Received::Payload(payload) => each(payload)?,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_has_the_layout_of_the_kernel() {
        let mut message = Message::new(16, ACK);
        message.push(&[1, 2, 3, 4]);
        message.nested(18, |inner| inner.attribute(1, b"veth"));
        message.attribute(3, b"a\0");
        let bytes = message.finish(7);
        assert_eq!(u32_at(&bytes, 0), Some(40));
        assert_eq!((u16_at(&bytes, 4), u16_at(&bytes, 6)), (Some(16), Some(REQUEST | ACK)));
        assert_eq!(u32_at(&bytes, 8), Some(7));
        let outer: Vec<_> = attributes(&bytes[20..]).collect();
        assert_eq!(outer.len(), 2);
        assert_eq!(attributes(outer[0].1).collect::<Vec<_>>(), [(1, b"veth".as_slice())]);
        assert_eq!(outer[1], (3, b"a\0".as_slice()));
    }

    fn datagram(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut message = Message::new(kind, 0);
        message.push(payload);
        message.finish(sequence)
    }

    #[test]
    fn replies_are_split_and_foreign_sequences_skipped() {
        let mut bytes = datagram(20, 1, b"old!");
        bytes.extend(datagram(20, 2, b"ours"));
        bytes.extend(datagram(NLMSG_ERROR, 2, &(-libc::EPERM).to_ne_bytes()));
        bytes.extend(datagram(NLMSG_DONE, 2, &0i32.to_ne_bytes()));
        let seen: Vec<_> = messages(&bytes, 2).map(Result::unwrap).collect();
        assert_eq!(seen, [Received::Payload(b"ours"), Received::End(libc::EPERM), Received::End(0)]);
    }

    #[test]
    fn a_truncated_message_is_an_error_and_the_end() {
        let bytes = datagram(20, 2, b"ours");
        let seen: Vec<_> = messages(&bytes[..18], 2).collect();
        assert!(matches!(seen.as_slice(), [Err(Failure::Malformed(_))]));
        let empty = datagram(NLMSG_DONE, 2, b"");
        assert!(matches!(messages(&empty, 2).next(), Some(Err(Failure::Malformed(_)))));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_ends(bytes: Vec<u8>, sequence: u32) {
            prop_assert!(messages(&bytes, sequence).count() <= bytes.len());
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
