//! From trials to answers: results, ledger, quantities, conditions, the first screen and reports. Pure: no sockets,
//! no clock, nothing is ever run again.

pub mod answer;
pub mod binding;
pub mod condition;
pub mod csv;
pub mod design;
pub mod expectation;
pub mod explanation;
pub mod format;
pub mod inert;
pub mod ledger;
pub mod quantity;
pub mod queueing;
pub mod report;
pub mod results;
pub mod screen;
pub mod settings;
pub mod summary;
mod table;
#[cfg(test)]
mod testing;
pub mod window;
