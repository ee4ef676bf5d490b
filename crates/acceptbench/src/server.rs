//! `acceptbench server`: a server on this host, scraped by Prometheus, which can be replaced while it serves.

mod text;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use kernel::process;
use telemetry::admin::{Admin, Listen};
use telemetry::namespace::Detail;

use crate::cli::ServerArgs;
use crate::exit::{End, Failure};
use crate::handover::{Inheritance, Succession};
use crate::interrupt::{self, Request, Requests};
use crate::notify::notify;
use crate::pages::{RolePages, settings};
use crate::terminal::{note, say};

/// How long what waits in the accept queue may take to be served once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until SIGINT or SIGTERM, or until a successor does (SIGUSR2).
pub(crate) fn serve(args: ServerArgs) -> Result<End, Failure> {
    let plan = server::Plan::try_from(args.opts).map_err(Failure::flag)?;
    let requests = interrupt::watch_with_restarts()?;
    let _ = process::raise_nofile();
    let succession = Succession::new();
    let (serving, inherited) = Serving::start(&plan, args.admin)?;
    serving.announce();
    match inherited {
        None => notify("READY=1"),
        Some(inheritance) => {
            say(&format!("taken over from pid {}", inheritance.from));
            if let Err(error) = inheritance.accepted() {
                serving.give_back();
                return Err(Failure::Requirement(format!(
                    "take over from a running server: it goes on itself ({error})"
                )));
            }
        }
    }
    loop {
        match requests.next() {
            Request::Stop => {
                notify("STOPPING=1");
                serving.end();
                return Ok(End::Success);
            }
            Request::Restart => match serving.start_successor(&succession, &requests) {
                Ok(successor) => {
                    notify(&format!("MAINPID={successor}\nREADY=1"));
                    serving.leave_to(successor);
                    return Ok(End::Success);
                }
                Err(reason) => {
                    // Those that came meanwhile; one that comes once this is said is a new wish.
                    requests.forget_restarts();
                    note(&format!("warning: no hot restart, serving on: {reason}"));
                }
            },
        }
    }
}

/// A server and its admin port.
struct Serving {
    server: server::Server,
    admin: Option<Admin>,
}

impl Serving {
    /// Starts both, on the sockets of a predecessor if there is one.
    fn start(plan: &server::Plan, listen: Listen) -> Result<(Self, Option<Inheritance>), Failure> {
        let mut inheritance = Inheritance::receive()?;
        let inherited = inheritance.as_mut().map(|from| std::mem::take(&mut from.listeners)).unwrap_or_default();
        let origin = server::Origin { inherited, ..server::Origin::default() };
        let server = server::Server::start(plan, origin).map_err(|error| match error {
            server::StartError::Listen(error) => Failure::usage(error),
            server::StartError::Unfit(message) => Failure::flag(message),
            error => Failure::requirement(error),
        })?;
        server.begin(process::monotonic_ns());
        let socket = inheritance.as_mut().and_then(|from| from.admin.take());
        match start_admin(listen, socket, plan, server.observer()) {
            Ok(admin) => Ok((Self { server, admin }, inheritance)),
            Err(failure) => {
                Self { server, admin: None }.give_back();
                Err(failure)
            }
        }
    }

    fn announce(&self) {
        announce(&self.server.observer().snapshot(Detail::Books), self.admin.as_ref());
    }

    fn start_successor(&self, succession: &Succession, requests: &Requests) -> Result<u32, String> {
        let listeners = self.server.listeners().map_err(|error| error.to_string())?;
        let admin = self.admin.as_ref().map(Admin::listener).transpose();
        let admin = admin.map_err(|error| format!("the admin port: {error}"))?;
        succession.start(&listeners, admin.as_ref(), &requests.stop)
    }

    /// Stops in order: the queues are emptied, what is open is served.
    fn end(self) {
        self.server.drain(DRAIN);
        self.server.stop_accepting();
        self.server.serve_out(DRAIN);
        self.finish();
    }

    /// Leaves queues and admin port to a successor that has begun, and serves what is open.
    fn leave_to(mut self, successor: u32) {
        self.server.hand_over();
        if let Some(admin) = self.admin.take() {
            admin.stop();
        }
        say(&format!("handed over to pid {successor}"));
        self.server.serve_out(DRAIN);
        self.finish();
    }

    /// Leaves the queues to the predecessor, which goes on after all.
    fn give_back(self) {
        self.server.hand_over();
        if let Some(admin) = self.admin {
            admin.stop();
        }
        self.server.serve_out(DRAIN);
    }

    fn finish(self) {
        if let Some(admin) = self.admin {
            admin.stop();
        }
        summarise(&self.server.finish(Detail::Full));
    }
}

fn start_admin(
    listen: Listen,
    inherited: Option<OwnedFd>,
    plan: &server::Plan,
    observer: server::Observer,
) -> Result<Option<Admin>, Failure> {
    let Listen::Addr(address) = listen else { return Ok(None) };
    let pages = Arc::new(RolePages {
        role: "server",
        settings: settings(plan.opts()),
        read: Box::new(move |detail| observer.snapshot(detail)),
        expose: server::metrics::expose,
    });
    let started = match inherited {
        Some(socket) => Admin::start_on(socket, pages),
        None => Admin::start(address, pages),
    };
    started.map(Some).map_err(Failure::usage)
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
