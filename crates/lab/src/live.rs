//! What the runner shows while it runs: three pages that never go down from trial to trial.
//!
//! Server and load generator of a trial are not scraped. The runner asks them over their control sockets and
//! renders the sum of the finished trials and the current one: monotone, exact at the end, and no scrape ever
//! appears in a trial's own counters.

use std::sync::{Mutex, MutexGuard, PoisonError};

use study::capacity::Capacity;
use study::merge::Build;
use study::results::Trial;
use study::summary::Summary;
use telemetry::admin::{Page, Pages};
use telemetry::exposition::Families;
use telemetry::namespace::Detail;
use telemetry::standard;

use crate::experiment::{Experiment, Searched};
use crate::metrics;
use crate::schedule::Planned;
use crate::trial::Ends;

/// The state behind the pages.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) experiment: Experiment,
    pub(crate) run: String,
    pub(crate) kernel: String,
    pub(crate) build: Build,
    state: Mutex<State>,
}

/// What changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    server: Sum<server::Snapshot>,
    loadgen: Sum<loadgen::Snapshot>,
    current: Option<Ends>,
    pub(crate) planned: Option<Planned>,
    pub(crate) phase: Phase,
    pub(crate) completed: u64,
    pub(crate) invalid: u64,
    pub(crate) residuals: Vec<(u8, i64)>,
    pub(crate) phantoms: u64,
    pub(crate) raced: u64,
    pub(crate) lost: u64,
    pub(crate) ghosts: u64,
    pub(crate) summary: Option<Summary>,
}

/// Where the current trial stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No trial, or namespaces being made.
    #[default]
    SetUp,
    /// Arrivals and their ends.
    Load,
    /// Attached: sysctls changed, the deployment takes them in.
    Settle,
    /// Attached: the window.
    Measured,
    /// Over.
    Done,
}

impl Phase {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::SetUp => "set_up",
            Self::Load => "load",
            Self::Settle => "settle",
            Self::Measured => "measured",
            Self::Done => "done",
        }
    }
}

/// Finished trials summed up, and the last look at the current one.
#[derive(Debug)]
struct Sum<T> {
    finished: Option<T>,
    last: Option<T>,
}

impl<T> Default for Sum<T> {
    fn default() -> Self {
        Self { finished: None, last: None }
    }
}

impl<T: Clone> Sum<T> {
    /// A trial ended with these books (or, if it broke, with the last look at it).
    fn finish(&mut self, books: Option<&T>, absorb: fn(&mut T, &T)) {
        let last = self.last.take();
        if let Some(mut sum) = books.cloned().or(last) {
            if let Some(finished) = &self.finished {
                absorb(&mut sum, finished);
            }
            self.finished = Some(sum);
        }
    }

    /// Everything so far, the current trial as it was last seen.
    fn total(&self, absorb: fn(&mut T, &T)) -> Option<T> {
        match (&self.last, &self.finished) {
            (Some(last), Some(finished)) => {
                let mut sum = last.clone();
                absorb(&mut sum, finished);
                Some(sum)
            }
            (last, finished) => last.as_ref().or(finished.as_ref()).cloned(),
        }
    }
}

impl Live {
    pub(crate) fn new(experiment: Experiment, run: String, kernel: String, build: Build) -> Self {
        Self { experiment, run, kernel, build, state: Mutex::new(State::default()) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn preparing(&self, planned: Planned) {
        let mut state = self.state();
        state.planned = Some(planned);
        state.phase = Phase::SetUp;
    }

    /// A trial has come to this phase.
    pub(crate) fn reached(&self, planned: Planned, phase: Phase) {
        let mut state = self.state();
        state.planned = Some(planned);
        state.phase = phase;
    }

    pub(crate) fn loading(&self, ends: Ends) {
        let mut state = self.state();
        state.current = Some(ends);
        state.phase = Phase::Load;
    }

    /// The current trial ended, with its record if there is one.
    pub(crate) fn finished(&self, trial: Option<&Trial>, summary: Option<Summary>) {
        let mut state = self.state();
        state.current = None;
        state.phase = Phase::Done;
        state.server.finish(trial.map(|t| &t.server), server::Snapshot::absorb);
        state.loadgen.finish(trial.map(|t| &t.loadgen), loadgen::Snapshot::absorb);
        if let Some(finished) = &mut state.loadgen.finished {
            // They went with the trial.
            finished.half_open = loadgen::HalfOpenCounts::default();
        }
        let Some(trial) = trial else { return };
        state.completed += 1;
        state.invalid += u64::from(!trial.is_valid());
        state.residuals = trial.ledger.lines.iter().map(|line| (line.number, line.imbalance())).collect();
        state.phantoms += trial.ledger.terms.phantoms;
        state.raced += trial.ledger.terms.raced;
        state.lost += trial.ledger.terms.lost;
        state.ghosts += trial.ledger.terms.ghosts;
        state.summary = summary.or(state.summary.take());
    }

    /// What these trials say, cell by cell: the quantities that are compared, or the capacities that were found.
    pub(crate) fn summary(&self, trials: &[Trial]) -> Option<Summary> {
        let Experiment { compare, design, search, .. } = &self.experiment;
        let Some(Searched { search, .. }) = search else {
            let names: Vec<&str> = compare.metrics().map(|quantity| quantity.name).collect();
            return Summary::of(design, trials, &names).ok();
        };
        // Medians of a cell would mix its levels.
        let capacity = Capacity::of(search, design, trials).ok()?;
        Some(Summary { capacity: Some(capacity), ..Summary::of(design, trials, &[]).ok()? })
    }

    fn server_page(&self) -> Page {
        let mut state = self.state();
        if let Some(books) = state.current.as_ref().and_then(|ends| ends.server(Detail::Scrape).ok()) {
            state.server.last = Some(books);
        }
        let mut families = Families::new();
        standard::build_info(&mut families, "server", &self.build.version, &self.build.revision);
        if let Some(total) = state.server.total(server::Snapshot::absorb) {
            server::metrics::expose(&total, &mut families);
        }
        Page::metrics(families.render())
    }

    fn loadgen_page(&self) -> Page {
        let mut state = self.state();
        if let Some(books) = state.current.as_ref().and_then(|ends| ends.loadgen(Detail::Scrape).ok()) {
            state.loadgen.last = Some(books);
        }
        let mut families = Families::new();
        standard::build_info(&mut families, "loadgen", &self.build.version, &self.build.revision);
        if let Some(total) = state.loadgen.total(loadgen::Snapshot::absorb) {
            loadgen::metrics::expose(&total, &mut families);
        }
        Page::metrics(families.render())
    }
}

impl Pages for Live {
    fn get(&self, path: &str) -> Option<Page> {
        match path {
            "/metrics" => Some(Page::metrics(metrics::render(self))),
            "/server/metrics" | "/loadgen/metrics" if self.experiment.place.attach().is_some() => Some(Page::text(
                404,
                "attached to programs that run already: scrape their own admin ports\n".to_owned(),
            )),
            "/server/metrics" => Some(self.server_page()),
            "/loadgen/metrics" => Some(self.loadgen_page()),
            "/healthz" | "/readyz" => Some(Page::text(200, "ok\n".to_owned())),
            _ => None,
        }
    }
}
