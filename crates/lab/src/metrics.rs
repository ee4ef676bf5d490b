//! The runner's metrics: their names, labels and help in one place, and how the live state becomes samples.

use study::capacity::Capacity;
use study::search::Estimate;
use study::summary::Summary;
use telemetry::exposition::Families;
use telemetry::standard;

use crate::live::{Live, Phase};
use crate::schedule::Planned;

telemetry::metrics! {
    INFO = Gauge "experiment_info" ["experiment", "run", "kernel", "revision"] "The experiment that runs; run is its results directory.";
    TRIAL_INFO = Gauge "experiment_trial_info" ["experiment", "run", "trial", "cell", "phase", "factors"] "1 while the trial is active; phase is set_up and load, or of an attached run settle and measured.";
    CELL_INFO = Gauge "experiment_cell_info" ["run", "cell", "factors"] "The settings of each cell.";
    FACTOR_VALUE = Gauge "experiment_factor_value" ["factor"] "Level of each numeric setting of the current trial's cell.";
    TRIALS = Gauge "experiment_trials" [] "Trials planned.";
    COMPLETED = Counter "experiment_trials_completed_total" [] "Trials finished, valid or not.";
    INVALID = Counter "experiment_trials_invalid_total" [] "Trials that do not count.";
    RESULT = Gauge "experiment_result" ["run", "cell", "quantity", "stat"] "A quantity over the valid trials of a cell: median, and the range min to max. Base units. A search has experiment_capacity instead.";
    CAPACITY = Gauge "experiment_capacity" ["run", "cell", "setting", "stat"] "What a search has found in a cell so far: the highest level that held, the level that failed above it, and low and high, the ends of the interval. Without a sample while unknown.";
    RESIDUAL = Gauge "ledger_residual" ["line"] "What does not balance in each line of the last trial's ledger; 0 when it balances. An attached run has lines 1, 2, 3 and 7.";
    PHANTOMS = Counter "ledger_phantoms_total" [] "Connections established for the client that never entered the accept queue.";
    RACED = Counter "ledger_raced_total" [] "Connections counted in PassiveOpens and discarded before they could be accepted (ACK and next segment handled on two CPUs).";
    LOST = Counter "ledger_lost_total" [] "Connections accepted by an acceptor process that was killed before it counted them.";
    GHOSTS = Counter "ledger_ghosts_total" [] "Connections accepted again from stray data with a valid cookie.";
}

/// The text of the runner's own page.
pub(crate) fn render(live: &Live) -> String {
    let mut families = families(live);
    standard::build_info(&mut families, "runner", &live.build.version, &live.build.revision);
    if let Ok(stats) = kernel::process::stats() {
        standard::process(&mut families, &stats);
    }
    families.render()
}

/// What it says of the experiment.
pub(crate) fn families(live: &Live) -> Families {
    let mut families = Families::new();
    let experiment = &live.experiment;
    families.gauge(&INFO, &[&experiment.name, &live.run, &live.kernel, &live.build.revision], 1.0);
    families.gauge(&TRIALS, &[], experiment.trials() as f64);
    for cell in &experiment.design.cells {
        let factors = experiment.design.describe(cell);
        families.gauge(&CELL_INFO, &[&live.run, &cell.index.to_string(), &factors], 1.0);
    }
    let state = live.state();
    families.counter(&COMPLETED, &[], state.completed);
    families.counter(&INVALID, &[], state.invalid);
    if let Some(planned) = state.planned
        && let Some(cell) = experiment.design.cells.get(planned.cell)
    {
        trial_info(&mut families, live, planned, state.phase, state.phase != Phase::Done);
        for (name, value) in &cell.settings {
            if let Ok(value) = value.parse::<f64>() {
                families.gauge(&FACTOR_VALUE, &[name], value);
            }
        }
    }
    for (line, residual) in &state.residuals {
        #[expect(clippy::cast_precision_loss, reason = "a residual beyond 2^53 connections does not happen")]
        families.gauge(&RESIDUAL, &[&line.to_string()], *residual as f64);
    }
    // Nobody knows them of a window, and 0 would be a claim.
    if experiment.place.attach().is_none() {
        families.counter(&PHANTOMS, &[], state.phantoms);
        families.counter(&RACED, &[], state.raced);
        families.counter(&LOST, &[], state.lost);
        families.counter(&GHOSTS, &[], state.ghosts);
    }
    if let Some(summary) = &state.summary {
        results(&mut families, &live.run, summary);
    }
    families
}

fn trial_info(families: &mut Families, live: &Live, planned: Planned, phase: Phase, active: bool) {
    let Live { experiment, run, .. } = live;
    let factors = experiment.design.cells.get(planned.cell).map(|cell| experiment.design.describe(cell));
    let labels = [
        experiment.name.as_str(),
        run,
        &planned.trial.to_string(),
        &planned.cell.to_string(),
        phase.label(),
        &factors.unwrap_or_default(),
    ];
    families.gauge(&TRIAL_INFO, &labels, f64::from(u8::from(active)));
}

/// The end of a trial's phase. To who scrapes it the series is simply gone; a text has no other way to say so than 0.
pub(crate) fn ended(live: &Live, planned: Planned, phase: Phase) -> Families {
    let mut families = Families::new();
    trial_info(&mut families, live, planned, phase, false);
    families
}

fn results(families: &mut Families, run: &str, summary: &Summary) {
    if let Some(capacity) = &summary.capacity {
        capacities(families, run, capacity);
    }
    for cell in &summary.cells {
        let index = cell.cell.to_string();
        for (quantity, spread) in &cell.quantities {
            for (stat, value) in [("median", spread.median), ("min", spread.range[0]), ("max", spread.range[1])] {
                families.gauge(&RESULT, &[run, &index, quantity, stat], value);
            }
        }
    }
}

fn capacities(families: &mut Families, run: &str, capacity: &Capacity) {
    for cell in &capacity.cells {
        let index = cell.cell.to_string();
        let Estimate { held, failed, interval: [low, high], .. } = cell.estimate;
        for (stat, level) in [("held", held), ("failed", failed), ("low", low), ("high", high)] {
            if let Some(level) = level {
                families.gauge(&CAPACITY, &[run, &index, &capacity.find, stat], level as f64);
            }
        }
    }
}
