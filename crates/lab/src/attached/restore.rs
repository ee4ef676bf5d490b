//! Putting sysctls back however a run ends: `__restore`, a process that outlives the runner.
//!
//! It is started before the first change and told every original value over a Unix socket. When the socket ends, it
//! writes them back: the runner ends it when it is done, the kernel when the runner is gone, by SIGKILL too. It has a
//! session of its own and ignores what is sent to stop it. Only the end of its PID namespace comes first: a container
//! whose pid 1 is the runner is gone with it. Once everything is as it was it says so in `attached.json`, so that whoever goes
//! on with the run leaves alone what was set since. It shares the runner's lock on the results directory, so that nobody goes
//! on with a run whose sysctls are still being put back.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use kernel::process::{self, Signals};
use kernel::sysctl::NetTree;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use study::results::Attached;

use crate::control::{Channel, ControlError};
use crate::directory::write_attached;
use crate::inside::{RESTORE, command_of, receive, same_value};

/// Writing a few files takes no longer, or something is wrong.
const LIMIT: Duration = Duration::from_secs(10);

/// The message that carries the locked file.
const LOCK: &[u8] = b"lock";

/// What `__restore` is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Task {
    pub(super) attached: Attached,
    /// Where that stands, as seen from the runner's working directory, which is that of `__restore`, too.
    pub(super) file: PathBuf,
}

/// What it answers to both the task (when it is ready) and the end (when it is done).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ready,
    /// What could not be put back, a line each.
    Done(Vec<String>),
}

/// The runner's side. Dropping it has everything put back.
#[derive(Debug)]
pub(super) struct Restorer {
    process: Child,
    channel: Channel,
}

impl Restorer {
    /// Starts the process and waits until it knows the values. It keeps `lock` open to its end.
    pub(super) fn start(program: &Path, task: &Task, lock: BorrowedFd<'_>) -> Result<Self, ControlError> {
        let (ours, theirs) = process::channel()?;
        let process = command_of(program, RESTORE, Stdio::from(OwnedFd::from(theirs))).spawn()?;
        let mut restorer = Self { process, channel: Channel::new(ours) };
        restorer.channel.set_timeout(Some(LIMIT))?;
        process::send_fds(restorer.channel.stream(), LOCK, &[lock])?;
        restorer.channel.send(task)?;
        match restorer.channel.receive()? {
            Answer::Ready => Ok(restorer),
            Answer::Done(_) => Err(ControlError::Unexpected),
        }
    }

    /// Has everything put back and waits for it. What could not be is named, a line each.
    pub(super) fn finish(mut self) -> Vec<String> {
        let answer = self.channel.stream().shutdown(Shutdown::Write).map_err(ControlError::from);
        match answer.and_then(|()| self.channel.receive()) {
            Ok(Answer::Done(failures)) => failures,
            Ok(Answer::Ready) => vec![ControlError::Unexpected.to_string()],
            Err(error) => vec![format!("the process that puts sysctls back: {error}")],
        }
    }
}

impl Drop for Restorer {
    fn drop(&mut self) {
        let _ = self.channel.stream().shutdown(Shutdown::Both);
        let _ = self.process.wait();
    }
}

/// The `__restore` process.
pub(crate) fn restore() -> ExitCode {
    match hold() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "restore");
            ExitCode::FAILURE
        }
    }
}

fn hold() -> Result<(), ControlError> {
    // A terminal's interrupt and a service manager's stop are the runner's business.
    let _ = rustix::process::setsid();
    let _blocked = Signals::block_and_watch(&[Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT])?;
    let mut channel = Channel::from_stdin()?;
    let [_lock] = receive(channel.stream(), LOCK)?;
    let task: Task = channel.receive()?;
    channel.send(&Answer::Ready)?;
    // Nothing more is said: whatever comes next is the end.
    let _ = channel.receive::<Answer>();
    let failures = task.fulfil();
    match channel.send(&Answer::Done(failures.clone())) {
        // The runner is gone: then the log is all there is.
        Err(ControlError::Closed) => {
            for failure in &failures {
                tracing::error!("{failure}");
            }
            Ok(())
        }
        result => result,
    }
}

impl Task {
    /// Puts everything back and says so in the file. What could not be put back, a line each.
    fn fulfil(self) -> Vec<String> {
        let Self { mut attached, file } = self;
        let failures = put_back(&NetTree::new(&attached.sysctl_path), &attached.originals);
        if failures.is_empty() {
            attached.restored = true;
            if let Err(error) = write_attached(&file, &attached) {
                tracing::error!(%error, file = %file.display(), "sysctls are put back, which could not be written down");
            }
        }
        failures
    }
}

/// Writes every value that is another now; what could not be put back, a line each.
pub(super) fn put_back(tree: &NetTree, values: &BTreeMap<String, String>) -> Vec<String> {
    let failed = |(name, value): (&String, &String)| {
        if tree.read(name).is_ok_and(|now| same_value(&now, value)) {
            return None;
        }
        match tree.write(name, value) {
            Ok(now) if same_value(&now, value) => None,
            Ok(now) => Some(format!("sysctl {name} could not be set back to {value}: the kernel made it {now}")),
            Err(error) => Some(format!("sysctl {name} could not be set back to {value}: {error}")),
        }
    };
    values.iter().filter_map(failed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_put_back_is_named_with_its_value() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("core")).expect("a directory");
        std::fs::write(directory.path().join("core/somaxconn"), "16\n").expect("a file");
        let tree = NetTree::new(directory.path());
        let value = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let values = [value("net.core.somaxconn", "4096"), value("net.ipv4.tcp_syncookies", "1")];
        let failures = put_back(&tree, &values.into());
        assert_eq!(tree.read("net.core.somaxconn").expect("a value"), "4096");
        let [failure] = failures.as_slice() else { panic!("{failures:?}") };
        assert!(failure.starts_with("sysctl net.ipv4.tcp_syncookies could not be set back to 1: "), "{failure}");
    }

    #[test]
    fn what_is_put_back_is_marked_so_and_nothing_else_is() {
        for (name, restored) in [("net.core.somaxconn", true), ("net.ipv4.tcp_syncookies", false)] {
            let directory = tempfile::tempdir().expect("a directory");
            std::fs::create_dir(directory.path().join("core")).expect("a directory");
            std::fs::write(directory.path().join("core/somaxconn"), "16\n").expect("a file");
            let attached = Attached {
                server: "127.0.0.1:9710".to_owned(),
                loadgens: Vec::new(),
                sysctl_path: directory.path().to_owned(),
                originals: [(name.to_owned(), "4096".to_owned())].into(),
                restored: false,
            };
            let file = directory.path().join("attached.json");
            write_attached(&file, &attached).expect("written");
            let task = Task { attached: attached.clone(), file: file.clone() };
            assert_eq!(task.fulfil().is_empty(), restored, "{name}");
            let written: Attached = serde_json::from_slice(&std::fs::read(&file).expect("the file")).expect("JSON");
            assert_eq!(written, Attached { restored, ..attached });
        }
    }
}
