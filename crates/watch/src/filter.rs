//! Which listeners are shown: ports, address and command name, all of which must fit. Pure.

use std::net::SocketAddr;

use crate::opts::{Addresses, Opts, Ports};

/// The filters of the options.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    ports: Vec<Ports>,
    addresses: Option<Addresses>,
    command: Option<String>,
}

impl Filter {
    pub(crate) fn new(opts: &Opts) -> Self {
        Self { ports: opts.port.clone(), addresses: opts.address, command: opts.command.clone() }
    }

    /// Do port and address fit?
    pub(crate) fn passes_address(&self, local: SocketAddr) -> bool {
        (self.ports.is_empty() || self.ports.iter().any(|ports| ports.contains(local.port())))
            && self.addresses.is_none_or(|addresses| addresses.contains(local.ip()))
    }

    /// Must the command name be known before a listener can be shown?
    pub(crate) fn wants_command(&self) -> bool {
        self.command.is_some()
    }

    /// Does the command name fit? An unknown one is empty.
    pub(crate) fn passes_command(&self, command: &str) -> bool {
        self.command.as_ref().is_none_or(|wanted| wanted == command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_must_fit() {
        let opts = Opts {
            port: vec!["80".parse().unwrap(), "9000-9010".parse().unwrap()],
            address: Some("127.0.0.0/8".parse().unwrap()),
            command: Some("nginx".to_owned()),
            ..Opts::default()
        };
        let filter = Filter::new(&opts);
        let passes = |text: &str| filter.passes_address(text.parse().unwrap());
        assert!(passes("127.0.0.1:80") && passes("127.9.9.9:9005"));
        assert!(!passes("127.0.0.1:81") && !passes("10.0.0.1:80") && !passes("[::1]:80"));
        assert!(filter.wants_command() && filter.passes_command("nginx"));
        assert!(!filter.passes_command("nginx2") && !filter.passes_command(""));
    }

    #[test]
    fn no_filter_lets_everything_pass() {
        let filter = Filter::new(&Opts::default());
        assert!(filter.passes_address("[::]:1".parse().unwrap()) && filter.passes_command(""));
        assert!(!filter.wants_command());
    }
}
