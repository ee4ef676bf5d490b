//! The boards, one file each, and the panels that several of them show.

mod accept_queue;
mod experiment;
mod kernel_parameters;
mod listeners;
mod load_generator;
mod overview;
mod shared;

use crate::model::Dashboard;

/// Every board, in the order in which a reader meets them.
pub fn all() -> Vec<Dashboard> {
    vec![
        overview::board(),
        accept_queue::board(),
        load_generator::board(),
        kernel_parameters::board(),
        experiment::board(),
        listeners::board(),
    ]
}
