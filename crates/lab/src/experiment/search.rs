//! The `[search]` table: a setting whose highest level is looked for in every cell, instead of being varied.

use std::collections::BTreeMap;

use study::condition::ConditionError;
use study::results::Trial;
use study::search::{Search, ladder};
use toml::{Spanned, Value};

use super::conditions::{Places, check_quantities, parse_condition};
use super::wire::{Header, Wire};
use super::{Experiment, ExperimentError, Place, Source};
use crate::settings::{Resolved, Settings, short_name};

/// How far neighbouring levels are apart where the file does not say.
const DEFAULT_WITHIN: f64 = 0.05;

/// A ladder finer than this is a typing error: trials vary by more.
const FINEST: f64 = 0.001;

/// What is searched, and the settings of each cell that a level is laid over.
#[derive(Clone, Debug)]
pub struct Searched {
    /// The search.
    pub search: Search,
    pub(super) cells: Vec<Settings>,
}

/// What a trial is run with.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) resolved: Resolved,
    /// Its levels: those of its cell, and that of the search.
    pub(crate) settings: BTreeMap<String, String>,
    /// Its cell in words, with the level of the search.
    pub(crate) name: String,
}

impl Experiment {
    /// The options of the next trial of a cell, after these trials. Of a search that is done, those of the cell.
    ///
    /// # Errors
    /// The level cannot be set, which the ends of the search could; the condition asks for what is no quantity.
    pub(crate) fn apply(&self, cell: usize, trials: &[Trial]) -> Result<Applied, String> {
        let place = &self.design.cells[cell];
        let (mut settings, mut name) = (place.settings.clone(), self.design.describe(place));
        let next = self.next_level(cell, trials).map_err(|error| error.to_string())?;
        let (Some(level), Some(Searched { search, cells })) = (next, &self.search) else {
            return Ok(Applied { resolved: self.resolved[cell].clone(), settings, name });
        };
        let resolved = at(&cells[cell], &search.find, level).map_err(|message| {
            let find = &search.find;
            format!("search: {find} = {level}: {message}")
        })?;
        settings.insert(search.find.clone(), level.to_string());
        name = format!("{name}, {} {level}", short_name(&search.find));
        Ok(Applied { resolved, settings, name })
    }

    /// Is a cell searched to the end? Never without a search.
    pub(crate) fn is_found(&self, cell: usize, trials: &[Trial]) -> Result<bool, ConditionError> {
        Ok(self.search.is_some() && self.next_level(cell, trials)?.is_none())
    }

    fn next_level(&self, cell: usize, trials: &[Trial]) -> Result<Option<u64>, ConditionError> {
        let Some(Searched { search, .. }) = &self.search else { return Ok(None) };
        Ok(search.state(&search.outcomes(cell, trials)?).next)
    }

    /// Blocks of the order: its replicates; of a search as many as one can take.
    pub fn blocks(&self) -> usize {
        self.search.as_ref().map_or(self.replicates, |searched| searched.search.most_trials())
    }
}

/// Reads the table.
pub(super) fn search(
    source: &Source<'_>,
    wire: &Wire,
    place: &Place,
    places: &Places<'_>,
    cells: Vec<Settings>,
) -> Result<Option<Searched>, ExperimentError> {
    let Some(spanned) = &wire.search else { return Ok(None) };
    let table = spanned.get_ref();
    let find = table.find.get_ref();
    if place.attach().is_some() {
        let message = "[search] needs trials of its own: a deployment gets no load from here; use topology = \"veth\"";
        return Err(source.error(&spanned.span(), message));
    }
    if let Some(compare) = &wire.compare {
        let message = "a search compares the capacities it finds; leave [compare] out, or [search]";
        return Err(source.error(&compare.span(), message));
    }
    check_apart(source, wire, &table.find)?;
    let votes = votes(source, &wire.experiment)?;
    let between = *table.between.get_ref();
    if between[0] == 0 || between[0] >= between[1] {
        let message = "search.between is the least and the greatest level, whole numbers from 1 up, e.g. [500, 200000]";
        return Err(source.error(&table.between.span(), message));
    }
    let within = table.within.as_ref().map_or(DEFAULT_WITHIN, |within| *within.get_ref());
    if let Some(span) = table.within.as_ref().filter(|_| !(FINEST..=1.0).contains(&within)) {
        let message = format!("search.within is a share of the level from {FINEST} to 1; 0.05 is usual");
        return Err(source.error(&span.span(), message));
    }
    for settings in &cells {
        for level in between {
            at(settings, find, level)
                .map_err(|message| source.error(&table.find.span(), format!("search.find at {level}: {message}")))?;
        }
    }
    let holds = parse_condition(source, &table.r#while)?;
    check_quantities(source, &table.r#while, &holds, places)?;
    let tries = *wire.experiment.retries.get_ref() + 1;
    let search = Search { find: find.clone(), holds, levels: ladder(between, within), votes, tries };
    Ok(Some(Searched { search, cells }))
}

/// A setting that is searched and varied would be what the search says, silently.
fn check_apart(source: &Source<'_>, wire: &Wire, find: &Spanned<String>) -> Result<(), ExperimentError> {
    let factors = wire.factor.iter().chain(wire.also.iter().flat_map(|also| &also.factor)).map(Spanned::get_ref);
    let sets = |name: &str| name == find.get_ref();
    let mut varied = factors.flat_map(|factor| {
        let levels = factor.levels.iter().flatten().flat_map(|level| level.get_ref().keys().map(String::as_str));
        factor.set.iter().map(String::as_str).chain(levels)
    });
    let fixed = wire.also.iter().flat_map(|also| also.set.keys()).any(|name| sets(name.get_ref()));
    if fixed || varied.any(sets) {
        let message =
            format!("search.find: {} is set by a factor or a grid as well; search it or vary it", find.get_ref());
        return Err(source.error(&find.span(), message));
    }
    Ok(())
}

/// An even number of trials can end in a draw.
fn votes(source: &Source<'_>, header: &Header) -> Result<usize, ExperimentError> {
    let replicates = *header.replicates.get_ref();
    if replicates.is_multiple_of(2) {
        let message = "experiment.replicates must be odd with [search]: the majority decides a level; 3 is usual";
        return Err(source.error(&header.replicates.span(), message));
    }
    Ok(replicates)
}

/// The options of a cell at a level.
fn at(settings: &Settings, find: &str, level: u64) -> Result<Resolved, String> {
    let mut settings = settings.clone();
    let level = i64::try_from(level).map_err(|_| "too great a number".to_owned())?;
    settings.set(find, &Value::Integer(level))?;
    settings.resolve()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agenda::Agenda;
    use crate::testing;

    const SEARCH: &str = "[experiment]\nname = \"x\"\nquestion = \"?\"\norder = \"as-written\"\n[search]\nfind = \
                          \"loadgen.rate\"\nbetween = [500, 8000]\nwhile = \"served-ratio >= 0.999\"\nwithin = \
                          0.1\n[[factor]]\nset = \"server.acceptors\"\nto = [1, 2]\n";

    fn refused(piece: &str, other: &str) -> String {
        assert_eq!(SEARCH.matches(piece).count(), 1, "`{piece}`");
        let text = SEARCH.replacen(piece, other, 1);
        Experiment::parse("x.toml", &text).expect_err("refused").to_string()
    }

    #[test]
    fn a_search_that_makes_no_sense_is_refused_with_its_line() {
        for (piece, other, expected) in [
            ("500, 8000", "8000, 500", "x.toml:7: search.between is"),
            ("500, 8000", "0, 500", "x.toml:7: search.between is"),
            ("\"loadgen.rate\"", "\"loadgen.rates\"", "x.toml:6: search.find at 500: loadgen"),
            ("\"loadgen.rate\"", "\"server.accept-delay\"", "x.toml:6: search.find at 500: "),
            ("\"loadgen.rate\"", "\"server.acceptors\"", "x.toml:6: search.find: server.acceptors is set by a factor"),
            ("served-ratio", "served-ration", "x.toml:8: "),
            ("within = 0.1", "within = 2.0", "x.toml:9: search.within is"),
            ("question = \"?\"", "question = \"?\"\nreplicates = 4", "x.toml:4: experiment.replicates must be odd"),
            (
                "question = \"?\"",
                "question = \"?\"\nreplicates = 9999",
                "x.toml:4: 2 cells × 50035 trials of a search are",
            ),
            ("[[factor]]", "[compare]\nmetrics = [\"served-ratio\"]\n[[factor]]", "x.toml:10: a search compares"),
        ] {
            let message = refused(piece, other);
            assert!(message.starts_with(expected), "{other}: {message}");
            assert!(!message.contains('\n'), "one line: {message}");
        }
    }

    /// The record of a trial at the level that is due, without load: it planned nothing and so served nothing.
    fn record(experiment: &Experiment, agenda: &Agenda, trials: &[Trial]) -> Option<Trial> {
        let planned = agenda.upcoming()?;
        let applied = experiment.apply(planned.cell, trials).expect("a level");
        Some(Trial { settings: applied.settings, name: applied.name, ..testing::trial(planned, true) })
    }

    fn keep(experiment: &Experiment, agenda: &mut Agenda, trials: &mut Vec<Trial>, trial: Trial) {
        agenda.admit(&trial).expect("a record of this run");
        trials.push(trial);
        agenda.close_found(experiment, trials).expect("a quantity");
    }

    #[test]
    fn the_next_level_follows_from_the_records_and_a_search_that_is_done_ends_the_run() {
        let experiment = Experiment::parse("x.toml", SEARCH).expect("valid");
        let (mut agenda, mut trials) = (Agenda::new(&experiment), Vec::new());
        let levels = experiment.search.as_ref().map(|searched| searched.search.levels.clone()).expect("a search");
        while let Some(trial) = record(&experiment, &agenda, &trials) {
            keep(&experiment, &mut agenda, &mut trials, trial);
        }
        assert_eq!(trials[0].settings["loadgen.rate"], levels[levels.len() / 2].to_string());
        assert_eq!(trials[0].name, "acceptors 1, rate 2000");
        assert_eq!((agenda.done(), agenda.places()), (2 * experiment.blocks(), experiment.trials()));
        assert!(trials.len() < agenda.places() / 2, "{} trials", trials.len());
        for kept in 0..trials.len() {
            let (mut agenda, mut before) = (Agenda::new(&experiment), Vec::new());
            for trial in &trials[..kept] {
                keep(&experiment, &mut agenda, &mut before, trial.clone());
            }
            let next = record(&experiment, &agenda, &before).expect("one more");
            assert_eq!((next.trial, &next.settings), (trials[kept].trial, &trials[kept].settings), "after {kept}");
        }
    }
}
