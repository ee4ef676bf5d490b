//! From stored trials to answers: the first screen, and the files of a results directory. Nothing is run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use kernel::environment::Environment;
use lab::{Experiment, Stored, run_name};
use study::capacity::Capacity;
use study::expectation::{Judgement, Outcome};
use study::finding::{Comparison, Findings};
use study::html::Page;
use study::quantity::Quantity;
use study::report::Report;
use study::results::{Attached, Trial};
use study::screen::{self, Place, Screen};
use study::summary::Summary;

use crate::base_url::BaseUrl;
use crate::cli::{OpenMetrics, ReportArgs};
use crate::exit::{End, Failure};
use crate::terminal::{note, say};

/// Columns of the first screen.
const WIDTH: usize = 80;

/// Quantities that are looked at whatever an experiment compares.
const ALWAYS: [&str; 5] = ["served-ratio", "confirm-latency.p50", "confirm-latency.p99", "overflows", "phantoms"];

/// What a run's trials come to.
pub(crate) struct Answer {
    summary: Summary,
    expectations: Vec<Outcome>,
    quantity: &'static Quantity,
    /// Did a cell end with too few trials that count?
    starved: bool,
    /// What else must be said, a sentence each.
    notes: Vec<String>,
    /// What the run changed on a running deployment, if it was attached to one.
    attached: Option<Attached>,
}

/// Shows a run's answer again and rewrites the files made from its trials.
pub(crate) fn report(args: &ReportArgs) -> Result<End, Failure> {
    let stored = Stored::read(&args.directory).map_err(Failure::usage)?;
    if stored.trials.is_empty() {
        return Err(Failure::Usage(format!("{} holds no trial: run the experiment again", args.directory.display())));
    }
    let answer =
        Answer::tested(&stored.experiment, &stored.trials, stored.attached.as_ref()).map_err(Failure::usage)?;
    let mut notes = stored.notes();
    notes.extend(left(&stored));
    let answer = answer.noting(notes);
    say(&answer.screen(&stored.experiment, &args.directory));
    let grafana = args.grafana.as_ref().map(BaseUrl::as_str);
    write_files(&stored.path, &stored.experiment, &stored.trials, &answer, stored.environment.as_ref(), grafana)
        .map_err(Failure::requirement)?;
    if let Some(file) = &args.openmetrics {
        let file = match file {
            OpenMetrics::InResults => stored.path.join("openmetrics.txt"),
            OpenMetrics::File(file) => file.clone(),
        };
        write_openmetrics(&file, &stored)?;
    }
    Ok(answer.end())
}

/// What there is left to run, in a sentence; nothing when nothing is.
fn left(stored: &Stored) -> Option<String> {
    let directory = stored.path.display();
    let agenda = match stored.agenda() {
        Ok(agenda) => agenda,
        Err(error) => return Some(format!("Nobody can go on with this run: {error}.")),
    };
    let (done, all) = (agenda.done(), agenda.places());
    match stored.experiment.search {
        _ if done == all => None,
        Some(_) => Some(format!("The search is not done; `acceptbench run --resume {directory}` goes on with it.")),
        None => {
            Some(format!("{done} of {all} trials are stored; `acceptbench run --resume {directory}` runs the others."))
        }
    }
}

/// Writes what Prometheus would have seen of the run.
fn write_openmetrics(file: &Path, stored: &Stored) -> Result<(), Failure> {
    let written = std::fs::write(file, lab::open_metrics(stored, &run_name(&stored.path)));
    written.map_err(|error| Failure::Usage(format!("--openmetrics: cannot write {}: {error}", file.display())))?;
    note(&format!("OpenMetrics in {0}; promtool tsdb create-blocks-from openmetrics {0} DATA", file.display()));
    Ok(())
}

/// The quantities that are looked at, those that the experiment compares first.
pub(crate) fn quantities(experiment: &Experiment) -> Vec<&'static str> {
    let compared: Vec<&str> = experiment.compare.metrics().map(|quantity| quantity.name).collect();
    let others = ALWAYS.into_iter().filter(|always| !compared.contains(always));
    compared.iter().copied().chain(others).collect()
}

impl Answer {
    /// [`Self::of`], with the cells compared. For when no trial runs: it takes all CPUs for a moment.
    pub(crate) fn tested(
        experiment: &Experiment,
        trials: &[Trial],
        attached: Option<&Attached>,
    ) -> anyhow::Result<Self> {
        let mut answer = Self::of(experiment, trials, attached)?;
        if experiment.search.is_some() {
            // Medians of a cell would mix its levels.
            return Ok(answer);
        }
        let compare = &experiment.compare;
        let metrics: Vec<_> = compare.metrics().collect();
        let comparison = Comparison {
            design: &experiment.design,
            baselines: &compare.baselines,
            metrics: &metrics,
            smallest_effect: compare.smallest_effect,
            claim: compare.claim,
            seed: experiment.seed,
        };
        answer.summary.findings = Some(Findings::of(&comparison, trials, &answer.summary));
        Ok(answer)
    }

    /// Sums up the trials and judges the expectations.
    pub(crate) fn of(experiment: &Experiment, trials: &[Trial], attached: Option<&Attached>) -> anyhow::Result<Self> {
        let names = quantities(experiment);
        let part = experiment.design_of_part();
        let expectations = experiment
            .expectations
            .iter()
            .map(|expectation| Outcome::of(expectation, &part, trials))
            // One about cells that were left out is none of a part's.
            .filter(|outcome| {
                let about_none = |outcome: &Outcome| outcome.trials == 0 && outcome.untested.is_empty();
                experiment.part.is_whole() || !outcome.as_ref().is_ok_and(about_none)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut summary = Summary::of(&experiment.design, trials, &names)?;
        match &experiment.search {
            Some(searched) => {
                summary.capacity = Some(Capacity::of(&searched.search, &experiment.design, trials)?);
            }
            None => summary = summary.explained(&experiment.design, trials, experiment.compare.smallest_effect),
        }
        let starved = experiment.part.cells.iter().any(|cell| is_starved(trials, *cell));
        let (notes, attached, quantity) = (Vec::new(), attached.cloned(), experiment.compare.main);
        Ok(Self { summary, expectations, quantity, starved, notes, attached })
    }

    /// With something else to say.
    pub(crate) fn noting(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    /// The answer in a sentence.
    pub(crate) fn sentence(&self, experiment: &Experiment) -> String {
        self.to_screen(experiment, "", None).answer()
    }

    /// Cell by cell.
    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What became of the expectations.
    pub(crate) fn expectations(&self) -> &[Outcome] {
        &self.expectations
    }

    /// What else must be said.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The first screen.
    pub(crate) fn screen(&self, experiment: &Experiment, directory: &Path) -> String {
        let report = directory.join("report.html").display().to_string();
        let next = experiment.next.as_ref().map(|name| format!("acceptbench run {name}"));
        screen::render(&self.to_screen(experiment, &report, next.as_deref()), WIDTH)
    }

    /// The table of the first screen.
    pub(crate) fn table(&self, experiment: &Experiment) -> String {
        self.to_screen(experiment, "", None).table(WIDTH).join("\n")
    }

    fn to_screen<'a>(&'a self, experiment: &'a Experiment, report: &'a str, next: Option<&'a str>) -> Screen<'a> {
        Screen {
            name: &experiment.name,
            question: &experiment.question,
            design: &experiment.design,
            summary: &self.summary,
            quantity: self.quantity,
            smallest_effect: experiment.compare.smallest_effect,
            baseline: experiment.compare.baseline,
            expectations: &self.expectations,
            notes: &self.notes,
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
        let failed = self.expectations.iter().any(|outcome| outcome.judgement == Judgement::Fails);
        match (self.starved, failed) {
            (true, _) => End::Invalid,
            (false, true) => End::Unexpected,
            (false, false) => End::Success,
        }
    }
}

/// Writes what is made from the trials: `summary.json`, `trials.csv`, `report.md`, `report.html`.
pub(crate) fn write_files(
    directory: &Path,
    experiment: &Experiment,
    trials: &[Trial],
    answer: &Answer,
    environment: Option<&Environment>,
    grafana: Option<&str>,
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
    for condition in &experiment.part.only {
        let _ = write!(command, " --only \"{condition}\"");
    }
    let screen = answer.to_screen(experiment, "", None);
    let mut environment = environment.map(describe).unwrap_or_default();
    environment.extend(targets(trials));
    let report = Report { screen: &screen, trials, environment: &environment, command: &command };
    write("report.md", &report.markdown()?)?;
    let page = Page { report, run: &run_name(directory), analysis: experiment.analysis.as_deref(), grafana };
    write("report.html", &page.html()?)
}

/// Does a cell have places in the order, and no record that counts in half of them or more? Retries are no places.
fn is_starved(trials: &[Trial], cell: usize) -> bool {
    let of_cell = || trials.iter().filter(|trial| trial.cell == cell);
    let places: BTreeSet<usize> = of_cell().map(|trial| trial.trial).collect();
    let valid = of_cell().filter(|trial| trial.is_valid()).count();
    valid * 2 < places.len() + usize::from(!places.is_empty())
}

/// What ran in the server's place, as the file has it: a line for each command.
fn targets(trials: &[Trial]) -> Vec<String> {
    let commands = trials.iter().filter_map(|trial| trial.target.as_ref()?.settings.get("target.command"));
    commands.collect::<BTreeSet<_>>().into_iter().map(|command| format!("in the server's place: {command}")).collect()
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
    known(environment).into_iter().map(|(name, text)| format!("{}: {text}", name.replace('-', " "))).collect()
}

/// What is known of the machine, features aside, as names and texts.
pub(crate) fn known(environment: &Environment) -> BTreeMap<String, String> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(environment) else { return BTreeMap::new() };
    let text = |(name, value)| match value {
        serde_json::Value::Null | serde_json::Value::Object(_) => None,
        serde_json::Value::String(text) => Some((name, text)),
        other => Some((name, other.to_string())),
    };
    fields.into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests;
