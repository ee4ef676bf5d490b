//! What a worker asks of the engine that drives its sockets, whatever the engine is. One `match` when the generator starts
//! chooses it; from then on calls are static.
//!
//! An attempt lives in a slot, and a [`Token`] names it: what an engine still has to say of an attempt that is gone never
//! meets its successor in the slot.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::attempt::NotIssued;

/// Most slots of one worker: what a token has room for.
pub(crate) const MOST_SLOTS: usize = 1 << 24;

/// Names an attempt: its slot, and how often the slot was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// What no attempt is called.
    pub(crate) const NONE: Self = Self { slot: u32::MAX, generation: u32::MAX };

    /// As an index into a table of slots.
    pub(crate) fn index(self) -> usize {
        self.slot as usize
    }
}

impl From<u64> for Token {
    fn from(number: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        Self { slot: number as u32, generation: (number >> 32) as u32 }
    }
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        Self::from(token.generation) << 32 | Self::from(token.slot)
    }
}

/// What happened to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// No socket could be opened, or prepared: connect(2) was never called.
    NoSocket(Errno),
    /// The handshake ended.
    Connected,
    /// All came that an answer must begin with.
    Answered,
    /// Something else came.
    WrongAnswer,
    /// The other side closed.
    Ended,
    /// The connection failed, or the attempt at one.
    Failed(Errno),
}

/// What an attempt waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// The end of the handshake.
    Connection,
    /// What confirms it.
    Answer,
    /// The other side's end; what comes before is thrown away.
    End,
}

/// Compares what came with what an answer must begin with; `matched` bytes of it had come before. `None`: as expected so
/// far, and more is to come.
pub(crate) fn compare(expected: &[u8], matched: &mut u8, came: &[u8]) -> Option<Seen> {
    let rest = &expected[usize::from(*matched)..];
    let common = rest.len().min(came.len());
    if rest[..common] != came[..common] {
        return Some(Seen::WrongAnswer);
    }
    // An expectation has at most 64 bytes.
    *matched += u8::try_from(common).unwrap_or(u8::MAX);
    (common == rest.len()).then_some(Seen::Answered)
}

/// Drives the sockets of one worker. Every call comes from the worker's thread, [`Reactor::enter`] first.
pub(crate) trait Reactor {
    /// Binds itself to the calling thread.
    fn enter(&mut self) -> io::Result<()>;

    /// Opens a socket for the attempt, from `source` (a number among the
    /// plan's addresses) if there is one, and begins to connect it to `target`. Returns the
    /// instant right before connect(2), monotonic ns.
    fn open(&mut self, token: Token, target: SocketAddr, source: Option<usize>) -> Result<u64, NotIssued>;

    /// The wait after the next one will end at `then` (monotonic ns) if nothing happens. An engine may prepare for it.
    fn foresee(&mut self, _then: u64) {}

    /// Waits until something has happened, or until `until` (monotonic ns; in the past: not at all; `None`: for ever).
    fn wait(&mut self, until: Option<u64>) -> io::Result<()>;

    /// The next of what has happened; `None`: [`Reactor::wait`] again.
    fn next(&mut self) -> Option<(Token, Seen)>;

    /// Whether something has happened to this attempt that [`Reactor::next`] has not told yet. What it tells here, it does
    /// not tell again.
    fn look_again(&mut self, token: Token) -> Option<Seen>;

    /// May a connection end by itself, with its handshake? Then the worker cuts slow ones loose ([`Reactor::untie`]).
    fn ties(&self) -> bool {
        false
    }

    /// Will this connection end by itself as things are?
    fn is_tied(&self, _token: Token) -> bool {
        false
    }

    /// The attempt takes longer than most: its connection must not end by itself any more, so that it can be asked. What
    /// never ends by itself need not listen.
    fn untie(&mut self, _token: Token) {}

    /// Asks the attempt's socket; `None` when there is none.
    fn with_socket<T>(&mut self, token: Token, ask: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T>;

    /// From now on the attempt only waits for the other side's end.
    fn watch_end(&mut self, token: Token);

    /// shutdown(2) with `SHUT_WR`: sends a FIN.
    fn shut(&mut self, token: Token);

    /// Ends the attempt's socket; with `fit` it is one that may be connected again, if sockets are reused.
    fn close(&mut self, token: Token, fit: bool);

    /// Closes what is still open. Nothing of the worker is left in the kernel afterwards.
    fn finish(&mut self) -> io::Result<()>;
}

#[cfg(test)]
pub(crate) mod tests;
