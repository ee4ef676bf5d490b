//! Experiment: one run or several, cell by cell, while it goes on or put into Prometheus afterwards.
//!
//! A run that is over, or was backfilled by `acceptbench report --openmetrics`, has no sample at the end of the time
//! shown. What is asked for one instant therefore takes the last value within that time.

use telemetry::exposition::Metric;

use super::shared::{NONE_WANTED, books, client, kernel, queue};
use crate::model::{Dashboard, Panel, Row, Unit};
use crate::query::metric::runner;
use crate::query::{RUN, Role, sel};

/// The board.
pub(super) fn board() -> Dashboard {
    Dashboard::new(
        "experiment",
        "acceptbench: Experiment",
        "The cells of one run or several, live or backfilled: what came out, how far it is, whether the \
         books balance, and what the programs of the current trial see. Pick several runs to compare them.",
        vec![health(), results(), trials(), ledger(), meanwhile(), service()],
    )
    .of_runs()
}

/// The last values of a gauge within the time shown, of the runs picked.
fn last(gauge: &Metric, matchers: &str) -> String {
    let matchers = if matchers.is_empty() { RUN.to_owned() } else { format!("{RUN}, {matchers}") };
    format!("last_over_time({}[$__range])", sel(gauge, &matchers))
}

/// `expression` of runners whose run is picked and was there in the time shown.
fn of_runs(expression: &str) -> String {
    format!("{expression} and on (job, instance) {}", last(&runner::INFO, ""))
}

/// `expression` of a runner, with the name of the run that it shows at that time.
fn with_run(expression: &str) -> String {
    format!("{expression} * on (job, instance) group_left (run) {}", sel(&runner::INFO, RUN))
}

/// The name of a cell: its settings beside its number.
fn with_factors(expression: &str) -> String {
    let cells = format!("max by (run, cell, factors) ({})", last(&runner::CELL_INFO, ""));
    format!("{expression} * on (run, cell) group_left (factors) {cells}")
}

/// A statistic of every quantity, by run and cell.
fn result(stat: &str, matchers: &str) -> String {
    let matchers = format!("{matchers}stat=\"{stat}\"");
    format!("max by (run, cell, quantity) ({})", last(&runner::RESULT, &matchers))
}

fn health() -> Row {
    // Both are of the run that an instance showed last, so they belong together.
    let total =
        |metric: &Metric| format!("sum({})", of_runs(&format!("last_over_time({}[$__range])", sel(metric, ""))));
    let residual = of_runs(&format!("abs(last_over_time({}[$__range]))", sel(&runner::RESIDUAL, "")));
    Row::new("Healthy? What binds it?", 5)
        .panel(12, queue::binds())
        .panel(
            4,
            Panel::stat(
                "Trials finished",
                Unit::Ratio,
                "Trials that are over, of those planned (replicates × cells), of the runs picked; of several runs \
                 on one port the last. Repeated trials (retries) count again. Bad: below 100 % and it stands \
                 still: the run ended early; acceptbench run --resume goes on with it.",
            )
            .target(format!("{} / {}", total(&runner::COMPLETED), total(&runner::TRIALS)), "finished")
            .no_value("no run in the time shown"),
        )
        .panel(
            4,
            Panel::stat(
                "Trials that do not count",
                Unit::Short,
                "Trials found invalid: books that do not balance, a generator that was late, a value that was not \
                 in force. They are repeated at the end of their block (retries); acceptbench report says why. \
                 Knobs: rate, warm-up. Bad: above 0.",
            )
            .target(total(&runner::INVALID), "invalid")
            .thresholds(&NONE_WANTED)
            .no_value("no run in the time shown"),
        )
        .panel(
            4,
            Panel::stat(
                "Books that do not balance",
                Unit::Short,
                "The largest residual of any line of the ledger of the last trial. Somebody miscounted, or \
                 another program was in the namespace; such a trial does not count. Knobs: deadline and \
                 tcp_syncookies decide which terms there are. Bad: anything but 0.",
            )
            .target(format!("max({residual})"), "residual")
            .thresholds(&NONE_WANTED)
            .no_value("no trial is over"),
        )
}

fn results() -> Row {
    let chosen = r#"quantity=~"$quantity", "#;
    let by_factors = |pick: &str| format!("{pick} by (factors, quantity) ({})", with_factors(&result("median", "")));
    let apart = format!("({}) - ({})", by_factors("max"), by_factors("min"));
    Row::new("What came out", 9)
        .panel(
            12,
            Panel::stat(
                "The quantity picked, by cell and run",
                Unit::Short,
                "The median over the valid trials of each cell, in base units (seconds, parts of 1, per second). \
                 Pick the quantity and one or several runs above; acceptbench report says which differences \
                 are more than chance. Knobs: the factors in the name, replicates. Bad: cells that a knob \
                 should move and does not.",
            )
            .target(with_factors(&result("median", chosen)), "cell {{cell}}: {{factors}} · {{run}}")
            .option("orientation", "horizontal".into())
            .no_value("no result of this quantity yet"),
        )
        .panel(
            12,
            Panel::time_series(
                "The quantity picked, as trials came in",
                Unit::Short,
                "Median, least and greatest value of each cell over the valid trials so far. A median that still \
                 wanders needs more replicates. Bad: a range as wide as the difference between cells.",
            )
            .target(picked("median"), "median · cell {{cell}} · {{run}}")
            .target(picked("min"), "least · cell {{cell}} · {{run}}")
            .target(picked("max"), "greatest · cell {{cell}} · {{run}}"),
        )
        .panel(
            12,
            Panel::table(
                "Every quantity of every cell",
                "Median and range over the valid trials, in base units: seconds, parts of 1, per second, counts. \
                 The quantities are those of [compare] in the experiment file. Knobs: the factors, replicates. \
                 Bad: a range as wide as the difference between cells.",
            )
            .column("Median", Unit::Short, &[], with_factors(&result("median", "")))
            .column("Least", Unit::Short, &[], with_factors(&result("min", "")))
            .column("Greatest", Unit::Short, &[], with_factors(&result("max", "")))
            .merged(
                &[("run", "Run"), ("cell", "Cell"), ("factors", "Settings"), ("quantity", "Quantity")],
                &["Time"],
                "Quantity",
            ),
        )
        .panel(
            12,
            Panel::table(
                "Runs against each other",
                "For each setting and quantity the lowest and the highest median among the runs picked, and how \
                 far they are apart. Cells are matched by their settings, so runs of changed experiments \
                 compare where they overlap; acceptbench compare says what else was different. Knobs: the \
                 factors, replicates. Bad: runs apart that should repeat each other.",
            )
            .column("Lowest", Unit::Short, &[], by_factors("min"))
            .column("Highest", Unit::Short, &[], by_factors("max"))
            .column("Apart", Unit::Short, &[], apart)
            .column("Runs", Unit::Plain, &[], by_factors("count"))
            .merged(&[("factors", "Settings"), ("quantity", "Quantity")], &["Time"], "Apart"),
        )
}

/// A statistic of the quantity picked, over time.
fn picked(stat: &str) -> String {
    sel(&runner::RESULT, &format!("{RUN}, quantity=~\"$quantity\", stat=\"{stat}\""))
}

fn trials() -> Row {
    // As long as a sample counts for Prometheus itself: a backfilled run has one every 15 s.
    let count = |counter: &Metric| with_run(&format!("last_over_time({}[5m])", sel(counter, "")));
    Row::new("Trials", 8)
        .panel(
            12,
            Panel::state_timeline(
                "Levels of the factors",
                Unit::Plain,
                "The level of each numeric setting of the trial under way: the staircase of the run, on the same \
                 axis as everything below; trials are shaded. Knobs: the factors of the experiment file, \
                 replicates. Bad: a level without an answer below.",
            )
            .target(with_run(&sel(&runner::FACTOR_VALUE, "")), "{{factor}} · {{run}}"),
        )
        .panel(
            12,
            Panel::time_series(
                "Trials planned, finished, not counted, under way",
                Unit::Short,
                "planned: replicates × cells. finished: valid or not. not counted: found invalid, to be repeated \
                 (retries). under way: 1 during a trial. Knobs besides: rate and warm-up, where the generator \
                 was late. Bad: any that do not count; finished that does not rise.",
            )
            .target(with_run(&sel(&runner::TRIALS, "")), "planned · {{run}}")
            .target(count(&runner::COMPLETED), "finished · {{run}}")
            .target(count(&runner::INVALID), "not counted · {{run}}")
            .target(format!("max by (run) ({})", sel(&runner::TRIAL_INFO, RUN)), "under way · {{run}}"),
        )
}

fn ledger() -> Row {
    Row::new("Do the books balance?", 8).panel(12, books::residuals()).panel(12, books::terms())
}

fn meanwhile() -> Row {
    Row::new("Meanwhile: what the programs see", 8)
        .panel(8, queue::against_limit())
        .panel(8, client::errors_by_verdict())
        .panel(8, client::latency())
}

fn service() -> Row {
    Row::new("Kernel", 8).panel(12, kernel::server_sysctls(Role::Server)).panel(12, queue::losses())
}
