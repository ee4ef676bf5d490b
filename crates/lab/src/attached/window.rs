//! A trial of an attached run: a window of a whole deployment, and what disqualifies it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use study::ledger::window::balance;
use study::results::Timings;
use study::window::{Between, Twice, together};
use telemetry::Warning;
use telemetry::units::Span;

use super::admin::Books;
use crate::bench::Parts;

/// What came before the window.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) started: Timestamp,
    /// From the first change to the end of the settling.
    pub(super) set_up: Duration,
    /// In force during the window.
    pub(super) sysctls: BTreeMap<String, String>,
}

/// A window of a whole deployment.
#[derive(Debug)]
pub(super) struct Window {
    server: Between<server::Snapshot>,
    loadgens: BTreeMap<SocketAddr, Between<loadgen::Snapshot>>,
}

impl Window {
    /// A generator that is gone at the end has counted nothing: its trial does not count either.
    pub(super) fn new(begin: Books, mut end: Books) -> Self {
        let pair = |(address, begin): (SocketAddr, Twice<loadgen::Snapshot>)| {
            let end = end.loadgens.remove(&address).unwrap_or_else(|| begin.clone());
            (address, Between { begin, end })
        };
        let loadgens = begin.loadgens.into_iter().map(pair).collect();
        Self { server: Between { begin: begin.server, end: end.server }, loadgens }
    }

    /// Why it is no window of one and the same deployment, or of one and the same setting.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.server.restarted() {
            faults.push("the server was restarted within the window".to_owned());
        }
        for (address, from, to) in self.server.changed_limits() {
            faults.push(format!(
                "the queue limit of {address} changed within the window: {from} → {to}; lengthen attach.settle"
            ));
        }
        for (address, books) in &self.loadgens {
            if books.restarted() {
                faults.push(format!("the load generator was restarted within the window: {address}"));
            } else if books.end.second.finished {
                faults
                    .push(format!("the load generator ended within the window: {address}; give it --duration forever"));
            }
        }
        faults
    }

    /// The window's account. `None` without a load generator.
    pub(super) fn account(self, settle: Span, opening: Opening, mut invalid: Vec<String>) -> Option<Parts> {
        invalid.extend(self.faults());
        let loadgens: Vec<_> = self.loadgens.into_values().collect();
        let (ledger, mut warnings) = balance(&self.server, &loadgens);
        let mut server = self.server.difference();
        // It speaks of the limit at the server's start; the one in force is read back.
        server.warnings.retain(|warning| warning.code != "backlog-capped");
        let loadgen = together(loadgens.iter().map(Between::<loadgen::Snapshot>::difference))?;
        if loadgen.measured.planned == 0 {
            invalid.push("the load generators planned nothing within the window".to_owned());
        }
        let deadline = loadgen.opts.deadline;
        if settle < deadline {
            warnings.push(Warning::new(
                "settle-below-deadline",
                format!("attach.settle {settle} is below the deadline {deadline} of the attempts"),
                "verdicts of attempts planned before the change may fall into the window; settle for a deadline",
            ));
        }
        let lasted_ns = self.server.end.first.monotonic_ns.saturating_sub(self.server.begin.first.monotonic_ns);
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let timings = Timings {
            set_up_ms: ms(opening.set_up),
            load_ms: ms(Duration::from_nanos(lasted_ns)),
            ..Timings::default()
        };
        let Opening { started, sysctls, .. } = opening;
        Some(Parts { started, timings, sysctls, target: None, server, loadgen, ledger, invalid, warnings })
    }
}
