//! `acceptbench check`: is an experiment file valid, and what would it do?

use std::time::Duration;

use lab::{Experiment, Resolved};
use study::finding::Claim;
use study::search::Search;
use study::{format, reach};

use crate::cli::CheckArgs;
use crate::exit::{End, Failure};
use crate::needs;
use crate::shipped;
use crate::terminal::say;

/// Namespaces, processes and standing still, per trial; of an attached one reading the books.
pub(crate) const OVERHEAD: Duration = Duration::from_millis(90);

/// Checks every experiment named, the first wrong one ends it.
pub(crate) fn check(args: &CheckArgs) -> Result<End, Failure> {
    for argument in &args.experiments {
        let experiment = shipped::find(argument)?;
        say(&format!(
            "{}: valid; {} × {} = {}, at most {}",
            experiment.name,
            format::plural(experiment.design.cells.len(), "cell"),
            match experiment.search {
                Some(_) => format!("a search of at most {}", format::plural(experiment.blocks(), "trial")),
                None => format::plural(experiment.replicates, "replicate"),
            },
            format::plural(experiment.trials(), "trial"),
            format::time(duration(&experiment).as_secs_f64())
        ));
        let first = experiment.order.plan(experiment.design.cells.len(), 1, experiment.seed);
        for planned in first {
            say(&format!("  {}", experiment.design.describe(&experiment.design.cells[planned.cell])));
        }
        say(&experiment.search.as_ref().map_or_else(|| claims(&experiment), |searched| searched_for(&searched.search)));
        if let Some(kept) = half_open(&experiment) {
            say(&format!("half-open sockets in each trial's own namespaces: {kept}"));
        }
        for program in needs::programs(&experiment) {
            say(&format!("in the server's place: {program}{}", missing(&program)));
        }
    }
    Ok(End::Success)
}

/// Whether a program is not there, which `run` refuses; a file is valid all the same.
fn missing(program: &str) -> String {
    match (lab::find_program(program), lab::package_of(program)) {
        (Some(_), _) => String::new(),
        (None, Some(package)) => format!(", which is not installed here (Debian's package {package})"),
        (None, None) => ", which is nowhere in PATH here".to_owned(),
    }
}

/// What the comparison of the main grid can come to.
fn claims(experiment: &Experiment) -> String {
    let cells = experiment.design.cells_of(0).count();
    let p = reach::reachable_p(&vec![cells; experiment.replicates]);
    match experiment.compare.claim {
        _ if cells < 2 => "findings: none, there is one cell".to_owned(),
        Claim::Findings if p <= reach::SIGNIFICANCE => {
            format!("findings: a clear difference reaches p {} or less", format::p_value(p))
        }
        Claim::Findings => format!(
            "findings: none, {} reach p {}",
            format::plural(experiment.replicates, "replicate"),
            format::p_value(p)
        ),
        Claim::Ranges => "findings: none, judged by range".to_owned(),
    }
}

/// What is searched, over which levels.
fn searched_for(search: &Search) -> String {
    let [least, greatest] =
        [search.levels.first(), search.levels.last()].map(|level| level.copied().unwrap_or_default());
    let levels = format::plural(search.levels.len(), "level");
    format!("search: the highest {} of {levels} from {least} to {greatest} while {}", search.find, search.holds)
}

/// How many sockets trials keep half open; nothing when none does.
fn half_open(experiment: &Experiment) -> Option<String> {
    let counts = || experiment.resolved.iter().map(|cell| cell.half_open);
    let (least, most) = (counts().min()?, counts().max()?);
    match (least, most) {
        (_, 0) => None,
        (least, most) if least == most => Some(most.to_string()),
        _ => Some(format!("{least} to {most}")),
    }
}

/// How long a run takes when every last attempt waits for its deadline. An attached one waits for none.
pub(crate) fn duration(experiment: &Experiment) -> Duration {
    let around = |cell: &Resolved| match experiment.place.attach() {
        Some(attach) => attach.settle.duration(),
        None => cell.loadgen.warm_up.duration() + cell.loadgen.deadline.duration(),
    };
    let cells = experiment.resolved.iter().enumerate();
    let block: Duration = cells.map(|(index, cell)| around(cell) + experiment.measure(index) + OVERHEAD).sum();
    block * u32::try_from(experiment.blocks()).unwrap_or(u32::MAX)
}
