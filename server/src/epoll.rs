//! The epoll engine: level-triggered epoll(7) on the listener, then accept4(2) until the queue is empty.

use std::io;
use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use crate::acceptor::{Accepted, Acceptor};

const LISTENER: u64 = 0;
const STOP: u64 = 1;

/// Runs until the acceptor is told to stop.
pub(crate) fn run(acceptor: &mut Acceptor) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &acceptor.listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    epoll::add(&epoll, acceptor.stop_fd.as_fd(), epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
    let mut events = Vec::with_capacity(2);
    while !acceptor.stop.is_requested() {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        if events.iter().all(|event| event.data.u64() == STOP) {
            continue;
        }
        drain(acceptor);
    }
    Ok(())
}

/// Takes what waits, as one batch.
fn drain(acceptor: &mut Acceptor) {
    acceptor.sit_out_stall();
    acceptor.sample();
    let mut batch = 0;
    while !acceptor.stop.is_requested() {
        match acceptor.accept(batch > 0) {
            Accepted::One => {
                batch += 1;
                if !acceptor.service.is_instant() {
                    // With a service time a batch can last as long as the overload: look again, and
                    // notice a stall that began meanwhile.
                    acceptor.sit_out_stall();
                    acceptor.sample();
                }
            }
            Accepted::Retry => {}
            Accepted::Nothing => break,
        }
    }
    if batch > 0 {
        acceptor.tally.wakeups_work.add(1);
        acceptor.tally.batch.record(batch);
    } else {
        acceptor.tally.wakeups_empty.add(1);
    }
}
