//! What a completion says of its attempt.

use io_uring::cqueue;
use rustix::io::Errno;

use super::step::Step;
use super::tie::Tie;
use super::{PIECE, Uring};
use crate::opts::{Confirm, Sockets};
use crate::reactor::{Seen, Token, Wants, compare};

impl Uring {
    /// Moves the slot on; `None` when there is nothing to be told, or nobody to be told of it.
    pub(super) fn interpret(&mut self, step: Step, token: Token, completion: &cqueue::Entry) -> Option<Seen> {
        let result = completion.result();
        let errno = (result < 0).then(|| Errno::from_raw_os_error(-result));
        let reads = usize::from(self.plan.opts.confirm != Confirm::None);
        match step {
            Step::Install => {
                self.note_installed(token, result);
                return None;
            }
            // The chain had not come to the connect, or the connect is over and what it is tied to not yet: once more.
            Step::Cut => {
                if let Some(slot) = self.slots.get_mut(token.index()).filter(|slot| slot.token == token)
                    && slot.tie == Tie::Cut
                {
                    slot.tie = Tie::Bound;
                    self.cut(token);
                }
                return None;
            }
            Step::Stop => {
                self.stopped = true;
                return None;
            }
            Step::End => return None,
            // What was linked to a quiet request that failed completes quietly, too.
            Step::Open => self.outstanding -= 1 + reads,
            Step::Say if errno == Some(Errno::CANCELED) => return None,
            Step::Say | Step::Connect | Step::Tied | Step::Look | Step::Read => self.outstanding -= 1,
        }
        let slot = self.slots.get_mut(token.index()).filter(|slot| slot.token == token)?;
        slot.waiting = match step {
            Step::Connect | Step::Look | Step::Read => slot.waiting.saturating_sub(1),
            _ => 0,
        };
        let (reset, tie) = (slot.reset, slot.tie);
        match (step, errno) {
            (Step::Open, Some(errno)) => {
                slot.tie = Tie::None;
                return Some(Seen::NoSocket(errno));
            }
            // Whatever became of the end, the connect it was tied to has succeeded.
            (Step::Tied, errno) if errno != Some(Errno::CANCELED) => {
                slot.tie = Tie::Done;
                self.hope.note(true);
                slot.open = self.plan.opts.sockets == Sockets::Reused;
                return Some(Seen::Connected);
            }
            (Step::Connect, Some(Errno::CANCELED)) if tie == Tie::Cut => {
                slot.tie = Tie::None;
                self.hope.note(false);
                self.look(token);
                return None;
            }
            // A receive tells the error.
            (Step::Look, None) if result & i32::from(libc::POLLERR | libc::POLLHUP) != 0 => {
                self.read_on(token);
                return None;
            }
            // Of a receive whose connect failed.
            (_, Some(Errno::CANCELED)) => return None,
            // The kernel asks for the error before it says that the handshake is over. What came between the two is there.
            (Step::Connect, Some(Errno::CONNRESET)) if reads > 0 => {
                slot.reset = true;
                self.read_on(token);
                return None;
            }
            (Step::Read, Some(_)) if reset => return Some(Seen::Failed(Errno::CONNRESET)),
            (_, Some(errno)) => {
                slot.tie = Tie::None;
                return Some(Seen::Failed(errno));
            }
            (Step::Connect | Step::Look, None) => {
                slot.wants = Wants::Answer;
                return Some(Seen::Connected);
            }
            _ => {}
        }
        let came = usize::try_from(result).unwrap_or(0);
        if came == 0 {
            return Some(if reset { Seen::Failed(Errno::CONNRESET) } else { Seen::Ended });
        }
        if slot.wants != Wants::End {
            let piece = &self.pieces[token.index() * PIECE..][..came.min(PIECE)];
            if let Some(seen) = compare(self.plan.opts.expect.bytes(), &mut slot.matched, piece) {
                return Some(seen);
            }
        }
        self.read_on(token);
        None
    }
}
