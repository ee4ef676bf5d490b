//! The requests that a loop submits, and how their completions are told apart.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use rustix::event::PollFlags;
use rustix::net::SocketFlags;

use super::Shots;

/// User data below these are accepts, by number of their listener; tokens of connections are greater than all of them.
pub(super) const STOP: u64 = u32::MAX as u64;
pub(super) const CANCEL: u64 = STOP - 1;

/// An accept at this listener. It asks for no address.
pub(super) fn accept(shots: Shots, listener: BorrowedFd<'_>, user_data: u64) -> squeue::Entry {
    let listener = Fd(listener.as_raw_fd());
    let flags = (SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).bits().cast_signed();
    let accept = match shots {
        Shots::Single => opcode::Accept::new(listener, null_mut(), null_mut()).flags(flags).build(),
        Shots::Multi => opcode::AcceptMulti::new(listener).flags(flags).build(),
    };
    accept.user_data(user_data)
}

/// A poll that ends with the first of these events, an error or a hang-up.
pub(super) fn poll(fd: BorrowedFd<'_>, wants: PollFlags, user_data: u64) -> squeue::Entry {
    opcode::PollAdd::new(Fd(fd.as_raw_fd()), u32::from(wants.bits())).build().user_data(user_data)
}

/// Ends the request with this user data, if it is in flight.
pub(super) fn cancel(user_data: u64) -> squeue::Entry {
    opcode::AsyncCancel::new(user_data).build().user_data(CANCEL)
}
