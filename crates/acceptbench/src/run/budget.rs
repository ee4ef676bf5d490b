//! How long a run takes: before its first trial by what its file plans, then by the trials it has. Pure, but for the clock
//! that its caller passes.

use std::time::Duration;

use jiff::{SignedDuration, Zoned};
use lab::{Agenda, Experiment};
use study::format;
use study::results::Trial;

use crate::check::OVERHEAD;

/// What is left to run, and how long it will take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Budget {
    /// Trials left; retries are not foreseen.
    pub(super) trials: usize,
    /// Time they will take.
    pub(super) left: Duration,
}

impl Budget {
    /// A cell that has been run takes as long again; one that has not, what its file plans, stretched as the others were.
    pub(super) fn of(experiment: &Experiment, agenda: &Agenda, trials: &[Trial]) -> Self {
        let mut cells = vec![Mean::default(); experiment.design.cells.len()];
        let (mut measured, mut planned) = (0.0, 0.0);
        for trial in trials {
            let seconds = trial.timings.seconds();
            measured += seconds;
            planned += planned_seconds(experiment, trial.cell);
            if let Some(cell) = cells.get_mut(trial.cell) {
                cell.add(seconds);
            }
        }
        let stretch = if planned > 0.0 { measured / planned } else { 1.0 };
        let expected = |cell: usize| {
            let known = cells.get(cell).and_then(Mean::value);
            known.unwrap_or_else(|| planned_seconds(experiment, cell) * stretch)
        };
        let each: Vec<f64> = agenda.left().map(|planned| expected(planned.cell)).collect();
        Self { trials: each.len(), left: Duration::try_from_secs_f64(each.iter().sum()).unwrap_or(Duration::MAX) }
    }

    /// In a line, at this moment: `27 trials of about 1.6 s: 43 s, done by 14:03:10`.
    pub(super) fn line(&self, now: &Zoned) -> String {
        let count = u32::try_from(self.trials).unwrap_or(u32::MAX).max(1);
        let each = format::time((self.left / count).as_secs_f64());
        let trials = format::plural(self.trials, "trial");
        format!("{trials} of about {each}: {}, done by {}", roughly(self.left), self.end(now))
    }

    /// When it will be done: a time of the day, after the date if that is another day.
    pub(super) fn end(&self, now: &Zoned) -> String {
        let left = SignedDuration::try_from(self.left).unwrap_or(SignedDuration::MAX);
        match now.checked_add(left) {
            Ok(end) if end.date() == now.date() => end.strftime("%H:%M:%S").to_string(),
            Ok(end) => end.strftime("%Y-%m-%d %H:%M").to_string(),
            Err(_) => "never".to_owned(),
        }
    }
}

/// What a trial takes by its file. Half of the deadline is waited for: all of it by an overload, nothing by a server that
/// is fast enough.
fn planned_seconds(experiment: &Experiment, cell: usize) -> f64 {
    let around = match (experiment.place.attach(), experiment.resolved.get(cell)) {
        (Some(attach), _) => attach.settle.duration(),
        (None, Some(cell)) => cell.loadgen.warm_up.duration() + cell.loadgen.deadline.duration() / 2,
        (None, None) => Duration::ZERO,
    };
    (around + experiment.measure(cell) + OVERHEAD).as_secs_f64()
}

/// A time as one plans with it: `43 s`, `12 min`, `3 h 20 min`.
pub(super) fn roughly(time: Duration) -> String {
    let seconds = time.as_secs_f64().round();
    let minutes = (seconds / 60.0).round();
    match seconds {
        s if s < 100.0 => format!("{s} s"),
        s if s < 6000.0 => format!("{minutes} min"),
        _ => format!("{} h {} min", (minutes / 60.0).floor(), minutes % 60.0),
    }
}

/// A mean of times, s.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::testing::{record, two_cells};

    fn at(text: &str) -> Zoned {
        text.parse().expect("an instant")
    }

    #[test]
    fn before_the_first_trial_the_file_says_how_long_it_takes() {
        let experiment = two_cells();
        let budget = Budget::of(&experiment, &Agenda::new(&experiment), &[]);
        // 0.2 s warm-up, 1 s measured, half of 0.8 s, and what is around it; twice as long measured in the second cell.
        assert_eq!(budget.trials, 6);
        assert!((budget.left.as_secs_f64() - 3.0 * (1.69 + 2.69)).abs() < 1e-6, "{budget:?}");
        let now = at("2026-05-01T14:02:00+02:00[+02:00]");
        assert_eq!(budget.line(&now), "6 trials of about 2.19 s: 13 s, done by 14:02:13");
    }

    #[test]
    fn trials_that_were_run_say_it_better() {
        let experiment = two_cells();
        let agenda = Agenda::new(&experiment);
        let trials = [record(0, 0, 2.0), record(1, 0, 4.0)];
        let left = Budget::of(&experiment, &agenda, &trials).left.as_secs_f64();
        // The first cell's mean is 3 s, 3/1.69 of its plan; the second is stretched alike.
        assert!((left - 3.0 * (3.0 + 2.69 * 3.0 / 1.69)).abs() < 1e-6, "{left}");
    }

    #[test]
    fn times_are_said_as_one_plans_with_them() {
        for (seconds, text) in
            [(0, "0 s"), (43, "43 s"), (99, "99 s"), (100, "2 min"), (3540, "59 min"), (12_000, "3 h 20 min")]
        {
            assert_eq!(roughly(Duration::from_secs(seconds)), text);
        }
        let budget = |seconds| Budget { trials: 1, left: Duration::from_secs(seconds) };
        let now = at("2026-05-01T23:59:00+02:00[+02:00]");
        assert_eq!(budget(30).end(&now), "23:59:30");
        assert_eq!(budget(90).end(&now), "2026-05-02 00:00");
        assert_eq!(Budget { trials: 1, left: Duration::MAX }.end(&now), "never");
    }
}
