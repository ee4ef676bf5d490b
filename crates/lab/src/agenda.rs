//! What is left of a run: which place of the order comes next, and which trials that do not count are repeated.
//!
//! It follows from the order and the records alone, so whoever goes on with a run that was interrupted goes on as the
//! first runner would have. A trial that does not count is repeated at the end of its block: whatever disturbed it may be
//! over by then, and drift still falls on all cells of the block alike.

use study::condition::ConditionError;
use study::results::Trial;

use crate::experiment::Experiment;
use crate::schedule::Planned;

/// The order of a run and what became of it so far.
#[derive(Clone, Debug)]
pub struct Agenda {
    /// In the order of the run, which is also that of their numbers.
    places: Vec<Place>,
    retries: usize,
}

/// A place in the order.
#[derive(Clone, Copy, Debug)]
struct Place {
    planned: Planned,
    /// How often it was run.
    runs: usize,
    /// Does one of its records count?
    counts: bool,
    /// Was it left out, because the search of its cell is done?
    closed: bool,
}

impl Agenda {
    /// Everything is left. A part keeps the order and the numbers that its cells have in the whole.
    pub fn new(experiment: &Experiment) -> Self {
        let order = experiment.order.plan(experiment.design.cells.len(), experiment.blocks(), experiment.seed);
        let places = order
            .into_iter()
            .filter(|planned| experiment.part.cells.binary_search(&planned.cell).is_ok())
            .map(|planned| Place { planned, runs: 0, counts: false, closed: false })
            .collect();
        Self { places, retries: experiment.retries }
    }

    /// Takes in a record of an earlier runner, in the order in which they were written.
    ///
    /// # Errors
    /// It is no record of this run, or one too many.
    pub(crate) fn admit(&mut self, trial: &Trial) -> Result<(), String> {
        let Trial { trial: number, block, cell, retry, .. } = *trial;
        let place = self.place(number).filter(|place| (place.planned.block, place.planned.cell) == (block, cell));
        match place {
            None => Err(format!("trial {number} (block {block}, cell {cell}) is not in the order of experiment.toml")),
            Some(place) if place.counts => Err(format!("trial {number} counts already")),
            Some(place) if place.runs != retry => {
                Err(format!("retry {retry} of trial {number} follows {} records of it", place.runs))
            }
            Some(place) => {
                place.ran(trial.is_valid());
                Ok(())
            }
        }
    }

    /// A place was run; does its record count?
    pub(crate) fn ran(&mut self, planned: Planned, counts: bool) {
        if let Some(place) = self.place(planned.trial) {
            place.ran(counts);
        }
    }

    /// Leaves out what remains of the cells whose search is done, by these trials.
    ///
    /// # Errors
    /// The condition of the search asks for what is no quantity.
    pub(crate) fn close_found(&mut self, experiment: &Experiment, trials: &[Trial]) -> Result<(), ConditionError> {
        for cell in &experiment.part.cells {
            if experiment.is_found(*cell, trials)? {
                let of_cell = self.places.iter_mut().filter(|place| place.planned.cell == *cell);
                of_cell.for_each(|place| place.closed = true);
            }
        }
        Ok(())
    }

    fn place(&mut self, trial: usize) -> Option<&mut Place> {
        let index = self.places.binary_search_by_key(&trial, |place| place.planned.trial).ok()?;
        self.places.get_mut(index)
    }

    /// What comes next: within the first block that is not done, what was run least often, in its order.
    pub fn upcoming(&self) -> Option<Planned> {
        self.next_but(None)
    }

    /// What comes after `planned` if that counts.
    pub(crate) fn after(&self, planned: Planned) -> Option<Planned> {
        self.next_but(Some(planned.trial))
    }

    fn next_but(&self, counted: Option<usize>) -> Option<Planned> {
        let mut open = self.open().filter(|place| Some(place.planned.trial) != counted).peekable();
        let block = open.peek()?.planned.block;
        // min_by_key keeps the first of equals.
        let next = open.take_while(|place| place.planned.block == block).min_by_key(|place| place.runs)?;
        Some(next.upcoming())
    }

    fn open(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| !place.counts && !place.closed && place.runs <= self.retries)
    }

    /// The places that wait for a record that counts, each once: nobody foresees retries, nor when a search is done.
    pub fn left(&self) -> impl Iterator<Item = Planned> {
        self.open().map(Place::upcoming)
    }

    /// Will this place be run again?
    pub fn repeats(&self, trial: usize) -> bool {
        self.left().any(|planned| planned.trial == trial)
    }

    /// Places of the whole run; of a search, as many as it can take.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// Places that need no further run: one record counts, or none of as many as are tried, or the search of the cell is done.
    pub fn done(&self) -> usize {
        self.places.len() - self.open().count()
    }

    /// Blocks that need no further run.
    pub fn blocks_done(&self) -> usize {
        let first_open = self.open().next().map(|place| place.planned.block);
        first_open.unwrap_or_else(|| self.places.last().map_or(0, |place| place.planned.block + 1))
    }
}

impl Place {
    fn ran(&mut self, counts: bool) {
        self.runs += 1;
        self.counts |= counts;
    }

    fn upcoming(&self) -> Planned {
        Planned { retry: self.runs, ..self.planned }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// Runs everything that is left; `counts` decides each trial. What was run, as (trial, retry).
    fn run(agenda: &mut Agenda, mut counts: impl FnMut(Planned) -> bool) -> Vec<(usize, usize)> {
        let mut ran = Vec::new();
        while let Some(planned) = agenda.upcoming() {
            agenda.ran(planned, counts(planned));
            ran.push((planned.trial, planned.retry));
        }
        ran
    }

    #[test]
    fn trials_that_do_not_count_are_repeated_at_the_end_of_their_block_up_to_the_limit() {
        // Two blocks of three cells, as written.
        let experiment =
            testing::experiment("replicates = 2\nretries = 2\norder = \"as-written\"", &["16", "128", "1024"]);
        let mut agenda = Agenda::new(&experiment);
        let ran = run(&mut agenda, |planned| match planned.trial {
            0 => planned.retry == 1,
            1 => false,
            _ => true,
        });
        assert_eq!(ran, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (1, 2), (3, 0), (4, 0), (5, 0)]);
        assert_eq!((agenda.done(), agenda.places(), agenda.blocks_done()), (6, 6, 2));
        let without = testing::experiment("replicates = 1\nretries = 0\norder = \"as-written\"", &["16", "128"]);
        assert_eq!(run(&mut Agenda::new(&without), |_| false), [(0, 0), (1, 0)]);
    }

    #[test]
    fn an_interrupted_run_goes_on_as_it_would_have() {
        let experiment = testing::experiment("replicates = 4", &["16", "128", "1024"]);
        let counts = |planned: Planned| !(planned.trial + planned.retry).is_multiple_of(3);
        let whole = run(&mut Agenda::new(&experiment), counts);
        assert!(whole.len() > 12, "some are repeated: {whole:?}");
        for kept in 0..=whole.len() {
            let (mut first, mut records) = (Agenda::new(&experiment), Vec::new());
            for _ in 0..kept {
                let planned = first.upcoming().expect("one more");
                records.push(testing::trial(planned, counts(planned)));
                first.ran(planned, counts(planned));
            }
            let mut resumed = Agenda::new(&experiment);
            for record in &records {
                resumed.admit(record).expect("a record of this run");
            }
            assert_eq!(run(&mut resumed, counts), whole[kept..], "after {kept}");
        }
    }

    #[test]
    fn what_comes_next_is_known_while_a_trial_that_will_count_runs() {
        let experiment = testing::experiment("replicates = 2\nretries = 1\norder = \"as-written\"", &["16", "128"]);
        let mut agenda = Agenda::new(&experiment);
        let mut foreseen = None;
        run(&mut agenda.clone(), |planned| {
            assert!(foreseen.is_none() || foreseen == Some(planned));
            foreseen = agenda.after(planned);
            agenda.ran(planned, true);
            true
        });
        assert_eq!(foreseen, None);
    }

    #[test]
    fn a_part_keeps_order_and_numbers_of_the_whole() {
        let mut experiment = testing::experiment("replicates = 3", &["16", "128", "1024"]);
        let whole: Vec<Planned> = Agenda::new(&experiment).left().collect();
        experiment.select(&["server.backlog > 16".parse().expect("a condition")]).expect("two cells");
        let part: Vec<Planned> = Agenda::new(&experiment).left().collect();
        assert_eq!(part, whole.into_iter().filter(|planned| planned.cell > 0).collect::<Vec<_>>());
        assert_eq!(part.len(), 6);
    }

    #[test]
    fn records_of_another_run_and_records_too_many_are_refused() {
        let experiment = testing::experiment("replicates = 2\norder = \"as-written\"", &["16", "128"]);
        let mut agenda = Agenda::new(&experiment);
        let planned = |trial, block, cell, retry| Planned { trial, block, cell, retry };
        let mut admit = |planned, counts| agenda.admit(&testing::trial(planned, counts)).err();
        assert_eq!(admit(planned(0, 0, 0, 0), false), None);
        assert_eq!(
            admit(planned(0, 0, 0, 0), true).as_deref(),
            Some("retry 0 of trial 0 follows 1 records of it"),
            "the same once more"
        );
        assert_eq!(admit(planned(0, 0, 0, 1), true), None);
        assert_eq!(admit(planned(0, 0, 0, 2), true).as_deref(), Some("trial 0 counts already"));
        let elsewhere = "trial 1 (block 0, cell 0) is not in the order of experiment.toml";
        assert_eq!(admit(planned(1, 0, 0, 0), true).as_deref(), Some(elsewhere));
        assert!(admit(planned(4, 2, 0, 0), true).is_some());
    }
}
