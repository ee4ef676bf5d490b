//! A child process that has inherited a listener, a connection, or both, and does with them what it is asked to.
//!
//! The child is made by fork and exec, so it shares sockets with its parent as a forked worker does: its descriptors 0
//! (listener) and 2 (connection) are copies of the parent's. Descriptor 1 is the control channel: one byte asks, one
//! line answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::net::{SendFlags, Shutdown};
use socket2::Socket;

use crate::claim::{Doing, ProbeError};
use crate::process::{CHILD, die_with_parent};
use crate::scene::errno_name;
use crate::talk::SOON;

/// What a child can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// accept(2); the result becomes its connection.
    Accept,
    /// accept(2) and close(2) for ever; one answer each.
    AcceptAlways,
    /// Close its copy of the listener.
    CloseListener,
    /// Close its copy of the connection.
    CloseConnection,
    /// Read once from the connection and send it back.
    Echo,
    /// shutdown(2) of the connection's sending side.
    ShutdownConnection,
    /// Set `O_NONBLOCK` on its copy of the listener.
    Nonblock,
}

impl Ask {
    const ALL: [Self; 7] = [
        Self::Accept,
        Self::AcceptAlways,
        Self::CloseListener,
        Self::CloseConnection,
        Self::Echo,
        Self::ShutdownConnection,
        Self::Nonblock,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|ask| *ask as u8 == byte)
    }
}

/// The parent's handle: the child is killed when this is dropped, and waited for.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    control: BufReader<UnixStream>,
}

impl Child {
    /// Starts a child that inherits these.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(listener: Option<&Socket>, connection: Option<&Socket>) -> Result<Self, ProbeError> {
        let inherited = |socket: Option<&Socket>| {
            socket.map_or(Ok(Stdio::null()), |socket| socket.as_fd().try_clone_to_owned().map(Stdio::from))
        };
        let (ours, theirs) = kernel::process::channel().doing("make a control channel")?;
        ours.set_read_timeout(Some(SOON)).doing("bound the wait for a child")?;
        let process = Command::new("/proc/self/exe")
            .args([CHILD, &std::process::id().to_string()])
            .stdin(inherited(listener).doing("copy the listener's descriptor")?)
            .stdout(OwnedFd::from(theirs))
            .stderr(inherited(connection).doing("copy the connection's descriptor")?)
            .spawn()
            .doing("start a child")?;
        let mut child = Self { process, control: BufReader::new(ours) };
        child.answer()?;
        Ok(child)
    }

    /// Has it do something and returns what it came to: `ok` or an errno's name.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn does(&mut self, ask: Ask) -> Result<String, ProbeError> {
        self.begin(ask)?;
        self.answer()
    }

    /// Asks without waiting for the answer.
    ///
    /// # Errors
    /// When the child is gone.
    pub(crate) fn begin(&mut self, ask: Ask) -> Result<(), ProbeError> {
        self.control.get_mut().write_all(&[ask as u8]).doing("ask a child")
    }

    /// The next answer.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn answer(&mut self) -> Result<String, ProbeError> {
        let mut line = String::new();
        self.control.read_line(&mut line).doing("wait for a child's answer")?;
        if line.is_empty() {
            return Err(ProbeError::Failed("a child ended early".to_owned()));
        }
        Ok(line.trim_end().to_owned())
    }

    /// The answer if it comes within `limit`.
    ///
    /// # Errors
    /// When the child is gone.
    pub(crate) fn answer_within(&mut self, limit: Duration) -> Result<Option<String>, ProbeError> {
        let set =
            |control: &UnixStream, limit| control.set_read_timeout(Some(limit)).doing("bound the wait for a child");
        set(self.control.get_ref(), limit)?;
        let came = match self.control.fill_buf() {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => return Err(error).doing("wait for a child's answer"),
        };
        set(self.control.get_ref(), SOON)?;
        if came { self.answer().map(Some) } else { Ok(None) }
    }

    /// The child's process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It fails only when the child is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `__probe-child PARENT`: says that it runs, and does what it is asked to until the parent hangs up.
pub(crate) fn child() -> ExitCode {
    die_with_parent();
    match obey() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn obey() -> io::Result<()> {
    let mut control = UnixStream::from(rustix::stdio::stdout().try_clone_to_owned()?);
    let mut say = control.try_clone()?;
    say.write_all(b"ready\n")?;
    let mut byte = [0];
    while control.read(&mut byte)? == 1 {
        let Some(ask) = Ask::from_byte(byte[0]) else { continue };
        loop {
            let result = act(ask).map_or_else(|error| errno_name(&error), |()| "ok".to_owned());
            writeln!(say, "{result}")?;
            if ask != Ask::AcceptAlways || result != "ok" {
                break;
            }
        }
    }
    Ok(())
}

fn act(ask: Ask) -> io::Result<()> {
    let (listener, connection) = (rustix::stdio::stdin(), rustix::stdio::stderr());
    match ask {
        Ask::Accept => rustix::stdio::dup2_stderr(rustix::net::accept(listener)?)?,
        Ask::AcceptAlways => drop(rustix::net::accept(listener)?),
        Ask::CloseListener => rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?,
        Ask::CloseConnection => rustix::stdio::dup2_stderr(std::fs::File::open("/dev/null")?)?,
        Ask::Echo => {
            let mut buffer = [0; 64];
            let length = rustix::io::read(connection, buffer.as_mut_slice())?;
            rustix::net::send(connection, &buffer[..length], SendFlags::NOSIGNAL)?;
        }
        Ask::ShutdownConnection => rustix::net::shutdown(connection, Shutdown::Write)?,
        Ask::Nonblock => rustix::io::ioctl_fionbio(listener, true)?,
    }
    Ok(())
}
