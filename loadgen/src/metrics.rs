//! The load generator's metrics: their names, labels and help in one place, and how a [`Snapshot`] becomes
//! samples.

use telemetry::exposition::{Bounds, Families, Scale};
use telemetry::standard;

use crate::judgement::LimitKind;
use crate::snapshot::Snapshot;
use crate::verdict::Verdict;

telemetry::metrics! {
    TARGET_RATE = Gauge "loadgen_target_rate" [] "Attempts per second planned now.";
    PLANNED = Counter "loadgen_planned_total" [] "Arrivals that came due.";
    ATTEMPTS = Counter "loadgen_attempts_total" [] "Attempts issued: connect(2) was called.";
    VERDICTS = Counter "loadgen_verdicts_total" ["verdict"] "Attempts by how they ended.";
    IN_FLIGHT = Gauge "loadgen_in_flight" ["state"] "Attempts whose socket is open: connecting and confirming ones have no verdict yet, holding and ending ones have.";
    HELD_LOST = Counter "loadgen_held_connections_lost_total" [] "Held connections that the other side ended.";
    HALF_OPEN = Gauge "loadgen_half_open" [] "Sockets kept half open on purpose, which only an experiment file can ask for.";
    CONNECT_LATENCY = Histogram "loadgen_connect_latency_seconds" [] "From the planned instant to ESTABLISHED.";
    CONFIRM_LATENCY = Histogram "loadgen_confirm_latency_seconds" [] "From the planned instant to the first byte.";
    CONFIRM_SERVICE = Histogram "loadgen_confirm_service_seconds" [] "From the issued instant to the first byte (uncorrected: it hides what a late generator or a stall cost).";
    CONNECT_SERVICE = Histogram "loadgen_connect_service_seconds" ["syn_retransmits"] "From the issued instant to ESTABLISHED (uncorrected), by SYN retransmits; unknown where the socket was gone before it could be asked, and others sent SYNs again meanwhile.";
    SCHEDULE_LAG = Histogram "loadgen_schedule_lag_seconds" [] "Issued - planned: is the generator the bottleneck?";
    SYN_RETRANSMITS = Counter "loadgen_syn_retransmits_total" ["cause"] "SYNs retransmitted by attempts that were established. timeout: nobody answered for 1 s or more (a full queue, a lost packet). leftover: at once, since the SYN had met what an earlier connection of the same addresses and ports left behind.";
    RESET_AT_CONNECT = Counter "loadgen_reset_at_connect_total" [] "Attempts for which connect(2) itself gave ECONNRESET.";
    TARGET_CHANGES = Counter "loadgen_target_changes_total" [] "Times the target's name came to mean another address.";
    LIMITED = Gauge "loadgen_limited" ["limit"] "1 when the generator passed this limit of its own since its start, and so measured itself: lag, descriptors, ports, cpu.";
    PORTS_AVAILABLE = Gauge "loadgen_ports_available" [] "Local ports of ip_local_port_range that no socket of this network namespace uses.";
    FDS_AVAILABLE = Gauge "loadgen_fds_available" [] "Descriptors the process may still open.";
}

/// Adds everything a load generator exposes.
pub fn expose(snapshot: &Snapshot, families: &mut Families) {
    let whole = snapshot.whole();
    families.gauge(&TARGET_RATE, &[], snapshot.target_rate);
    families.counter(&PLANNED, &[], whole.planned);
    families.counter(&ATTEMPTS, &[], whole.issued);
    for verdict in Verdict::ALL {
        families.counter(&VERDICTS, &[verdict.label()], whole.verdict(verdict));
    }
    families.gauge(&IN_FLIGHT, &["connecting"], snapshot.connecting as f64);
    families.gauge(&IN_FLIGHT, &["confirming"], snapshot.confirming as f64);
    families.gauge(&IN_FLIGHT, &["holding"], snapshot.holding as f64);
    families.gauge(&IN_FLIGHT, &["ending"], snapshot.ending as f64);
    families.gauge(&HALF_OPEN, &[], snapshot.half_open.kept as f64);
    families.histogram(&CONNECT_LATENCY, &[], &whole.connect_latency, Bounds::Latency, Scale::Seconds);
    families.histogram(&CONFIRM_LATENCY, &[], &whole.confirm_latency, Bounds::Latency, Scale::Seconds);
    families.histogram(&CONFIRM_SERVICE, &[], &whole.confirm_service, Bounds::Latency, Scale::Seconds);
    for (class, label) in ["0", "1", "2", "3+", "unknown"].into_iter().enumerate() {
        let histogram = whole.connect_service.get(class).cloned().unwrap_or_default();
        families.histogram(&CONNECT_SERVICE, &[label], &histogram, Bounds::Latency, Scale::Seconds);
    }
    families.histogram(&SCHEDULE_LAG, &[], &whole.lag, Bounds::Lag, Scale::Seconds);
    let leftover = whole.early_syn_retransmits;
    families.counter(&SYN_RETRANSMITS, &["timeout"], whole.syn_retransmits.saturating_sub(leftover));
    families.counter(&SYN_RETRANSMITS, &["leftover"], leftover);
    families.counter(&HELD_LOST, &[], whole.held_lost);
    families.counter(&RESET_AT_CONNECT, &[], whole.reset_at_connect);
    families.counter(&TARGET_CHANGES, &[], snapshot.target_changes);
    for kind in LimitKind::ALL {
        let passed = snapshot.limits.iter().any(|limit| limit.what == kind);
        families.gauge(&LIMITED, &[kind.label()], f64::from(u8::from(passed)));
    }
    families.gauge(&PORTS_AVAILABLE, &[], snapshot.ports_available as f64);
    let process = &snapshot.kernel.process;
    families.gauge(&FDS_AVAILABLE, &[], process.max_fds.saturating_sub(process.open_fds) as f64);
    standard::namespace(families, &snapshot.kernel);
}
