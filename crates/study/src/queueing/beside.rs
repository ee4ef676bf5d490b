//! Theory beside measurement: for each cell where the model applies, the loss of M/M/1/K at the *measured* arrival rate and
//! service time of every trial, and whether the measured loss agrees with it.
//!
//! Each trial gives a difference, measured − theory at its own rate and service time, so that what these two explain does
//! not count as scatter. A trial's loss is a mean over thousands of arrivals, near normal but more scattered than a
//! binomial (losses come in clumps: two to four times its standard deviation), so the interval is Student's t over
//! trials, never a binomial one. An interval by order statistics would assume less, and cannot be had: six trials give
//! 96.9 % for one cell at most. All intervals of a run hold together with 95 % (Bonferroni over its cells). K − 1 and
//! K + 1 are held against the same measurement, to show that it could have told them apart.
//!
//! It refuses to judge where losses are too rare: in every trial [`FEWEST_LOSSES`] must be expected, or have been measured.
//! Fewer are far from normal, and six trials without any loss scatter so little that every theory would be rejected.

use loadgen::opts::{ArrivalKind, Confirm};
use loadgen::verdict::Verdict;
use serde::{Deserialize, Serialize};
use server::opts::{Engine, Handler, OnAccept};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::Mm1k;
use crate::binding::Facts;
use crate::design::Design;
use crate::format;
use crate::quantity;
use crate::results::{Topology, Trial};

/// Fewer valid trials say too little of their own scatter.
pub const LEAST_TRIALS: usize = 6;

/// A count of fewer than so many is not taken for normal: five that are independent (the rule of thumb of Cochran 1954), times 4,
/// because losses come in clumps and have four times a binomial's variance or more.
const FEWEST_LOSSES: f64 = 20.0;

/// All intervals of a run together cover what they should with this chance.
const CONFIDENCE: f64 = 0.95;

/// Theory and measurement of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Queueing {
    /// Cells where the model applies.
    pub cells: Vec<CellTheory>,
    /// Cells where it does not, only in a run where it applies somewhere.
    pub inapplicable: Vec<Inapplicable>,
}

/// One cell where the model applies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CellTheory {
    /// Its index in the design.
    pub cell: usize,
    /// It in words.
    pub name: String,
    /// Valid trials.
    pub trials: usize,
    /// Room: queue limit + 2.
    pub k: u32,
    /// Arrivals per second, measured, the mean of the trials.
    pub arrival_rate: f64,
    /// Service time, measured, s, the mean of the trials.
    pub service_seconds: f64,
    /// Offered load: the mean of the trials.
    pub rho: f64,
    /// Measured loss: arrivals that found no room, of those planned; the mean of the trials.
    pub loss: f64,
    /// Its simultaneous 95 % interval, from the scatter of the trials' differences from theory; no more than their scatter where
    /// losses are too few to judge.
    pub interval: [f64; 2],
    /// What K − 1, K and K + 1 predict. K is 2 at the least, so K − 1 is a room, too: without a queue where the limit is 0.
    pub predictions: Vec<Prediction>,
    /// Mean number in the system at K, theory.
    pub mean_number: f64,
    /// Mean time from arrival to the end of service at K, theory, s.
    pub time_in_system: f64,
    /// Mean time from the issued SYN to the first byte, measured, s: the handshake and both ways are in it.
    pub measured_time: Option<f64>,
}

/// What a room of `k` predicts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Prediction {
    /// Room.
    pub k: u32,
    /// Loss, the mean over the trials at their own rates and service times.
    pub loss: f64,
    /// Simultaneous 95 % interval of measured − predicted.
    pub difference: [f64; 2],
    /// Does the interval leave 0 out? Nothing where losses are too few to judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<bool>,
}

/// A cell where the model does not apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inapplicable {
    /// Its index in the design.
    pub cell: usize,
    /// It in words.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Queueing {
    /// Is there nothing to show?
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// `within the interval in 8 of 8 cells; K−1 rejected in 5, K+1 in 4`; `None` where the model applies nowhere.
    pub fn in_words(&self) -> Option<String> {
        let count = |offset: i64, rejected: Option<bool>| {
            let of_offset =
                |cell: &&CellTheory| cell.prediction(offset).is_some_and(|other| other.rejected == rejected);
            self.cells.iter().filter(of_offset).count()
        };
        let (agree, few) = (count(0, Some(false)), count(0, None));
        let within = match self.cells.len() - few {
            0 => None,
            judged => Some(format!("within the interval in {agree} of {}", format::plural(judged, "cell"))),
        };
        let too_few = (few > 0).then(|| format!("{TOO_FEW} in {}", format::plural(few, "cell")));
        let found: Vec<String> = within.into_iter().chain(too_few).collect();
        (!self.cells.is_empty()).then(|| {
            format!(
                "M/M/1/K {}; K−1 rejected in {}, K+1 in {}",
                found.join(", "),
                count(-1, Some(true)),
                count(1, Some(true))
            )
        })
    }
}

impl CellTheory {
    /// What K + `offset` predicts.
    pub fn prediction(&self, offset: i64) -> Option<Prediction> {
        self.predictions.iter().copied().find(|other| i64::from(other.k) == i64::from(self.k) + offset)
    }

    /// Does theory lie within the interval of the measurement? `None` where losses are too few to judge.
    pub fn agrees(&self) -> Option<bool> {
        self.prediction(0)?.rejected.map(|rejected| !rejected)
    }
}

/// Why a prediction is not judged.
pub(crate) const TOO_FEW: &str = "too few losses to judge";

/// Theory and measurement of every cell.
pub fn of(design: &Design, trials: &[Trial]) -> Queueing {
    let mut queueing = Queueing::default();
    let mut ready = Vec::new();
    for cell in &design.cells {
        let valid: Vec<&Trial> = trials.iter().filter(|trial| trial.cell == cell.index && trial.is_valid()).collect();
        let name = design.describe(cell);
        match measured(&valid) {
            Ok(measured) => ready.push((cell.index, name, measured)),
            Err(reason) => queueing.inapplicable.push(Inapplicable { cell: cell.index, name, reason }),
        }
    }
    let cells = ready.len();
    queueing.cells = ready.into_iter().filter_map(|(cell, name, all)| theory(cell, name, &all, cells)).collect();
    if queueing.cells.is_empty() {
        queueing.inapplicable.clear();
    }
    queueing
}

/// What a trial measured.
#[derive(Clone, Copy, Debug)]
struct Measured {
    k: u32,
    planned: f64,
    lost: f64,
    arrival_rate: f64,
    service_seconds: f64,
    time: Option<f64>,
}

/// The measurements of a cell, or why the model does not apply to it.
fn measured(trials: &[&Trial]) -> Result<Vec<Measured>, String> {
    if let Some(reason) = trials.iter().find_map(|trial| misfit(trial)) {
        return Err(reason);
    }
    if trials.len() < LEAST_TRIALS {
        return Err(format!("{} valid trials, {LEAST_TRIALS} are needed", trials.len()));
    }
    let all: Vec<Measured> = trials
        .iter()
        .map(|trial| Measured::of(trial))
        .collect::<Option<_>>()
        .ok_or("no arrival or no service measured")?;
    if all.iter().any(|other| other.k != all[0].k) {
        return Err("its trials had different queue limits".to_owned());
    }
    Ok(all)
}

/// What of the trial is not M/M/1/K; `None` when it is.
fn misfit(trial: &Trial) -> Option<String> {
    let (server, loadgen, facts) = (&trial.server.opts, &trial.loadgen.opts, Facts::of(trial));
    let greets = server.on_accept == OnAccept::Greet && server.handler == Handler::Inline;
    let plain = server.defer_accept.as_ns() == 0 && server.fastopen == 0 && !loadgen.fastopen;
    let never_made = [Verdict::Shed, Verdict::NoPorts, Verdict::NoFds, Verdict::SelfConnect];
    let needs = [
        (trial.topology != Topology::Attached, "a window of a running service does not begin empty"),
        (loadgen.arrivals == ArrivalKind::Poisson, "arrivals are not poisson"),
        (server.accept_delay.is_exponential(), "the accept delay is not exponential (exp:MEAN or spin:exp:MEAN)"),
        (server.acceptors.get() == 1 && trial.server.listeners.len() == 1, "more than one acceptor or listener"),
        (
            !matches!(server.engine, Engine::IoUring | Engine::IoUringMultishot),
            "a ring takes connections off the queue before their service begins",
        ),
        (
            greets && quantity::service_is_measured(server),
            "the acceptor does not greet every connection itself and at once",
        ),
        (loadgen.confirm == Confirm::Greeting, "without confirm greeting nobody knows who was served"),
        (
            loadgen.deadline.as_ns() < 1_000_000_000,
            "a deadline of 1 s or more leaves time for a SYN retry, which is a second arrival",
        ),
        (facts.retries() == 0, "SYNs were sent again"),
        (
            facts.sysctl("net.ipv4.tcp_syncookies") == Some(0),
            "tcp_syncookies is not 0: a cookie lets in who found no room",
        ),
        (trial.loadgen.half_open.kept == 0, "half-open sockets fill the SYN queue"),
        (server.stall.is_none() && server.retire.is_none(), "the acceptor stalls, or its listener is closed"),
        (plain, "defer-accept or fastopen changes who enters the queue, and when"),
        (never_made.iter().all(|verdict| facts.verdict(*verdict) == 0), "attempts were not made"),
    ];
    needs.iter().find(|(holds, _)| !holds).map(|(_, reason)| (*reason).to_owned())
}

impl Measured {
    fn of(trial: &Trial) -> Option<Self> {
        let cohort = &trial.loadgen.measured;
        // Who got in and was served after its deadline had room. The term is of the whole trial: of phantoms nobody knows
        // whether they are of the warm-up.
        let too_late = trial.ledger.terms.too_late.min(cohort.verdict(Verdict::Unserved));
        let lost = cohort.planned.saturating_sub(cohort.verdict(Verdict::Served) + too_late);
        let limit = trial.server.listeners.first()?.limit;
        (cohort.planned > 0).then_some(Self {
            k: limit.saturating_add(2),
            planned: cohort.planned as f64,
            lost: lost as f64,
            arrival_rate: quantity::arrival_rate(trial)?,
            service_seconds: quantity::service_seconds(trial)?,
            time: cohort.confirm_service.mean().map(|ns| ns / 1e9),
        })
    }

    fn loss(&self) -> f64 {
        self.lost / self.planned
    }

    fn model(&self, k: u32) -> Option<Mm1k> {
        Mm1k::new(self.arrival_rate, self.service_seconds, k)
    }
}

fn theory(cell: usize, name: String, all: &[Measured], cells: usize) -> Option<CellTheory> {
    let k = all.first()?.k;
    let over = |value: fn(&Measured) -> f64| mean(&all.iter().map(value).collect::<Vec<_>>());
    let predictions: Vec<Prediction> =
        [k - 1, k, k.saturating_add(1)].into_iter().filter_map(|k| prediction(k, all, cells)).collect();
    let models: Vec<Mm1k> = all.iter().filter_map(|trial| trial.model(k)).collect();
    let expected = predictions.iter().find(|other| other.k == k)?;
    let times: Option<Vec<f64>> = all.iter().map(|trial| trial.time).collect();
    Some(CellTheory {
        cell,
        name,
        trials: all.len(),
        k,
        arrival_rate: over(|trial| trial.arrival_rate),
        service_seconds: over(|trial| trial.service_seconds),
        rho: over(|trial| trial.arrival_rate * trial.service_seconds),
        loss: over(Measured::loss),
        interval: expected.difference.map(|end| expected.loss + end),
        mean_number: mean(&models.iter().map(Mm1k::mean_number).collect::<Vec<_>>()),
        time_in_system: mean(&models.iter().map(Mm1k::time_in_system).collect::<Vec<_>>()),
        measured_time: times.map(|times| mean(&times)),
        predictions,
    })
}

fn prediction(k: u32, all: &[Measured], cells: usize) -> Option<Prediction> {
    let losses: Vec<f64> = all.iter().map(|trial| Some(trial.model(k)?.loss())).collect::<Option<_>>()?;
    let differences: Vec<f64> = all.iter().zip(&losses).map(|(trial, loss)| trial.loss() - loss).collect();
    let (middle, half) = (mean(&differences), half_width(&differences, cells)?);
    let difference = [middle - half, middle + half];
    let expected = all.iter().zip(&losses).all(|(trial, loss)| trial.planned * loss >= FEWEST_LOSSES);
    let judged = expected || all.iter().all(|trial| trial.lost >= FEWEST_LOSSES);
    let rejected = judged.then_some(difference[0] > 0.0 || difference[1] < 0.0);
    Some(Prediction { k, loss: mean(&losses), difference, rejected })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Half the width of Student's interval of a mean, one of `cells` that hold together.
fn half_width(values: &[f64], cells: usize) -> Option<f64> {
    let n = values.len() as f64;
    let middle = mean(values);
    let variance = values.iter().map(|value| (value - middle).powi(2)).sum::<f64>() / (n - 1.0);
    let outside = (1.0 - CONFIDENCE) / cells.max(1) as f64;
    let t = StudentsT::new(0.0, 1.0, n - 1.0).ok()?.inverse_cdf(1.0 - outside / 2.0);
    Some(t * (variance / n).sqrt())
}

#[cfg(test)]
mod tests;
