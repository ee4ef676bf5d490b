//! This process: its life, limits, signals, CPUs and clocks.
//!
//! Owns what the processes of a run need from the kernel around their sockets: dying with the parent, a control channel
//! with descriptors, signals as a descriptor, reaping as pid 1. Children are made by exec through `std::process`; fork(2) is
//! [`crate::fork`], for processes of one thread. Source: prctl(2), signalfd(2), getrlimit(2), waitpid(2), `sched_setaffinity(2)`, `clock_gettime(2)`.
#![expect(unsafe_code, reason = "signal sets, signalfd(2) and the io_uring probe have no safe wrapper in rustix")]

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Resource, Rlimit, WaitOptions};
use rustix::thread::CpuSet;
use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

pub use rustix::process::Signal;

pub use crate::channel::{channel, recv_fds, send_fds};
pub use crate::process_stats::{ProcessStats, open_fds, stats};

/// Has the kernel kill this process (SIGKILL) when the **thread** that started it ends. The setting survives exec(2),
/// not a change of credentials, so call it after those.
///
/// A parent that died before the call is noticed through `expected_parent`, its process id as seen from here. Pass
/// `None` in a child that is pid 1 of a new PID namespace: its parent has no number there.
///
/// # Errors
/// `NotFound` when the parent is not `expected_parent`: it is already dead, and the caller should exit.
pub fn die_with_parent(expected_parent: Option<u32>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    match expected_parent {
        Some(expected) if parent != Some(expected) => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("the parent process {expected} is already dead")))
        }
        _ => Ok(()),
    }
}

/// Limit of file descriptors of this process (`RLIMIT_NOFILE`); `u64::MAX` when unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// What is enforced.
    pub soft: u64,
    /// What the soft limit may be raised to without privilege.
    pub hard: u64,
}

/// Raises the soft limit of file descriptors to the hard one and returns both as they are now.
///
/// # Errors
/// Those of setrlimit(2).
pub fn raise_nofile() -> io::Result<Limits> {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    if current != maximum {
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    let now = rustix::process::getrlimit(Resource::Nofile);
    Ok(Limits { soft: now.current.unwrap_or(u64::MAX), hard: now.maximum.unwrap_or(u64::MAX) })
}

/// Room for descriptors that suits most who do not know how many they will need: 512 KiB of the kernel's memory.
pub const MANY_DESCRIPTORS: u64 = 1 << 16;

/// Makes the table of this process' descriptors large enough for `count` of them, or for as many as its limit allows.
///
/// The kernel doubles the table when it is full. In a process of several threads whoever opens the descriptor that does
/// not fit waits until no CPU reads the old table any more (`fs/file.c`, `expand_fdtable`, which calls `synchronize_rcu`):
/// 11 to 16 ms at 250 ticks a second, five times on the way from 256 to 8192 descriptors. Here it is waited for once, if
/// at all. The table takes 8 bytes a descriptor of the kernel's memory and never shrinks.
///
/// # Errors
/// EMFILE when no descriptor is free; ENOMEM.
pub fn make_room_for_descriptors(count: u64) -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let highest = count.min(limit).saturating_sub(1);
    let any = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    rustix::io::fcntl_dupfd_cloexec(&any, i32::try_from(highest).unwrap_or(i32::MAX))?;
    Ok(())
}

/// Sets the timer slack of the calling thread to 1 ns, so that sleeps and time-outs end as soon as the hardware allows
/// instead of up to 50 µs later. Threads started from this one inherit it.
pub fn set_timer_slack_min() {
    // Fails only on kernels without PR_SET_TIMERSLACK (before 2.6.28): then sleeps are merely less exact.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Lets the calling thread run on one CPU only.
///
/// # Errors
/// `InvalidInput` when `cpu` is beyond the largest possible one, EINVAL when it is offline or outside this process'
/// cpuset.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("pinning to CPU {cpu}: at most {} is possible", CpuSet::MAX_CPU - 1),
        ));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Schedules the calling thread as `SCHED_BATCH`: when it wakes up it does not preempt who runs. sched(7).
///
/// # Errors
/// EPERM where a policy may not be changed (seccomp).
pub fn schedule_as_batch() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads one sched_param, which is borrowed; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The tick of the kernel's coarse timers (1/HZ) in ns: no timer of TCP fires sooner.
pub fn tick_ns() -> u64 {
    let resolution = rustix::time::clock_getres(ClockId::MonotonicCoarse);
    resolution.tv_sec.unsigned_abs() * 1_000_000_000 + resolution.tv_nsec.unsigned_abs()
}

/// The CPUs on which the calling thread may run, ascending.
///
/// # Errors
/// EINVAL on machines with more than 1024 CPUs.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// `CLOCK_MONOTONIC` in ns: the same for all processes of this machine, so instants can be compared between them.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// `CLOCK_REALTIME` in ns since 1970: the clock of `SO_TIMESTAMPNS`.
pub fn realtime_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// CPU time of the calling thread in ns.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

/// How long the calling thread was ready to run and had no CPU, ns: the second number of /proc/thread-self/schedstat
/// (Documentation/scheduler/sched-stats.rst).
///
/// # Errors
/// The file cannot be read (a kernel without `CONFIG_SCHED_INFO`) or is not as documented.
pub fn thread_run_delay_ns() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let waited = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    waited.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("schedstat is not as documented: {text}")))
}

/// How often the calling thread has gone to sleep (getrusage(2), `ru_nvcsw`): a system call in which it did not change did
/// not wait, however long it took.
pub fn voluntary_switches() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: writes one rusage, to a place for one.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    debug_assert_eq!(result, 0, "neither argument can be wrong");
    // SAFETY: all zeros are a rusage, too.
    unsafe { usage.assume_init() }.ru_nvcsw
}

/// CPU time of another process in ns, all its threads, without children. Also of one that has ended and was not waited
/// for. By its number in the caller's PID namespace, whatever `/proc` shows.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("process {pid} is gone"));
    let pid = libc::pid_t::try_from(pid).map_err(|_| missing())?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: writes one clock id, to a place for one.
    if unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } != 0 {
        return Err(missing());
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, to a place for one; the kernel refuses the clock of a process that has gone.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(missing());
    }
    Ok(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitSummary {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Reaps one ended child, whichever: the duty of pid 1. `None` when none has ended, or there are no children. Takes
/// children away from `std::process::Child` too, so it is for a process that does nothing else.
///
/// # Errors
/// Those of waitpid(2), apart from ECHILD.
pub fn reap_any() -> io::Result<Option<(i32, ExitSummary)>> {
    match rustix::io::retry_on_intr(|| rustix::process::wait(WaitOptions::NOHANG)) {
        Ok(Some((pid, status))) => {
            let summary = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitSummary::Code(code),
                (None, signal) => ExitSummary::Signal(signal.unwrap_or(0)),
            };
            Ok(Some((pid.as_raw_nonzero().get(), summary)))
        }
        Ok(None) | Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// A set of signals.
fn signal_set(signals: &[Signal]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to memory of the right type.
    let emptied = unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    if emptied != 0 {
        return Err(io::Error::last_os_error());
    }
    for signal in signals {
        // SAFETY: sigemptyset initialised the set.
        let added = unsafe { libc::sigaddset(set.as_mut_ptr(), signal.as_raw()) };
        if added != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: sigemptyset initialised the set.
    Ok(unsafe { set.assume_init() })
}

/// Blocks or unblocks signals for the calling thread.
fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `set` is an initialised set; the old mask is not asked for.
    let errno = unsafe { libc::pthread_sigmask(how, &raw const *set, std::ptr::null_mut()) };
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// Signals taken as data: blocked, and read from a descriptor.
#[derive(Debug)]
pub struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks `signals` in the calling thread and opens a descriptor that delivers them. Call it in main before any
    /// thread exists: threads started later inherit the mask, earlier ones would still die of the signal.
    ///
    /// Children inherit the mask too, through exec(2): a child of a foreign program should call [`unblock`] first or it
    /// cannot be stopped by these signals. The signals stay blocked when this value is dropped.
    ///
    /// # Errors
    /// EMFILE or ENFILE when there are no descriptors left.
    pub fn block_and_watch(signals: &[Signal]) -> io::Result<Self> {
        let set = signal_set(signals)?;
        change_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: `set` is an initialised set; -1 asks for a new descriptor.
        let descriptor = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a new descriptor that nobody else owns.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { descriptor })
    }

    /// Waits for the next of the signals. Several of one kind that came meanwhile count once.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn wait(&self) -> io::Result<Signal> {
        let mut information = [0u8; size_of::<libc::signalfd_siginfo>()];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.descriptor, information.as_mut_slice()))?;
        // ssi_signo is the first field (signalfd(2)).
        let number = i32::from_ne_bytes([information[0], information[1], information[2], information[3]]);
        Signal::from_named_raw(number)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("signal {number} has no name")))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Unblocks signals in the calling thread, for a process about to exec(2) a program that does not expect them blocked.
///
/// # Errors
/// Those of `pthread_sigmask(3)`.
pub fn unblock(signals: &[Signal]) -> io::Result<()> {
    change_mask(libc::SIG_UNBLOCK, &signal_set(signals)?)
}

/// Whether `io_uring_setup(2)` may be used: not compiled out, nor refused by `kernel.io_uring_disabled` or seccomp.
/// Makes no ring: with null parameters a willing kernel answers EFAULT.
///
/// # Errors
/// ENOSYS when the kernel has none, EPERM when it is forbidden.
pub fn io_uring_works() -> io::Result<()> {
    let entries: libc::c_uint = 1;
    let parameters: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: the kernel checks the pointer and reports EFAULT for a null one, changing nothing.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, parameters) };
    let error = io::Error::last_os_error();
    match (result, error.raw_os_error()) {
        (-1, Some(libc::EFAULT)) => Ok(()),
        _ => Err(error),
    }
}

/// `epoll_wait(2)`, for kernels and seccomp profiles without the `epoll_pwait2(2)` that rustix calls: at most 256 events,
/// flags and data of each. Waits for ever, or not at all.
///
/// # Errors
/// EINTR, EBADF.
pub fn epoll_wait(set: impl AsFd, for_ever: bool) -> io::Result<Vec<(u32, u64)>> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
    let most = libc::c_int::try_from(events.len()).map_err(io::Error::other)?;
    let timeout = if for_ever { -1 } else { 0 };
    // SAFETY: the descriptor is borrowed, so it is open; `events` has room for `most`.
    let found = unsafe { libc::epoll_wait(set.as_fd().as_raw_fd(), events.as_mut_ptr(), most, timeout) };
    let found = usize::try_from(found).map_err(|_| io::Error::last_os_error())?;
    Ok(events[..found].iter().map(|event| (event.events, event.u64)).collect())
}

/// Has SIGUSR1 do nothing but make a blocking system call return EINTR, in this process and in those it forks. Without
/// it the signal kills.
///
/// # Errors
/// Those of sigaction(2).
pub fn interruptible() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all zeroes is a valid sigaction: no flags (in particular no SA_RESTART) and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as libc::sighandler_t;
    // SAFETY: the handler is async-signal-safe, since it does nothing; the old action is not asked for.
    if unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes a blocking system call of `thread` return EINTR, once: sends it SIGUSR1, for which a handler that does nothing
/// is installed. A signal that comes just before the call begins is lost, so repeat until the thread is gone.
///
/// # Errors
/// Those of sigaction(2) and `pthread_kill(3)`.
pub fn interrupt<T>(thread: &std::thread::JoinHandle<T>) -> io::Result<()> {
    use std::os::unix::thread::JoinHandleExt;
    interruptible()?;
    // SAFETY: the handle keeps the thread joinable, so its id is valid until it is joined.
    match unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests;
