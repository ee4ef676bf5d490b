//! The `io_uring` engines.
use std::io;

use crate::acceptor::Acceptor;

pub(crate) fn run_single(_acceptor: &mut Acceptor) -> io::Result<()> {
    Err(io::Error::other("not yet"))
}
pub(crate) fn run_multishot(_acceptor: &mut Acceptor) -> io::Result<()> {
    Err(io::Error::other("not yet"))
}
