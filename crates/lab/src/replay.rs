//! A stored run as Prometheus would have seen it: the runner's page before and after every trial, over time.
//!
//! The page is made by the code that serves it while a run goes on ([`crate::metrics`]), from the stored trials in their
//! order, so names, labels and values are the same.

use jiff::{SignedDuration, Timestamp};
use study::merge::Build;
use study::results::{Course, Trial};
use telemetry::exposition::Timeline;

use crate::directory::Stored;
use crate::live::{Live, Phase};
use crate::metrics;
use crate::schedule::Planned;

/// The job under which the shipped Prometheus configurations scrape the runner.
const JOB: &str = "runner";

/// A series without a sample for 5 min is gone (Prometheus' look-back), and a graph of a long trial needs points.
const STEP: SignedDuration = SignedDuration::from_secs(15);

/// The `experiment_*` and `ledger_*` series of a run as OpenMetrics text, fit for `promtool tsdb create-blocks-from
/// openmetrics`. `run` is the name of its directory; it is the label `instance`, too, since a host's runs all have one
/// port. A trial has a sample at its beginning, every 15 s, and at its end.
pub fn open_metrics(stored: &Stored, run: &str) -> String {
    let experiment = &stored.experiment;
    let kernel = stored.environment.as_ref().and_then(|environment| environment.kernel_release.clone());
    let unknown = Build { version: "unknown".to_owned(), revision: "unknown".to_owned() };
    let mut live = Live::new(experiment.clone(), run.to_owned(), kernel.unwrap_or_default(), unknown);
    let mut timeline = Timeline::new(&[("job", JOB), ("instance", run)]);
    for (index, trial) in stored.trials.iter().enumerate() {
        if let Some(build) = build(&stored.course, trial) {
            live.build = build;
        }
        let planned = Planned { trial: trial.trial, block: trial.block, cell: trial.cell, retry: trial.retry };
        let phase = if experiment.place.attach().is_some() { Phase::Measured } else { Phase::Load };
        live.reached(planned, phase);
        let (mut now, end) = (trial.started, end(trial));
        while now < end {
            timeline.add(now.as_millisecond(), metrics::families(&live));
            now = now.checked_add(STEP).unwrap_or(end);
        }
        let mut page = metrics::ended(&live, planned, phase);
        live.finished(Some(trial), live.summary(&stored.trials[..=index]));
        page.absorb(metrics::families(&live));
        timeline.add(end.as_millisecond(), page);
    }
    timeline.render()
}

/// What ran a trial: the program of the last runner that had begun by then. Runs of an older version do not tell.
fn build(course: &Course, trial: &Trial) -> Option<Build> {
    let session =
        course.sessions.iter().rfind(|session| session.started <= trial.started).or(course.sessions.first())?;
    Some(Build { version: session.version.clone(), revision: session.revision.clone() })
}

/// When nothing was left of a trial.
fn end(trial: &Trial) -> Timestamp {
    let took = SignedDuration::try_from_secs_f64(trial.timings.seconds());
    took.ok().and_then(|took| trial.started.checked_add(took).ok()).unwrap_or(trial.started)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use study::results::Session;

    use super::*;
    use crate::experiment::Experiment;
    use crate::testing;

    fn stored(experiment: Experiment, trials: Vec<Trial>, sessions: Vec<Session>) -> Stored {
        let course = Course { only: Vec::new(), sessions };
        Stored { path: PathBuf::new(), experiment, trials, environment: None, course, attached: None }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("an instant")
    }

    #[test]
    fn each_trial_is_said_to_be_run_by_the_build_that_ran_it() {
        let experiment = testing::experiment("replicates = 1\norder = \"as-written\"", &["16", "128"]);
        let session = |second, revision: &str| Session {
            started: at(second),
            version: "1.0.0".to_owned(),
            revision: revision.to_owned(),
            warnings: Vec::new(),
        };
        let trial = |trial: usize, second| {
            let planned = Planned { trial, block: 0, cell: trial, retry: 0 };
            Trial { started: at(second), ..testing::trial(planned, true) }
        };
        let trials = vec![trial(0, 1010), trial(1, 2010)];
        let text = open_metrics(
            &stored(experiment.clone(), trials.clone(), vec![session(1000, "abc"), session(2000, "def")]),
            "r",
        );
        let info = |revision: &str| {
            let labels = format!("revision=\"{revision}\"");
            let lines = text.lines().filter(|line| line.contains("experiment_info{") && line.contains(&labels));
            lines.map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((info("abc"), info("def")), (vec!["1010.000".to_owned()], vec!["2010.000".to_owned()]), "{text}");
        let old = open_metrics(&stored(experiment, trials, Vec::new()), "r");
        assert!(old.contains("revision=\"unknown\""), "{old}");
    }

    #[test]
    fn a_search_shows_what_it_found_and_no_median_over_its_levels() {
        let text = "[experiment]\nname = \"x\"\nquestion = \"?\"\nreplicates = 1\nmeasure = \"1s\"\n[search]\nfind = \
                    \"loadgen.rate\"\nbetween = [100, 400]\nwhile = \"served-ratio >= 0.9\"\nwithin = 1.0\n";
        let experiment = Experiment::parse("x.toml", text).expect("valid");
        let trial = |number: usize, rate: u64| {
            let mut trial = testing::trial(Planned { trial: number, block: number, cell: 0, retry: 0 }, true);
            trial.settings = [("loadgen.rate".to_owned(), rate.to_string())].into();
            trial.loadgen.measured.planned = 4;
            trial.loadgen.measured.verdicts = [(loadgen::Verdict::Served, if rate < 400 { 4 } else { 1 })].into();
            trial
        };
        let trials = vec![trial(0, 200), trial(1, 400)];
        let text = open_metrics(&stored(experiment, trials, Vec::new()), "r");
        assert!(!text.contains("experiment_result{"), "{text}");
        let found = |stat: &str, level: u64| {
            let line = format!(
                "acceptbench_experiment_capacity{{job=\"runner\",instance=\"r\",run=\"r\",cell=\"0\",\
                 setting=\"loadgen.rate\",stat=\"{stat}\"}} {level} "
            );
            text.contains(&line)
        };
        assert!(found("held", 200) && found("failed", 400), "{text}");
        assert!(!text.contains("stat=\"low\""), "two trials end no interval: {text}");
    }
}
