//! From stored trials to answers: the first screen, and the files of a results directory. Nothing is run.

use std::path::Path;

use anyhow::Context;
use kernel::environment::Environment;
use lab::{Experiment, Stored};
use study::expectation::{Judgement, Outcome};
use study::quantity::Quantity;
use study::report::Report;
use study::results::{Attached, Trial};
use study::screen::{self, Place, Screen};
use study::summary::Summary;

use crate::cli::ReportArgs;
use crate::exit::{End, Failure};
use crate::terminal::say;

/// Columns of the first screen.
const WIDTH: usize = 80;

/// What a run's trials come to.
pub(crate) struct Answer {
    summary: Summary,
    expectations: Vec<Outcome>,
    quantity: &'static Quantity,
    /// What the run changed on a running deployment, if it was attached to one.
    attached: Option<Attached>,
}

/// Shows a run's answer again and rewrites the files made from its trials.
pub(crate) fn report(args: &ReportArgs) -> Result<End, Failure> {
    let stored = Stored::read(&args.directory).map_err(Failure::usage)?;
    if stored.trials.is_empty() {
        return Err(Failure::Usage(format!("{} holds no trial: run the experiment again", args.directory.display())));
    }
    let answer = Answer::of(&stored.experiment, &stored.trials, stored.attached.as_ref()).map_err(Failure::usage)?;
    let planned = stored.experiment.trials();
    let notes = if stored.trials.len() < planned {
        vec![format!("{} of {planned} trials are stored.", stored.trials.len())]
    } else {
        Vec::new()
    };
    say(&answer.screen(&stored.experiment, &args.directory, &notes));
    write_files(&args.directory, &stored.experiment, &stored.trials, &answer, stored.environment.as_ref())
        .map_err(Failure::requirement)?;
    Ok(answer.end())
}

impl Answer {
    /// Sums up the trials and judges the expectations.
    pub(crate) fn of(experiment: &Experiment, trials: &[Trial], attached: Option<&Attached>) -> anyhow::Result<Self> {
        let mut names: Vec<&str> = experiment.compare.metrics.iter().map(String::as_str).collect();
        for always in ["served-ratio", "confirm-latency.p50", "confirm-latency.p99", "overflows", "phantoms"] {
            if !names.contains(&always) {
                names.push(always);
            }
        }
        let quantity = Quantity::named(names.first().copied().unwrap_or("served-ratio"))?;
        let expectations = experiment
            .expectations
            .iter()
            .map(|expectation| Outcome::of(expectation, &experiment.design, trials))
            .collect::<Result<Vec<_>, _>>()?;
        let summary = Summary::of(&experiment.design, trials, &names)?.explained(
            &experiment.design,
            trials,
            experiment.compare.smallest_effect,
        );
        Ok(Self { summary, expectations, quantity, attached: attached.cloned() })
    }

    /// The first screen.
    pub(crate) fn screen(&self, experiment: &Experiment, directory: &Path, notes: &[String]) -> String {
        let report = directory.join("report.md").display().to_string();
        let next = experiment.next.as_ref().map(|name| format!("acceptbench run {name}"));
        screen::render(&self.to_screen(experiment, &report, next.as_deref(), notes), WIDTH)
    }

    /// The table of the first screen.
    pub(crate) fn table(&self, experiment: &Experiment) -> String {
        self.to_screen(experiment, "", None, &[]).table(WIDTH).join("\n")
    }

    fn to_screen<'a>(
        &'a self,
        experiment: &'a Experiment,
        report: &'a str,
        next: Option<&'a str>,
        notes: &'a [String],
    ) -> Screen<'a> {
        Screen {
            name: &experiment.name,
            question: &experiment.question,
            design: &experiment.design,
            summary: &self.summary,
            quantity: self.quantity,
            smallest_effect: experiment.compare.smallest_effect,
            baseline: experiment.compare.baseline,
            expectations: &self.expectations,
            notes,
            place: match &self.attached {
                Some(attached) => Place::Attached(attached),
                None => Place::Lab { cpus: kernel::process::allowed_cpus().map_or(1, |cpus| cpus.len()) },
            },
            report,
            next,
        }
    }

    /// How a run with this answer ends.
    pub(crate) fn end(&self) -> End {
        let starved = self.summary.cells.iter().any(|cell| cell.trials > 0 && cell.valid * 2 < cell.trials + 1);
        let failed = self.expectations.iter().any(|outcome| outcome.judgement == Judgement::Fails);
        match (starved, failed) {
            (true, _) => End::Invalid,
            (false, true) => End::Unexpected,
            (false, false) => End::Success,
        }
    }
}

/// Writes what is made from the trials: `summary.json`, `trials.csv`, `report.md`.
pub(crate) fn write_files(
    directory: &Path,
    experiment: &Experiment,
    trials: &[Trial],
    answer: &Answer,
    environment: Option<&Environment>,
) -> anyhow::Result<()> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("summary.json", &serde_json::to_string_pretty(&answer.summary)?)?;
    write("trials.csv", &study::csv::trials(trials))?;
    let mut command = format!("acceptbench run {}", directory.join("experiment.toml").display());
    if let Some(attached) = &answer.attached {
        command.push_str(&flags(attached));
    }
    let screen = answer.to_screen(experiment, "", None, &[]);
    let environment = environment.map(describe).unwrap_or_default();
    let report = Report { screen: &screen, trials, environment: &environment, command: &command };
    write("report.md", &report.markdown()?)
}

/// The flags that attach a run to the same deployment.
fn flags(attached: &Attached) -> String {
    let mut flags = format!(" --attach-server {}", attached.server);
    for address in &attached.loadgens {
        flags.push_str(" --attach-loadgen ");
        flags.push_str(address);
    }
    format!("{flags} --sysctl-path {}", attached.sysctl_path.display())
}

/// The machine in lines.
fn describe(environment: &Environment) -> Vec<String> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(environment) else { return Vec::new() };
    fields
        .iter()
        .filter(|(_, value)| !value.is_null() && !value.is_object())
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => format!("{}: {text}", name.replace('-', " ")),
            other => format!("{}: {other}", name.replace('-', " ")),
        })
        .collect()
}
