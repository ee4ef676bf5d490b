//! Trials and designs for tests: a trial whose books balance, to be bent by the test that needs it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use jiff::Timestamp;
use loadgen::verdict::Verdict;
use server::{AcceptorCounts, ListenerCounts};

use crate::design::{Cell, Design, Factor, Grid, Level};
use crate::finding::{Claim, Comparison, Findings};
use crate::ledger::{Ledger, balance};
use crate::quantity::Quantity;
use crate::results::{Timings, Topology, Trial};
use crate::screen::{Place, Screen};
use crate::summary::Summary;

/// 1000 attempts planned: 200 timed out, 800 connected, of which 790 entered and were accepted and 10 are phantoms; 780
/// served, 20 unserved. No cookies.
pub(crate) fn trial(cell: usize) -> Trial {
    let mut trial = Trial {
        trial: 0,
        retry: 0,
        block: 0,
        cell,
        name: String::new(),
        settings: BTreeMap::new(),
        started: Timestamp::UNIX_EPOCH,
        topology: Topology::Veth,
        timings: Timings { load_ms: 1000.0, ..Timings::default() },
        sysctls: BTreeMap::new(),
        target: None,
        server: server(),
        loadgen: loadgen(),
        ledger: Ledger::default(),
        invalid: Vec::new(),
        warnings: Vec::new(),
    };
    settle(&mut trial);
    trial
}

/// Settles the books again after a test changed them.
pub(crate) fn settle(trial: &mut Trial) {
    trial.ledger = balance(&trial.server, &trial.loadgen, trial.topology);
}

/// Makes the cohort's served ratio `per_mille` ‰, and gives every served attempt the same latency, ms.
pub(crate) fn serve(trial: &mut Trial, per_mille: u64, latency_ms: u64) {
    serve_ns(trial, per_mille, latency_ms * 1_000_000);
}

/// [`serve`] to the nanosecond.
pub(crate) fn serve_ns(trial: &mut Trial, per_mille: u64, latency_ns: u64) {
    let cohort = &mut trial.loadgen.measured;
    cohort.verdicts.insert(Verdict::Served, per_mille);
    cohort.verdicts.insert(Verdict::TimedOut, 1000 - per_mille);
    cohort.verdicts.insert(Verdict::Unserved, 0);
    for _ in 0..10 {
        cohort.confirm_latency.record(latency_ns);
    }
}

fn server() -> server::Snapshot {
    let mut server = server::Snapshot {
        listeners: vec![ListenerCounts {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9700)),
            backlog_requested: Some(128),
            limit: 128,
            depth: 0,
            deepest: 129,
            deepest_since_scrape: 0,
            full_ns: 0,
            drops: 0,
            left: 0,
            destroyed: 0,
            retired: false,
            relistens: 0,
            options: server::ListenerOptions::default(),
        }],
        acceptors: vec![AcceptorCounts { accepts: 790, greetings: 790, ..AcceptorCounts::default() }],
        ..server::Snapshot::default()
    };
    for _ in 0..79 {
        server.batch.record(10);
    }
    server.kernel.net.passive_opens = 790;
    server.kernel.net.embryonic_resets = 10;
    server
}

fn loadgen() -> loadgen::Snapshot {
    let mut measured = loadgen::PhaseCounts { planned: 1000, issued: 1000, established: 800, ..Default::default() };
    measured.verdicts = Verdict::ALL.map(|verdict| (verdict, 0)).into();
    measured.verdicts.extend([(Verdict::Served, 780), (Verdict::Unserved, 20), (Verdict::TimedOut, 200)]);
    let mut loadgen = loadgen::Snapshot {
        monotonic_ns: 3_000_000_000,
        origin_ns: 1_000_000_000,
        measured,
        finished: true,
        target_rate: 1000.0,
        ports_available: 28_000,
        ..loadgen::Snapshot::default()
    };
    loadgen.kernel.net.active_opens = 1000;
    loadgen
}

/// A factor that sets `setting` to each of `levels`; its label is the last part of the name.
pub(crate) fn factor(setting: &str, levels: &[&str]) -> Factor {
    let label = setting.rsplit('.').next().unwrap_or(setting).to_owned();
    let level = |value: &&str| Level {
        label: (*value).to_owned(),
        settings: BTreeMap::from([(setting.to_owned(), (*value).to_owned())]),
    };
    Factor { label, levels: levels.iter().map(level).collect() }
}

/// Crosses the factors of each grid; the last factor varies fastest.
pub(crate) fn design(grids: &[(Option<&str>, Vec<Factor>)]) -> Design {
    let mut design = Design::default();
    for (grid, (name, factors)) in grids.iter().enumerate() {
        let cells: usize = factors.iter().map(|factor| factor.levels.len()).product();
        for number in 0..cells {
            let mut rest = number;
            let mut levels: Vec<usize> = factors
                .iter()
                .rev()
                .map(|factor| {
                    let level = rest % factor.levels.len();
                    rest /= factor.levels.len();
                    level
                })
                .collect();
            levels.reverse();
            let settings =
                factors.iter().zip(&levels).flat_map(|(f, level)| f.levels[*level].settings.clone()).collect();
            design.cells.push(Cell { index: design.cells.len(), grid, levels, settings });
        }
        design.grids.push(Grid { name: name.map(str::to_owned), factors: factors.clone() });
    }
    design
}

/// One trial per cell and entry: its served ratio in ‰ and its latency in ms.
pub(crate) fn trials(design: &Design, cells: &[&[(u64, u64)]]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (cell, outcomes) in design.cells.iter().zip(cells) {
        for (block, (per_mille, latency_ms)) in outcomes.iter().enumerate() {
            let mut trial = trial(cell.index);
            serve(&mut trial, *per_mille, *latency_ms);
            (trial.trial, trial.block) = (trials.len(), block);
            trial.name = design.describe(cell);
            trial.settings.clone_from(&cell.settings);
            trials.push(trial);
        }
    }
    trials
}

/// The design of the shipped backlog experiment, without its extra grid.
pub(crate) fn backlog_design() -> Design {
    let levels = ["16", "128", "1024"];
    design(&[(None, vec![factor("sysctl.net.core.somaxconn", &levels), factor("server.backlog", &levels)])])
}

/// Compares the cells of every grid with its first one, and keeps what that came to in the summary.
pub(crate) fn compare(design: &Design, trials: &[Trial], summary: &mut Summary, metrics: &[&str]) {
    let metrics: Vec<_> = metrics.iter().filter_map(|name| Quantity::named(name).ok()).collect();
    let baselines: Vec<usize> =
        (0..design.grids.len()).filter_map(|grid| design.cells_of(grid).next()).map(|cell| cell.index).collect();
    let comparison = Comparison {
        design,
        baselines: &baselines,
        metrics: &metrics,
        smallest_effect: 0.05,
        claim: Claim::Findings,
        seed: 1,
    };
    summary.findings = Some(Findings::of(&comparison, trials, summary));
}

/// The first screen of a run called backlog: `served-ratio` answers, nothing was expected, nothing else must be said.
pub(crate) fn screen<'a>(design: &'a Design, summary: &'a Summary) -> Screen<'a> {
    Screen {
        name: "backlog",
        question: "When does raising somaxconn help?",
        design,
        summary,
        quantity: Quantity::named("served-ratio").expect("in the catalogue"),
        smallest_effect: 0.05,
        baseline: None,
        expectations: &[],
        notes: &[],
        place: Place::Lab { cpus: 2 },
        report: "results/latest/report.html",
        next: None,
    }
}
