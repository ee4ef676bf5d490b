//! Overview: is it healthy, what binds it, and what do clients notice?

use super::shared::{books, client, kernel, queue};
use crate::model::{Dashboard, Panel, Row, Unit};
use crate::query::metric::{loadgen, server, standard};
use crate::query::{Role, sel, sum_rate, up, verdict};

/// The board.
pub(super) fn board() -> Dashboard {
    Dashboard::new(
        "overview",
        "acceptbench: Overview",
        "What happens to connections at the accept path, and which knob changes it: server, load \
         generator and the kernel's counters side by side.",
        vec![health(), throughput(), queues(), latency(), parameters(), clients(), ledger()],
    )
}

fn health() -> Row {
    // Only targets that were acceptbench within the time shown: others in the same Prometheus are not ours to judge.
    let known = format!("last_over_time({}[$__range])", sel(&standard::BUILD_INFO, ""));
    let programs = format!("sum by (job) ({} and on (job, instance) {known})", up());
    Row::new("Healthy? What binds it?", 5)
        .panel(12, queue::binds())
        .panel(4, client::served())
        .panel(4, client::connect_errors())
        .panel(
            4,
            Panel::stat(
                "Accepts",
                Unit::PerSecond,
                "Connections taken from accept queues per second, by all acceptors. acceptors, reuseport and \
                 accept-delay set how fast it can get. Bad: below the planned rate while the accept queue is \
                 full.",
            )
            .target(sum_rate("", &server::ACCEPTS, ""), "accepted")
            .no_value("no server"),
        )
        .panel(
            6,
            Panel::stat(
                "Programs up",
                Unit::Short,
                "Targets Prometheus can scrape now, of those that were acceptbench within the time shown. A \
                 load generator whose duration is over is down, which is fine. Bad: a server at 0.",
            )
            .target(programs, "{{job}}")
            .thresholds_from("orange", &[(1.0, "green")]),
        )
        .panel(6, client::lag())
        .panel(6, client::not_made())
        .panel(6, client::limits())
}

fn throughput() -> Row {
    Row::new("Throughput and errors", 8)
        .panel(
            12,
            Panel::time_series(
                "Planned, attempted, served, accepted",
                Unit::PerSecond,
                "All load generators and all servers added up. planned follows rate and arrivals; attempted \
                 falls behind it when the generator is the bottleneck; accepted falls behind when acceptors \
                 are; served stays below accepted when clients gave up (deadline) before their turn. Bad: \
                 lines that part.",
            )
            .target(sum_rate("", &loadgen::PLANNED, ""), "planned")
            .target(sum_rate("", &loadgen::ATTEMPTS, ""), "attempted")
            .target(sum_rate("", &loadgen::VERDICTS, verdict::GOOD), "served or connected")
            .target(sum_rate("", &server::ACCEPTS, ""), "accepted"),
        )
        .panel(12, client::errors_by_verdict())
}

fn queues() -> Row {
    Row::new("Accept queue", 8).panel(12, queue::against_limit()).panel(12, queue::losses())
}

fn latency() -> Row {
    Row::new("Latency", 8).panel(12, client::latency()).panel(12, client::first_byte())
}

fn parameters() -> Row {
    Row::new("Kernel parameters", 8).panel(12, kernel::server_sysctls(Role::Server)).panel(12, kernel::client_sysctls())
}

fn clients() -> Row {
    Row::new("The client's side", 8)
        .panel(12, client::kernel_counters())
        .panel(6, client::in_flight())
        .panel(6, client::room())
}

fn ledger() -> Row {
    Row::new("Runs: do the books balance?", 8).panel(12, books::residuals()).panel(12, books::terms())
}
