//! `acceptbench watch`: every TCP listener of a network namespace, as a table on the terminal and for Prometheus.

use std::sync::Arc;
use std::time::Duration;

use telemetry::admin::{Admin, Listen};
use telemetry::namespace::Detail;
use watch::table::{self, Screen};
use watch::{Observer, Snapshot, StartError, Watcher};

use crate::cli::WatchArgs;
use crate::exit::{End, Failure};
use crate::interrupt;
use crate::pages::{RolePages, settings};
use crate::terminal::{self, say};

/// Watches until SIGINT or SIGTERM, or once.
pub(crate) fn watch(args: &WatchArgs) -> Result<End, Failure> {
    if args.json && !args.once {
        return Err(Failure::flag("json prints one document and ends: give it together with --once"));
    }
    let stop = interrupt::watch()?;
    let watcher = Watcher::start(&args.opts).map_err(failure)?;
    let observer = watcher.observer();
    if args.once {
        stop.wait_timeout(args.opts.interval.duration());
        print_once(&observer.table(), args)?;
    } else {
        let admin = start_admin(args, observer.clone())?;
        announce(args, &observer, admin.as_ref());
        let live = Live { observer, args, metrics: admin.as_ref().map(|admin| admin.local_addr().to_string()) };
        live.show_until(&stop);
        if let Some(admin) = admin {
            admin.stop();
        }
    }
    watcher.stop();
    Ok(End::Success)
}

fn failure(error: StartError) -> Failure {
    match error {
        StartError::Target(error) if error.is_requirement() => Failure::Requirement(format!("--{error}")),
        StartError::Target(error) => Failure::flag(error),
        other => Failure::requirement(other),
    }
}

fn start_admin(args: &WatchArgs, observer: Observer) -> Result<Option<Admin>, Failure> {
    let Listen::Addr(address) = args.admin else { return Ok(None) };
    let pages = RolePages {
        role: "watch",
        settings: settings(&args.opts),
        read: Box::new(move |detail| observer.snapshot(detail)),
        expose: watch::metrics::expose,
    };
    Admin::start(address, Arc::new(pages)).map(Some).map_err(Failure::usage)
}

/// What is watched and where metrics are: all that a journal sees.
fn announce(args: &WatchArgs, observer: &Observer, admin: Option<&Admin>) {
    let snapshot = observer.snapshot(Detail::Books);
    say(table::printable(&format!("acceptbench watch {}", args.opts.to_args().join(" "))).trim_end());
    let whose = match &snapshot.netns {
        Some(netns) => format!("network namespace {}", table::printable(netns)),
        None => "this network namespace".to_owned(),
    };
    let (now, rate) = (snapshot.listeners.len(), args.opts.rate);
    say(&format!("watching the TCP listeners of {whose}, {now} now, {rate} looks per second"));
    if let Some(admin) = admin {
        say(&format!("metrics on http://{}/metrics", admin.local_addr()));
    }
}

fn print_once(snapshot: &Snapshot, args: &WatchArgs) -> Result<(), Failure> {
    if args.json {
        let json = serde_json::to_string(snapshot).map_err(|error| Failure::Requirement(format!("--json: {error}")))?;
        say(&json);
    } else {
        let columns = terminal::size().map(|(columns, _)| columns);
        let screen = Screen { columns, rows: None, sort: args.opts.sort, metrics: None };
        say(&table::render(snapshot, &screen).join("\n"));
    }
    Ok(())
}

/// The table that redraws itself.
struct Live<'a> {
    observer: Observer,
    args: &'a WatchArgs,
    metrics: Option<String>,
}

impl Live<'_> {
    /// Shows the table at every interval if there is a terminal to show it on, and leaves the last one behind.
    fn show_until(&self, stop: &telemetry::Stop) {
        let mut lines = None;
        while !stop.wait_timeout(self.pause(lines.is_some())) {
            let Some((columns, rows)) = terminal::size() else { continue };
            let table = self.table(columns, rows);
            // A terminal that has gone away (SIGHUP blocked by nohup) leaves only the metrics to be served.
            if !terminal::draw(&table) {
                while !stop.wait_timeout(Duration::from_hours(1)) {}
            }
            lines = Some(table);
        }
        terminal::leave_screen();
        if let Some(lines) = lines {
            say(&lines.join("\n"));
        }
    }

    /// The first table comes early: with nothing to show for its interval, but at once.
    fn pause(&self, drawn: bool) -> Duration {
        let interval = self.args.opts.interval.duration();
        match (terminal::size(), drawn) {
            (None, _) => Duration::from_hours(1),
            (Some(_), false) => interval.min(Duration::from_millis(200)),
            (Some(_), true) => interval,
        }
    }

    fn table(&self, columns: usize, rows: usize) -> Vec<String> {
        let screen = Screen {
            columns: Some(columns),
            rows: Some(rows),
            sort: self.args.opts.sort,
            metrics: self.metrics.as_deref(),
        };
        table::render(&self.observer.table(), &screen)
    }
}
