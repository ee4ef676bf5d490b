//! Where attempts come from: a local address and a range of ports for each, before it connects.
//!
//! The port itself is left to connect(2) (`IP_BIND_ADDRESS_NO_PORT`), which may use one port towards several targets, and
//! knows which are free. With a range of its own (`IP_LOCAL_PORT_RANGE`, Linux 6.3) a socket's search takes every port in
//! turn; without one it takes those of the range's lower parity first, and once half of the range is in use each search
//! walks through that half for nothing (`net/ipv4/inet_hashtables.c`, `__inet_hash_connect`).

use std::net::{IpAddr, SocketAddr};

use kernel::socket_option::SocketOption;
use rustix::net::bind;

use crate::attempt;
use crate::plan::Plan;

/// The sources of one worker: every `step`th address, round and round.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    count: usize,
    next: usize,
    step: usize,
}

impl Sources {
    /// Those of part `part` of `parts`: together the parts take the plan's addresses evenly.
    pub(crate) fn new(plan: &Plan, part: usize, parts: usize) -> Self {
        Self { count: plan.sources.len(), next: part, step: parts }
    }

    /// Where the next attempt comes from, as a number among the plan's addresses; `None`: the kernel's choice.
    pub(crate) fn next(&mut self) -> Option<usize> {
        if self.count == 0 {
            return None;
        }
        let number = self.next % self.count;
        self.next = (self.next + self.step) % self.count;
        Some(number)
    }
}

/// Looks whether sockets can have these options and sources here. The error names the setting.
pub(crate) fn check(sources: &[IpAddr], options: &[SocketOption]) -> Result<(), String> {
    for address in sources.iter().copied().chain(sources.is_empty().then_some(IpAddr::from([127, 0, 0, 1]))) {
        let socket = attempt::open(SocketAddr::new(address, 1)).map_err(|errno| errno.to_string())?;
        if options.iter().any(|option| option.apply(&socket).is_err()) {
            return Err(
                "source-ports needs IP_LOCAL_PORT_RANGE, Linux 6.3; narrow net.ipv4.ip_local_port_range instead"
                    .to_owned(),
            );
        }
        if !sources.is_empty() {
            bind(&socket, &SocketAddr::new(address, 0)).map_err(|errno| {
                format!("sources: {address} cannot be used: {errno}; give the addresses to an interface of this network namespace")
            })?;
        }
    }
    Ok(())
}
