//! From trials to answers: results, ledger, quantities, conditions, the first screen and reports. Pure: no sockets,
//! no clock, nothing is ever run again.

pub mod answer;
pub mod binding;
pub mod capacity;
pub mod compare;
pub mod condition;
pub mod csv;
pub mod design;
pub mod expectation;
pub mod explanation;
pub mod finding;
pub mod format;
pub mod html;
pub mod inert;
pub mod interval;
pub mod ledger;
pub mod merge;
pub mod permutation;
pub mod quantity;
pub mod queueing;
mod random;
pub mod reach;
pub mod report;
pub mod results;
pub mod screen;
pub mod search;
pub mod settings;
pub mod student;
pub mod summary;
mod table;
#[cfg(test)]
mod testing;
pub mod window;
