//! The processes of a probe: `__probe NAME` measures one claim in namespaces of its own and prints what it saw as one
//! line of JSON; `__probe-ready` only makes the namespaces; `__probe-hold` is a child that holds a
//! descriptor, `__probe-child` one that uses it.

use std::io::{self, Write};
use std::process::ExitCode;

use kernel::process;
use serde::{Deserialize, Serialize};

use crate::claim::{Claim, Ends, Observed, ProbeError};
use crate::scene::Scene;

/// First argument of the process that measures a claim.
pub(crate) const PROBE: &str = "__probe";
/// First argument of the process that only makes a claim's namespaces.
pub(crate) const READY: &str = "__probe-ready";
/// First argument of the process that holds a descriptor.
pub(crate) const HOLD: &str = "__probe-hold";

/// First argument of a child that does what it is asked to with the sockets it inherited.
pub(crate) const CHILD: &str = "__probe-child";

/// What a measuring process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Said {
    /// What it saw.
    Observed(Observed),
    /// Why nothing can be seen here.
    CannotHere(String),
    /// What went wrong.
    Failed(String),
}

/// The process that this argument asks for; `None` for anything a user types.
pub fn process(role: &str) -> Option<fn() -> ExitCode> {
    match role {
        PROBE => Some(measure),
        READY => Some(ready),
        HOLD => Some(hold),
        CHILD => Some(crate::child::child),
        _ => None,
    }
}

/// `__probe NAME PARENT`
fn measure() -> ExitCode {
    tell(measured())
}

/// `__probe-ready PARENT`
fn ready() -> ExitCode {
    die_with_parent();
    tell(Scene::set_up(Ends::Loopback).map(|_| Observed::new()))
}

fn tell(result: Result<Observed, ProbeError>) -> ExitCode {
    let said = match result {
        Ok(observed) => Said::Observed(observed),
        Err(ProbeError::CannotHere(reason)) => Said::CannotHere(reason),
        Err(error) => Said::Failed(error.to_string()),
    };
    let Ok(line) = serde_json::to_string(&said) else { return ExitCode::FAILURE };
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn measured() -> Result<Observed, ProbeError> {
    let name = std::env::args().nth(2).unwrap_or_default();
    let claim = crate::find(&name).ok_or_else(|| ProbeError::Failed(format!("no claim {name:?}")))?;
    die_with_parent();
    observe(claim)
}

/// Measures a claim in this process, which must be single-threaded, and adds what the kernel counted meanwhile.
fn observe(claim: &Claim) -> Result<Observed, ProbeError> {
    let _ = process::raise_nofile();
    let mut scene = Scene::set_up(claim.ends)?;
    // Entering a user namespace clears it.
    die_with_parent();
    let mut observed = (claim.measure)(&mut scene)?;
    (observed.server, observed.client) = scene.counters()?;
    Ok(observed)
}

/// `__probe-hold PARENT`: says that it runs, and waits to be killed.
fn hold() -> ExitCode {
    die_with_parent();
    let mut out = io::stdout();
    if out.write_all(b"+").and_then(|()| out.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        std::thread::park();
    }
}

/// The last argument is the parent's pid: when that one is gone, so is the reason to be here.
pub(crate) fn die_with_parent() {
    let parent = std::env::args().next_back().and_then(|pid| pid.parse().ok());
    if process::die_with_parent(parent).is_err() {
        std::process::exit(1);
    }
}
