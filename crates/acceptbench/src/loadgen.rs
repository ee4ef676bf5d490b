//! `acceptbench loadgen`: a load on a server of this network, scraped by Prometheus.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use kernel::process;
use loadgen::opts::{RunTime, StartAt};
use loadgen::{Generator, Machine, Plan, PlanError, Verdict};
use study::format;
use telemetry::admin::{Admin, Listen};
use telemetry::histogram::HistogramSnapshot;
use telemetry::namespace::Detail;

use crate::cli::LoadgenArgs;
use crate::exit::{End, Failure};
use crate::interrupt;
use crate::pages::{RolePages, settings};
use crate::terminal::{note, say};

/// How often the end is looked for.
const POLL: Duration = Duration::from_millis(20);

/// Generates until the duration is over or a signal comes.
pub(crate) fn generate(args: LoadgenArgs) -> Result<End, Failure> {
    let stop = interrupt::watch()?;
    let plan = Plan::new(args.opts, &Machine::read()).map_err(failure)?;
    let forever = plan.opts().duration == RunTime::Forever;
    let settings = settings(plan.opts());
    say(format!("acceptbench loadgen {}", plan.opts().to_args().join(" ")).trim_end());
    for warning in plan.warnings() {
        note(&format!("warning: {warning}"));
    }
    let target = plan.target();
    let origin = origin(plan.opts().start_at)?;
    let generator = Generator::prepare(plan).map_err(Failure::requirement)?;
    let admin = start_admin(args.admin, settings, generator.observer())?;
    say(&format!("connecting to {target}"));
    if let Some(admin) = &admin {
        say(&format!("metrics on http://{}/metrics", admin.local_addr()));
    }
    generator.begin(origin);
    while !generator.wait(POLL) {
        if stop.is_requested() {
            generator.stop_issuing();
            break;
        }
    }
    let interrupted = stop.is_requested();
    let books = generator.finish(Detail::Full).map_err(Failure::requirement)?;
    if let Some(admin) = admin {
        admin.stop();
    }
    summarise(&books);
    let limits = lab::generator_limits(&books);
    for limit in &limits {
        note(&format!("warning: {limit}"));
    }
    Ok(match (interrupted && !forever, limits.is_empty()) {
        (true, _) => End::Interrupted,
        (false, false) => End::Invalid,
        (false, true) => End::Success,
    })
}

/// The start on `CLOCK_MONOTONIC`, ns: the instant asked for, or now.
fn origin(start_at: Option<StartAt>) -> Result<u64, Failure> {
    let now = process::monotonic_ns();
    let Some(start_at) = start_at else { return Ok(now + 1_000_000) };
    match start_at.realtime_ns().checked_sub(process::realtime_ns()) {
        Some(ahead) => Ok(now + ahead),
        None => Err(Failure::flag(format!("start-at {start_at} is past; name an instant that is still to come"))),
    }
}

fn failure(error: PlanError) -> Failure {
    if error.is_requirement() { Failure::Requirement(format!("--{error}")) } else { Failure::flag(error) }
}

fn start_admin(
    listen: Listen,
    settings: std::collections::BTreeMap<String, String>,
    observer: loadgen::Observer,
) -> Result<Option<Admin>, Failure> {
    let Listen::Addr(address) = listen else { return Ok(None) };
    let pages = RolePages {
        role: "loadgen",
        settings,
        read: Box::new(move |detail| observer.snapshot(detail)),
        expose: loadgen::metrics::expose,
    };
    Admin::start(address, Arc::new(pages)).map(Some).map_err(Failure::usage)
}

fn summarise(books: &loadgen::Snapshot) {
    let measured = &books.measured;
    let seconds = books.monotonic_ns.saturating_sub(books.origin_ns) as f64 / 1e9;
    say(&format!(
        "planned {}  issued {}  in {}  arrivals {}{}",
        measured.planned,
        measured.issued,
        format::time(seconds),
        books.opts.arrivals,
        if books.warm_up.planned > 0 {
            format!("  (and {} in the warm-up)", books.warm_up.planned)
        } else {
            String::new()
        }
    ));
    for verdict in Verdict::ALL {
        let count = measured.verdict(verdict);
        if count > 0 {
            let share = count as f64 / measured.planned.max(1) as f64;
            say(&format!("  {:<12} {count:>9}  {:>8}", verdict.label().replace('_', "-"), format::percent(share)));
        }
    }
    for (errno, count) in &measured.other_errnos {
        let text =
            errno.parse().map(std::io::Error::from_raw_os_error).map_or_else(|_| errno.clone(), |e| e.to_string());
        say(&format!("               {count:>9}  {text}"));
    }
    let whole = books.whole();
    let foretold =
        books.budget.as_ref().and_then(|budget| budget.beside(whole.planned, whole.verdict(Verdict::NoPorts)));
    if let Some(foretold) = foretold {
        say(&format!("  {foretold}"));
    }
    say(&format!("{:<34}{:>9} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p90", "p99", "p99.9", "max"));
    row("schedule lag (issued - planned)", &measured.lag);
    row("connected, from planned", &measured.connect_latency);
    row("first byte, from planned", &measured.confirm_latency);
    row("first byte, from issued", &measured.confirm_service);
}

fn row(name: &str, histogram: &HistogramSnapshot) {
    if histogram.is_empty() {
        return;
    }
    let mut line = format!("{name:<34}");
    for q in [0.5, 0.9, 0.99, 0.999, 1.0] {
        let ns = histogram.quantile(q).unwrap_or(0);
        let _ = write!(line, "{:>9} ", format::time(ns as f64 / 1e9));
    }
    say(line.trim_end());
}
