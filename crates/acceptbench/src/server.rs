//! `acceptbench server`: a server on this host, scraped by Prometheus.

mod text;

use std::sync::Arc;
use std::time::Duration;

use kernel::process;
use telemetry::admin::{Admin, Listen};
use telemetry::namespace::Detail;

use crate::cli::ServerArgs;
use crate::exit::{End, Failure};
use crate::interrupt;
use crate::pages::{RolePages, settings};
use crate::terminal::{note, say};

/// How long what waits in the accept queue may take to be served once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until SIGINT or SIGTERM.
pub(crate) fn serve(args: ServerArgs) -> Result<End, Failure> {
    let plan = server::Plan::try_from(args.opts).map_err(Failure::flag)?;
    let stop = interrupt::watch()?;
    let _ = process::raise_nofile();
    let server = server::Server::start(&plan, server::Origin::default()).map_err(|error| match error {
        server::StartError::Listen(error) => Failure::usage(error),
        server::StartError::Unfit(message) => Failure::flag(message),
        error => Failure::requirement(error),
    })?;
    server.begin(process::monotonic_ns());
    let admin = start_admin(args.admin, &plan, server.observer())?;
    announce(&server.observer().snapshot(Detail::Books), admin.as_ref());
    while !stop.wait_timeout(Duration::from_hours(1)) {}
    server.drain(DRAIN);
    server.stop_accepting();
    server.serve_out(DRAIN);
    if let Some(admin) = admin {
        admin.stop();
    }
    summarise(&server.finish(Detail::Full));
    Ok(End::Success)
}

fn start_admin(listen: Listen, plan: &server::Plan, observer: server::Observer) -> Result<Option<Admin>, Failure> {
    let Listen::Addr(address) = listen else { return Ok(None) };
    let pages = RolePages {
        role: "server",
        settings: settings(plan.opts()),
        read: Box::new(move |detail| observer.snapshot(detail)),
        expose: server::metrics::expose,
    };
    Admin::start(address, Arc::new(pages)).map(Some).map_err(Failure::usage)
}

fn announce(books: &server::Snapshot, admin: Option<&Admin>) {
    for line in text::start(books, &text::Machine::here()) {
        say(&line);
    }
    if let Some(admin) = admin {
        say(&format!("metrics on http://{}/metrics", admin.local_addr()));
    }
    for warning in &books.warnings {
        note(&format!("warning: {warning}"));
    }
}

fn summarise(books: &server::Snapshot) {
    for line in text::end(books) {
        say(&line);
    }
}
