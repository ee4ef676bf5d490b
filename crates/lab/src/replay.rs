//! A stored run as Prometheus would have seen it: the runner's page before and after every trial, over time.
//!
//! The page is made by the code that serves it while a run goes on ([`crate::metrics`]), from the stored trials in their
//! order, so names, labels and values are the same.

use jiff::{SignedDuration, Timestamp};
use study::results::{Timings, Trial};
use study::summary::Summary;
use telemetry::exposition::Timeline;

use crate::directory::Stored;
use crate::live::{Build, Live, Phase};
use crate::metrics;
use crate::schedule::Planned;

/// The job under which the shipped Prometheus configurations scrape the runner.
const JOB: &str = "runner";

/// A series without a sample for 5 min is gone (Prometheus' look-back), and a graph of a long trial needs points.
const STEP: SignedDuration = SignedDuration::from_secs(15);

/// Nobody wrote down which build ran it.
const BUILD: Build = Build { version: "unknown", revision: "unknown" };

/// The `experiment_*` and `ledger_*` series of a run as OpenMetrics text, fit for `promtool tsdb create-blocks-from
/// openmetrics`. `run` is the name of its directory; it is the label `instance`, too, since a host's runs all have one
/// port. A trial has a sample at its beginning, every 15 s, and at its end.
pub fn open_metrics(stored: &Stored, run: &str) -> String {
    let experiment = &stored.experiment;
    let kernel = stored.environment.as_ref().and_then(|environment| environment.kernel_release.clone());
    let live = Live::new(experiment.clone(), run.to_owned(), kernel.unwrap_or_default(), BUILD);
    let names: Vec<&str> = experiment.compare.metrics.iter().map(String::as_str).collect();
    let mut timeline = Timeline::new(&[("job", JOB), ("instance", run)]);
    for (index, trial) in stored.trials.iter().enumerate() {
        let planned = Planned { trial: trial.trial, block: trial.block, cell: trial.cell, retry: trial.retry };
        let phase = if experiment.place.attach().is_some() { Phase::Measured } else { Phase::Load };
        live.reached(planned, phase);
        let (mut now, end) = (trial.started, end(trial));
        while now < end {
            timeline.add(now.as_millisecond(), metrics::families(&live));
            now = now.checked_add(STEP).unwrap_or(end);
        }
        let mut page = metrics::ended(&live, planned, phase);
        live.finished(Some(trial), Summary::of(&experiment.design, &stored.trials[..=index], &names).ok());
        page.absorb(metrics::families(&live));
        timeline.add(end.as_millisecond(), page);
    }
    timeline.render()
}

/// When nothing was left of a trial.
fn end(trial: &Trial) -> Timestamp {
    let Timings { set_up_ms, load_ms, drain_ms, tear_down_ms } = trial.timings;
    let took = SignedDuration::try_from_secs_f64((set_up_ms + load_ms + drain_ms + tear_down_ms) / 1e3);
    took.ok().and_then(|took| trial.started.checked_add(took).ok()).unwrap_or(trial.started)
}
