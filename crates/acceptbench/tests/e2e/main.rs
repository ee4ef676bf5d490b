//! End to end: the built program, real namespaces, real kernel counters.

mod attached;
mod bad_input;
mod capacity;
mod desk;
mod half_open;
mod host;
mod ledger;
mod loadgen;
mod merge;
mod open_loop;
mod phantoms;
mod ports;
mod resume;
mod search;
mod support;
mod target;
