//! The open connections of one acceptor that serves several at once: found by token, and by the time they are due.

use std::collections::VecDeque;

use crate::connection::{Connection, End};
use crate::tally::Tally;

/// Names a connection for as long as it is open; never 0, and never the name of another one within 2^32 uses of a place.
pub(crate) type Token = u64;

/// Connections in places that are used again.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    places: Vec<Option<Connection>>,
    /// How often a place was used: tells an event of a connection that is gone from one of its successor.
    uses: Vec<u32>,
    free: Vec<u32>,
    /// When connections are due, in the order they came, which is their order in time: all are held equally long.
    due: VecDeque<(u64, Token)>,
}

impl Connections {
    /// Takes a connection in.
    pub(crate) fn insert(&mut self, connection: Connection) -> Token {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.uses.push(0);
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        let index = place as usize;
        self.uses[index] = self.uses[index].wrapping_add(1).max(1);
        let token = u64::from(self.uses[index]) << 32 | u64::from(place);
        if let Some(until) = connection.until() {
            self.due.push_back((until, token));
        }
        self.places[index] = Some(connection);
        token
    }

    /// The connection of a token, unless it is gone.
    pub(crate) fn get(&self, token: Token) -> Option<&Connection> {
        self.places[self.place(token)?].as_ref()
    }

    /// Lets a connection go on at `now` (monotonic ns); counts and closes it when that was its end. True while it is open.
    pub(crate) fn advance(&mut self, token: Token, now: u64, tally: &Tally) -> bool {
        let Some(place) = self.place(token) else { return false };
        let Some(connection) = self.places[place].as_mut() else { return false };
        match connection.advance(now, tally) {
            Some(end) => {
                self.close(place, end, tally);
                false
            }
            None => true,
        }
    }

    /// Closes a connection that the engine cannot watch.
    pub(crate) fn abandon(&mut self, token: Token, tally: &Tally) {
        if let Some(place) = self.place(token) {
            self.close(place, End::Error, tally);
        }
    }

    /// Lets go on what is due at `now` (monotonic ns).
    pub(crate) fn advance_due(&mut self, now: u64, tally: &Tally) {
        while let Some(token) = self.pop_due(now) {
            self.advance(token, now, tally);
        }
    }

    /// Takes the next connection that is due at `now` (monotonic ns) off the clock.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<Token> {
        while let Some((until, token)) = self.due.front().copied() {
            let open = self.place(token).is_some();
            if open && until > now {
                return None;
            }
            self.due.pop_front();
            if open {
                return Some(token);
            }
        }
        None
    }

    /// When the next connection is due (monotonic ns).
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.due.front().map(|(until, _)| *until)
    }

    /// Are all gone?
    pub(crate) fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }

    /// Closes all that are left.
    pub(crate) fn close_all(&mut self, tally: &Tally) {
        for place in 0..self.places.len() {
            self.close(place, End::Server, tally);
        }
    }

    fn place(&self, token: Token) -> Option<usize> {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the place, the high half its use")]
        let (place, r#use) = (token as u32 as usize, (token >> 32) as u32);
        (self.uses.get(place) == Some(&r#use) && self.places[place].is_some()).then_some(place)
    }

    fn close(&mut self, place: usize, end: End, tally: &Tally) {
        if self.places[place].take().is_some() {
            tally.close(end);
            self.free.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
    }
}
