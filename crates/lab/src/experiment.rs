//! The experiment file: TOML in, a checked [`Experiment`] out, every error with its `file:line`.
//!
//! Factors are laid over the parsed tables before these become options, so a factor can set whatever a file can.

mod attach;
mod cells;
mod conditions;
mod part;
mod same;
pub(crate) mod schema;
mod search;
mod wire;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use study::design::Design;
use study::expectation::Expectation;
use study::finding::Claim;
use study::quantity::Quantity;
use telemetry::units::Span;
use thiserror::Error;
use toml::{Spanned, Table};

pub use self::attach::{AdminAddress, Attach, Place, Wiring};
pub use self::part::{Part, PartError};
pub use self::same::Common;
pub use self::schema::schema;
pub(crate) use self::search::Applied;
pub use self::search::Searched;
pub use crate::schedule::Order;
use crate::settings::{NOT_BESIDE_A_TARGET, Resolved, Scope, Settings, plain};
use cells::{Crossed, cross, grids};
use conditions::{Places, compare, expectations};
use wire::{Entries, Header, Tables, Wire};

/// A checked experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its name; results directories begin with it.
    pub name: String,
    /// The question it answers.
    pub question: String,
    /// Prose for the report.
    pub analysis: Option<String>,
    /// Another experiment to run after this one.
    pub next: Option<String>,
    /// How often every cell is run; of a search, whose majority decides a level.
    pub replicates: usize,
    /// How often a trial that does not count is repeated.
    pub retries: usize,
    /// Decides order and arrivals.
    pub seed: u64,
    /// The order of its trials.
    pub order: Order,
    /// Where they take place.
    pub place: Place,
    /// Grids and cells.
    pub design: Design,
    /// The options of each cell, by its index; of an attached experiment its sysctls and the window's length.
    pub resolved: Vec<Resolved>,
    /// The cells to run.
    pub part: Part,
    /// What must hold.
    pub expectations: Vec<Expectation>,
    /// What is compared.
    pub compare: Compare,
    /// What is searched, if anything; then it is capacities that are compared.
    pub search: Option<Searched>,
    /// The file's text, kept with the results.
    pub source: String,
}

/// The address family of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// 198.18.0.0/15, the benchmarking range (RFC 2544).
    #[default]
    Ipv4,
    /// `2001:2::/48`, the benchmarking range (RFC 5180).
    Ipv6,
}

/// What the answer is about.
#[derive(Clone, Debug)]
pub struct Compare {
    /// The quantity that answers the question.
    pub main: &'static Quantity,
    /// The other quantities that are compared.
    pub others: Vec<&'static Quantity>,
    /// The cell of the main grid that the others are held against, if the file names one.
    pub baseline: Option<usize>,
    /// The cell of each grid that its others are held against; a grid without one is not compared.
    pub baselines: Vec<usize>,
    /// Differences below this do not matter.
    pub smallest_effect: f64,
    /// What differences are judged by.
    pub claim: Claim,
    /// Why nothing can be found, if that is asked for: no reason not to read what was run all the same.
    out_of_reach: Option<ExperimentError>,
}

impl Compare {
    /// What is compared, the main quantity first.
    pub fn metrics(&self) -> impl Iterator<Item = &'static Quantity> + '_ {
        std::iter::once(self.main).chain(self.others.iter().copied())
    }
}

/// An experiment that cannot be run as written: one line, `file:line: what and how to mend it`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {message}")]
pub struct ExperimentError {
    /// `file:line`, or the file.
    pub place: String,
    /// Cause and fix.
    pub message: String,
}

/// Where the file says nothing.
const DEFAULT_WARM_UP: Span = Span::from_millis(200);
const DEFAULT_MEASURE: Span = Span::from_secs(1);

/// Trials of a run at most: more is a typing error.
const MAX_TRIALS: usize = 100_000;

/// A trial that does not count so often never will.
const MAX_RETRIES: usize = 100;

/// Knows the file's name and text, to turn byte ranges into lines.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, span: &Range<usize>, message: impl Into<String>) -> ExperimentError {
        let line = self.text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1;
        ExperimentError { place: format!("{}:{line}", self.name), message: message.into() }
    }
}

impl Experiment {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What cannot be read or cannot be run, with its place.
    pub fn read(path: &Path) -> Result<Self, ExperimentError> {
        Self::read_stored(path)?.within_reach()
    }

    /// Reads the file of a run, whatever its comparison can come to.
    ///
    /// # Errors
    /// What cannot be read or could not have been run, with its place.
    pub fn read_stored(path: &Path) -> Result<Self, ExperimentError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ExperimentError {
            place: name.clone(),
            message: format!("cannot read the experiment file: {error}{}", reading_hint(error.kind())),
        })?;
        Self::parse_stored(&name, &text)
    }

    /// Checks a file's text; `name` is how errors call it.
    ///
    /// # Errors
    /// What cannot be run, with its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, ExperimentError> {
        Self::parse_stored(name, text)?.within_reach()
    }

    /// Refuses a comparison that asks for findings and cannot have any.
    fn within_reach(self) -> Result<Self, ExperimentError> {
        match &self.compare.out_of_reach {
            Some(error) => Err(error.clone()),
            None => Ok(self),
        }
    }

    fn parse_stored(name: &str, text: &str) -> Result<Self, ExperimentError> {
        let source = Source { name, text };
        let wire: Wire = toml::from_str(text).map_err(|error| toml_error(&source, &error))?;
        let tables: Tables = toml::from_str(text).map_err(|error| toml_error(&source, &error))?;
        let header = &wire.experiment;
        check_header(&source, header)?;
        let place = attach::place(&source, &wire, &tables)?;
        let base = base_settings(&source, &wire, &tables, &place)?;
        let grids = grids(&source, &wire)?;
        let Crossed { design, resolved, cells } = cross(&source, &base, grids)?;
        check_trials(&source, &header.replicates, design.cells.len(), "replicates")?;
        let places = Places { design: &design, resolved: &resolved };
        let search = search::search(&source, &wire, &place, &places, cells)?;
        if let Some(Searched { search, .. }) = &search {
            let most = Spanned::new(header.replicates.span(), search.most_trials());
            check_trials(&source, &most, design.cells.len(), "trials of a search")?;
        }
        Ok(Self {
            name: header.name.get_ref().clone(),
            question: header.question.clone(),
            analysis: header.analysis.clone(),
            next: header.next.clone(),
            replicates: *header.replicates.get_ref(),
            retries: *header.retries.get_ref(),
            seed: header.seed,
            order: header.order,
            place,
            expectations: expectations(&source, &wire.expect, &places)?,
            compare: compare(&source, wire.compare.as_ref(), header, &places)?,
            search,
            part: Part::whole(&design),
            design,
            resolved,
            source: text.to_owned(),
        })
    }

    /// How long a trial's attempts are planned; of an attached one the length of its window.
    pub fn measure(&self, cell: usize) -> Duration {
        match self.resolved.get(cell).map(|resolved| resolved.loadgen.duration) {
            Some(loadgen::opts::RunTime::For(span)) => span.duration(),
            Some(loadgen::opts::RunTime::Forever) | None => Duration::ZERO,
        }
    }

    /// Trials of a run of its part; of a search, as many as it can take.
    pub fn trials(&self) -> usize {
        self.part.cells.len() * self.blocks()
    }
}

fn toml_error(source: &Source<'_>, error: &toml::de::Error) -> ExperimentError {
    let message = plain(&error.message().lines().collect::<Vec<_>>().join(" "));
    let span = error.span().unwrap_or(0..0);
    // The span is the value's: what stands before it on its line says which key.
    let before = source.text.get(..span.start).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default().trim();
    match line.strip_suffix('=').map(str::trim_end) {
        Some(key) if !key.contains('=') => source.error(&span, format!("{key}: {message}")),
        _ => source.error(&span, message),
    }
}

/// What to do about a file that cannot be read, with leading punctuation, or nothing.
fn reading_hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "; check the path, or name a shipped one (acceptbench list)"
        }
        io::ErrorKind::IsADirectory => "; name the file in it",
        io::ErrorKind::PermissionDenied => "; make it readable for this user",
        io::ErrorKind::InvalidData => "; an experiment file is UTF-8 text",
        _ => "",
    }
}

fn check_header(source: &Source<'_>, header: &Header) -> Result<(), ExperimentError> {
    let name = header.name.get_ref();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Err(source.error(
            &header.name.span(),
            format!("experiment.name `{name}` names a directory: use small letters, digits and `-`"),
        ));
    }
    if *header.replicates.get_ref() == 0 {
        return Err(source.error(&header.replicates.span(), "experiment.replicates must be 1 or more"));
    }
    if *header.retries.get_ref() > MAX_RETRIES {
        let message = format!("experiment.retries must be {MAX_RETRIES} or less; 2 is usual, 0 repeats nothing");
        return Err(source.error(&header.retries.span(), message));
    }
    if let Some(measure) = header.measure.as_ref().filter(|measure| measure.get_ref().is_zero()) {
        return Err(source.error(&measure.span(), "experiment.measure must be above 0"));
    }
    Ok(())
}

/// Refuses a run of more than [`MAX_TRIALS`]: `each` of the cells takes so many.
fn check_trials(source: &Source<'_>, each: &Spanned<usize>, cells: usize, what: &str) -> Result<(), ExperimentError> {
    let number = *each.get_ref();
    if cells.saturating_mul(number) <= MAX_TRIALS {
        return Ok(());
    }
    let message = format!("{cells} cells × {number} {what} are more than {MAX_TRIALS} trials");
    Err(source.error(&each.span(), message))
}

fn base_settings(
    source: &Source<'_>,
    wire: &Wire,
    tables: &Tables,
    place: &Place,
) -> Result<Settings, ExperimentError> {
    let or = |given: &Option<Spanned<Span>>, default| given.as_ref().map_or(default, |span| *span.get_ref());
    let mut settings = Settings {
        scope: if place.attach().is_some() { Scope::Attached } else { Scope::Private },
        wiring: match place {
            Place::Private { wiring, family } => Some((*wiring, *family)),
            Place::Attached(_) => None,
        },
        warm_up: Some(or(&wire.experiment.warm_up, DEFAULT_WARM_UP)),
        measure: Some(or(&wire.experiment.measure, DEFAULT_MEASURE)),
        target: wire.target.as_ref().map(|_| Table::new()),
        ..Settings::default()
    };
    if let (Some(_), Some(key)) = (&wire.target, first_key(&tables.server)) {
        let message = format!("[server] beside [target]: {NOT_BESIDE_A_TARGET}; leave one of the two tables out");
        return Err(source.error(&key, message));
    }
    let all = [
        ("server", &tables.server),
        ("target", &tables.target),
        ("loadgen", &tables.loadgen),
        ("half-open", &tables.half_open),
        ("sysctl", &wire.sysctl),
    ];
    for (table, entries) in all {
        for (key, value) in entries {
            settings
                .set(&format!("{table}.{}", key.get_ref()), value)
                .map_err(|message| source.error(&key.span(), message))?;
        }
    }
    settings.resolve().map_err(|message| source.error(&blamed(tables, &message), message))?;
    Ok(settings)
}

/// Where a complaint of [`Settings::resolve`] points: to the key it begins with (`loadgen: deadline must …`,
/// `server.on-accept = …`), or to the first key of either end.
fn blamed(tables: &Tables, message: &str) -> Range<usize> {
    let (table, rest) = message.split_once([':', '.']).unwrap_or_default();
    let key = rest.trim_start().split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap_or_default();
    let entries = match table {
        "server" => &tables.server,
        "target" => &tables.target,
        "half-open" => &tables.half_open,
        _ => &tables.loadgen,
    };
    if let Some((key, _)) = entries.iter().find(|(name, _)| name.get_ref() == key) {
        return key.span();
    }
    first_key(&tables.server)
        .or_else(|| first_key(&tables.target))
        .or_else(|| first_key(&tables.loadgen))
        .unwrap_or(0..0)
}

/// Where the first key of a table stands.
fn first_key(entries: &Entries) -> Option<Range<usize>> {
    entries.keys().map(Spanned::span).min_by_key(|span| span.start)
}
