//! Part `pacing`: how even arrivals are, as the witness sees them, and what making them costs. Every tool asks and is
//! answered, so each does the same work; wrk and ab cannot pace, so they are not here.

use anyhow::Context;
use serde::Serialize;

use crate::child::Process;
use crate::contest::went_well;
use crate::outputs::{self, Claim};
use crate::scene::Scene;
use crate::settings::Settings;
use crate::statistics::{Spacing, median};
use crate::table::{Table, probability, short, whole};
use crate::tools::{self, H2LOAD, HTTPERF, Tool, limit, loadgen};
use crate::witness::{self, Statement};

/// Planned arrivals per second.
const RATES: [u32; 4] = [1_000, 5_000, 10_000, 20_000];

/// How arrivals are planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Law {
    /// All gaps are equal.
    Constant,
    /// Gaps are exponential.
    Poisson,
}

/// Who paces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pacer {
    Acceptbench,
    Tool(Tool),
}

impl Pacer {
    fn is_installed(self) -> bool {
        match self {
            Self::Acceptbench => true,
            Self::Tool(tool) => tool.path().is_some(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Acceptbench => "acceptbench",
            Self::Tool(tool) => tool.program,
        }
    }
}

/// One turn.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Sample {
    /// What the witness saw.
    pub(crate) spacing: Spacing,
    /// The share of the time in which it was ready to run and did not.
    pub(crate) kept_waiting: f64,
    /// CPU time of the generator as a share of one core.
    pub(crate) cpu: f64,
}

/// All turns of one generator at one rate.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Entry {
    /// How arrivals are planned.
    pub(crate) law: Law,
    /// How many per second.
    pub(crate) planned: u32,
    /// By whom.
    pub(crate) name: &'static str,
    /// One per round.
    pub(crate) samples: Vec<Sample>,
    /// Why there are no more.
    pub(crate) failed: Option<String>,
    /// Is it here at all?
    pub(crate) installed: bool,
    #[serde(skip)]
    pacer: Pacer,
}

/// Runs it; a table per law.
pub(crate) fn run(settings: &Settings) -> (Vec<Table>, Vec<Entry>) {
    let mut entries = Vec::new();
    let laws: [(Law, &[Pacer]); 2] = [
        (Law::Constant, &[Pacer::Acceptbench, Pacer::Tool(HTTPERF), Pacer::Tool(H2LOAD)]),
        (Law::Poisson, &[Pacer::Acceptbench, Pacer::Tool(HTTPERF)]),
    ];
    for (law, pacers) in laws {
        for planned in RATES {
            entries.extend(pacers.iter().map(|pacer| Entry {
                law,
                planned,
                name: pacer.name(),
                samples: Vec::new(),
                failed: None,
                installed: pacer.is_installed(),
                pacer: *pacer,
            }));
        }
    }
    for round in 1..=settings.rounds {
        for entry in &mut entries {
            play(entry, round, settings.seconds);
        }
    }
    let mut tables = vec![constant(settings, &entries), poisson(settings, &entries)];
    if let (Some(note), Some(last)) = (disturbed(&entries), tables.last_mut()) {
        last.notes.push(note);
    }
    (tables, entries)
}

/// One turn, unless the tool is missing or failed before.
fn play(entry: &mut Entry, round: u32, seconds: u32) {
    if !entry.installed || entry.failed.is_some() {
        return;
    }
    match turn(entry, round, seconds) {
        Ok(sample) => {
            let (cv, cpu) = (sample.spacing.gap_cv, sample.cpu * 100.0);
            eprintln!(
                "pacing {} {:?} {} /s round {round}: gap cv {cv:.2}, {cpu:.0} % of a core",
                entry.name, entry.law, entry.planned
            );
            entry.samples.push(sample);
        }
        Err(error) => {
            eprintln!("pacing {} {:?} {} /s round {round}: {error:#}", entry.name, entry.law, entry.planned);
            entry.failed = Some(format!("{error:#}"));
        }
    }
}

fn turn(entry: &Entry, round: u32, seconds: u32) -> anyhow::Result<Sample> {
    let client = client(entry, round, seconds)?;
    let (_, client_cpus) = witness::cpus()?;
    let server = Process::own(&["witness", &format!("rate={}", entry.planned)]);
    let scene = Scene { server, listeners: 1, clients: vec![client], client_cpus, limit: limit(seconds) };
    let played = scene.play()?;
    let Statement { spacing, kept_waiting } =
        serde_json::from_str(&played.server.stdout).context("read what the witness says")?;
    let client = played.clients.first().context("no client")?;
    went_well(&claim(entry.pacer, &client.stdout, seconds).map_err(anyhow::Error::msg)?)?;
    Ok(Sample { spacing, kept_waiting, cpu: client.cpu_ns as f64 / client.wall_ns as f64 })
}

/// What the generator says it did. An arrival that nobody answers is an arrival too, but no work.
fn claim(pacer: Pacer, text: &str, seconds: u32) -> Result<Claim, String> {
    match pacer {
        Pacer::Acceptbench => outputs::loadgen(text, f64::from(seconds)),
        Pacer::Tool(HTTPERF) => outputs::httperf(text),
        Pacer::Tool(_) => outputs::h2load(text),
    }
}

/// The command line that paces like that for `seconds`.
fn client(entry: &Entry, round: u32, seconds: u32) -> anyhow::Result<Process> {
    let connections = u64::from(entry.planned) * u64::from(seconds);
    let path = |tool: Tool| tool.path().with_context(|| tool.missing());
    Ok(match (entry.pacer, entry.law) {
        (Pacer::Acceptbench, law) => {
            let arrivals = if law == Law::Constant { "--arrivals=constant" } else { "--arrivals=poisson" };
            let numbers =
                [format!("--rate={}", entry.planned), format!("--duration={seconds}s"), format!("--seed={round}")];
            let asking = tools::asking();
            // One worker: the witness leaves one CPU on a small machine, and two openers share the arrivals.
            let fixed = ["--workers=1", "--close=fin", arrivals];
            let all: Vec<&str> = fixed.into_iter().chain(numbers.iter().chain(&asking).map(String::as_str)).collect();
            loadgen(&all)
        }
        (Pacer::Tool(HTTPERF), Law::Constant) => {
            tools::httperf_paced(path(HTTPERF)?, connections, &format!("--rate={}", entry.planned))
        }
        (Pacer::Tool(HTTPERF), Law::Poisson) => {
            let period = format!("--period=e{:.6}", 1.0 / f64::from(entry.planned));
            tools::httperf_paced(path(HTTPERF)?, connections, &period)
        }
        (Pacer::Tool(tool), _) => tools::h2load_paced(path(tool)?, connections, u64::from(entry.planned) / 1000),
    })
}

fn title(law: &str, settings: &Settings) -> String {
    format!(
        "Pacing, {law}, as an independent acceptor sees it; medians of {} round(s) of {} s",
        settings.rounds, settings.seconds
    )
}

fn constant(settings: &Settings, entries: &[Entry]) -> Table {
    let mut table = Table {
        title: title("constant rate", settings),
        head: vec!["tool", "planned/s", "seen/s", "gap cv", "late p50", "late p99", "CPU"],
        words: 1,
        notes: vec!["late: µs behind an even line of the rate that was seen. CPU: share of one core.".to_owned()],
        ..Table::default()
    };
    let figures: [fn(&Sample) -> f64; 2] = [|s| s.spacing.late_p50_us, |s| s.spacing.late_p99_us];
    fill(&mut table, entries, Law::Constant, |entry| {
        figures.iter().map(|figure| of(entry, *figure).map_or_else(dash, short)).collect()
    });
    table
}

fn poisson(settings: &Settings, entries: &[Entry]) -> Table {
    let mut table = Table {
        title: title("Poisson arrivals", settings),
        head: vec!["tool", "planned/s", "seen/s", "gap cv", "KS", "p", "CPU"],
        words: 1,
        notes: vec![
            "gap cv of a Poisson process is 1. KS: distance of the gaps from the exponential distribution of the planned \
             rate, p: how likely a larger one is by chance."
                .to_owned(),
        ],
        ..Table::default()
    };
    fill(&mut table, entries, Law::Poisson, |entry| {
        let distance = of(entry, |sample| sample.spacing.ks).map_or_else(dash, |ks| format!("{ks:.3}"));
        vec![distance, of(entry, |sample| sample.spacing.ks_p).map_or_else(dash, probability)]
    });
    table
}

/// Rows of one law: what both tables show, with `own` in the middle.
fn fill(table: &mut Table, entries: &[Entry], law: Law, own: impl Fn(&Entry) -> Vec<String>) {
    for entry in entries.iter().filter(|entry| entry.law == law) {
        let mut row = vec![entry.name.to_owned(), whole(f64::from(entry.planned))];
        let instead = if entry.installed { "failed" } else { "not installed" };
        row.push(of(entry, |sample| sample.spacing.rate).map_or_else(|| instead.to_owned(), whole));
        row.push(of(entry, |sample| sample.spacing.gap_cv).map_or_else(dash, |cv| format!("{cv:.2}")));
        row.extend(own(entry));
        row.push(of(entry, |sample| sample.cpu).map_or_else(dash, |cpu| format!("{:.0} %", cpu * 100.0)));
        table.rows.push(row);
        let note = match (entry.pacer, &entry.failed) {
            (Pacer::Tool(tool), _) if !entry.installed => tool.missing(),
            (_, Some(why)) => format!("{} at {} /s: {why}", entry.name, entry.planned),
            (_, None) => continue,
        };
        if !table.notes.contains(&note) {
            table.notes.push(note);
        }
    }
}

/// Says so when the witness could not have its CPU to itself: the figures are then those of the machine.
fn disturbed(entries: &[Entry]) -> Option<String> {
    // Waking up on an idle CPU is waiting, too: 1 to 2 % of the time at these rates. One more program on it makes that a
    // quarter.
    const TOLERABLE: f64 = 0.05;
    let waits: Vec<f64> = entries.iter().flat_map(|entry| &entry.samples).map(|sample| sample.kept_waiting).collect();
    let wait = median(&waits).filter(|wait| *wait > TOLERABLE)?;
    Some(format!(
        "DISTURBED: the witness waited for its CPU for {:.1} % of the time (median), so something else runs here. Repeat \
         this on a quiet machine.",
        wait * 100.0
    ))
}

/// The median of a figure over the rounds; none after a failure.
fn of(entry: &Entry, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
    let figures: Vec<f64> = entry.samples.iter().map(figure).collect();
    if entry.failed.is_some() { None } else { median(&figures) }
}

fn dash() -> String {
    "-".to_owned()
}
