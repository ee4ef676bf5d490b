//! The two ends of a trial as processes of their own: `__server` and `__loadgen`. Each does what its control
//! socket says and ends when the socket does. With a `[target]` the server's process keeps that instead of serving.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use telemetry::namespace::Detail;

use crate::control::{Channel, ControlError, Failure, LoadgenRequest, Reply, ServerRequest};
use crate::inside;
use crate::target::keeper;

/// How long connections that the clients have left may take to be closed by the server.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// The `__server` process.
pub(crate) fn server() -> ExitCode {
    exit(serve_server())
}

/// The `__loadgen` process.
pub(crate) fn loadgen() -> ExitCode {
    exit(serve_loadgen())
}

fn exit(result: Result<(), ControlError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The runner is gone: so is the reason to be here, and anybody to tell.
        Err(ControlError::Closed) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!(%error, "control socket");
            ExitCode::FAILURE
        }
    }
}

fn open() -> Result<Channel, ControlError> {
    inside::enter_namespace()?;
    let _ = kernel::process::raise_nofile();
    // With one thread there is nobody to wait for; later this takes the time of a short trial.
    let _ = kernel::process::make_room_for_descriptors(kernel::process::MANY_DESCRIPTORS);
    Ok(Channel::from_stdin()?)
}

/// A server, once prepared.
fn serve_server() -> Result<(), ControlError> {
    let mut channel = open()?;
    let mut server: Option<server::Server> = None;
    loop {
        let request = channel.receive()?;
        let reply = match (request, &server) {
            (ServerRequest::PrepareTarget(order), None) => return keeper::serve(channel, *order),
            (ServerRequest::Prepare(opts), None) => match start_server(*opts) {
                Ok(started) => {
                    server = Some(started);
                    Reply::Done
                }
                Err(failure) => Reply::Failed(failure),
            },
            (ServerRequest::Begin(origin), Some(server)) => {
                server.begin(origin);
                Reply::Done
            }
            (ServerRequest::Snapshot(detail), Some(server)) => {
                Reply::Snapshot(Box::new(server.observer().snapshot(detail)))
            }
            (ServerRequest::StopAccepting, Some(server)) => {
                server.stop_accepting();
                Reply::Done
            }
            (ServerRequest::Finish, Some(_)) => {
                let Some(server) = server.take() else { return Err(ControlError::Unexpected) };
                // The clients are gone: what is open ends as soon as the acceptors look, who end only if they accept no more.
                server.stop_accepting();
                server.serve_out(LAST_LOOK);
                return channel.send(&Reply::Snapshot(Box::new(server.finish(Detail::Books))));
            }
            _ => return Err(ControlError::Unexpected),
        };
        channel.send(&reply)?;
    }
}

fn start_server(opts: server::Opts) -> Result<server::Server, Failure> {
    let plan = server::Plan::try_from(opts).map_err(Failure::usage)?;
    server::Server::start(&plan, server::Origin::default()).map_err(|error| match error {
        server::StartError::Unfit(message) => Failure::usage(message),
        error => Failure::requirement(error),
    })
}

fn serve_loadgen() -> Result<(), ControlError> {
    let mut channel = open()?;
    let mut generator: Option<loadgen::Generator> = None;
    let mut wanted_half_open = 0;
    loop {
        let request = channel.receive()?;
        let reply = match (request, &generator) {
            (LoadgenRequest::Prepare { opts, half_open }, None) => match prepare_loadgen(*opts, half_open) {
                Ok(prepared) => {
                    generator = Some(prepared);
                    wanted_half_open = half_open;
                    Reply::Done
                }
                Err(failure) => Reply::Failed(failure),
            },
            (LoadgenRequest::KeepHalfOpen, Some(generator)) => match generator.keep_half_open(wanted_half_open) {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Failed(Failure::requirement(error)),
            },
            (LoadgenRequest::Begin(origin), Some(generator)) => {
                generator.begin(origin);
                Reply::Done
            }
            (LoadgenRequest::Snapshot(detail), Some(generator)) => {
                Reply::Snapshot(Box::new(generator.observer().snapshot(detail)))
            }
            (LoadgenRequest::StopIssuing, Some(generator)) => {
                generator.stop_issuing();
                Reply::Done
            }
            (LoadgenRequest::Finish, Some(_)) => {
                let Some(generator) = generator.take() else { return Err(ControlError::Unexpected) };
                // Whoever can read the books holds the half-open sockets.
                let _holder = generator.observer();
                channel.send(&finish_loadgen(generator))?;
                if wanted_half_open == 0 {
                    return Ok(());
                }
                // Closed now, they would answer the server's next SYN-ACKs with RSTs while it reads its books.
                return match channel.receive()? {
                    LoadgenRequest::Leave => Ok(()),
                    _ => Err(ControlError::Unexpected),
                };
            }
            _ => return Err(ControlError::Unexpected),
        };
        channel.send(&reply)?;
    }
}

fn prepare_loadgen(opts: loadgen::Opts, half_open: u32) -> Result<loadgen::Generator, Failure> {
    let plan = loadgen::Plan::new(opts, &loadgen::Machine::read().without_descriptors(half_open))
        .map_err(|error| Failure { requirement: error.is_requirement(), message: error.to_string() })?;
    loadgen::Generator::prepare(plan).map_err(Failure::requirement)
}

fn finish_loadgen(generator: loadgen::Generator) -> Reply<loadgen::Snapshot> {
    generator.stop_issuing();
    let deadline = generator.observer().snapshot(Detail::Books).opts.deadline.as_ns();
    if !generator.wait(Duration::from_nanos(deadline) + Duration::from_secs(1)) {
        return Reply::Failed(Failure::requirement(io::Error::other(
            "attempts are still in flight one second after the deadline of the last",
        )));
    }
    match generator.finish(Detail::Books) {
        Ok(snapshot) => Reply::Snapshot(Box::new(snapshot)),
        Err(error) => Reply::Failed(Failure::requirement(error)),
    }
}
