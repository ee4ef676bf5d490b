//! What a request is a step of: its user data, which comes back with its completion.

use crate::reactor::Token;

/// What a completion is of, in bits 24 to 31 of its user data, between the slot and the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    /// Socket, options, bind: completes when it failed.
    Open,
    Connect,
    /// What is linked to the connect and ends the connection: completes in its place.
    Tied,
    /// The connect is cancelled: completes when it could not be.
    Cut,
    /// What is looked at instead of a connect that was cancelled.
    Look,
    /// Completes when it failed.
    Say,
    Read,
    Install,
    /// Its failure changes nothing: the file was closed already.
    End,
    /// Somebody asked the worker to stop.
    Stop,
}

const STEPS: [Step; 10] = [
    Step::Open,
    Step::Connect,
    Step::Tied,
    Step::Cut,
    Step::Look,
    Step::Say,
    Step::Read,
    Step::Install,
    Step::End,
    Step::Stop,
];

impl Step {
    pub(super) fn user_data(self, token: Token) -> u64 {
        u64::from(token) | u64::from(self as u8) << 24
    }

    pub(super) fn of(user_data: u64) -> Option<(Self, Token)> {
        let step = STEPS.get(usize::from(user_data.to_le_bytes()[3]))?;
        Some((*step, Token::from(user_data & !0xff00_0000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_tells_its_step_and_its_attempt() {
        let token = Token { slot: 0x00ab_cdef, generation: 0xffff_fffe };
        for step in STEPS {
            assert_eq!(Step::of(step.user_data(token)), Some((step, token)));
        }
        assert_eq!(Step::of(0xff00_0000), None);
    }
}
