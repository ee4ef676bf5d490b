//! The highest level of a setting at which a condition still holds: which level is tried next, and what was found. A pure
//! function of the trials of one cell, so whoever goes on with a search goes on as the first runner would have.
//!
//! Levels are whole numbers on a ladder whose rungs are equal ratios apart. A level is decided by the majority of its first
//! trials; bisection, which is geometric on such a ladder, halves the ladder until two neighbours are left, one that held
//! and one that failed. Noise can mislead it: near the capacity a level holds by chance. So from these two it goes outward,
//! by 1, 2 and 4 rungs, to a level at which all of [`AGREE`] trials held, and to one at which all of them failed: the ends
//! of the interval.
//!
//! The capacity is the level at which a trial holds as often as not. A level beyond it ends the interval by mistake with a
//! probability of at most 2^-5 when it was chosen regardless of its trials; it is chosen by some of them, so the interval is
//! wrong more often than that. In simulated searches it covers the capacity in 90 % of all cases or more, whether the noise
//! is less than a rung or several (tests). That rests on trials that fail more often the higher the level: where a level
//! failed and a higher one held, this is said ([`Estimate::monotone`]).
//!
//! A trial that does not count says nothing of the server. A level at which so many trials do not count as a place is run is
//! left alone like one that failed, but it ends no interval: beyond it the generator was the limit, or the machine.

use serde::{Deserialize, Serialize};

use crate::condition::{Condition, ConditionError};
use crate::results::Trial;

/// Trials that must agree at an end of the interval.
pub const AGREE: usize = 5;

/// Rungs from the bracket at which an end is looked for, in turn: 1, 2 and 4 further each time.
const OUTWARD: [usize; 4] = [0, 1, 3, 7];

/// Most rungs of a ladder.
pub const MOST_LEVELS: usize = 1 << 16;

/// What is searched, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// The setting, by its full name.
    pub find: String,
    /// What must hold.
    pub holds: Condition,
    /// Its levels, ascending.
    pub levels: Vec<u64>,
    /// Trials whose majority decides a level; odd.
    pub votes: usize,
    /// A level with so many trials that do not count is left alone.
    pub tries: usize,
}

/// What a trial said of its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The condition held.
    Held,
    /// It did not.
    Failed,
    /// The trial does not count.
    Void,
}

/// What is known of a cell, and what is to be tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The level of the next trial; nothing when the search is done.
    pub next: Option<u64>,
    /// What was found so far.
    pub estimate: Estimate,
}

/// What a search found. Levels are in the unit of the setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Estimate {
    /// The highest level that bisection found to hold; nothing when none did.
    pub held: Option<u64>,
    /// The lowest above it that it found to fail, or that could not be asked.
    pub failed: Option<u64>,
    /// The ends of the interval. An end is missing when no level within reach agreed: the capacity is beyond what was searched,
    /// or cannot be told from there.
    pub interval: [Option<u64>; 2],
    /// The level at which the trials did not count, when that ended the search upwards.
    pub unasked: Option<u64>,
    /// Did no level fail below one that held?
    pub monotone: bool,
    /// Is nothing left to try?
    pub complete: bool,
}

/// Whole numbers from the least to the greatest, neighbours at most `within` apart as a share of the lower one (or 1). Their
/// number is one more than a power of two, unless whole numbers are too few.
pub fn ladder([least, greatest]: [u64; 2], within: f64) -> Vec<u64> {
    let ratio = greatest as f64 / least.max(1) as f64;
    let mut steps = 1_usize;
    while steps < MOST_LEVELS && ratio.ln() / steps as f64 > within.ln_1p() {
        steps *= 2;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two that are u64 already")]
    let level = |step: usize| (least as f64 * ratio.powf(step as f64 / steps as f64)).round() as u64;
    let mut levels: Vec<u64> = (0..=steps).map(level).collect();
    levels.dedup();
    levels
}

impl Search {
    /// What the trials of a cell said, with their levels, in their order. Those of other cells are passed over.
    ///
    /// # Errors
    /// The condition asks for what is no quantity.
    pub fn outcomes(&self, cell: usize, trials: &[Trial]) -> Result<Vec<(u64, Outcome)>, ConditionError> {
        let level = |trial: &Trial| trial.settings.get(&self.find)?.parse().ok();
        let of_cell = trials.iter().filter(|trial| trial.cell == cell);
        let outcome = |trial: &Trial| {
            Ok(match (trial.is_valid(), self.holds.holds_for_trial(trial)?) {
                (false, _) => Outcome::Void,
                (true, true) => Outcome::Held,
                (true, false) => Outcome::Failed,
            })
        };
        of_cell.filter_map(|trial| Some((level(trial)?, trial))).map(|(level, t)| Ok((level, outcome(t)?))).collect()
    }

    /// Trials of a cell at most, retries aside.
    pub fn most_trials(&self) -> usize {
        let rungs = self.levels.len().saturating_sub(1).max(1);
        let halvings = rungs.next_power_of_two().trailing_zeros() as usize;
        halvings * self.votes + 2 * OUTWARD.len() * AGREE
    }

    /// Where a search stands, by what its trials said so far.
    pub fn state(&self, outcomes: &[(u64, Outcome)]) -> State {
        let mut rungs = vec![Vec::new(); self.levels.len()];
        for (level, outcome) in outcomes {
            if let Ok(rung) = self.levels.binary_search(level) {
                rungs[rung].push(*outcome);
            }
        }
        let climb = Climb { search: self, rungs };
        let (low, high, mut next) = climb.bisect();
        let mut ends = [None, None];
        if next.is_none() {
            for (end, wanted) in [Outcome::Held, Outcome::Failed].into_iter().enumerate() {
                match climb.end(if end == 0 { low } else { high }, wanted) {
                    End::Ask(rung) => next = next.or(Some(rung)),
                    End::At(rung) => ends[end] = Some(rung),
                    End::Open => {}
                }
            }
        }
        let level = |rung: usize| self.levels.get(rung).copied();
        let is = |rung: &usize, verdict| climb.verdict(*rung) == Some(verdict);
        let above = Some(high).filter(|rung| is(rung, Outcome::Failed) || is(rung, Outcome::Void));
        let estimate = Estimate {
            held: climb.highest_held(low, high).and_then(level),
            failed: above.and_then(level),
            interval: ends.map(|end| end.and_then(level)),
            unasked: Some(high).filter(|rung| is(rung, Outcome::Void)).and_then(level),
            monotone: climb.is_monotone(),
            complete: next.is_none(),
        };
        State { next: next.and_then(level), estimate }
    }
}

/// The trials of a cell, by the rung of their level.
struct Climb<'a> {
    search: &'a Search,
    rungs: Vec<Vec<Outcome>>,
}

/// An end of the interval.
enum End {
    /// It takes a further trial at this rung.
    Ask(usize),
    /// All agreed at this rung.
    At(usize),
    /// They did nowhere.
    Open,
}

impl Climb<'_> {
    /// What the first trials of a level decided, whatever came after them.
    fn verdict(&self, rung: usize) -> Option<Outcome> {
        let mut counts = [0, 0, 0];
        let majority = self.search.votes / 2 + 1;
        self.rungs.get(rung)?.iter().copied().find(|outcome| {
            let (count, enough) = match outcome {
                Outcome::Held => (&mut counts[0], majority),
                Outcome::Failed => (&mut counts[1], majority),
                Outcome::Void => (&mut counts[2], self.search.tries),
            };
            *count += 1;
            *count >= enough
        })
    }

    /// The bracket, and the rung to try before it can be narrowed. Its ends are those of the ladder until something is known
    /// of them.
    fn bisect(&self) -> (usize, usize, Option<usize>) {
        let (mut low, mut high) = (0, self.rungs.len().saturating_sub(1));
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            match self.verdict(middle) {
                None => return (low, high, Some(middle)),
                Some(Outcome::Held) => low = middle,
                Some(Outcome::Failed | Outcome::Void) => high = middle,
            }
        }
        (low, high, None)
    }

    /// The end of the interval on the side of those that held, or of those that failed.
    fn end(&self, from: usize, wanted: Outcome) -> End {
        let last = self.rungs.len().saturating_sub(1);
        let edge = if wanted == Outcome::Held { 0 } else { last };
        for step in OUTWARD {
            let rung = if wanted == Outcome::Held { from.saturating_sub(step) } else { (from + step).min(last) };
            let outcomes = &self.rungs[rung];
            let void = outcomes.iter().filter(|outcome| **outcome == Outcome::Void).count();
            let counted = outcomes.len() - void;
            let agreed = outcomes.iter().filter(|outcome| **outcome == wanted).count();
            if void >= self.search.tries && wanted == Outcome::Failed && counted < AGREE {
                // Higher levels ask even more of what was the limit here.
                return End::Open;
            }
            // One that does not agree is decided all the same: it may hold above one that failed.
            let open = (agreed == counted && counted < AGREE) || self.verdict(rung).is_none();
            if void < self.search.tries && open {
                return End::Ask(rung);
            }
            if agreed == counted && counted >= AGREE {
                return End::At(rung);
            }
            if rung == edge {
                return End::Open;
            }
        }
        End::Open
    }

    /// Of the bracket: its upper end holds only where that is the top of the ladder.
    fn highest_held(&self, low: usize, high: usize) -> Option<usize> {
        [high, low].into_iter().find(|rung| self.verdict(*rung) == Some(Outcome::Held))
    }

    fn is_monotone(&self) -> bool {
        let verdicts: Vec<Outcome> = (0..self.rungs.len()).filter_map(|rung| self.verdict(rung)).collect();
        let failed = verdicts.iter().position(|verdict| *verdict == Outcome::Failed);
        failed.is_none_or(|failed| !verdicts[failed..].contains(&Outcome::Held))
    }
}

#[cfg(test)]
mod tests;
