//! What of a budget deserves attention before the start, in words and figures.

use telemetry::Warning;

use super::{Budget, Rest};
use crate::opts::{AutoCount, Opts};

impl Budget {
    /// What will not be enough. Empty when all is.
    pub fn warnings(&self, opts: &Opts) -> Vec<Warning> {
        let ports = self.ports_after_close(opts).or_else(|| self.ports_in_flight(opts));
        [self.descriptors(opts), ports, self.time_waits(), self.leftover()].into_iter().flatten().collect()
    }

    /// What was foretold beside what happened in the whole run; `None` when there is nothing to say.
    pub fn beside(&self, planned: u64, no_ports: u64) -> Option<String> {
        let (expected, at_most) = (self.no_ports_expected?, self.no_ports_at_most?);
        // A run that was ended early is not the one that was reckoned.
        if self.planned != Some(planned) || (expected == 0 && no_ports == 0) {
            return None;
        }
        let condition = if self.rest == Rest::None { "" } else { ", if the client closes first" };
        let hint =
            if no_ports == 0 && self.rest != Rest::None { "; none, as when the server closes first" } else { "" };
        let range = if at_most > expected { format!("{expected} to {at_most}") } else { expected.to_string() };
        Some(format!("no-ports {no_ports}, foretold {range} of {planned}{condition}{hint}"))
    }

    fn descriptors(&self, opts: &Opts) -> Option<Warning> {
        let Self { in_flight, held, descriptors, .. } = *self;
        if opts.max_in_flight == AutoCount::Auto && in_flight > descriptors {
            return Some(Warning::new(
                "descriptors",
                format!(
                    "if nobody answers, {in_flight} attempts are in flight within the deadline; {descriptors} descriptors \
                     are free, the rest would be shed"
                ),
                "raise RLIMIT_NOFILE, or lower the rate or the deadline",
            ));
        }
        (held > descriptors).then(|| {
            Warning::new(
                "descriptors",
                format!("up to {held} connections are held open; {descriptors} descriptors are free"),
                "raise RLIMIT_NOFILE, or lower the rate, hold or keep",
            )
        })
    }

    /// Ports that are at rest after their connection, or held by it.
    fn ports_after_close(&self, opts: &Opts) -> Option<Warning> {
        let ports = self.ports?;
        let each = self.ports_per_source(ports);
        let taken = self.port_taken;
        let why = match self.rest {
            Rest::None if opts.keep.is_some() => format!("up to {} connections are held open", self.held),
            Rest::None => format!("each attempt holds its port for {taken}"),
            Rest::TimeWait => {
                format!("if the client closes first, each attempt takes its port for {taken} (TIME_WAIT)")
            }
            Rest::Reused => {
                format!("if the client closes first, each attempt takes its port for {taken} (tcp_tw_reuse)")
            }
        };
        let carry = self.sustained_rate.map_or_else(String::new, |rate| format!(", enough for {rate:.0} attempts/s"));
        let have = format!("{} {ports} ports towards the target{carry}", sources(self.sources));
        let out = match (self.ports_run_out_after, self.no_ports_expected, self.planned) {
            (Some(after), Some(none), Some(planned)) => {
                format!(
                    "they run out {after} after the start, and about {none} of {planned} attempts get no-ports, late, since each has looked at all ports first"
                )
            }
            (Some(after), ..) => format!("they run out {after} after the start"),
            (None, ..) => return None,
        };
        let needed = self.ports_needed.div_ceil(each.max(1));
        let close = if self.rest == Rest::None { "" } else { "close with reset, " };
        Some(Warning::new(
            "ports",
            format!("{why}; {have}: {out}"),
            format!("{close}give {needed} or more --sources, widen ip_local_port_range, or lower the rate"),
        ))
    }

    /// Ports taken by attempts that nobody answers.
    fn ports_in_flight(&self, opts: &Opts) -> Option<Warning> {
        let (ports, in_flight) = (self.ports?, self.in_flight);
        (in_flight.min(self.max_in_flight(opts)) > ports).then(|| {
            Warning::new(
                "ports",
                format!(
                    "if nobody answers, {in_flight} attempts are in flight within the deadline; {} {ports} ports towards \
                     the target",
                    sources(self.sources)
                ),
                "widen ip_local_port_range, give more --sources, or lower the rate or the deadline",
            )
        })
    }

    fn time_waits(&self) -> Option<Warning> {
        let after = self.time_wait_overflows_after?;
        let (waits, limit) = (self.time_waits, self.time_wait_limit);
        Some(Warning::new(
            "time-wait-limit",
            format!(
                "if the client closes first, {waits} sockets would be in TIME_WAIT and net.ipv4.tcp_max_tw_buckets is {limit}: \
                 from {after} after the start sockets skip TIME_WAIT (TCPTimeWaitOverflow), and their ports are free at once"
            ),
            format!("raise tcp_max_tw_buckets above {waits} in the client's namespace, or close with reset"),
        ))
    }

    fn leftover(&self) -> Option<Warning> {
        let (ports, leftover) = (self.ports?, self.leftover);
        // Fewer than that change no answer.
        (self.rest != Rest::Reused && leftover > ports / 10).then(|| {
            Warning::new(
                "time-wait-leftover",
                format!("{leftover} sockets towards the target's port are in TIME_WAIT from before, of {ports} ports"),
                "start a minute later, or in a fresh network namespace",
            )
        })
    }

    fn ports_per_source(&self, ports: u64) -> u64 {
        ports / self.sources.max(1)
    }
}

fn sources(number: u64) -> String {
    if number == 1 { "the one source address has".to_owned() } else { format!("{number} source addresses have") }
}
