//! `acceptbench watch`: every TCP listener of a network namespace, as a table on the terminal and for Prometheus.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use recording::{Ending, Written};
use study::format;
use telemetry::Stop;
use telemetry::admin::{Admin, Listen};
use telemetry::namespace::Detail;
use watch::table::{self, Screen};
use watch::{Observer, RecordError, Recorder, Snapshot, StartError, Watcher};

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
    let file = args.record.record.as_ref();
    if file.is_some() && args.once {
        return Err(Failure::flag("record goes on until it is stopped: leave --once out, or give --record-for"));
    }
    if file.is_some() && args.opts.command.is_some() {
        return Err(Failure::flag("record chooses its listener by --port and --address: leave --command out"));
    }
    let stop = interrupt::watch()?;
    let watcher = Watcher::start(&args.opts).map_err(failure)?;
    let observer = watcher.observer();
    let mut recorder = None;
    if args.once {
        stop.wait_timeout(args.opts.interval.duration());
        print_once(&observer.table(), args)?;
    } else {
        let admin = start_admin(args, observer.clone())?;
        recorder = file.map(|path| record(args, path, &stop)).transpose()?;
        announce(args, &observer, admin.as_ref());
        let live = Live { observer, args, metrics: admin.as_ref().map(|admin| admin.local_addr().to_string()) };
        live.show_until(&stop);
        if let Some(admin) = admin {
            admin.stop();
        }
    }
    watcher.stop();
    if let (Some(recorder), Some(path)) = (recorder, file) {
        let written = recorder.finish().map_err(cannot_record)?;
        say(&told(&written, path, args));
    }
    Ok(End::Success)
}

/// Begins the recording and says so.
fn record(args: &WatchArgs, path: &Path, stop: &Stop) -> Result<Recorder, Failure> {
    let recorder = Recorder::start(&args.opts, &args.record, path.to_owned(), stop).map_err(cannot_record)?;
    let bounds = match args.record.record_for {
        Some(time) => format!("for {time}, {} at most", args.record.record_limit),
        None => format!("until it is stopped, {} at most", args.record.record_limit),
    };
    let (listener, interval) = (recorder.listener(), args.record.record_interval);
    say(&table::printable(&format!("recording {listener} into {}, a look every {interval}, {bounds}", path.display())));
    Ok(recorder)
}

/// What a recording came to.
fn told(written: &Written, path: &Path, args: &WatchArgs) -> String {
    let why = match written.end {
        Ending::Stopped => "stopped".to_owned(),
        Ending::Size => format!("it has its {} (--record-limit)", args.record.record_limit),
        Ending::Time => "its time is over (--record-for)".to_owned(),
        Ending::ListenerClosed => "the listener was closed".to_owned(),
    };
    let (lines, seconds) = (written.lines, format::time(written.seconds));
    let shown = path.display();
    table::printable(&format!(
        "recorded {seconds} in {lines} lines, {} bytes: {why}; acceptbench replay {shown} --set server.backlog=4096",
        written.bytes
    ))
}

fn cannot_record(error: RecordError) -> Failure {
    match error {
        RecordError::Target(error) if error.is_requirement() => Failure::Requirement(format!("--{error}")),
        error if error.is_requirement() => Failure::requirement(error),
        error => Failure::flag(error),
    }
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
    fn show_until(&self, stop: &Stop) {
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
