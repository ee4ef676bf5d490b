//! The tokio engines.
use std::io;

use crate::acceptor::Acceptor;

pub(crate) fn run_local(_acceptor: &mut Acceptor) -> io::Result<()> {
    Err(io::Error::other("not yet"))
}
pub(crate) fn run_together(_acceptors: Vec<Acceptor>) -> io::Result<()> {
    Err(io::Error::other("not yet"))
}
