//! fork(2) for processes that have one thread and keep it so: pre-forked acceptors and a child per connection.
//!
//! Owns the proof that there is one thread ([`OneThread`]): in a child of a process with several, a lock held by a thread
//! that does not exist there stays locked for ever. Children are waited for by pidfd, so a number that the kernel gave
//! to somebody else meanwhile is never signalled. Source: fork(2), `pidfd_open(2)`,
//! waitid(2), `close_range(2)`, _exit(2).
#![expect(unsafe_code, reason = "fork(2), close_range(2) and _exit(2) have no safe wrapper")]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use crate::process::ExitSummary;

/// The calling process has one thread. Whoever holds this must start no other.
#[derive(Debug)]
pub struct OneThread(PhantomData<*const ()>);

/// The two sides of a fork.
#[derive(Debug)]
pub enum Forked {
    /// In the new process.
    Child,
    /// In the old one.
    Parent(Child),
}

/// A forked child, to be waited for.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl OneThread {
    /// Looks at `/proc/self/task`; 2 µs.
    ///
    /// # Errors
    /// `InvalidInput` when there are more threads; those of reading `/proc`.
    pub fn check() -> io::Result<Self> {
        // Two links and one per thread (`proc_task_getattr`, fs/proc/base.c), ten times faster than reading it.
        if std::fs::metadata("/proc/self/task")?.nlink() == 3 {
            return Ok(Self(PhantomData));
        }
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(PhantomData)),
            threads => {
                let message = format!("fork: this process has {threads} threads, only one is safe");
                Err(io::Error::new(io::ErrorKind::InvalidInput, message))
            }
        }
    }

    /// fork(2). What the parent holds is held by the child too: descriptors, and locks of other processes' memory.
    ///
    /// # Errors
    /// EAGAIN at the limit of processes (`RLIMIT_NPROC`, a cgroup's `pids.max`), ENOMEM; EMFILE or ENFILE for the
    /// pidfd, and then the child is gone again.
    pub fn fork(&self) -> io::Result<Forked> {
        // SAFETY: there is one thread, so the child's copy of every lock is in the state that the child sees.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(Forked::Child),
            pid => {
                let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork gave process 0"))?;
                match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                    Ok(pidfd) => Ok(Forked::Parent(Child { pid, pidfd })),
                    Err(errno) => {
                        // Not waited for yet, so the number is still its own.
                        let _ = rustix::process::kill_process(pid, Signal::KILL);
                        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
                        Err(errno.into())
                    }
                }
            }
        }
    }
}

impl Child {
    /// Its process id, as seen from here.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended; `None` while it runs. Reaps it.
    ///
    /// # Errors
    /// ECHILD when it was waited for before.
    pub fn try_wait(&self) -> io::Result<Option<ExitSummary>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits until it has ended. Reaps it.
    ///
    /// # Errors
    /// ECHILD when it was waited for before.
    pub fn wait(&self) -> io::Result<ExitSummary> {
        loop {
            if let Some(ended) = self.wait_with(WaitIdOptions::EXITED)? {
                return Ok(ended);
            }
        }
    }

    fn wait_with(&self, options: WaitIdOptions) -> io::Result<Option<ExitSummary>> {
        let status = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options))?;
        Ok(status.map(|status| summary(&status)))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// ESRCH when it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.pidfd, signal)?)
    }
}

fn summary(status: &WaitIdStatus) -> ExitSummary {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitSummary::Code(code),
        (None, signal) => ExitSummary::Signal(signal.unwrap_or(0)),
    }
}

/// Readable once the child has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// For a child that serves one descriptor: closes every other but the standard three and `others`, runs `serve` and ends
/// the process with the code it returns. Nothing of the parent's is dropped, and a panic ends the process too (code 70).
pub fn alone(descriptor: OwnedFd, others: &[BorrowedFd<'_>], serve: impl FnOnce(OwnedFd) -> u8) -> ! {
    struct Panicked;
    impl Drop for Panicked {
        fn drop(&mut self) {
            exit_now(70);
        }
    }
    let _panicked = Panicked;
    let mut kept: Vec<i32> = others.iter().map(AsRawFd::as_raw_fd).collect();
    kept.push(descriptor.as_raw_fd());
    kept.sort_unstable();
    let mut next = 3;
    for number in kept.into_iter().map(i32::unsigned_abs).chain([u32::MAX]) {
        if next < number {
            // SAFETY: whoever owned these is never used again, as this function does not return; the caller's rest is
            // not even dropped. It fails on kernels before 5.9 only, and then they stay open.
            unsafe { libc::syscall(libc::SYS_close_range, next, number - 1, 0) };
        }
        next = number.saturating_add(1).max(next);
    }
    exit_now(serve(descriptor))
}

/// Ends the calling process at once: what the parent had in its buffers is not written a second time.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit takes any code and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}
