//! The open connections of a loop: watched by one-shot polls in the same ring.

use std::io;
use std::os::fd::AsFd;

use io_uring::opcode;
use io_uring::types::CancelBuilder;
use kernel::process::monotonic_ns;
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::{Loop, requests};
use crate::acceptor::Acceptor;
use crate::connections::Token;

/// How often an acceptor that only serves what is open looks whether it must end at once.
const LOOK_NS: u64 = 10_000_000;

/// How long the end of cancelled polls is waited for.
const CANCEL_NS: u64 = 100_000_000;

impl Loop {
    pub(super) fn serve_what_is_open(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        self.advance(acceptor)?;
        while !self.connections.is_empty() && !acceptor.desk.must_end() {
            let look = monotonic_ns() + LOOK_NS;
            self.wait(Some(self.next_look().map_or(look, |next| next.min(look))))?;
            self.reap(acceptor)?;
            self.advance(acceptor)?;
        }
        self.cancel_polls(acceptor)?;
        self.connections.close_all(acceptor.tally());
        Ok(())
    }

    /// Ends the polls in flight, so that closing what they watch closes it.
    fn cancel_polls(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        let until = monotonic_ns() + CANCEL_NS;
        if self.polls > 0 {
            // Linux 5.19; before, dropping the ring has to do.
            self.push(acceptor, &opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(requests::CANCEL))?;
        }
        while self.polls > 0 && monotonic_ns() < until {
            self.wait(Some(until))?;
            self.reap(acceptor)?;
        }
        Ok(())
    }

    /// Asks once for what an open connection waits for.
    pub(super) fn watch(&mut self, acceptor: &Acceptor, token: Token) -> io::Result<()> {
        let Some(connection) = self.connections.get(token) else { return Ok(()) };
        let wants = if connection.wants_to_send() { PollFlags::OUT } else { PollFlags::IN | PollFlags::RDHUP };
        let request = requests::poll(connection.as_fd(), wants, token);
        self.push(acceptor, &request)?;
        self.polls += 1;
        Ok(())
    }

    /// Lets connections go on: those whose polls have ended, and those that are due.
    pub(super) fn advance(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        for (token, result) in ready.drain(..) {
            if result < 0 && Errno::from_raw_os_error(-result) != Errno::CANCELED {
                // ENOMEM: nobody would ever look at it again.
                self.connections.abandon(token, acceptor.tally());
            } else if result >= 0 && self.connections.advance(token, monotonic_ns(), acceptor.tally()) {
                self.watch(acceptor, token)?;
            }
        }
        if self.ready.is_empty() {
            self.ready = ready;
        }
        let now = monotonic_ns();
        while let Some(token) = self.connections.pop_due(now) {
            // One that goes on goes on being watched.
            if !self.connections.advance(token, now, acceptor.tally()) {
                self.push(acceptor, &requests::cancel(token))?;
            }
        }
        Ok(())
    }
}
