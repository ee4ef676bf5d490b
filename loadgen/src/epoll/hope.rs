//! Is it worth asking, right after connect(2), whether the handshake is over already?
//!
//! Within one machine (loopback, veth) the kernel answers a SYN before connect(2) returns, and an attempt that needs no
//! confirmation is then over without ever having been in the set: two system calls less. Over a wire the answer would
//! always be no.

/// How often it is asked all the same where the answer was no.
const EVERY: u32 = 64;

/// What the last answers were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hope {
    /// Times the answer was no since it was last yes.
    noes: u32,
    /// Attempts nobody asked about since.
    passed: u32,
}

impl Hope {
    /// Most answers of no in a row before it is asked only now and then.
    const PATIENCE: u32 = 8;

    /// Shall it be asked about the attempt that begins?
    pub(super) fn is_worth_a_look(&mut self) -> bool {
        if self.noes < Self::PATIENCE {
            return true;
        }
        self.passed = (self.passed + 1) % EVERY;
        self.passed == 0
    }

    /// The answer.
    pub(super) fn note(&mut self, connected: bool) {
        self.noes = if connected { 0 } else { self.noes.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_after_some_noes_and_comes_back_with_a_yes() {
        let mut hope = Hope::default();
        for _ in 0..Hope::PATIENCE {
            assert!(hope.is_worth_a_look());
            hope.note(false);
        }
        let asked: Vec<usize> = (1..=200).filter(|_| hope.is_worth_a_look()).collect();
        assert_eq!(asked, [64, 128, 192]);
        hope.note(true);
        assert!((0..100).all(|_| hope.is_worth_a_look()));
    }
}
