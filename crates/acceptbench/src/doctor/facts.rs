//! What is known of the machine before anything is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use kernel::allowances::Allowances;
use kernel::environment::{self, Environment};
use kernel::modules::{Module, module};
use lab::{Experiment, Tried, Wanted};
use server::opts::Engine;

use crate::needs::{self, Need};

/// This program.
const PROGRAM: &str = "/proc/self/exe";

/// Sleeps whose lateness is looked at, and how long each is.
const SLEEPS: usize = 25;
const SLEEP: Duration = Duration::from_millis(1);

/// Everything that is looked at.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) environment: Environment,
    pub(super) allowances: Allowances,
    /// What a trial can have, or why that could not be found out.
    pub(super) tried: Result<Tried, String>,
    /// Where the kernel has veth, and delay and loss for a link.
    pub(super) veth: Module,
    pub(super) netem: Module,
    /// What each use of `io_uring` lacks here, in words; those that work have no entry.
    pub(super) rings: BTreeMap<Need, String>,
    /// Programs of shipped experiments that are nowhere in PATH.
    pub(super) no_programs: BTreeSet<String>,
    /// How late a thread wakes up that asks for no slack: the middle one of some sleeps.
    pub(super) late: Option<Duration>,
}

impl Facts {
    /// Looks. Takes about 50 ms.
    pub(super) fn collect(experiments: &[Experiment]) -> Self {
        let private = experiments.iter().filter(|experiment| experiment.place.attach().is_none());
        let sysctls: BTreeSet<String> = private
            .flat_map(needs::of)
            .filter_map(|need| match need {
                Need::Sysctl(name) => Some(name),
                _ => None,
            })
            .collect();
        let programs: BTreeSet<String> = experiments.iter().flat_map(needs::programs).collect();
        let veth = module("veth", "veth_newlink");
        // A module on the disk would be loaded by the attempt; where none is seen there is none to load.
        let wanted = Wanted { sysctls: sysctls.into_iter().collect(), veth: veth != Module::Loadable };
        Self {
            environment: environment::collect(),
            allowances: Allowances::read(),
            tried: lab::try_out(Path::new(PROGRAM), wanted).map_err(|error| error.to_string()),
            veth,
            netem: module("sch_netem", "netem_enqueue"),
            rings: rings(),
            no_programs: programs.into_iter().filter(|program| lab::find_program(program).is_none()).collect(),
            late: std::thread::spawn(lateness).join().ok().flatten(),
        }
    }
}

/// Asks the engines themselves.
fn rings() -> BTreeMap<Need, String> {
    let server = |engine| server::check_engine(engine).err().map(|error| error.to_string());
    let loadgen = |sources| loadgen::io_uring_lacks(sources).map(|needs| format!("the load generator's needs {needs}"));
    let asked = [
        (Need::ServerRing, server(Engine::IoUring)),
        (Need::ServerMultishot, server(Engine::IoUringMultishot)),
        (Need::LoadgenRing, loadgen(false)),
        (Need::LoadgenRingSources, loadgen(true)),
    ];
    asked.into_iter().filter_map(|(need, lacks)| Some((need, lacks?))).collect()
}

/// In a thread of its own, whose slack is nobody else's.
fn lateness() -> Option<Duration> {
    kernel::process::set_timer_slack_min();
    let mut late: Vec<Duration> = (0..SLEEPS)
        .map(|_| {
            let began = Instant::now();
            std::thread::sleep(SLEEP);
            began.elapsed().saturating_sub(SLEEP)
        })
        .collect();
    late.sort_unstable();
    late.get(SLEEPS / 2).copied()
}
