//! Load generator: does it do what it planned, what do its attempts meet, and what does it run out of?

use super::shared::{client, kernel};
use crate::model::{Dashboard, Panel, Row, Unit};
use crate::query::metric::{loadgen, standard};
use crate::query::{Role, buckets, quantile, rate, sel, sum_rate};

/// The board.
pub(super) fn board() -> Dashboard {
    Dashboard::new(
        "load-generator",
        "acceptbench: Load generator",
        "Whether each load generator kept its plan, how its attempts ended, where their time went, and \
         what it is about to run out of.",
        vec![health(), plan(), lateness(), latency(), retries(), room(), kernel_side()],
    )
}

fn health() -> Row {
    Row::new("Healthy? What binds it?", 5)
        .panel(4, client::served())
        .panel(4, client::connect_errors())
        .panel(6, client::lag())
        .panel(5, client::not_made())
        .panel(5, client::limits())
}

fn plan() -> Row {
    Row::new("The plan and what came of it", 8)
        .panel(
            12,
            Panel::time_series(
                "Planned, due, issued of each generator",
                Unit::PerSecond,
                "target: what arrivals and rate ask for now. due: arrivals whose instant came. issued: connect(2) \
                 calls. Issued below due is the generator's own fault: shed (max-in-flight), no descriptor \
                 (nofile), or not enough CPU (workers, shard). ended: attempts with a verdict; while it is \
                 below issued, attempts pile up. Bad: lines that part.",
            )
            .target(sel(&loadgen::TARGET_RATE, ""), "target · {{instance}}")
            .target(rate(&loadgen::PLANNED, ""), "due · {{instance}}")
            .target(rate(&loadgen::ATTEMPTS, ""), "issued · {{instance}}")
            .target(sum_rate("instance", &loadgen::VERDICTS, ""), "ended · {{instance}}"),
        )
        .panel(12, client::errors_by_verdict())
}

fn lateness() -> Row {
    let lag = |q| quantile(q, "instance", &loadgen::SCHEDULE_LAG);
    Row::new("Lateness", 8)
        .panel(
            8,
            Panel::time_series(
                "Schedule lag of each generator",
                Unit::Seconds,
                "Issued minus planned instant. Latencies count from the planned one, so lag is in them. Lower \
                 the rate, add workers where CPUs are idle, or spread the load over machines (shard). Bad: p99 \
                 above a millisecond; at a twentieth of the deadline the generator says that it measured \
                 itself.",
            )
            .target(lag(0.5), "p50 · {{instance}}")
            .target(lag(0.99), "p99 · {{instance}}")
            .target(lag(0.999), "p99.9 · {{instance}}"),
        )
        .panel(
            8,
            Panel::heat_map(
                "Attempts by how late they were issued",
                Unit::Seconds,
                "Attempts per second in each bucket of lag. A band that is wide only during bursts is connect(2) \
                 taking its time one after another; one that rises all the time is a generator without \
                 headroom (rate, workers). Bad: a band near the deadline.",
            )
            .target(buckets("", &loadgen::SCHEDULE_LAG), "{{le}}"),
        )
        .panel(
            8,
            Panel::time_series(
                "CPU of each generator",
                Unit::Ratio,
                "CPU time of the whole process as part of one core; it can use as many as it has workers. Knobs: \
                 workers, rate. Bad: near the number of workers: it has no headroom and issues late.",
            )
            .target(Role::Loadgen.rate(&standard::PROCESS_CPU_SECONDS), "{{instance}}"),
        )
}

fn latency() -> Row {
    let confirmed = |q| quantile(q, "instance", &loadgen::CONFIRM_LATENCY);
    let service = |q| quantile(q, "instance", &loadgen::CONFIRM_SERVICE);
    Row::new("Latency", 8).panel(8, client::latency()).panel(8, client::first_byte()).panel(
        8,
        Panel::time_series(
            "From planned and from issued to the first byte",
            Unit::Seconds,
            "The same attempts counted from two instants. From issued is what a closed loop would report: it \
                 hides what a late generator or a stall cost. The gap between the two is lag (rate, workers). \
                 Bad: a gap.",
        )
        .target(confirmed(0.99), "p99 from planned · {{instance}}")
        .target(service(0.99), "p99 from issued · {{instance}}"),
    )
}

fn retries() -> Row {
    let by_retransmits = quantile(0.5, "syn_retransmits", &loadgen::CONNECT_SERVICE);
    Row::new("SYNs that had to be sent again", 8)
        .panel(
            8,
            Panel::time_series(
                "Time to ESTABLISHED by SYN retransmits",
                Unit::Seconds,
                "The median from issued to ESTABLISHED of attempts whose SYN was sent again 0, 1, 2, 3 or more \
                 times: the steps of the kernel's retransmit timer (tcp_syn_linear_timeouts, tcp_syn_retries). \
                 unknown: the socket was gone before it could be asked. Bad: any line but 0, for SYNs were \
                 dropped (backlog, somaxconn).",
            )
            .target(by_retransmits, "{{syn_retransmits}} retransmits"),
        )
        .panel(
            8,
            Panel::time_series(
                "SYNs sent again by cause",
                Unit::PerSecond,
                "Of attempts that were established all the same. timeout: nobody answered for a second or more: \
                 a full queue (backlog, somaxconn, tcp_max_syn_backlog) or a lost packet. leftover: at once, \
                 since the SYN had met what an earlier connection of the same ports left behind \
                 (ip_local_port_range). Bad: timeouts above 0.",
            )
            .target(sum_rate("instance, cause", &loadgen::SYN_RETRANSMITS, ""), "{{cause}} · {{instance}}"),
        )
        .panel(
            8,
            Panel::time_series(
                "Resets at connect, held connections lost, new addresses",
                Unit::PerSecond,
                "Resets at connect: connect(2) itself gave ECONNRESET (tcp_abort_on_overflow, a listener that \
                 was closed). Lost: connections kept on purpose that the other side ended (the server's hold \
                 and nofile). New address: the target's name came to mean another one. Knobs besides: \
                 backlog. Bad: resets above 0.",
            )
            .target(rate(&loadgen::RESET_AT_CONNECT, ""), "resets at connect · {{instance}}")
            .target(rate(&loadgen::HELD_LOST, ""), "held and lost · {{instance}}")
            .target(rate(&loadgen::TARGET_CHANGES, ""), "new address · {{instance}}"),
        )
}

fn room() -> Row {
    Row::new("What it has left", 8).panel(8, client::in_flight()).panel(8, client::room()).panel(
        8,
        Panel::time_series(
            "Descriptors and half-open sockets",
            Unit::Short,
            "open: descriptors in use, of allowed (nofile): each attempt in flight and each held connection \
                 takes one. half open: sockets kept half open on purpose, which only an experiment file can \
                 ask for. Bad: open near allowed.",
        )
        .target(Role::Loadgen.gauge(&standard::PROCESS_OPEN_FDS), "open · {{instance}}")
        .target(Role::Loadgen.gauge(&standard::PROCESS_MAX_FDS), "allowed · {{instance}}")
        .target(sel(&loadgen::HALF_OPEN, ""), "half open · {{instance}}"),
    )
}

fn kernel_side() -> Row {
    Row::new("Its network namespace", 8)
        .panel(8, client::kernel_counters())
        .panel(8, kernel::tcp_sockets(Role::Loadgen))
        .panel(8, kernel::client_sysctls())
}
