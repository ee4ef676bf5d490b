//! The arrivals of a worker, the next two known.

/// An iterator of planned instants whose next two items can be looked at.
#[derive(Debug)]
pub(crate) struct Upcoming<I> {
    before: u64,
    next: Option<u64>,
    then: Option<u64>,
    rest: I,
}

impl<I: Iterator<Item = u64>> Upcoming<I> {
    pub(crate) fn of(mut rest: I) -> Self {
        let next = rest.next();
        let then = next.and_then(|_| rest.next());
        Self { before: 0, next, then, rest }
    }

    /// The next one, which stays the next one.
    pub(crate) fn next(&self) -> Option<u64> {
        self.next
    }

    /// The one after the next one.
    pub(crate) fn then(&self) -> Option<u64> {
        self.then
    }

    /// The one before the next one; 0 where there is none.
    pub(crate) fn before(&self) -> u64 {
        self.before
    }

    /// The next one is over.
    pub(crate) fn advance(&mut self) {
        self.before = self.next.unwrap_or(self.before);
        self.next = self.then.take();
        self.then = self.next.and_then(|_| self.rest.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_one_comes_once_and_in_order() {
        for n in 0..5_u64 {
            let mut upcoming = Upcoming::of(0..n);
            for at in 0..n {
                assert_eq!((upcoming.next(), upcoming.then()), (Some(at), (at + 1 < n).then_some(at + 1)));
                assert_eq!(upcoming.before(), at.saturating_sub(1));
                upcoming.advance();
            }
            for _ in 0..2 {
                assert_eq!((upcoming.next(), upcoming.then(), upcoming.before()), (None, None, n.saturating_sub(1)));
                upcoming.advance();
            }
        }
    }

    /// An iterator may begin anew after its end; this one is not asked to.
    #[test]
    fn what_has_ended_is_not_asked_again() {
        let mut turn = 0;
        let mut upcoming = Upcoming::of(std::iter::from_fn(|| {
            turn += 1;
            (turn % 2 == 1).then_some(turn)
        }));
        assert_eq!(upcoming.next(), Some(1));
        upcoming.advance();
        upcoming.advance();
        assert_eq!((upcoming.next(), upcoming.then()), (None, None));
    }
}
