//! Hot restart: a running server starts the program that now stands at its path, hands it the listening sockets, and ends
//! once that one accepts. Both hold the same sockets, so what waits in their queues belongs to whoever accepts next, and
//! no connection notices.
//!
//! The successor is a child that finds a Unix socket in place of its standard input. One line of JSON and the descriptors
//! (`SCM_RIGHTS`, unix(7)) go down, one word comes up when it accepts. Whatever else happens (it cannot start, ends, or
//! says nothing for ten seconds) leaves the old server as it was.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kernel::process::{channel, recv_fds, send_fds};
use serde::{Deserialize, Serialize};
use telemetry::Stop;

use crate::exit::Failure;
use crate::program::Program;
use crate::terminal::note;

/// First argument of a successor, before those a user gave.
const ROLE: &str = "__successor";

/// What the two must agree on.
const VERSION: u32 = 1;

/// The successor's word.
const READY: &[u8] = b"ready\n";

/// How long a successor may take until it accepts.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(50);

/// How long a successor that is not wanted may take to see that nobody listens to it.
const GRACE: Duration = Duration::from_secs(1);

/// Descriptors in one message (`SCM_MAX_FD`).
const AT_ONCE: usize = 253;

/// The first line of a handover.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Header {
    version: u32,
    /// Process id of the server that hands over.
    pid: u32,
    /// How many listening sockets come, in the order of the plan's.
    listeners: usize,
    /// Does the socket of the admin port come after them?
    admin: bool,
}

/// The command line as the user gave it: program and arguments.
pub(crate) fn command_line() -> Vec<OsString> {
    let mut line: Vec<OsString> = std::env::args_os().collect();
    if is_successor() {
        line.remove(1);
    }
    line
}

/// Was this process started by a server that wants to hand over?
fn is_successor() -> bool {
    std::env::args_os().nth(1).is_some_and(|role| role == ROLE)
}

/// The sockets a server is to start with, and whom to tell.
#[derive(Debug)]
pub(crate) struct Inheritance {
    /// In the order of the plan's.
    pub(crate) listeners: Vec<OwnedFd>,
    /// The socket of the admin port.
    pub(crate) admin: Option<OwnedFd>,
    /// Process id of the server that had them.
    pub(crate) from: u32,
    channel: UnixStream,
}

impl Inheritance {
    /// What the predecessor hands over; `None` for a server that has none.
    pub(crate) fn receive() -> Result<Option<Self>, Failure> {
        if !is_successor() {
            return Ok(None);
        }
        let failed = |error: io::Error| Failure::Requirement(format!("take over from a running server: {error}"));
        let channel = take_stdin().map_err(failed)?;
        channel.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        receive(channel).map(Some).map_err(failed)
    }

    /// Tells the predecessor that this server accepts.
    ///
    /// # Errors
    /// When it is gone or has changed its mind: then it goes on, and this server must leave the sockets to it.
    pub(crate) fn accepted(mut self) -> io::Result<()> {
        self.channel.write_all(READY)
    }
}

/// The channel, which no child of this process shall have for its standard input.
fn take_stdin() -> io::Result<UnixStream> {
    let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(channel)
}

fn receive(channel: UnixStream) -> io::Result<Inheritance> {
    let (mut line, mut sockets) = (Vec::new(), Vec::new());
    let header: Header = loop {
        more(&channel, &mut line, &mut sockets)?;
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            break serde_json::from_slice(&line[..end])?;
        }
    };
    if header.version != VERSION {
        let message = format!("it speaks version {}, this program version {VERSION}: restart in full", header.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    while sockets.len() < header.listeners + usize::from(header.admin) {
        more(&channel, &mut line, &mut sockets)?;
    }
    let admin = if header.admin { sockets.pop() } else { None };
    Ok(Inheritance { listeners: sockets, admin, from: header.pid, channel })
}

fn more(channel: &UnixStream, line: &mut Vec<u8>, sockets: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut buffer = [0; 256];
    let (length, received) = recv_fds(channel, &mut buffer, AT_ONCE)?;
    if length == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is gone"));
    }
    line.extend_from_slice(&buffer[..length]);
    sockets.extend(received);
    Ok(())
}

fn send(channel: &UnixStream, listeners: &[OwnedFd], admin: Option<&OwnedFd>) -> io::Result<()> {
    let pid = std::process::id();
    let header = Header { version: VERSION, pid, listeners: listeners.len(), admin: admin.is_some() };
    let mut line = serde_json::to_vec(&header)?;
    line.push(b'\n');
    let sockets: Vec<BorrowedFd> = listeners.iter().chain(admin).map(AsFd::as_fd).collect();
    let mut messages = sockets.chunks(AT_ONCE);
    send_fds(channel, &line, messages.next().unwrap_or_default())?;
    // A stream carries descriptors with data only.
    messages.try_for_each(|descriptors| send_fds(channel, b"+", descriptors))
}

/// Starts successors of this server.
#[derive(Debug)]
pub(crate) struct Succession {
    program: Program,
}

impl Succession {
    /// To be called at the start, while the program still stands where it was started from.
    pub(crate) fn new() -> Self {
        Self { program: Program::of_this_process() }
    }

    /// Starts a successor, hands the sockets over and returns its process id once it accepts. Both accept then.
    ///
    /// # Errors
    /// Why there is none, in words; nothing has changed then. Ends early when `stop` is requested.
    pub(crate) fn start(&self, listeners: &[OwnedFd], admin: Option<&OwnedFd>, stop: &Stop) -> Result<u32, String> {
        if std::process::id() == 1 {
            return Err("the end of process 1 would end its container: make the container anew instead".to_owned());
        }
        let (mine, theirs) = channel().map_err(|error| format!("make a channel: {error}"))?;
        let mut child = self.program.start(|program| self.command(program, &theirs))?;
        drop(theirs);
        // Once the channel is closed, a successor that had begun to accept hands back what it has.
        let answer = talk(mine, &mut child, listeners, admin, stop);
        if answer.is_err() {
            dismiss(&mut child);
        }
        answer.map(|()| child.id())
    }

    fn command(&self, program: &std::path::Path, stdin: &UnixStream) -> io::Result<Command> {
        let mut command = Command::new(program);
        command.arg0(self.program.path()).arg(ROLE).args(command_line().into_iter().skip(1));
        command.stdin(Stdio::from(stdin.as_fd().try_clone_to_owned()?));
        Ok(command)
    }
}

/// Hands over and waits until the successor accepts.
fn talk(
    mut channel: UnixStream,
    child: &mut Child,
    listeners: &[OwnedFd],
    admin: Option<&OwnedFd>,
    stop: &Stop,
) -> Result<(), String> {
    let began = Instant::now();
    let sent = channel.set_write_timeout(Some(PATIENCE)).and_then(|()| channel.set_read_timeout(Some(LOOK)));
    // One that has ended says more by how it ended.
    let sent = sent.and_then(|()| send(&channel, listeners, admin));
    let mut word = Vec::new();
    let mut buffer = [0; READY.len()];
    while sent.is_ok() && word != READY {
        if stop.is_requested() {
            return Err("told to stop meanwhile".to_owned());
        }
        if began.elapsed() >= PATIENCE {
            return Err(format!("the successor did not accept within {} s", PATIENCE.as_secs()));
        }
        match channel.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => word.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => break,
        }
    }
    match (word == READY, wait(child, if word == READY { Duration::ZERO } else { GRACE })) {
        (true, None) => Ok(()),
        (_, Some(status)) => Err(format!("the successor ended with {status}")),
        (false, None) => Err(match sent {
            Err(error) => format!("hand the sockets over: {error}"),
            Ok(()) => "the successor closed the channel".to_owned(),
        }),
    }
}

/// How a child ended, if it does within `limit`.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if began.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a successor that is not wanted, and returns when it is gone.
fn dismiss(child: &mut Child) {
    if wait(child, GRACE).is_some() {
        return;
    }
    if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
        note(&format!("warning: end the successor, process {}: {error}", child.id()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_arrive_in_their_order_however_many_there_are() {
        for (count, with_admin) in [(0, true), (1, false), (252, true), (253, true), (600, false)] {
            let sockets: Vec<OwnedFd> = (0..count).map(|_| eventfd()).collect();
            let admin = with_admin.then(eventfd);
            let (mine, theirs) = channel().unwrap();
            theirs.set_read_timeout(Some(PATIENCE)).unwrap();
            let inheritance = std::thread::scope(|scope| {
                let receiver = scope.spawn(|| receive(theirs));
                send(&mine, &sockets, admin.as_ref()).unwrap();
                receiver.join().unwrap().unwrap()
            });
            assert_eq!((inheritance.listeners.len(), inheritance.admin.is_some()), (count, with_admin));
            assert_eq!(inheritance.from, std::process::id());
            // Each carries its own number: only the right descriptors give it back.
            for (number, (sent, received)) in (1_u64..).zip(sockets.iter().zip(&inheritance.listeners)) {
                rustix::io::write(sent, &number.to_ne_bytes()).unwrap();
                let mut buffer = [0; 8];
                rustix::io::read(received, &mut buffer).unwrap();
                assert_eq!(u64::from_ne_bytes(buffer), number);
            }
            inheritance.accepted().unwrap();
        }
    }

    fn eventfd() -> OwnedFd {
        use rustix::event::EventfdFlags;
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
    }

    #[test]
    fn another_version_and_an_early_end_are_errors() {
        let (mine, theirs) = channel().unwrap();
        send_fds(&mine, b"{\"version\":2,\"pid\":1,\"listeners\":1,\"admin\":false}\n", &[]).unwrap();
        assert!(receive(theirs).unwrap_err().to_string().contains("version 2"));
        let (mine, theirs) = channel().unwrap();
        send_fds(&mine, b"{\"version\":1,\"pid\":1,\"listeners\":1,\"admin\":false}\n", &[]).unwrap();
        drop(mine);
        assert_eq!(receive(theirs).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// A successor made of a shell command, and what comes of waiting for it.
    fn talk_to(script: &str, stop: &Stop) -> (Result<(), String>, Child) {
        let (mine, theirs) = channel().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::from(theirs.as_fd().try_clone_to_owned().unwrap()));
        let mut child = command.spawn().unwrap();
        drop((theirs, command));
        (talk(mine, &mut child, &[], None, stop), child)
    }

    #[test]
    fn only_the_word_of_a_living_successor_counts() {
        let (answer, mut child) = talk_to("read header; echo ready >&0; exec sleep 60", &Stop::new());
        assert_eq!(answer, Ok(()));
        child.kill().and_then(|()| child.wait()).unwrap();

        let (answer, _) = talk_to("read header; exit 69", &Stop::new());
        assert_eq!(answer, Err("the successor ended with exit status: 69".to_owned()));

        let stop = Stop::new();
        stop.request();
        let (answer, mut child) = talk_to("exec sleep 60", &stop);
        assert_eq!(answer, Err("told to stop meanwhile".to_owned()));
        dismiss(&mut child);
        assert!(!child.wait().unwrap().success(), "killed");
    }
}
