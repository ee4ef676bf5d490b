//! What is asked of the acceptors and what they can do: arrival rate, service rate, utilisation, burst size.
//!
//! The service rate is acceptors / mean service time, as the acceptors measured it in this trial; in records that hold no
//! such time, as it was asked for (`accept-delay`), which a backlogged acceptor keeps exactly (`server/src/service.rs`). It
//! refuses to guess: without an `accept-delay`, the acceptors go as fast as the CPUs let them, which no record tells; an
//! acceptor that waits for a connection's end before the next one (engine blocking), or for room for one more child (handler
//! fork), takes longer than its service time; and a closed loop has no arrival rate of its own.

use loadgen::opts::{ArrivalKind, RunTime};
use server::opts::{AcceptDelay, Close, Engine, Handler, OnAccept};

use super::{Better, Quantity, Unit, ratio};
use crate::results::{Topology, Trial};

pub(super) const DEMAND: &[Quantity] = &[
    Quantity {
        name: "arrival-rate",
        title: "arrival rate λ",
        unit: Unit::PerSecond,
        better: Better::Neither,
        help: "Attempts planned per second of the measured phase; SYNs sent again are not in it; no value in a closed loop",
        read: arrival_rate,
    },
    Quantity {
        name: "service-rate",
        title: "service rate µ",
        unit: Unit::PerSecond,
        better: Better::Neither,
        help: "Connections that all acceptors can take per second: acceptors / mean service time; no value without accept-delay, with handler fork, or where engine blocking waits for a connection's end",
        read: service_rate,
    },
    Quantity {
        name: "utilisation",
        title: "utilisation ρ",
        unit: Unit::Ratio,
        better: Better::Neither,
        help: "Arrival rate / service rate; above 1 the queue fills whatever its size",
        read: |trial| Some(arrival_rate(trial)? / service_rate(trial)?),
    },
    Quantity {
        name: "burst-size",
        title: "burst size",
        unit: Unit::Count,
        better: Better::Neither,
        help: "Attempts planned for the same instant; no value unless arrivals come in bursts",
        read: |trial| match trial.loadgen.opts.arrivals {
            ArrivalKind::Burst { size, .. } => Some(f64::from(size.get())),
            _ => None,
        },
    },
];

/// Attempts planned per second of the measured phase; `None` in a closed loop.
pub(crate) fn arrival_rate(trial: &Trial) -> Option<f64> {
    let books = &trial.loadgen;
    if matches!(books.opts.arrivals, ArrivalKind::Closed(_)) {
        return None;
    }
    let measured_ns = match (trial.topology, books.opts.duration) {
        // The window begins at its origin.
        (Topology::Attached, _) => books.monotonic_ns.saturating_sub(books.origin_ns),
        (Topology::Veth | Topology::Loopback, RunTime::For(span)) => span.as_ns(),
        (Topology::Veth | Topology::Loopback, RunTime::Forever) => 0,
    };
    (measured_ns > 0).then(|| books.measured.planned as f64 / (measured_ns as f64 / 1e9))
}

/// Is what keeps an acceptor from its next connection all within the service time that it measures?
pub(crate) fn service_is_measured(opts: &server::Opts) -> bool {
    let over_at_once = match opts.on_accept {
        OnAccept::Reset => true,
        OnAccept::Greet => opts.hold.as_ns() == 0 && opts.close == Close::Close,
        OnAccept::Close => opts.close == Close::Close,
        OnAccept::Hold | OnAccept::Reply | OnAccept::Echo => false,
    };
    opts.accept_delay != AcceptDelay::None
        && opts.handler == Handler::Inline
        && (opts.engine != Engine::Blocking || over_at_once)
}

/// Mean time that a connection kept its acceptor from the next one, s, as it was measured; `None` where it was not.
pub(crate) fn service_seconds(trial: &Trial) -> Option<f64> {
    let mean_ns = ratio(trial.server.total(|acceptor| acceptor.service_ns), trial.server.accepted())?;
    (mean_ns > 0.0 && service_is_measured(&trial.server.opts)).then_some(mean_ns / 1e9)
}

/// Connections per second that all acceptors can take: at the measured service time, in records without one at that asked for.
pub(crate) fn service_rate(trial: &Trial) -> Option<f64> {
    let opts = &trial.own_books()?.opts;
    if !service_is_measured(opts) {
        return None;
    }
    let asked_ns = match opts.accept_delay {
        AcceptDelay::None => return None,
        AcceptDelay::Sleep(mean)
        | AcceptDelay::Exponential(mean)
        | AcceptDelay::Spin(mean)
        | AcceptDelay::SpinExponential(mean) => mean.as_ns() as f64,
    };
    Some(f64::from(opts.acceptors.get()) / service_seconds(trial).unwrap_or(asked_ns / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn read(name: &str, trial: &Trial) -> Option<f64> {
        Quantity::named(name).unwrap().of(trial)
    }

    #[test]
    fn utilisation_is_what_is_asked_of_what_can_be_done() {
        let mut trial = testing::trial(0);
        trial.loadgen.opts.duration = "500ms".parse().unwrap();
        assert_eq!(read("arrival-rate", &trial), Some(2000.0), "1000 planned in half a second");
        assert_eq!((read("service-rate", &trial), read("utilisation", &trial)), (None, None), "no accept-delay");
        for delay in ["500us", "exp:500us", "spin:500us"] {
            trial.server.opts.accept_delay = delay.parse().unwrap();
            assert_eq!(read("service-rate", &trial), Some(2000.0), "{delay}");
        }
        trial.server.opts.acceptors = "2".parse().unwrap();
        assert_eq!(read("utilisation", &trial), Some(0.5));
        trial.server.acceptors[0].service_ns = 790 * 625_000;
        assert_eq!(read("service-rate", &trial), Some(3200.0), "what was measured is believed: 790 accepted");
    }

    #[test]
    fn an_acceptor_that_waits_for_more_than_its_service_time_has_no_rate() {
        type Bend = fn(&mut server::Opts);
        let mut trial = testing::trial(0);
        trial.server.opts.accept_delay = "500us".parse().unwrap();
        trial.server.acceptors[0].service_ns = 790 * 500_000;
        trial.server.opts.engine = Engine::Blocking;
        assert_eq!(service_seconds(&trial), Some(5e-4), "it greets and closes within the time that is measured");
        let bends: [Bend; 4] = [
            |opts| opts.hold = "1ms".parse().unwrap(),
            |opts| opts.on_accept = OnAccept::Reply,
            |opts| opts.close = Close::Wait,
            |opts| opts.handler = Handler::Fork,
        ];
        for bend in bends {
            let mut bent = trial.clone();
            bend(&mut bent.server.opts);
            assert_eq!((service_seconds(&bent), service_rate(&bent)), (None, None), "{:?}", bent.server.opts);
            bent.server.opts.engine = Engine::Epoll;
            let waits = bent.server.opts.handler == Handler::Fork;
            assert_eq!(service_rate(&bent).is_none(), waits, "an event loop waits for no connection");
        }
    }

    #[test]
    fn a_closed_loop_has_no_rate_and_only_bursts_have_a_size() {
        let mut trial = testing::trial(0);
        assert_eq!(read("burst-size", &trial), None);
        trial.loadgen.opts.arrivals = "burst:400/500ms".parse().unwrap();
        assert_eq!(read("burst-size", &trial), Some(400.0));
        trial.loadgen.opts.arrivals = "closed:64".parse().unwrap();
        assert_eq!((read("arrival-rate", &trial), read("burst-size", &trial)), (None, None));
    }

    #[test]
    fn in_a_window_the_rate_is_the_windows() {
        let mut trial = testing::trial(0);
        trial.topology = Topology::Attached;
        assert_eq!(read("arrival-rate", &trial), Some(500.0), "1000 planned from 1 s to 3 s");
    }
}
