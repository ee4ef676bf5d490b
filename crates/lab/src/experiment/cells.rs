//! From factors to cells: every level laid over the file's tables, alone first, so that an error names its own line.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use server::opts::Engine;
use study::design::{Cell, Design, Factor, Grid, Level};
use toml::{Spanned, Value};

use super::wire::{Wire, WireFactor};
use super::{ExperimentError, Source};
use crate::settings::{Resolved, Settings, short_name, text_of};

/// Settings by name, in the order of the file.
type Values = Vec<(String, Value)>;

/// A factor with where it stands.
pub(super) struct PlacedFactor {
    pub(super) factor: Factor,
    /// Values of each level, and its place.
    pub(super) levels: Vec<(Values, Range<usize>)>,
}

/// A grid before it is crossed.
pub(super) struct PlacedGrid {
    pub(super) name: Option<String>,
    pub(super) set: Values,
    pub(super) span: Range<usize>,
    pub(super) factors: Vec<PlacedFactor>,
}

pub(super) fn grids(source: &Source<'_>, wire: &Wire) -> Result<Vec<PlacedGrid>, ExperimentError> {
    let factors = |list: &[Spanned<WireFactor>]| {
        let placed = list.iter().map(|factor| place(source, factor)).collect::<Result<Vec<_>, _>>()?;
        check_distinct(source, &placed)?;
        Ok::<_, ExperimentError>(placed)
    };
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

/// One factor and its levels, checked for what makes no sense whatever the settings are.
fn place(source: &Source<'_>, spanned: &Spanned<WireFactor>) -> Result<PlacedFactor, ExperimentError> {
    let (wire, span) = (spanned.get_ref(), spanned.span());
    let levels: Vec<(Values, Range<usize>)> = match (&wire.set, &wire.to, &wire.levels) {
        (Some(set), Some(to), None) => {
            to.iter().map(|value| (vec![(set.clone(), value.get_ref().clone())], value.span())).collect()
        }
        (None, None, Some(levels)) => {
            levels.iter().map(|level| (level.get_ref().clone().into_iter().collect(), level.span())).collect()
        }
        _ => return Err(source.error(&span, "a [[factor]] has either `set` and `to`, or `levels`")),
    };
    let Some((first, _)) = levels.first() else {
        return Err(source.error(&span, "a factor needs at least one level; list them in `to` or `levels`"));
    };
    let short = || first.iter().map(|(name, _)| short_name(name)).collect::<Vec<_>>().join(" and ");
    let label = wire.name.clone().unwrap_or_else(short);
    let factor = Factor { label, levels: levels.iter().map(|(values, _)| level(values)).collect() };
    Ok(PlacedFactor { factor, levels })
}

/// A level that leaves out what the others set would silently take the file's value.
fn check_alike(source: &Source<'_>, factor: &PlacedFactor) -> Result<(), ExperimentError> {
    let names = |values: &Values| values.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let Some((first, _)) = factor.levels.first() else { return Ok(()) };
    match factor.levels.iter().find(|(values, _)| names(values) != names(first)) {
        None => Ok(()),
        Some((_, place)) => {
            let list = names(first).join(" and ");
            Err(source.error(place, format!("every level of a factor sets the same settings, here {list}")))
        }
    }
}

/// No two factors of a grid may set the same thing: the later one would win silently.
fn check_distinct(source: &Source<'_>, factors: &[PlacedFactor]) -> Result<(), ExperimentError> {
    let mut seen = BTreeSet::new();
    for factor in factors {
        let Some((values, place)) = factor.levels.first() else { continue };
        for (name, _) in values {
            if !seen.insert(name) {
                return Err(source.error(place, format!("two factors set {name}; vary it in one of them")));
            }
        }
    }
    Ok(())
}

fn level(values: &[(String, Value)]) -> Level {
    let settings: BTreeMap<String, String> =
        values.iter().map(|(name, value)| (name.clone(), text_of(value))).collect();
    let mut texts: Vec<&String> = settings.values().collect();
    texts.dedup();
    let label = match texts.as_slice() {
        [one] => one_line(one),
        _ => settings
            .iter()
            .map(|(name, value)| format!("{} {}", short_name(name), one_line(value)))
            .collect::<Vec<_>>()
            .join(" "),
    };
    Level { label, settings }
}

/// A file of a target is a text of many lines: its first says which it is.
fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(first), Some(_)) => format!("{first} …"),
        _ => text.to_owned(),
    }
}

/// The cells of an experiment.
pub(super) struct Crossed {
    pub(super) design: Design,
    /// Their options, by index.
    pub(super) resolved: Vec<Resolved>,
    /// The tables these come from.
    pub(super) cells: Vec<Settings>,
}

/// Every cell of every grid, its options resolved.
pub(super) fn cross(source: &Source<'_>, base: &Settings, placed: Vec<PlacedGrid>) -> Result<Crossed, ExperimentError> {
    let mut design = Design::default();
    let (mut resolved, mut cells) = (Vec::new(), Vec::new());
    for (index, grid) in placed.into_iter().enumerate() {
        let mut settings = base.clone();
        let mut fixed = BTreeMap::new();
        for (name, value) in &grid.set {
            settings.set(name, value).map_err(|message| source.error(&grid.span, message))?;
            fixed.insert(name.clone(), text_of(value));
        }
        check_levels(source, &settings, &grid.factors)?;
        grid.factors.iter().try_for_each(|factor| check_alike(source, factor))?;
        let first = resolved.len();
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
            cells.push(cell_settings);
            design.cells.push(Cell { index: design.cells.len(), grid: index, levels, settings: shown });
        }
        check_multishot(source, &grid.factors, &resolved[first..])?;
        let factors = grid.factors.into_iter().map(|factor| factor.factor).collect();
        design.grids.push(Grid { name: grid.name, factors });
    }
    Ok(Crossed { design, resolved, cells })
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

/// What sets the length of the accept queue, which a multishot accept empties by itself.
const QUEUE_LENGTH: [&str; 2] = ["server.backlog", "sysctl.net.core.somaxconn"];

/// No cell of a grid that varies the queue's length may have an engine for which it means nothing.
fn check_multishot(source: &Source<'_>, factors: &[PlacedFactor], cells: &[Resolved]) -> Result<(), ExperimentError> {
    if cells.iter().all(|cell| cell.server.engine != Engine::IoUringMultishot) {
        return Ok(());
    }
    for factor in factors {
        for name in QUEUE_LENGTH {
            let value = |values: &Values| values.iter().find(|(key, _)| key == name).map(|(_, value)| text_of(value));
            let values: BTreeSet<_> = factor.levels.iter().map(|(values, _)| value(values)).collect();
            if let ([_, (_, place), ..], true) = (factor.levels.as_slice(), values.len() > 1) {
                return Err(source.error(
                    place,
                    format!(
                        "{name} changes nothing under server.engine = \"io-uring-multishot\", which empties the accept \
                         queue by itself; use engine \"io-uring\", or vary {name} in a grid without it"
                    ),
                ));
            }
        }
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

#[cfg(test)]
mod tests {
    use crate::experiment::Experiment;

    fn check(factors: &str) -> Result<(), String> {
        let header = "[experiment]\nname = \"x\"\nquestion = \"?\"\n";
        Experiment::parse("x.toml", &format!("{header}{factors}")).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn the_queue_is_not_varied_where_nothing_waits_in_it() {
        let engines = "[[factor]]\nset = \"server.engine\"\nto = [\"epoll\", \"io-uring-multishot\"]\n";
        for name in ["server.backlog", "sysctl.net.core.somaxconn"] {
            let varied = format!("[[factor]]\nset = \"{name}\"\nto = [16, 128]\n");
            let refused = check(&format!("{varied}{engines}")).expect_err("meaningless");
            assert!(refused.starts_with("x.toml:6: "), "{refused}");
            assert!(refused.contains(name) && refused.contains("use engine \"io-uring\""), "{refused}");
            assert!(!refused.contains('\n'), "one line: {refused}");

            let fixed = "[server]\nengine = \"io-uring-multishot\"\n";
            assert!(check(&format!("{fixed}{varied}")).is_err());
            // The base grid holds only the file's own settings, the other one varies.
            let apart =
                format!("{engines}[[also]]\nname = \"queue\"\n{}", varied.replace("[[factor]]", "[[also.factor]]"));
            assert_eq!(check(&apart), Ok(()));
            assert_eq!(check(&varied), Ok(()));
        }
        assert_eq!(check(engines), Ok(()));
        let together = "[[factor]]\nlevels = [{ \"server.engine\" = \"epoll\", \"server.backlog\" = 16 }, \
                        { \"server.engine\" = \"io-uring-multishot\", \"server.backlog\" = 16 }]\n";
        assert_eq!(check(together), Ok(()), "not varied");
    }
}
