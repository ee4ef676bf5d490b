//! What is recorded: the fractions and rates that alerts compare, each over the windows they need.
//!
//! The name says the labels that are left (`instance`: job and instance; `listener`: the listener, too), what it is,
//! and the window. Programs that share a network namespace show the same kernel counters, so each shows the same
//! fraction.

use super::{Recorded, everywhere};
use crate::netstat;
use crate::query::metric::{listeners, loadgen};
use crate::query::{WINDOW, listening_programs, overflow_fraction, quantile, rate, sel, sum_rate, verdict};

/// The deepest each accept queue was, over its capacity.
pub const FILL: &str = "listener:acceptbench_accept_queue_fill:max1m";

/// The part of packets towards full accept queues that were dropped, without its window.
pub const OVERFLOWS: &str = "instance:acceptbench_overflow_fraction:rate";

/// SYNs that a full SYN queue dropped, per second.
pub const SYN_DROPS: &str = "instance:acceptbench_syn_queue_drops:rate1m";

/// SYN-ACKs sent with a cookie, per second.
pub const COOKIES: &str = "instance:acceptbench_syncookies_sent:rate1m";

/// The part of attempts that the server's side failed.
pub const UNSERVED: &str = "instance:acceptbench_unserved_fraction:rate1m";

/// How late one attempt in a hundred was issued, in seconds.
pub const LAG: &str = "instance:acceptbench_schedule_lag_seconds:p99_1m";

/// The windows of [`OVERFLOWS`]: two for what is bad now, two for what leaks.
pub const WINDOWS: [&str; 3] = ["1m", "5m", "1h"];

/// The name of [`OVERFLOWS`] over a window.
pub fn overflows(window: &str) -> String {
    format!("{OVERFLOWS}{window}")
}

/// `expression` of programs that listen, or watch who does. A load generator's namespace may be another one, and where
/// it is the same the server says it.
fn listening(expression: &str) -> String {
    format!("{expression} and on (job, instance) {}", listening_programs())
}

fn unserved_fraction() -> String {
    let of = |matcher| sum_rate("job, instance", &loadgen::VERDICTS, matcher);
    format!("{} / ({} > 0)", of(verdict::UNSERVED), of(verdict::MADE))
}

/// Every recorded series.
pub fn all() -> Vec<Recorded> {
    let record = |name: &str, expr: &str| Recorded { name: name.to_owned(), expr: everywhere(expr) };
    let over = |window: &str, name: &str, expr: &str| record(name, &expr.replace(WINDOW, window));
    let fill = format!("max_over_time({}[1m])", sel(&listeners::MAX_FILL, ""));
    let mut all = vec![record(FILL, &fill)];
    all.extend(WINDOWS.map(|window| over(window, &overflows(window), &listening(&overflow_fraction()))));
    all.push(over("1m", SYN_DROPS, &listening(&rate(netstat!(request_queue_full_drops), ""))));
    all.push(over("1m", COOKIES, &listening(&rate(netstat!(syncookies_sent), ""))));
    all.push(over("1m", UNSERVED, &unserved_fraction()));
    all.push(over("1m", LAG, &quantile(0.99, "job, instance", &loadgen::SCHEDULE_LAG)));
    all
}
