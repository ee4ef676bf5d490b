//! `acceptbench loadgen`: a load on a server of this network, scraped by Prometheus.

mod json;
mod live;
mod retry_grid;
mod show;
pub(crate) mod summary;

use std::sync::Arc;
use std::time::Duration;

use kernel::process;
use loadgen::opts::{RunTime, StartAt};
use loadgen::{Generator, Machine, Plan, PlanError};
use telemetry::Stop;
use telemetry::admin::{Admin, Listen};
use telemetry::namespace::Detail;

use crate::cli::LoadgenArgs;
use crate::exit::{End, Failure};
use crate::interrupt;
use crate::pages::{RolePages, settings};
use show::Show;

/// How often the end is looked for.
const POLL: Duration = Duration::from_millis(20);

/// From the moment everything is ready to the first planned arrival.
const SOON_NS: u64 = 1_000_000;

/// Generates until the duration is over or a signal comes.
pub(crate) fn generate(args: LoadgenArgs) -> Result<End, Failure> {
    let stop = interrupt::watch()?;
    let plan = Plan::new(args.opts, &Machine::read()).map_err(failure)?;
    let forever = plan.opts().duration == RunTime::Forever;
    let settings = settings(plan.opts());
    let mut show = Show::new(args.json);
    show.plan(&plan);
    let start_at = plan.opts().start_at.map(instant).transpose()?;
    let generator = Generator::prepare(plan).map_err(Failure::requirement)?;
    let admin = start_admin(args.admin, settings, generator.observer())?;
    show.start(&generator.observer(), admin.as_ref().map(Admin::local_addr));
    // Only now: what it took to get here is nobody's lag.
    generator.begin(start_at.unwrap_or_else(|| process::monotonic_ns() + SOON_NS));
    wait(&generator, &stop, &mut show);
    let books = generator.finish(Detail::Full).map_err(Failure::requirement)?;
    if let Some(admin) = admin {
        admin.stop();
    }
    let end = match (stop.is_requested() && !forever, books.limits.is_empty()) {
        (true, _) => End::Interrupted,
        (false, false) => End::Invalid,
        (false, true) => End::Success,
    };
    show.end(&books, end);
    Ok(end)
}

/// Waits for the last verdict. Told to stop, it has no more attempts issued, and waits for those in flight.
fn wait(generator: &Generator, stop: &Stop, show: &mut Show) {
    let observer = generator.observer();
    while !generator.wait(POLL) {
        if stop.is_requested() {
            generator.stop_issuing();
        }
        show.tick(&observer);
    }
}

/// The start that was asked for, on `CLOCK_MONOTONIC`, ns.
fn instant(start_at: StartAt) -> Result<u64, Failure> {
    match start_at.realtime_ns().checked_sub(process::realtime_ns()) {
        Some(ahead) => Ok(process::monotonic_ns() + ahead),
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
