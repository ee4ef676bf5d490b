//! What a trial needs before its load: control sockets, and a server that is prepared, our own or a target, whose answer may
//! take long.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use kernel::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use telemetry::Stop;

use super::{Recipe, TrialError, sleep_or_stop};
use crate::control::{Channel, ServerRequest};

/// How often the runner looks whether a target is ready.
const READY_POLL: Duration = Duration::from_millis(2);

/// What the server's process is told.
pub(super) fn prepare_server(recipe: &Recipe<'_>, address: SocketAddr) -> ServerRequest {
    if let Some(order) = recipe.target {
        return ServerRequest::PrepareTarget(Box::new(order.clone()));
    }
    let opts = server::Opts { listen: address.into(), seed: recipe.seed, ..recipe.resolved.server.clone() };
    ServerRequest::Prepare(Box::new(opts))
}

/// Waits for an answer that may take long, unless told to stop.
pub(super) fn wait_readable(channel: &Channel, limit: Duration, stop: &Stop) -> Result<(), TrialError> {
    let deadline = Instant::now() + limit;
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    while Instant::now() < deadline {
        let mut fds = [PollFd::new(channel, PollFlags::IN)];
        // Whatever is wrong with the socket, reading from it will say.
        if poll(&mut fds, Some(&now)).is_err() || !fds[0].revents().is_empty() {
            break;
        }
        sleep_or_stop(READY_POLL, stop)?;
    }
    Ok(())
}

/// Both ends of a control socket.
pub(super) fn channel_pair() -> Result<(UnixStream, UnixStream), TrialError> {
    process::channel().map_err(|source| TrialError::Start { what: "a control socket", source })
}
