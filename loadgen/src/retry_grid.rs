//! When the kernel sends a SYN again that nobody answers, from the options and sysctls that a load generator ran with.
//!
//! The first time after 1 s (`TCP_TIMEOUT_INIT`), `net.ipv4.tcp_syn_linear_timeouts` times more at the same distance, then
//! at twice the distance each time (`net/ipv4/tcp_timer.c`, `tcp_retransmit_timer`). With the defaults of Linux 6.5 and
//! newer that is at 1, 2, 3, 4, 5, 7, 11, ... s; without linear timeouts at 1, 3, 7, 15, ... s.

use crate::Snapshot;

/// `TCP_TIMEOUT_INIT`.
const FIRST_TIMEOUT_S: u64 = 1;

/// Retries without `TCP_SYNCNT` or the sysctl: the default of `net.ipv4.tcp_syn_retries`.
const DEFAULT_RETRIES: u64 = 6;

/// `TCP_RTO_MAX`.
const LONGEST_TIMEOUT_S: u64 = 120;

/// Seconds after the first SYN at which it is sent, 0 first, with the kernel and options of these books.
pub fn retry_grid(books: &Snapshot) -> Vec<u64> {
    let sysctl = |name: &str| books.kernel.sysctls.get(name).and_then(|text| text.trim().parse::<u64>().ok());
    // A kernel that lacks the first has no linear timeouts.
    let linear = sysctl("net.ipv4.tcp_syn_linear_timeouts").unwrap_or(0).min(255);
    let retries = books.opts.syn_retries.map(|count| u64::from(count.get()));
    let retries = retries.or_else(|| sysctl("net.ipv4.tcp_syn_retries")).unwrap_or(DEFAULT_RETRIES).min(255);
    grid(linear, retries)
}

fn grid(linear_timeouts: u64, retries: u64) -> Vec<u64> {
    let (mut at, mut wait, mut times) = (0, FIRST_TIMEOUT_S, vec![0]);
    for retry in 1..=retries + linear_timeouts {
        at += wait;
        times.push(at);
        if retry > linear_timeouts {
            wait = (wait * 2).min(LONGEST_TIMEOUT_S);
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_the_kernels() {
        assert_eq!(grid(4, 6), [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67]);
        assert_eq!(grid(0, 6), [0, 1, 3, 7, 15, 31, 63]);
        assert_eq!(grid(0, 1), [0, 1]);
        assert_eq!(grid(0, 12)[8..], [247, 367, 487, 607, 727], "two minutes apart at most");
        let mut books = Snapshot::default();
        let sysctl = |name: &str, value: &str| (format!("net.ipv4.{name}"), value.to_owned());
        books.kernel.sysctls = [sysctl("tcp_syn_linear_timeouts", "4"), sysctl("tcp_syn_retries", "6")].into();
        assert_eq!(retry_grid(&books)[6], 7);
        books.opts.syn_retries = Some("1".parse().expect("a number"));
        assert_eq!(retry_grid(&books), [0, 1, 2, 3, 4, 5]);
        books.kernel.sysctls.clear();
        assert_eq!(retry_grid(&books), [0, 1]);
    }
}
