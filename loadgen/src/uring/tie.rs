//! An end that is tied to the handshake. An attempt that needs no confirmation, and whose socket is not kept, is over the
//! instant its connect is: the kernel ends it in the same breath, before the server can, which saves segments and a turn of
//! the worker.
//!
//! Such a socket cannot be asked afterwards whether its SYN was sent again. Nothing is sent again within a tick of the
//! kernel's clock, so an attempt that takes nearly as long is cut loose: its connect is cancelled, which takes what is
//! linked to it along, and the handshake goes on by itself; a poll tells its end.

use io_uring::opcode;
use io_uring::squeue::Flags;

use super::Uring;
use super::step::Step;
use crate::reactor::Token;

/// Is the end of the attempt's connection tied to its handshake?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    /// The worker ends it.
    None,
    /// The kernel does, at once.
    Bound,
    /// The kernel was asked not to.
    Cut,
    /// It has: the file is gone, or fit for the next attempt.
    Done,
}

impl Uring {
    /// Asks the kernel not to end the connection.
    pub(super) fn cut(&mut self, token: Token) {
        let Some(slot) = self.slots.get_mut(token.index()).filter(|slot| slot.token == token) else { return };
        if slot.tie == Tie::Bound {
            slot.tie = Tie::Cut;
            if self.room_for(1).is_ok() {
                let cut = opcode::AsyncCancel::new(Step::Connect.user_data(token)).build();
                self.push(&cut.user_data(Step::Cut.user_data(token)).flags(Flags::SKIP_SUCCESS));
            }
        }
    }

    /// Makes sure that nothing of the attempt's chain is left that could end its file's next life. By the time an attempt
    /// has its verdict its end was cut from it long ago.
    pub(super) fn settle_tie(&mut self, token: Token) {
        self.cut(token);
        for _ in 0..=self.plan.options.len() + 6 {
            if self.slots[token.index()].tie != Tie::Cut || self.submit().is_err() {
                return;
            }
            self.take_in();
        }
    }
}
