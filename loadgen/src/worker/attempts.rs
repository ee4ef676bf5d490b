//! The table of attempts in flight: a slot each, reused, and the instants at which somebody must look at them.

use std::collections::VecDeque;

use crate::attempt::Attempt;
use crate::reactor::{MOST_SLOTS, Token};

/// Attempts by slot.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    attempt: Option<Attempt>,
    /// How often the slot was used: tells what is said of an attempt that is gone from what is said of its successor.
    generation: u32,
}

impl Attempts {
    /// How many slots are in use.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Names the next attempt, whose slot stays taken until [`Attempts::release`].
    pub(crate) fn reserve(&mut self) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            debug_assert!(self.slots.len() <= MOST_SLOTS, "a worker is never given more");
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = &mut self.slots[slot as usize].generation;
        *generation = generation.wrapping_add(1);
        Token { slot, generation: *generation }
    }

    /// Puts an attempt in its slot.
    pub(crate) fn put(&mut self, token: Token, attempt: Attempt) {
        self.slots[token.index()].attempt = Some(attempt);
    }

    /// The attempt of this name, unless it is gone.
    pub(crate) fn get(&self, token: Token) -> Option<&Attempt> {
        self.slots.get(token.index()).filter(|slot| slot.generation == token.generation)?.attempt.as_ref()
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Attempt> {
        self.slots.get_mut(token.index()).filter(|slot| slot.generation == token.generation)?.attempt.as_mut()
    }

    /// Frees a slot. Call it once for each [`Attempts::reserve`].
    pub(crate) fn release(&mut self, token: Token) {
        self.slots[token.index()].attempt = None;
        self.free.push(token.slot);
    }
}

/// Attempts in the order in which their time comes: each has the same time to live, so that the order of arrival is the
/// order in time.
#[derive(Debug, Default)]
pub(crate) struct Queue(VecDeque<(u64, Token)>);

impl Queue {
    /// The attempt's time comes at `at`, monotonic ns.
    pub(crate) fn push(&mut self, at: u64, token: Token) {
        self.0.push_back((at, token));
    }

    /// When the first one's time comes.
    pub(crate) fn first(&self) -> Option<u64> {
        self.0.front().map(|(at, _)| *at)
    }

    /// Takes the first one whose time has come by `now`. Those in front of it that do not concern the queue any more are
    /// forgotten.
    pub(crate) fn due(&mut self, now: u64, concerned: impl Fn(Token) -> bool) -> Option<Token> {
        while let Some(&(at, token)) = self.0.front() {
            if !concerned(token) {
                self.0.pop_front();
            } else if at <= now {
                self.0.pop_front();
                return Some(token);
            } else {
                return None;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::Stage;

    fn attempt(planned: u64) -> Attempt {
        Attempt { stage: Stage::Connecting, phase: 0, planned, issued: 0, established: 0 }
    }

    #[test]
    fn a_name_dies_with_its_attempt() {
        let mut attempts = Attempts::default();
        let first = attempts.reserve();
        attempts.put(first, attempt(1));
        assert_eq!((attempts.len(), attempts.get(first).map(|a| a.planned)), (1, Some(1)));
        attempts.release(first);
        let second = attempts.reserve();
        attempts.put(second, attempt(2));
        assert_eq!(first.slot, second.slot);
        assert!(attempts.get(first).is_none());
        assert_eq!(attempts.get(second).map(|a| a.planned), Some(2));
        assert!(attempts.get(Token::NONE).is_none());
    }

    #[test]
    fn a_queue_forgets_whom_it_does_not_concern() {
        let token = |slot| Token { slot, generation: 1 };
        let mut queue = Queue::default();
        for slot in 0..4 {
            queue.push(u64::from(slot) * 10, token(slot));
        }
        let concerned = |of: Token| of.slot != 1;
        assert_eq!(queue.due(9, concerned), Some(token(0)));
        assert_eq!(queue.due(9, concerned), None);
        assert_eq!(queue.first(), Some(20), "1 was forgotten");
        assert_eq!(queue.due(20, concerned), Some(token(2)));
    }

    #[test]
    fn an_attempt_takes_few_bytes() {
        // Beside it: 4 in the list of free slots, 16 in a queue, and what the engine keeps.
        assert!(size_of::<Slot>() <= 48, "{}", size_of::<Slot>());
    }
}
