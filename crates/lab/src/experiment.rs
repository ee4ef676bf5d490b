//! The experiment file: TOML in, a checked [`Experiment`] out, every error with its `file:line`.
//!
//! Factors are laid over the parsed tables before these become options, so a factor can set whatever a file can.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use study::condition::{Condition, ConditionError};
use study::design::{Cell, Design, Factor, Grid, Level};
use study::expectation::Expectation;
use study::quantity::Quantity;
use study::results::Topology;
use telemetry::units::Span;
use thiserror::Error;
use toml::{Spanned, Table, Value};

use crate::settings::{Resolved, Settings, reserved, short_name, text_of};

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
    /// How often every cell is run.
    pub replicates: usize,
    /// Decides order and arrivals.
    pub seed: u64,
    /// How the ends are joined.
    pub topology: Topology,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Grids and cells.
    pub design: Design,
    /// The options of each cell, by its index.
    pub resolved: Vec<Resolved>,
    /// What must hold.
    pub expectations: Vec<Expectation>,
    /// What is compared.
    pub compare: Compare,
    /// The file's text, kept with the results.
    pub source: String,
}

/// The address family of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// 198.18.0.0/15, the benchmarking range (RFC 2544).
    #[default]
    Ipv4,
    /// 2001:2::/48, the benchmarking range (RFC 5180).
    Ipv6,
}

/// What the answer is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    /// Quantities, the main one first.
    pub metrics: Vec<String>,
    /// The cell the others are held against.
    pub baseline: Option<usize>,
    /// Differences below this do not matter.
    pub smallest_effect: f64,
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

/// Cells times replicates at most: more is a typing error.
const MAX_TRIALS: usize = 100_000;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Wire {
    experiment: Header,
    // The two are parsed twice: here for errors with their line, below as tables for the factors.
    #[serde(default)]
    #[expect(dead_code, reason = "read for its errors")]
    server: server::Opts,
    #[serde(default)]
    #[expect(dead_code, reason = "read for its errors")]
    loadgen: loadgen::Opts,
    #[serde(default)]
    sysctl: BTreeMap<Spanned<String>, Value>,
    #[serde(default)]
    factor: Vec<WireFactor>,
    #[serde(default)]
    also: Vec<WireAlso>,
    #[serde(default)]
    expect: Vec<WireExpect>,
    compare: Option<WireCompare>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Header {
    name: Spanned<String>,
    question: String,
    analysis: Option<String>,
    next: Option<String>,
    #[serde(default = "three")]
    replicates: Spanned<usize>,
    #[serde(default = "one")]
    seed: u64,
    #[serde(default = "default_warm_up")]
    warm_up: Span,
    #[serde(default = "default_measure")]
    measure: Spanned<Span>,
    #[serde(default)]
    topology: Topology,
    #[serde(default)]
    family: Family,
}

fn three() -> Spanned<usize> {
    Spanned::new(0..0, 3)
}

fn one() -> u64 {
    1
}

fn default_warm_up() -> Span {
    Span::from_millis(200)
}

fn default_measure() -> Spanned<Span> {
    Spanned::new(0..0, Span::from_secs(1))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WireFactor {
    set: Option<Spanned<String>>,
    to: Option<Vec<Spanned<Value>>>,
    name: Option<String>,
    levels: Option<Vec<Spanned<Table>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WireAlso {
    name: Spanned<String>,
    #[serde(default)]
    set: BTreeMap<Spanned<String>, Value>,
    #[serde(default)]
    factor: Vec<WireFactor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WireExpect {
    that: Spanned<String>,
    r#where: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WireCompare {
    metrics: Vec<Spanned<String>>,
    baseline: Option<Spanned<String>>,
    smallest_effect: Option<f64>,
}

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
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ExperimentError {
            place: name.clone(),
            message: format!("cannot read the experiment file: {error}"),
        })?;
        Self::parse(&name, &text)
    }

    /// Checks a file's text; `name` is how errors call it.
    ///
    /// # Errors
    /// What cannot be run, with its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, ExperimentError> {
        let source = Source { name, text };
        let wire: Wire = toml::from_str(text).map_err(|error| toml_error(&source, &error))?;
        let tables: Table = toml::from_str(text).map_err(|error| toml_error(&source, &error))?;
        let base = base_settings(&source, &wire, &tables)?;
        let header = &wire.experiment;
        check_header(&source, header)?;
        let grids = grids(&source, &wire)?;
        let (design, resolved) = cross(&source, &base, grids)?;
        if design.cells.len().saturating_mul(*header.replicates.get_ref()) > MAX_TRIALS {
            return Err(source.error(&header.replicates.span(), format!(
                "{} cells × {} replicates are more than {MAX_TRIALS} trials",
                design.cells.len(), header.replicates.get_ref()
            )));
        }
        let places = Places { design: &design, resolved: &resolved };
        Ok(Self {
            name: header.name.get_ref().clone(),
            question: header.question.clone(),
            analysis: header.analysis.clone(),
            next: header.next.clone(),
            replicates: *header.replicates.get_ref(),
            seed: header.seed,
            topology: header.topology,
            family: header.family,
            expectations: expectations(&source, &wire.expect, &places)?,
            compare: compare(&source, wire.compare.as_ref(), &places)?,
            design,
            resolved,
            source: text.to_owned(),
        })
    }

    /// Trials of a full run.
    pub fn trials(&self) -> usize {
        self.design.cells.len() * self.replicates
    }
}

fn toml_error(source: &Source<'_>, error: &toml::de::Error) -> ExperimentError {
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    source.error(&error.span().unwrap_or(0..0), message)
}

fn check_header(source: &Source<'_>, header: &Header) -> Result<(), ExperimentError> {
    let name = header.name.get_ref();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Err(source.error(&header.name.span(), format!(
            "experiment.name `{name}` names a directory: use small letters, digits and `-`"
        )));
    }
    if *header.replicates.get_ref() == 0 {
        return Err(source.error(&header.replicates.span(), "experiment.replicates must be 1 or more"));
    }
    if header.measure.get_ref().as_ns() == 0 {
        return Err(source.error(&header.measure.span(), "experiment.measure must be above 0"));
    }
    Ok(())
}

fn base_settings(source: &Source<'_>, wire: &Wire, tables: &Table) -> Result<Settings, ExperimentError> {
    let table = |name: &str| match tables.get(name) {
        Some(Value::Table(table)) => table.clone(),
        _ => Table::new(),
    };
    let mut settings = Settings {
        server: table("server"),
        loadgen: table("loadgen"),
        warm_up: Some(wire.experiment.warm_up),
        measure: Some(*wire.experiment.measure.get_ref()),
        ..Settings::default()
    };
    for (name, keys) in [("server", &settings.server), ("loadgen", &settings.loadgen)] {
        if let Some((key, reason)) = keys.keys().find_map(|key| Some((key, reserved(&format!("{name}.{key}"))?))) {
            return Err(source.error(&find_key(source.text, name, key), reason));
        }
    }
    for (name, value) in &wire.sysctl {
        settings
            .set(&format!("sysctl.{}", name.get_ref()), value)
            .map_err(|message| source.error(&name.span(), message))?;
    }
    settings.resolve().map_err(|message| source.error(&find_table(source.text), message))?;
    Ok(settings)
}

/// Where `key` stands in `[table]`.
fn find_key(text: &str, table: &str, key: &str) -> Range<usize> {
    let header = format!("[{table}]");
    let start = text.find(&header).unwrap_or(0);
    let at = text[start..].find(&format!("\n{key}")).map_or(start, |offset| start + offset + 1);
    at..at
}

/// Where a whole-table complaint points: the server's table, or the generator's.
fn find_table(text: &str) -> Range<usize> {
    let at = ["[server]", "[loadgen]"].iter().filter_map(|table| text.find(table)).min().unwrap_or(0);
    at..at
}

/// A factor with where it stands.
struct PlacedFactor {
    factor: Factor,
    /// Values of each level, and its place.
    levels: Vec<(Vec<(String, Value)>, Range<usize>)>,
}

/// A grid before it is crossed.
struct PlacedGrid {
    name: Option<String>,
    set: Vec<(String, Value)>,
    span: Range<usize>,
    factors: Vec<PlacedFactor>,
}

fn grids(source: &Source<'_>, wire: &Wire) -> Result<Vec<PlacedGrid>, ExperimentError> {
    let factors = |list: &[WireFactor]| list.iter().map(|factor| place(source, factor)).collect::<Result<Vec<_>, _>>();
    let mut grids = vec![PlacedGrid { name: None, set: Vec::new(), span: 0..0, factors: factors(&wire.factor)? }];
    for also in &wire.also {
        grids.push(PlacedGrid {
            name: Some(also.name.get_ref().clone()),
            set: also.set.iter().map(|(name, value)| (name.get_ref().clone(), value.clone())).collect(),
            span: also.set.keys().next().map_or(also.name.span(), Spanned::span),
            factors: factors(&also.factor)?,
        });
    }
    Ok(grids)
}

fn place(source: &Source<'_>, wire: &WireFactor) -> Result<PlacedFactor, ExperimentError> {
    let (names, levels) = match (&wire.set, &wire.to, &wire.levels) {
        (Some(set), Some(to), None) => {
            let levels = to.iter().map(|value| (vec![(set.get_ref().clone(), value.get_ref().clone())], value.span()));
            (vec![set.get_ref().clone()], levels.collect::<Vec<_>>())
        }
        (None, None, Some(levels)) => {
            let names = levels.first().map(|level| level.get_ref().keys().cloned().collect()).unwrap_or_default();
            let levels = levels.iter().map(|level| (level.get_ref().clone().into_iter().collect(), level.span()));
            (names, levels.collect())
        }
        _ => {
            let span = wire.set.as_ref().map_or(0..0, Spanned::span);
            return Err(source.error(&span, "a [[factor]] has either `set` and `to`, or `levels`"));
        }
    };
    if levels.is_empty() {
        let span = wire.set.as_ref().map_or(0..0, Spanned::span);
        return Err(source.error(&span, "a factor needs at least one level"));
    }
    let label = wire
        .name
        .clone()
        .unwrap_or_else(|| names.iter().map(|name| short_name(name)).collect::<Vec<_>>().join(" and "));
    let factor = Factor { label, levels: levels.iter().map(|(values, _)| level(values)).collect() };
    Ok(PlacedFactor { factor, levels })
}

fn level(values: &[(String, Value)]) -> Level {
    let settings: BTreeMap<String, String> = values.iter().map(|(name, value)| (name.clone(), text_of(value))).collect();
    let mut texts: Vec<&String> = settings.values().collect();
    texts.dedup();
    let label = match texts.as_slice() {
        [one] => (*one).clone(),
        _ => settings.iter().map(|(name, value)| format!("{} {value}", short_name(name))).collect::<Vec<_>>().join(" "),
    };
    Level { label, settings }
}

/// Every cell of every grid, its options resolved.
fn cross(source: &Source<'_>, base: &Settings, placed: Vec<PlacedGrid>) -> Result<(Design, Vec<Resolved>), ExperimentError> {
    let mut design = Design::default();
    let mut resolved = Vec::new();
    for (index, grid) in placed.into_iter().enumerate() {
        let mut settings = base.clone();
        let mut fixed = BTreeMap::new();
        for (name, value) in &grid.set {
            settings.set(name, value).map_err(|message| source.error(&grid.span, message))?;
            fixed.insert(name.clone(), text_of(value));
        }
        check_levels(source, &settings, &grid.factors)?;
        let sizes: Vec<usize> = grid.factors.iter().map(|factor| factor.levels.len()).collect();
        for levels in combinations(&sizes) {
            let mut cell_settings = settings.clone();
            let mut shown = fixed.clone();
            let mut span = grid.span.clone();
            for (factor, level) in grid.factors.iter().zip(&levels) {
                let (values, place) = &factor.levels[*level];
                for (name, value) in values {
                    cell_settings.set(name, value).map_err(|message| source.error(place, message))?;
                }
                shown.extend(factor.factor.levels[*level].settings.clone());
                span = place.clone();
            }
            resolved.push(cell_settings.resolve().map_err(|message| source.error(&span, message))?);
            design.cells.push(Cell { index: design.cells.len(), grid: index, levels, settings: shown });
        }
        let factors = grid.factors.into_iter().map(|factor| factor.factor).collect();
        design.grids.push(Grid { name: grid.name, factors });
    }
    Ok((design, resolved))
}

/// Each level alone, so that an error names its own line.
fn check_levels(source: &Source<'_>, base: &Settings, factors: &[PlacedFactor]) -> Result<(), ExperimentError> {
    for (values, place) in factors.iter().flat_map(|factor| &factor.levels) {
        let mut settings = base.clone();
        for (name, value) in values {
            settings.set(name, value).map_err(|message| source.error(place, message))?;
        }
        settings.resolve().map_err(|message| source.error(place, message))?;
    }
    Ok(())
}

/// All combinations of levels, the last factor fastest; one empty combination for no factors.
fn combinations(sizes: &[usize]) -> Vec<Vec<usize>> {
    sizes.iter().fold(vec![Vec::new()], |combinations, size| {
        combinations
            .iter()
            .flat_map(|head| (0..*size).map(move |level| head.iter().copied().chain([level]).collect()))
            .collect()
    })
}

fn parse_condition(source: &Source<'_>, text: &Spanned<String>) -> Result<Condition, ExperimentError> {
    Condition::parse(text.get_ref()).map_err(|error| source.error(&text.span(), error.to_string()))
}

/// Where conditions on settings are looked up.
struct Places<'a> {
    design: &'a Design,
    resolved: &'a [Resolved],
}

impl Places<'_> {
    /// The cells a condition on settings names.
    fn matching(&self, source: &Source<'_>, text: &Spanned<String>) -> Result<(Condition, Vec<&Cell>), ExperimentError> {
        let condition = parse_condition(source, text)?;
        let fail = |error: ConditionError| source.error(&text.span(), error.to_string());
        condition.check_settings().map_err(fail)?;
        let mut cells = Vec::new();
        for (cell, resolved) in self.design.cells.iter().zip(self.resolved) {
            if condition.matches_cell(cell, &resolved.effective()).map_err(fail)? {
                cells.push(cell);
            }
        }
        Ok((condition, cells))
    }
}

fn expectations(source: &Source<'_>, wire: &[WireExpect], places: &Places<'_>) -> Result<Vec<Expectation>, ExperimentError> {
    wire.iter()
        .map(|expect| {
            let that = parse_condition(source, &expect.that)?;
            that.check_quantities().map_err(|error| source.error(&expect.that.span(), error.to_string()))?;
            let cells = match &expect.r#where {
                None => None,
                Some(text) => match places.matching(source, text)? {
                    (condition, cells) if cells.is_empty() => {
                        return Err(source.error(&text.span(), format!("`{condition}` matches no cell")));
                    }
                    (condition, _) => Some(condition),
                },
            };
            Ok(Expectation { that, cells })
        })
        .collect()
}

fn compare(source: &Source<'_>, wire: Option<&WireCompare>, places: &Places<'_>) -> Result<Compare, ExperimentError> {
    let default = || vec!["served-ratio".to_owned(), "confirm-latency.p99".to_owned()];
    let Some(wire) = wire else { return Ok(Compare { metrics: default(), baseline: None, smallest_effect: 0.05 }) };
    for metric in &wire.metrics {
        Quantity::named(metric.get_ref()).map_err(|error| source.error(&metric.span(), error.to_string()))?;
    }
    let baseline = match &wire.baseline {
        None => None,
        Some(text) => {
            let (_, cells) = places.matching(source, text)?;
            let matching: Vec<usize> = cells.iter().filter(|cell| cell.grid == 0).map(|cell| cell.index).collect();
            match matching.as_slice() {
                [one] => Some(*one),
                cells => {
                    let message = format!("compare.baseline must match one cell of the main grid, it matches {}", cells.len());
                    return Err(source.error(&text.span(), message));
                }
            }
        }
    };
    let metrics = wire.metrics.iter().map(|metric| metric.get_ref().clone()).collect::<Vec<_>>();
    Ok(Compare {
        metrics: if metrics.is_empty() { default() } else { metrics },
        baseline,
        smallest_effect: wire.smallest_effect.unwrap_or(0.05),
    })
}
