//! End to end: the built program, real namespaces, real kernel counters.

mod attached;
mod bad_input;
mod capacity;
mod host;
mod ledger;
mod open_loop;
mod phantoms;
mod ports;
mod support;
