//! `acceptbench server`: a server on this host, scraped by Prometheus.

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
    say(format!("acceptbench server {}", books.opts.to_args().join(" ")).trim_end());
    for listener in &books.listeners {
        say(&format!(
            "listening on {}  backlog {}, queue limit {} (holds {})",
            listener.address,
            listener.backlog_requested,
            listener.limit,
            u64::from(listener.limit) + 1
        ));
    }
    if let Some(admin) = admin {
        say(&format!("metrics on http://{}/metrics", admin.local_addr()));
    }
    for warning in &books.warnings {
        note(&format!("warning: {warning}"));
    }
}

fn summarise(books: &server::Snapshot) {
    let errors: u64 = books.acceptors.iter().flat_map(|acceptor| acceptor.errors.values()).sum();
    let deepest = books.listeners.iter().map(|listener| listener.deepest).max().unwrap_or(0);
    say(&format!(
        "accepted {}  greeted {}  dead on accept {}  accept errors {errors}  left in the queue {}",
        books.accepted(),
        books.total(|acceptor| acceptor.greetings),
        books.total(|acceptor| acceptor.dead_on_accept),
        books.left()
    ));
    say(&format!(
        "deepest queue {deepest}  of this namespace since it began: overflows {}, drops {}, cookies sent {}",
        books.kernel.net.listen_overflows, books.kernel.net.listen_drops, books.kernel.net.syncookies_sent
    ));
}
