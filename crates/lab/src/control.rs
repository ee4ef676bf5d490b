//! The trial's private control sockets: one Unix stream per child, JSON lines, one reply per request.
//!
//! A child's standard input is its end. End of file means that the other side died.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use telemetry::namespace::Detail;
use thiserror::Error;

use crate::target::Order;

/// What the runner asks of a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ServerRequest {
    /// Listen and accept.
    Prepare(Box<server::Opts>),
    /// Keep this program in the server's place, and answer when it listens.
    PrepareTarget(Box<Order>),
    /// Stalls and retirements count from here (monotonic ns).
    Begin(u64),
    /// Read the books.
    Snapshot(Detail),
    /// End accepting, count what is left.
    StopAccepting,
    /// Read the books a last time and exit.
    Finish,
}

/// What the runner asks of a load generator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LoadgenRequest {
    /// Resolve, check, start the workers.
    Prepare {
        /// What a user can ask for.
        opts: Box<loadgen::Opts>,
        /// Sockets to keep half open, which only an experiment file can ask for: they are no option.
        half_open: u32,
    },
    /// Open them: the server listens.
    KeepHalfOpen,
    /// Plan the first arrival at this instant (monotonic ns).
    Begin(u64),
    /// Read the books.
    Snapshot(Detail),
    /// Issue no more.
    StopIssuing,
    /// Read the books a last time and exit, unless sockets are kept half open.
    Finish,
    /// Close them and exit: the server's books are read.
    Leave,
}

/// A child's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply<T> {
    /// Done.
    Done,
    /// The books.
    Snapshot(Box<T>),
    /// It could not be done.
    Failed(Failure),
}

/// Why a child could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(rename_all = "kebab-case")]
#[error("{message}")]
pub struct Failure {
    /// One line: operation, object, hint.
    pub message: String,
    /// Does the machine lack something (exit 69)? Otherwise the request is wrong (64).
    pub requirement: bool,
}

impl Failure {
    /// The machine lacks something.
    pub(crate) fn requirement(error: impl std::fmt::Display) -> Self {
        Self { message: error.to_string(), requirement: true }
    }

    /// The request is wrong.
    pub(crate) fn usage(error: impl std::fmt::Display) -> Self {
        Self { message: error.to_string(), requirement: false }
    }
}

/// A control socket that broke.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Reading or writing failed.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// The other side is gone.
    #[error("the process at the other end of the control socket ended")]
    Closed,
    /// What came is no message.
    #[error("control socket: malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The child said no.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The child answered something else.
    #[error("control socket: unexpected reply")]
    Unexpected,
}

/// One end of a control socket.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    /// Bytes read beyond the last message.
    pending: Vec<u8>,
}

impl Channel {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// The end a child was given as standard input.
    pub(crate) fn from_stdin() -> io::Result<Self> {
        let stdin: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self::new(UnixStream::from(stdin)))
    }

    /// The socket itself, for descriptors.
    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// How long a reply may take; `None` waits for ever.
    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }

    pub(crate) fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ControlError> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        match self.stream.write_all(&line) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ControlError::Closed),
            result => Ok(result?),
        }
    }

    /// The next message; [`ControlError::Closed`] at end of file.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ControlError> {
        let mut scanned = 0;
        loop {
            if let Some(end) = self.pending[scanned..].iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(scanned + end + 1);
                let line = std::mem::replace(&mut self.pending, rest);
                return Ok(serde_json::from_slice(&line)?);
            }
            scanned = self.pending.len();
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ControlError::Closed),
                Ok(n) => self.pending.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(ControlError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks and waits for "done".
    pub(crate) fn ask<Q: Serialize>(&mut self, request: &Q) -> Result<(), ControlError> {
        self.send(request)?;
        self.done()
    }

    /// Waits for "done".
    pub(crate) fn done(&mut self) -> Result<(), ControlError> {
        match self.receive::<Reply<serde_json::Value>>()? {
            Reply::Done => Ok(()),
            Reply::Failed(failure) => Err(failure.into()),
            Reply::Snapshot(_) => Err(ControlError::Unexpected),
        }
    }

    /// Asks and waits for the books.
    pub(crate) fn snapshot<Q: Serialize, T: DeserializeOwned>(&mut self, request: &Q) -> Result<T, ControlError> {
        self.send(request)?;
        self.snapshot_reply()
    }

    /// Waits for the books.
    pub(crate) fn snapshot_reply<T: DeserializeOwned>(&mut self) -> Result<T, ControlError> {
        match self.receive::<Reply<T>>()? {
            Reply::Snapshot(snapshot) => Ok(*snapshot),
            Reply::Failed(failure) => Err(failure.into()),
            Reply::Done => Err(ControlError::Unexpected),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (a, b) = kernel::process::channel().expect("a socket pair");
        let (mut a, mut b) = (Channel::new(a), Channel::new(b));
        let long = "x".repeat(40_000);
        let sender = std::thread::spawn(move || {
            a.send(&long).expect("sent");
            a.send(&ServerRequest::StopAccepting).expect("sent");
        });
        assert_eq!(b.receive::<String>().expect("received").len(), 40_000);
        assert!(matches!(b.receive(), Ok(ServerRequest::StopAccepting)));
        sender.join().expect("joined");
        assert!(matches!(b.receive::<String>(), Err(ControlError::Closed)));
    }
}
