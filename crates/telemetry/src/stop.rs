//! Ending a program: one request that every kind of waiting thread notices at once.
//!
//! Owns the flag, a condition for threads that sleep and an eventfd for threads that sit in epoll or `io_uring`, so that
//! nobody has to poll for shutdown. Signals are not handled here: whoever catches one calls [`Stop::request`], from a
//! thread and never from a signal handler, since it takes a lock.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

/// A request to stop, shared by its clones. Once requested it stays requested.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    requested: AtomicBool,
    /// Made when first asked for: programs without epoll loops need none.
    event: Mutex<Option<OwnedFd>>,
    changed: Condvar,
}

impl Stop {
    /// A stop nobody has requested yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests the stop and wakes everyone who waits for it. Further calls do nothing.
    pub fn request(&self) {
        let event = self.lock();
        if self.0.requested.swap(true, Ordering::Release) {
            return;
        }
        if let Some(fd) = event.as_ref() {
            signal(fd);
        }
        drop(event);
        self.0.changed.notify_all();
    }

    /// Whether the stop has been requested. A plain load: fit for a hot loop.
    #[inline]
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }

    /// Sleeps until the stop is requested, at most for `timeout`; whether it was.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let started = Instant::now();
        let mut event = self.lock();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            if self.is_requested() || left.is_zero() {
                return self.is_requested();
            }
            let woken = self.0.changed.wait_timeout(event, left);
            event = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A descriptor that is readable once the stop is requested, and stays so: an epoll or `io_uring` loop watches it.
    ///
    /// All descriptors are duplicates of one eventfd, so they must not be read, or the others would miss the stop.
    ///
    /// # Errors
    /// EMFILE or ENFILE when no descriptor is left; ENOMEM.
    pub fn eventfd(&self) -> io::Result<OwnedFd> {
        let mut event = self.lock();
        if let Some(fd) = event.as_ref() {
            return fd.try_clone();
        }
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        if self.is_requested() {
            signal(&fd);
        }
        let duplicate = fd.try_clone()?;
        *event = Some(fd);
        Ok(duplicate)
    }

    /// The lock orders a request with those about to wait. It guards no state a panic could leave half done, so a
    /// poisoned one is as good as new.
    fn lock(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.0.event.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the eventfd readable. It is written once in its life, so it can neither overflow nor block.
fn signal(fd: &OwnedFd) {
    if let Err(error) = rustix::io::write(fd, &1u64.to_ne_bytes()) {
        tracing::error!(%error, "request a stop: writing the eventfd failed, epoll loops will stop late");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::thread;

    fn is_readable(fd: &OwnedFd, within: Duration) -> bool {
        let timeout = Timespec::try_from(within).unwrap();
        poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
    }

    #[test]
    fn a_request_is_seen_by_all_clones_and_stays() {
        let stop = Stop::new();
        let clone = stop.clone();
        assert!(!clone.is_requested());
        assert!(!clone.wait_timeout(Duration::from_millis(1)));
        stop.request();
        stop.request();
        assert!(clone.is_requested());
        assert!(clone.wait_timeout(Duration::ZERO));
    }

    #[test]
    fn a_request_wakes_a_sleeper_at_once() {
        let stop = Stop::new();
        let sleeper = thread::spawn({
            let stop = stop.clone();
            move || (stop.wait_timeout(Duration::from_secs(30)), Instant::now())
        });
        thread::sleep(Duration::from_millis(20));
        let requested = Instant::now();
        stop.request();
        let (was_requested, woken) = sleeper.join().unwrap();
        assert!(was_requested);
        assert!(woken.duration_since(requested) < Duration::from_secs(5));
    }

    #[test]
    fn eventfds_become_readable_whether_made_before_or_after_the_request() {
        let stop = Stop::new();
        let before = [stop.eventfd().unwrap(), stop.eventfd().unwrap()];
        assert!(before.iter().all(|fd| !is_readable(fd, Duration::ZERO)));
        stop.request();
        let after = stop.eventfd().unwrap();
        assert!(before.iter().chain([&after]).all(|fd| is_readable(fd, Duration::from_secs(5))));

        let unused = Stop::new();
        unused.request();
        assert!(is_readable(&unused.eventfd().unwrap(), Duration::from_secs(5)), "made only after the request");
    }
}
