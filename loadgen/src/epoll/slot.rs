//! One slot of the engine `epoll`: a socket, and what is said and read through it.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::reactor::{Seen, Token, Wants, compare};

/// Bytes read at once; no expectation is longer.
const PIECE: usize = 64;

/// Bytes read at once to be thrown away, and how often before others have their turn.
const SCRAP: usize = 16 * 1024;
const SCRAPS: usize = 16;

/// What there is of one slot.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) socket: Option<OwnedFd>,
    pub(super) token: Token,
    pub(super) wants: Wants,
    matched: u8,
    /// Bytes of what the client has to say that it has said.
    pub(super) said: usize,
    /// Is there more to be thrown away? No event will tell.
    pub(super) more: bool,
    /// Is the socket in the set?
    pub(super) watched: bool,
    /// Is it there under this attempt's name?
    pub(super) named: bool,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            socket: None,
            token: Token::NONE,
            wants: Wants::Connection,
            matched: 0,
            said: 0,
            more: false,
            watched: false,
            named: false,
        }
    }
}

impl Slot {
    /// An attempt begins. The socket of the one before it stays, if there is one.
    pub(super) fn begin(&mut self, token: Token) {
        *self = Self { socket: self.socket.take(), watched: self.watched, token, ..Self::default() };
    }

    /// Is it this attempt's, and has it a socket?
    pub(super) fn is_of(&self, token: Token) -> bool {
        self.token == token && self.socket.is_some()
    }

    /// Sends what is left of the client's first bytes. They fit any send buffer; a failure shows when the answer is read.
    pub(super) fn speak(&mut self, message: &[u8]) {
        let rest = message.get(self.said..).unwrap_or_default();
        self.said = message.len();
        if let (Some(socket), false) = (&self.socket, rest.is_empty()) {
            let _ = send(socket, rest, SendFlags::NOSIGNAL);
        }
    }

    /// Reads until nothing is left, or until the attempt has what it waits for. While it is connecting nothing but a
    /// failure tells that it is not connected.
    pub(super) fn read(&mut self, expected: &[u8]) -> Option<Seen> {
        if self.wants == Wants::End {
            return self.throw_away();
        }
        let mut piece = [0; PIECE];
        loop {
            match recv(self.socket.as_ref()?, &mut piece, RecvFlags::empty()) {
                Ok((0, _)) => return Some(Seen::Ended),
                Ok((length, _)) => {
                    if let Some(seen) = compare(expected, &mut self.matched, &piece[..length]) {
                        return Some(seen);
                    }
                }
                // ENOTCONN: the handshake is not over.
                Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => return None,
                Err(errno) => return Some(Seen::Failed(errno)),
            }
        }
    }

    /// Reads what nobody wants, up to the other side's end. One that never ends and never pauses must not stop the worker.
    pub(super) fn throw_away(&mut self) -> Option<Seen> {
        let mut scrap = [MaybeUninit::<u8>::uninit(); SCRAP];
        self.more = false;
        for _ in 0..SCRAPS {
            match recv(self.socket.as_ref()?, &mut scrap, RecvFlags::empty()) {
                Ok((_, 0)) => return Some(Seen::Ended),
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => return None,
                Err(errno) => return Some(Seen::Failed(errno)),
            }
        }
        self.more = true;
        None
    }
}
