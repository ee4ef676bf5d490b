//! What a search came to, cell by cell: the capacity, its interval, and the levels that were tried. Shown in the place of the
//! medians of cells, which would mix levels.
//!
//! The answer names the cell with the highest capacity and by how much it leads. A lead is claimed when the two intervals are
//! apart; an interval with an open end reaches as far as that side goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::condition::{Condition, ConditionError};
use crate::design::Design;
use crate::format;
use crate::quantity::Unit;
use crate::results::Trial;
use crate::search::{AGREE, Estimate, Outcome, Search};
use crate::table::width;

/// Columns of the report's table of cells.
pub(crate) const CAPACITY: [&str; 5] = ["cell", "held", "failed", "interval", "remark"];

/// Columns of the report's table of levels.
pub(crate) const LEVELS: [&str; 5] = ["cell", "level", "held", "failed", "do not count"];

/// The capacity of every cell of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Capacity {
    /// The setting that was searched, by its full name.
    pub find: String,
    /// What held up to the capacity.
    pub holds: Condition,
    /// The least and the greatest level.
    pub between: [u64; 2],
    /// The cells that were run, in the order of the design.
    pub cells: Vec<CellCapacity>,
}

/// The capacity of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CellCapacity {
    /// Its index in the design.
    pub cell: usize,
    /// It in words.
    pub name: String,
    /// What was found.
    pub estimate: Estimate,
    /// Every level that was tried, ascending.
    pub levels: Vec<Tried>,
}

/// What the trials of a level said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tried {
    /// The level.
    pub level: u64,
    /// Trials in which the condition held.
    pub held: usize,
    /// Trials in which it did not.
    pub failed: usize,
    /// Trials that do not count.
    pub invalid: usize,
}

impl Capacity {
    /// Of the cells that have trials.
    ///
    /// # Errors
    /// The condition asks for what is no quantity.
    pub fn of(search: &Search, design: &Design, trials: &[Trial]) -> Result<Self, ConditionError> {
        let mut cells = Vec::new();
        for cell in &design.cells {
            let outcomes = search.outcomes(cell.index, trials)?;
            if outcomes.is_empty() {
                continue;
            }
            let mut levels = BTreeMap::<u64, Tried>::new();
            for (level, outcome) in &outcomes {
                let empty = Tried { level: *level, held: 0, failed: 0, invalid: 0 };
                let tried = levels.entry(*level).or_insert(empty);
                match outcome {
                    Outcome::Held => tried.held += 1,
                    Outcome::Failed => tried.failed += 1,
                    Outcome::Void => tried.invalid += 1,
                }
            }
            cells.push(CellCapacity {
                cell: cell.index,
                name: design.describe(cell),
                estimate: search.state(&outcomes).estimate,
                levels: levels.into_values().collect(),
            });
        }
        let between = [search.levels.first(), search.levels.last()].map(|level| level.copied().unwrap_or_default());
        Ok(Self { find: search.find.clone(), holds: search.holds.clone(), between, cells })
    }

    /// The answer, clauses separated by `; `.
    pub fn sentence(&self) -> String {
        let mut known: Vec<(&CellCapacity, u64)> =
            self.cells.iter().filter_map(|cell| Some((cell, cell.estimate.held?))).collect();
        // A stable sort: the first of equals leads.
        known.sort_by_key(|(_, held)| std::cmp::Reverse(*held));
        let mut clauses = Vec::new();
        let (nowhere, unknown) = self.without_capacity();
        let lowest = if nowhere.is_empty() { "the least" } else { "the least that held" };
        match known.as_slice() {
            [] if nowhere.len() == self.cells.len() => {
                clauses.push(format!("no cell held `{}` at {} or above", self.holds, self.value(self.between[0])));
            }
            [] => {}
            [only] => clauses.push(format!("{} holds up to {}", only.0.name, self.found(*only))),
            [best, rest @ ..] => {
                clauses.push(format!("{} holds up to {}", best.0.name, self.found(*best)));
                let last = rest.len() - 1;
                for (index, other) in rest.iter().enumerate().filter(|(index, _)| [0, last].contains(index)) {
                    clauses.push(self.lead(*best, *other, if index == 0 { "the next" } else { lowest }));
                }
            }
        }
        if !nowhere.is_empty() && nowhere.len() < self.cells.len() {
            clauses.push(format!("not even {} held for {}", self.value(self.between[0]), nowhere.join(" and ")));
        }
        if !unknown.is_empty() {
            clauses.push(format!(
                "whether {} holds could not be judged for {}",
                self.value(self.between[0]),
                unknown.join(" and ")
            ));
        }
        let open: Vec<&str> =
            self.cells.iter().filter(|cell| !cell.estimate.complete).map(|cell| cell.name.as_str()).collect();
        if !open.is_empty() {
            clauses.push(format!("the search is not done for {}", open.join(" and ")));
        }
        clauses.join("; ")
    }

    /// The cells whose search is done and found no level that held: those of which the least failed, and those of which no
    /// trial of it counts.
    fn without_capacity(&self) -> (Vec<&str>, Vec<&str>) {
        let (mut nowhere, mut unknown) = (Vec::new(), Vec::new());
        for cell in self.cells.iter().filter(|cell| cell.estimate.complete && cell.estimate.held.is_none()) {
            let failed = cell.levels.iter().any(|tried| tried.level == self.between[0] && tried.failed > 0);
            if failed { &mut nowhere } else { &mut unknown }.push(cell.name.as_str());
        }
        (nowhere, unknown)
    }

    fn lead(&self, best: (&CellCapacity, u64), other: (&CellCapacity, u64), place: &str) -> String {
        let [low, high] = [best.0.estimate.interval[0], other.0.estimate.interval[1]];
        let lead = if low.zip(high).is_some_and(|(low, high)| low >= high) {
            format!("{:.2} times", best.1 as f64 / other.1 as f64)
        } else {
            "no clear lead over".to_owned()
        };
        format!("{lead} {place}, {}: {}", other.0.name, self.found(other))
    }

    /// `8200/s (8000/s to 8400/s)`.
    fn found(&self, (cell, held): (&CellCapacity, u64)) -> String {
        format!("{} ({})", self.value(held), self.interval(cell))
    }

    fn interval(&self, cell: &CellCapacity) -> String {
        match cell.estimate.interval {
            [Some(low), Some(high)] => format!("{} to {}", self.value(low), self.value(high)),
            [Some(low), None] => format!("{} or more", self.value(low)),
            [None, Some(high)] => format!("{} or less", self.value(high)),
            [None, None] => "no interval".to_owned(),
        }
    }

    fn value(&self, level: u64) -> String {
        let unit = if self.find == "loadgen.rate" { Unit::PerSecond } else { Unit::Count };
        format::value(level as f64, unit)
    }

    /// What is special about a cell, in words; nothing when nothing is.
    fn remark(&self, cell: &CellCapacity) -> String {
        let Estimate { unasked, monotone, complete, .. } = cell.estimate;
        let mut remarks = Vec::new();
        if let Some(level) = unasked {
            remarks.push(format!("not the server's limit: trials at {} do not count", self.value(level)));
        }
        if !monotone {
            remarks.push("a level failed below one that held".to_owned());
        }
        if !complete {
            remarks.push("not done".to_owned());
        }
        remarks.join("; ")
    }

    /// The table of the first screen.
    pub(crate) fn lines(&self) -> Vec<String> {
        let short = self.find.rsplit('.').next().unwrap_or(&self.find);
        let mut rows = vec![[format!("highest {short}"), "held".to_owned(), "interval".to_owned(), String::new()]];
        for cell in &self.cells {
            let held = cell.estimate.held.map_or_else(|| "–".to_owned(), |level| self.value(level));
            rows.push([cell.name.clone(), held, self.interval(cell), self.remark(cell)]);
        }
        let column = |index: usize| rows.iter().map(|row| width(&row[index])).max().unwrap_or(0);
        let (first, second, third) = (column(0), column(1), column(2));
        let line = |[name, held, interval, remark]: &[String; 4]| {
            format!("{name:<first$}  {held:>second$}  {interval:>third$}  {remark}").trim_end().to_owned()
        };
        let mut lines: Vec<String> = rows.iter().map(line).collect();
        lines.push(format!("while {}", self.holds));
        lines
    }

    /// How it was found, in words.
    pub(crate) fn method(&self) -> String {
        format!(
            "The highest {} at which `{}` still holds. A level is decided by the majority of its first trials; the interval \
             reaches from a level at which all of {AGREE} trials held to one at which all of {AGREE} failed.",
            self.find, self.holds
        )
    }

    /// The rows of the report's table of cells.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let row = |cell: &CellCapacity| {
            let level = |level: Option<u64>| level.map_or_else(|| "–".to_owned(), |level| self.value(level));
            let Estimate { held, failed, .. } = cell.estimate;
            vec![cell.name.clone(), level(held), level(failed), self.interval(cell), self.remark(cell)]
        };
        self.cells.iter().map(row).collect()
    }

    /// The rows of the report's table of levels.
    pub(crate) fn level_rows(&self) -> Vec<Vec<String>> {
        let row = |cell: &CellCapacity, tried: &Tried| {
            let counts = [tried.held, tried.failed, tried.invalid].map(|count| count.to_string());
            [vec![cell.name.clone(), self.value(tried.level)], counts.to_vec()].concat()
        };
        self.cells.iter().flat_map(|cell| cell.levels.iter().map(move |tried| row(cell, tried))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::html::Page;
    use crate::report::Report;
    use crate::screen::{Screen, render};
    use crate::search::ladder;
    use crate::summary::Summary;
    use crate::testing;

    fn search() -> Search {
        Search {
            find: "loadgen.rate".to_owned(),
            holds: "served-ratio >= 0.999".parse().unwrap(),
            levels: ladder([1_000, 16_000], 0.2),
            votes: 3,
            tries: 3,
        }
    }

    /// Runs every cell to the end; each serves all up to its capacity.
    fn searched(capacities: &[u64]) -> (Design, Vec<Trial>, Capacity) {
        let (search, labels) = (search(), ["1", "2", "4"]);
        let factor = testing::factor("server.acceptors", &labels[..capacities.len()]);
        let design = testing::design(&[(None, vec![factor])]);
        let mut trials = Vec::new();
        for (cell, capacity) in capacities.iter().enumerate() {
            while let Some(level) = search.state(&search.outcomes(cell, &trials).unwrap()).next {
                let mut trial = testing::trial(cell);
                trial.settings.insert(search.find.clone(), level.to_string());
                testing::serve(&mut trial, if level <= *capacity { 1000 } else { 900 }, 1);
                trials.push(trial);
            }
        }
        let capacity = Capacity::of(&search, &design, &trials).unwrap();
        (design, trials, capacity)
    }

    fn found(capacities: &[u64]) -> Capacity {
        searched(capacities).2
    }

    #[test]
    fn screen_and_report_show_capacities_in_the_place_of_medians() {
        let (design, trials, capacity) = searched(&[2_100, 4_200]);
        let mut summary = Summary::of(&design, &trials, &["served-ratio"]).unwrap();
        summary.capacity = Some(capacity);
        let screen = Screen { name: "capacity", question: "how many?", ..testing::screen(&design, &summary) };
        let shown = render(&screen, 80);
        assert!(shown.contains("\nacceptors 2   4000/s  4000/s to 4757/s\n"), "{shown}");
        assert!(shown.contains("\nAnswer  acceptors 2 holds up to 4000/s"), "{shown}");
        let report = Report { screen: &screen, trials: &trials, environment: &[], command: "acceptbench run capacity" };
        let text = report.markdown().unwrap();
        assert!(text.contains("\n| acceptors 1 | 2000/s | 2378/s | 2000/s to 2378/s |  |\n"), "{text}");
        assert!(text.contains("\n| acceptors 1 | 2378/s | 0 | 5 | 0 |\n"), "{text}");
        assert!(!text.contains("## Cells"), "{text}");
        let html = Page { report, run: "capacity", analysis: None, grafana: None }.html().unwrap();
        assert!(html.contains("id=\"capacity\"") && !html.contains("id=\"cells\"") && !html.contains("id=\"latency\""));
        assert!(!html.contains("id=\"depth\""), "of all levels together it says nothing");
    }

    #[test]
    fn the_answer_names_the_best_and_by_how_much() {
        let three = found(&[2_100, 4_200, 8_300]);
        assert_eq!(
            three.sentence(),
            "acceptors 4 holds up to 8000/s (8000/s to 9514/s); 2.00 times the next, acceptors 2: 4000/s (4000/s to \
             4757/s); 4.00 times the least, acceptors 1: 2000/s (2000/s to 2378/s)"
        );
        let equal = found(&[4_200, 4_200]);
        assert!(equal.sentence().contains("no clear lead over the next, acceptors 2"), "{}", equal.sentence());
        assert_eq!(found(&[10]).sentence(), "no cell held `served-ratio >= 0.999` at 1000/s or above");
    }

    #[test]
    fn a_cell_that_held_nowhere_is_named() {
        assert_eq!(
            found(&[10, 4_200, 8_300]).sentence(),
            "acceptors 4 holds up to 8000/s (8000/s to 9514/s); 2.00 times the next, acceptors 2: 4000/s (4000/s to 4757/s); \
             not even 1000/s held for acceptors 1"
        );
        let only = found(&[10, 4_200, 10]).sentence();
        assert!(only.ends_with("4757/s); not even 1000/s held for acceptors 1 and acceptors 4"), "{only}");
        let least = found(&[2_100, 10, 4_200]);
        let mut four = least.clone();
        four.cells.push(CellCapacity { name: "acceptors 8".to_owned(), ..found(&[8_300]).cells[0].clone() });
        assert!(four.sentence().contains("4.00 times the least that held, acceptors 1"), "{}", four.sentence());
        assert_eq!(found(&[10, 10]).sentence(), "no cell held `served-ratio >= 0.999` at 1000/s or above");
    }

    #[test]
    fn a_cell_of_which_no_trial_counts_did_not_fail() {
        let mut two = found(&[10, 4_200]);
        for tried in &mut two.cells[0].levels {
            (tried.invalid, tried.failed) = (tried.failed, 0);
        }
        let unknown = "whether 1000/s holds could not be judged for acceptors 1";
        assert!(two.sentence().ends_with(&format!("; {unknown}")), "{}", two.sentence());
        // That a greater one failed says nothing of it.
        two.cells[0].levels.push(Tried { level: 2000, held: 0, failed: 5, invalid: 0 });
        assert!(two.sentence().ends_with(&format!("; {unknown}")), "{}", two.sentence());
        two.cells.truncate(1);
        assert_eq!(two.sentence(), unknown);
    }

    #[test]
    fn the_table_has_a_line_per_cell() {
        let two = found(&[2_100, 20_000]);
        let lines = two.lines();
        assert_eq!(lines[0], "highest rate     held          interval");
        assert_eq!(lines[1], "acceptors 1    2000/s  2000/s to 2378/s");
        assert!(lines[2].starts_with("acceptors 2") && lines[2].ends_with("or more"), "{lines:?}");
        assert_eq!(lines[3], "while served-ratio >= 0.999");
        let tried: usize = two.cells[0].levels.iter().map(|tried| tried.held + tried.failed).sum();
        assert!((10..=18).contains(&tried), "{tried} trials");
        assert_eq!(two.level_rows().len(), two.cells.iter().map(|cell| cell.levels.len()).sum::<usize>());
        let text = serde_json::to_string(&two).unwrap();
        assert_eq!(serde_json::from_str::<Capacity>(&text).unwrap(), two);
    }
}
