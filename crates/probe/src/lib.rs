//! What this kernel really does, claim by claim.
//!
//! A [`Claim`] is one sentence about TCP sockets, taken from the notes this project began with or from what was measured
//! since; it names the figures that must come out for the sentence to hold. Each claim is measured by a small function in
//! a process and network namespaces of its own ([`scene::Scene`]), so that nothing here depends on the host or on another
//! claim, and the host is not touched. [`run::run`] measures many at once; [`judge`](claim::judge) says holds or differs.
//!
//! What this crate refuses: a verdict that was not measured in this run. A claim that cannot be observed here says why.

pub mod claim;
pub mod document;
pub mod facts;
pub mod process;
pub mod run;
pub mod scene;
pub mod table;
pub mod text;

mod accept;
mod bind;
mod child;
mod close;
mod connect;
mod fork;
mod listen;
#[cfg(test)]
mod page;
mod talk;

pub use claim::{Claim, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};

/// Every claim, in the order of the notes' headings.
pub fn claims() -> impl Iterator<Item = &'static Claim> {
    [
        connect::CLAIMS,
        connect::early::CLAIMS,
        connect::silent::CLAIMS,
        connect::timeout::CLAIMS,
        connect::error::CLAIMS,
        connect::reset::CLAIMS,
        connect::reset_queue::CLAIMS,
        connect::port_range::CLAIMS,
        connect::ports::CLAIMS,
        connect::time_wait::CLAIMS,
        bind::CLAIMS,
        bind::matrix::CLAIMS,
        bind::users::CLAIMS,
        listen::queues::CLAIMS,
        listen::capacity::CLAIMS,
        listen::report::CLAIMS,
        listen::overflow::CLAIMS,
        listen::phantoms::CLAIMS,
        listen::late::CLAIMS,
        listen::detect::CLAIMS,
        listen::overload::CLAIMS,
        listen::syn_queue::CLAIMS,
        listen::cookies::CLAIMS,
        listen::half_open::CLAIMS,
        listen::threads::CLAIMS,
        listen::steering::CLAIMS,
        listen::migrate::CLAIMS,
        listen::namespace::CLAIMS,
        listen::rights::CLAIMS,
        accept::CLAIMS,
        accept::waiting::CLAIMS,
        accept::errors::CLAIMS,
        accept::deferred::CLAIMS,
        accept::fastopen::CLAIMS,
        accept::wakeup::CLAIMS,
        accept::steering::CLAIMS,
        fork::CLAIMS,
        fork::server::CLAIMS,
        close::CLAIMS,
        close::listener::CLAIMS,
        close::reset::CLAIMS,
    ]
    .into_iter()
    .flatten()
}

/// The claim of this name.
pub fn find(name: &str) -> Option<&'static Claim> {
    claims().find(|claim| claim.name == name)
}
