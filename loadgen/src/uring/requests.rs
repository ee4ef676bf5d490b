//! The requests of an attempt: the chain it begins with, and each receive after it.

use std::io;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{DestinationSlot, Fixed};

use super::step::Step;
use super::tie::Tie;
use super::{NOWHERE, NOWHERE_LENGTH, PIECE, Slot, Uring};
use crate::opts::{Confirm, Sockets};
use crate::reactor::{Token, Wants};

/// Bytes thrown away at once: with `MSG_TRUNC` of tcp(7) nothing is copied.
const AT_ONCE: u32 = 1 << 20;

impl Uring {
    /// The chain of an attempt.
    pub(super) fn push_attempt(&mut self, token: Token, source: Option<usize>) -> io::Result<()> {
        let (quiet, index) = (Flags::IO_LINK | Flags::SKIP_SUCCESS, token.index());
        let file = Fixed(token.slot);
        let reads = self.plan.opts.confirm != Confirm::None;
        self.room_for(self.plan.options.len() + 6)?;
        let step = |entry: Entry, step: Step, flags: Flags| entry.user_data(step.user_data(token)).flags(flags);
        if !self.slots[index].open {
            let family = if self.target.0.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
            let place = DestinationSlot::try_from_slot_target(token.slot).map_err(|_| io::Error::other("no slot"))?;
            let socket = opcode::Socket::new(family, libc::SOCK_STREAM, libc::IPPROTO_TCP).file_index(Some(place));
            self.push(&step(socket.build(), Step::Open, quiet));
            for number in 0..self.plan.options.len() {
                let option = &self.plan.options[number];
                let ((level, name), value) = (option.level_and_name(), option.value());
                let length = u32::try_from(size_of_val(value)).unwrap_or(0);
                let set = opcode::SetSockOpt::new(file, level, name, value.as_ptr().cast(), length);
                self.push(&step(set.build(), Step::Open, quiet));
            }
            if let Some(from) = source.map(|number| &self.sources[number]) {
                let bind = opcode::Bind::new(file, from.as_ptr().cast(), from.len());
                self.push(&step(bind.build(), Step::Open, quiet));
            }
        }
        let connect = opcode::Connect::new(file, self.target.1.as_ptr().cast(), self.target.1.len());
        let tied = self.ties && self.hope.is_alive();
        if tied {
            // What succeeds is told by the end that is tied to it. Where it fails the kernel drops the end without a word.
            self.push(&step(connect.build(), Step::Connect, quiet));
            self.push(&step(self.end(file), Step::Tied, Flags::empty()));
        } else {
            let link = if reads { Flags::IO_LINK } else { Flags::empty() };
            self.push(&step(connect.build(), Step::Connect, link));
        }
        if self.plan.opts.confirm == Confirm::Reply {
            let message = self.plan.opts.send.bytes();
            let length = u32::try_from(message.len()).unwrap_or(0);
            let say = opcode::Send::new(file, message.as_ptr(), length).flags(libc::MSG_NOSIGNAL);
            self.push(&step(say.build(), Step::Say, quiet));
        }
        let waiting = 1 + u8::from(reads);
        let tie = if tied { Tie::Bound } else { Tie::None };
        self.slots[index] =
            Slot { token, wants: Wants::Connection, matched: 0, waiting, open: true, reset: false, tie };
        self.outstanding += usize::from(waiting);
        if reads {
            let read = self.read(token);
            self.push(&read);
        }
        Ok(())
    }

    /// What makes the slot's file fit for the next attempt: nothing, of a socket that is used again, or no file.
    pub(super) fn end(&self, file: Fixed) -> Entry {
        match self.plan.opts.sockets {
            Sockets::Reused => opcode::Connect::new(file, &raw const NOWHERE, NOWHERE_LENGTH).build(),
            Sockets::Fresh => opcode::Close::new(file).build(),
        }
    }

    /// An event that tells the end of the handshake.
    pub(super) fn look(&mut self, token: Token) {
        if self.room_for(1).is_ok() {
            let look = opcode::PollAdd::new(Fixed(token.slot), libc::POLLOUT as u32).build();
            self.push(&look.user_data(Step::Look.user_data(token)));
            self.slots[token.index()].waiting += 1;
            self.outstanding += 1;
        }
    }

    /// A receive into the slot's own bytes; nowhere, when only the other side's end is of interest.
    fn read(&mut self, token: Token) -> Entry {
        let to_the_end = self.slots[token.index()].wants == Wants::End;
        let piece = &mut self.pieces[token.index() * PIECE..][..PIECE];
        let length = u32::try_from(piece.len()).unwrap_or(0);
        let (most, flags) = if to_the_end { (AT_ONCE, libc::MSG_TRUNC) } else { (length, 0) };
        let receive = opcode::Recv::new(Fixed(token.slot), piece.as_mut_ptr(), most).flags(flags);
        receive.build().user_data(Step::Read.user_data(token))
    }

    pub(super) fn read_on(&mut self, token: Token) {
        if self.room_for(1).is_ok() {
            let read = self.read(token);
            self.push(&read);
            self.slots[token.index()].waiting += 1;
            self.outstanding += 1;
        }
    }
}
