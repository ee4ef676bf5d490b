//! What the engine needs: of the kernel, and of registered files.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::plan::Plan;

/// Files one ring may register (`IORING_MAX_FIXED_FILES`).
const MOST_FILES: usize = 1 << 20;

/// Files beyond what a worker needs that is never late.
const SPARE_FILES: u64 = 16_384;

/// What the engine `io-uring` lacks here, with `sources` or without, in words; `None` when it will do. Makes a ring and lets
/// go of it.
pub fn lacks(sources: bool) -> Option<String> {
    let supports = |code: u8| {
        let mut probe = Probe::new();
        IoUring::new(1)?.submitter().register_probe(&mut probe)?;
        io::Result::Ok(probe.is_supported(code))
    };
    if let Err(error) = kernel::process::io_uring_works() {
        return Some(format!("io_uring, which this kernel or container refuses ({error})"));
    }
    match (supports(opcode::FixedFdInstall::CODE), supports(opcode::Bind::CODE)) {
        (Err(error), _) | (_, Err(error)) => Some(format!("io_uring, which does not work here ({error})")),
        (Ok(false), _) => Some("io_uring of Linux 6.8 or newer".to_owned()),
        (_, Ok(false)) if sources => Some("io_uring of Linux 6.11 or newer for sources".to_owned()),
        _ => None,
    }
}

/// Most attempts of one worker at once: twice what the plan comes to when nobody answers, for a worker that was late issues
/// what it owes at once. Where a process may have a thousand million descriptors, as in many a container, a file for each
/// would be more memory than there is.
pub(crate) fn most_files(plan: &Plan) -> usize {
    let needed = plan.budget.in_flight.saturating_add(plan.budget.held).saturating_mul(2) / plan.workers.max(1) as u64;
    usize::try_from(needed.saturating_add(SPARE_FILES)).map_or(MOST_FILES, |needed| needed.min(MOST_FILES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opts::Opts;
    use crate::plan::Machine;

    #[test]
    fn a_thousand_million_descriptors_are_not_as_many_files() {
        let machine = Machine { nofile: 1 << 30, cpus: 2, ports: None };
        let files = |rate: &str| {
            let opts = Opts { rate: rate.parse().expect("a rate"), ..Opts::default() };
            most_files(&Plan::new(opts, &machine).expect("a load"))
        };
        assert_eq!(files("1000"), 16_384 + 5001, "a deadline of 5 s, two workers");
        assert_eq!(files("1000000"), MOST_FILES);
    }
}
