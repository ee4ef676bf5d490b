//! One child process: bounded in time, its output kept, its CPU time read, never left behind.
//!
//! Output goes to memory files rather than pipes: nobody has to read while a load runs. The CPU time is read when the
//! process has ended and before it is waited for, so it is whole (`clock_getcpuclockid(3)`); getrusage(2) would give the
//! sum of all children.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kernel::process::{Signal, process_cpu_ns};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// This program, whatever has become of its file.
pub(crate) const OWN: &str = "/proc/self/exe";

/// A program to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Where it is.
    pub(crate) program: PathBuf,
    /// What it is told.
    pub(crate) args: Vec<String>,
    /// Exit codes that mean that its output can be used, besides 0.
    pub(crate) also_fine: Vec<i32>,
}

impl Process {
    /// A program with arguments.
    pub(crate) fn new(program: impl Into<PathBuf>, args: &[&str]) -> Self {
        let args = args.iter().map(ToString::to_string).collect();
        Self { program: program.into(), args, also_fine: Vec::new() }
    }

    /// This program in one of its roles.
    pub(crate) fn own(args: &[&str]) -> Self {
        Self::new(OWN, args)
    }

    /// What to call it in a complaint: its name, or its role.
    fn name(&self) -> String {
        let name = self.program.file_name().map(OsString::from).unwrap_or_default();
        match self.args.first() {
            Some(role) if self.program.as_os_str() == OWN => role.clone(),
            _ => name.to_string_lossy().into_owned(),
        }
    }
}

/// What a process has left.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Its standard output.
    pub(crate) stdout: String,
    /// CPU time of all its threads, ns.
    pub(crate) cpu_ns: u64,
    /// From its start to when its end was seen, ns.
    pub(crate) wall_ns: u64,
}

/// A process that runs. Dropped, it is killed and waited for.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    fine: Vec<i32>,
    child: Child,
    out: File,
    err: File,
    began: Instant,
}

impl Running {
    /// Starts it with an empty environment and `input` to read.
    pub(crate) fn start(process: &Process, input: &[u8]) -> anyhow::Result<Self> {
        let name = process.name();
        let start = || -> io::Result<_> {
            let (mut stdin, out, err) = (memory()?, memory()?, memory()?);
            stdin.write_all(input)?;
            stdin.rewind()?;
            let child = Command::new(&process.program)
                .args(&process.args)
                .env_clear()
                .stdin(stdin)
                .stdout(Stdio::from(out.try_clone()?))
                .stderr(Stdio::from(err.try_clone()?))
                .spawn()?;
            Ok((child, out, err))
        };
        let (child, out, err) = start().with_context(|| format!("start {name}"))?;
        let fine = process.also_fine.clone();
        Ok(Self { name, fine, child, out, err, began: Instant::now() })
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        pidfd_send_signal(process, Signal::TERM).with_context(|| format!("end {}", self.name))
    }

    /// Fails when it has ended.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.name, last_line(&text(&self.err)?)),
        }
    }

    /// Waits until `deadline`, then kills it.
    ///
    /// # Errors
    /// It did not end by then, or not well.
    pub(crate) fn wait(mut self, deadline: Instant) -> anyhow::Result<Ended> {
        if !self.ends_by(deadline)? {
            bail!("{} did not end in time and was killed", self.name);
        }
        let wall = self.began.elapsed();
        let cpu_ns = process_cpu_ns(self.child.id())?;
        let status = self.child.wait()?;
        let stdout = text(&self.out)?;
        match status.code() {
            Some(0) => {}
            Some(code) if self.fine.contains(&code) => {}
            _ => {
                let said = text(&self.err)?;
                let said = if said.trim().is_empty() { &stdout } else { &said };
                let said = last_line(said);
                // A process of ours has named itself.
                match said.strip_prefix("peers: ") {
                    Some(said) => bail!("{said}"),
                    None => bail!("{} failed ({status}): {said}", self.name),
                }
            }
        }
        Ok(Ended { stdout, cpu_ns, wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX) })
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.with_context(|| format!("no number for {}", self.name))
    }

    /// Waits for its end, but leaves it to be waited for.
    fn ends_by(&self, deadline: Instant) -> anyhow::Result<bool> {
        let process = pidfd_open(self.pid()?, PidfdFlags::empty()).context("watch a process")?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs().try_into()?, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)], Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                ended => return Ok(ended? > 0),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing to a child that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file in memory, not inherited.
fn memory() -> io::Result<File> {
    Ok(memfd_create("output", MemfdFlags::CLOEXEC)?.into())
}

/// What was written to a file in memory. Its offset is shared with the writer, so it is read from its start by itself.
fn text(file: &File) -> io::Result<String> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_line(text: &str) -> &str {
    text.trim_end().lines().next_back().unwrap_or("it said nothing")
}

/// `seconds` from now.
pub(crate) fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}
