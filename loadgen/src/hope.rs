//! Is it worth hoping that the handshake will be over at once?
//!
//! Within one machine (loopback, veth) the kernel answers a SYN before connect(2) returns. An attempt that needs no
//! confirmation can then end without ever having been waited for: epoll asks right after connect(2), a ring ties the end to
//! the handshake. Over a wire, or before a full queue, that would be in vain, and cost more than it saves.

/// How often it is tried all the same where it was in vain.
const EVERY: u32 = 64;

/// How it went of late.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hope {
    /// Times in vain since it last came true.
    in_vain: u32,
    /// Attempts without hope since.
    passed: u32,
}

impl Hope {
    /// Most times in vain in a row before it is tried only now and then.
    const PATIENCE: u32 = 8;

    /// Is there hope for the attempt that begins?
    pub(crate) fn is_alive(&mut self) -> bool {
        if self.in_vain < Self::PATIENCE {
            return true;
        }
        self.passed = (self.passed + 1) % EVERY;
        self.passed == 0
    }

    /// What came of it: was the handshake over at once?
    pub(crate) fn note(&mut self, at_once: bool) {
        self.in_vain = if at_once { 0 } else { self.in_vain.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_when_in_vain_and_comes_back_when_it_comes_true() {
        let mut hope = Hope::default();
        for _ in 0..Hope::PATIENCE {
            assert!(hope.is_alive());
            hope.note(false);
        }
        let tried: Vec<usize> = (1..=200).filter(|_| hope.is_alive()).collect();
        assert_eq!(tried, [64, 128, 192]);
        hope.note(true);
        assert!((0..100).all(|_| hope.is_alive()));
    }
}
