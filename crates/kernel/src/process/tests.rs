use super::*;
use std::time::Duration;

#[test]
fn a_signal_is_read_from_the_descriptor() {
    // In a thread of its own: the mask is the thread's, and the signal is sent to that thread.
    let seen = std::thread::spawn(|| {
        let signals = Signals::block_and_watch(&[Signal::USR2]).unwrap();
        // SAFETY: raise(3) has no preconditions; the signal is blocked.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
        let seen = signals.wait().unwrap();
        unblock(&[Signal::USR2]).unwrap();
        seen
    });
    assert_eq!(seen.join().unwrap(), Signal::USR2);
}

#[test]
fn the_soft_limit_reaches_the_hard_one() {
    let limits = raise_nofile().unwrap();
    assert_eq!(limits.soft, limits.hard);
    assert_eq!(raise_nofile().unwrap(), limits);
}

#[test]
fn room_is_made_for_as_many_descriptors_as_the_limit_allows() {
    let status = || std::fs::read_to_string("/proc/self/status").unwrap();
    let size = || status().lines().find_map(|line| line.strip_prefix("FDSize:")?.trim().parse::<u64>().ok()).unwrap();
    let limit = raise_nofile().unwrap().soft;
    let wanted = limit.min(5000);
    make_room_for_descriptors(wanted).unwrap();
    assert!(size() >= wanted, "{} for {wanted}", size());
    let highest = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 64).unwrap();
    assert!(u64::try_from(highest.as_raw_fd()).unwrap() < wanted - 1, "what made the room is gone");
    make_room_for_descriptors(1).unwrap();
    assert!(size() >= wanted, "it never shrinks");
    if limit < 1 << 20 {
        make_room_for_descriptors(u64::MAX).unwrap();
        assert!(size() >= limit);
    }
}

#[test]
fn a_thread_is_pinned_to_one_allowed_cpu() {
    std::thread::spawn(|| {
        let allowed = allowed_cpus().unwrap();
        let last = *allowed.last().unwrap();
        pin_to_cpu(last).unwrap();
        assert_eq!(allowed_cpus().unwrap(), [last]);
        assert_eq!(pin_to_cpu(usize::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    })
    .join()
    .unwrap();
}

#[test]
fn a_wrong_parent_is_noticed() {
    std::thread::spawn(|| {
        let parent = std::os::unix::process::parent_id();
        die_with_parent(Some(parent)).unwrap();
        let error = die_with_parent(Some(parent + 1)).unwrap_err();
        assert_eq!(error.to_string(), format!("the parent process {} is already dead", parent + 1));
        rustix::process::set_parent_process_death_signal(None).unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn the_cpu_time_of_a_process_is_read_until_it_is_waited_for() {
    assert!(process_cpu_ns(std::process::id()).unwrap() > 0);
    let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
    let pid = child.id();
    std::thread::sleep(Duration::from_millis(50));
    assert!(process_cpu_ns(pid).unwrap() > 0, "a zombie's");
    child.wait().unwrap();
    assert_eq!(process_cpu_ns(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn clocks_advance() {
    let (wall, cpu) = (monotonic_ns(), thread_cpu_ns());
    std::thread::sleep(Duration::from_millis(5));
    assert!(monotonic_ns() - wall >= 5_000_000);
    assert!(thread_cpu_ns() - cpu < monotonic_ns() - wall);
    set_timer_slack_min();
    assert_eq!(rustix::thread::current_timer_slack().unwrap(), 1);
}

#[test]
fn io_uring_answers_yes_or_says_why_not() {
    if let Err(error) = io_uring_works() {
        assert!(matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES)), "{error}");
    }
}

#[test]
fn descriptors_of_this_process_are_counted() {
    let before = open_fds().unwrap();
    let kept: Vec<_> = (0..50).map(|_| tempfile::tempfile().unwrap()).collect();
    assert!(open_fds().unwrap() >= before + 30, "other tests may close some, not 20");
    drop(kept);
}

#[test]
fn a_thread_becomes_a_batch_thread() {
    let policy = || {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // proc(5): field 41 is the policy; the second field is in parentheses and may hold spaces.
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(41 - 3).unwrap().to_owned()
    };
    std::thread::spawn(move || {
        assert_eq!(policy(), libc::SCHED_OTHER.to_string());
        schedule_as_batch().unwrap();
        assert_eq!(policy(), libc::SCHED_BATCH.to_string());
    })
    .join()
    .unwrap();
}

#[test]
fn a_tick_is_a_hundredth_to_a_thousandth_of_a_second() {
    assert!((1_000_000..=10_000_000).contains(&tick_ns()), "{}", tick_ns());
}

#[test]
fn epoll_tells_who_is_ready() {
    use rustix::event::{EventfdFlags, epoll, eventfd};
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let (ready, idle) = (eventfd(1, EventfdFlags::CLOEXEC).unwrap(), eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    epoll::add(&set, &idle, epoll::EventData::new_u64(7), epoll::EventFlags::IN).unwrap();
    assert_eq!(epoll_wait(&set, false).unwrap(), []);
    epoll::add(&set, &ready, epoll::EventData::new_u64(8), epoll::EventFlags::IN).unwrap();
    assert_eq!(epoll_wait(&set, true).unwrap(), [(epoll::EventFlags::IN.bits(), 8)]);
}

#[test]
fn a_thread_that_another_keeps_off_its_cpu_waits_for_it() {
    let cpu = allowed_cpus().expect("CPUs")[0];
    let spin = move |ms: u64| {
        pin_to_cpu(cpu).expect("a CPU of its own");
        let (began, waited) = (monotonic_ns(), thread_run_delay_ns().expect("a wait"));
        while monotonic_ns() - began < ms * 1_000_000 {}
        (thread_run_delay_ns().expect("a wait") - waited, monotonic_ns() - began)
    };
    let both = [(); 2].map(|()| std::thread::spawn(move || spin(200)));
    let both = both.map(|thread| thread.join().expect("a wait"));
    let (waited, took) = both.iter().fold((0, 0), |(waited, took), (w, t)| (waited + w, took + t));
    assert!((took / 4..=took).contains(&waited), "two threads on one CPU each wait about half of the time: {both:?}");
}
