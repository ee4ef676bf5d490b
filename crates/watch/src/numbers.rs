//! Labels of listeners: the address, and a number where several sockets listen on the same one. Pure.
//!
//! A number is kept until its listener is gone, whatever comes and goes beside it, so that a series means one socket for
//! its whole life; then the next newcomer takes the lowest free one.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

/// The numbers in use, by address.
#[derive(Debug, Default)]
pub(crate) struct Numbers(HashMap<SocketAddr, BTreeSet<u32>>);

impl Numbers {
    /// Takes the lowest free number of an address, from 1.
    pub(crate) fn take(&mut self, address: SocketAddr) -> u32 {
        let taken = self.0.entry(address).or_default();
        // They ascend: the first that is not its own place leaves that place free.
        let free = (1..).zip(taken.iter()).find(|(place, number)| place != *number).map(|(place, _)| place);
        let number = free.unwrap_or_else(|| taken.last().map_or(1, |last| last + 1));
        taken.insert(number);
        number
    }

    /// Gives a number back.
    pub(crate) fn give_back(&mut self, address: SocketAddr, number: u32) {
        if let Some(taken) = self.0.get_mut(&address) {
            taken.remove(&number);
            if taken.is_empty() {
                self.0.remove(&address);
            }
        }
    }
}

/// `address:port` for number 1, with `#2`, `#3`, … for the others.
pub(crate) fn label(address: SocketAddr, number: u32) -> String {
    if number == 1 { address.to_string() } else { format!("{address}#{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_the_lowest_free_one_comes_next() {
        let (mut numbers, address) = (Numbers::default(), "[::]:80".parse().unwrap());
        assert_eq!([(); 3].map(|()| numbers.take(address)), [1, 2, 3]);
        assert_eq!(numbers.take("[::1]:80".parse().unwrap()), 1, "another address");
        numbers.give_back(address, 1);
        assert_eq!(numbers.take(address), 1);
        numbers.give_back(address, 2);
        assert_eq!([(); 2].map(|()| numbers.take(address)), [2, 4]);
        for number in 1..=4 {
            numbers.give_back(address, number);
        }
        assert_eq!(numbers.0.len(), 1, "an address without listeners is forgotten");
    }

    #[test]
    fn labels_are_addresses_as_people_write_them() {
        assert_eq!(label("0.0.0.0:80".parse().unwrap(), 1), "0.0.0.0:80");
        assert_eq!(label("[::]:80".parse().unwrap(), 2), "[::]:80#2");
    }
}
