//! Trials on a running deployment: sysctls are stepped in the server's network namespace, and a trial is a window of
//! the books that server and load generators keep anyway. Nothing is built and nothing restarted.
//!
//! Everything that can be known to fail is asked before the first change, and every value that is changed is put back
//! by a process that outlives this one ([`restore`]).

mod admin;
mod restore;
mod window;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use kernel::sysctl::NetTree;
use study::results::{Attached, Trial};
use telemetry::Stop;

use crate::attached::admin::{Books, Programs, ReachError};
pub(crate) use crate::attached::restore::restore;
use crate::attached::restore::{Restorer, Task, put_back};
use crate::attached::window::{Opening, Window};
use crate::bench::{Bench, Turn};
use crate::control::Failure;
use crate::directory::Directory;
use crate::experiment::{Attach, Experiment};
use crate::inside::same_value;
use crate::live::Phase;
use crate::run::RunError;
use crate::trial::{TrialError, sleep_or_stop};

/// What to do when there is nothing to attach to.
const DEPLOY: &str = "an attached experiment needs a running deployment: start one (docker compose -f \
                      deploy/compose.yaml --profile sweep up), or name yours with --attach-server, --attach-loadgen and \
                      --sysctl-path";

/// Runs trials on a running deployment.
#[derive(Debug)]
pub(crate) struct AttachedBench<'a> {
    program: &'a Path,
    attach: &'a Attach,
    tree: NetTree,
    changes: Attached,
    restorer: Option<Restorer>,
}

impl<'a> AttachedBench<'a> {
    /// A bench for this experiment. Asks whether every sysctl can be changed and everybody answers; changes nothing.
    pub(crate) fn new(
        experiment: &Experiment,
        program: &'a Path,
        attach: &'a Attach,
        stop: &Stop,
    ) -> Result<Self, RunError> {
        let path = &attach.sysctl_path;
        let lacking = |message: String| RunError::Requirement(message);
        if !path.is_dir() {
            return Err(lacking(format!("attach.sysctl-path {} is no directory; {DEPLOY}", path.display())));
        }
        let tree = NetTree::new(path);
        let mut originals = BTreeMap::new();
        for name in experiment.resolved.iter().flat_map(|cell| cell.sysctl.keys()) {
            let value = tree.check_writable(name).and_then(|()| tree.read(name));
            originals.insert(name.clone(), value.map_err(|error| lacking(format!("{}: {error}", path.display())))?);
        }
        let programs = Programs::new(attach, stop);
        let books = programs.generators().and_then(|generators| programs.read(&generators));
        let books = books.map_err(|error| match error {
            ReachError::Interrupted => RunError::Interrupted,
            ReachError::Unreachable(what) => lacking(format!("{what}; {DEPLOY}")),
        })?;
        check_namespace(attach, &originals, &books).map_err(lacking)?;
        let changes = Attached {
            server: attach.server.to_string(),
            loadgens: attach.loadgens.iter().map(ToString::to_string).collect(),
            sysctl_path: path.clone(),
            originals,
            restored: false,
        };
        Ok(Self { program, attach, tree, changes, restorer: None })
    }

    /// Sets what the cell sets, and everything else that any cell sets to what it was.
    fn step(&self, set: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, TrialError> {
        let mut wanted = self.changes.originals.clone();
        wanted.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
        for (name, value) in &wanted {
            let now = self.tree.write(name, value).map_err(|error| match error {
                error @ kernel::sysctl::SysctlError::Value { .. } => TrialError::Refused(Failure::usage(error)),
                error => TrialError::Refused(Failure::requirement(error)),
            })?;
            if !same_value(&now, value) {
                let message = format!("sysctl {name}: {value} was written, the kernel made it {now}");
                return Err(TrialError::Refused(Failure::usage(message)));
            }
        }
        Ok(wanted)
    }

    fn read(&self, generators: &[SocketAddr], stop: &Stop) -> Result<Books, TrialError> {
        Programs::new(self.attach, stop).read(generators).map_err(unreachable)
    }

    /// What is wrong with sysctls that somebody else set meanwhile.
    fn meddled(&self, wanted: &BTreeMap<String, String>) -> Vec<String> {
        let meddled = |(name, value): (&String, &String)| {
            let now = self.tree.read(name).unwrap_or_else(|error| error.to_string());
            (!same_value(&now, value)).then(|| format!("another program set {name} within the window: {value} → {now}"))
        };
        wanted.iter().filter_map(meddled).collect()
    }
}

/// Puts back what a run left changed whose `__restore` was killed with it. Changes nothing that is as it was.
pub(crate) fn repair(attached: &Attached) -> Result<(), RunError> {
    let failures = put_back(&NetTree::new(&attached.sysctl_path), &attached.originals);
    if failures.is_empty() {
        return Ok(());
    }
    Err(RunError::Requirement(format!(
        "an interrupted run left sysctls changed: {}; set it by hand, then resume",
        failures.join("; ")
    )))
}

fn unreachable(error: ReachError) -> TrialError {
    match error {
        ReachError::Interrupted => TrialError::Interrupted,
        ReachError::Unreachable(what) => TrialError::Refused(Failure::requirement(what)),
    }
}

/// The sysctls that are stepped must be those the server lives by.
fn check_namespace(attach: &Attach, values: &BTreeMap<String, String>, books: &Books) -> Result<(), String> {
    let of_server = &books.server.second.kernel.sysctls;
    for (name, value) in values {
        if let Some(theirs) = of_server.get(name).filter(|theirs| !same_value(theirs, value)) {
            return Err(format!(
                "{}: {name} is {value} there and {theirs} in the server's network namespace; run this in the server's \
                 namespace (compose: network_mode: service:server)",
                attach.sysctl_path.display()
            ));
        }
    }
    Ok(())
}

impl Bench for AttachedBench<'_> {
    fn begin(&mut self, directory: &Directory) -> Result<(), RunError> {
        let task = Task { attached: self.changes.clone(), file: directory.attached() };
        let restorer = Restorer::start(self.program, &task, directory.lock());
        let restorer = restorer.map_err(|error| {
            RunError::Requirement(format!(
                "cannot start the process that puts sysctls back, so none is changed: {error}"
            ))
        })?;
        // Written when somebody is there who will say that it is over: a runner killed before has changed nothing.
        directory.write_attached(&self.changes)?;
        self.restorer = Some(restorer);
        Ok(())
    }

    fn trial(&mut self, turn: &Turn<'_>) -> Result<Trial, TrialError> {
        let Turn { experiment, planned, applied, live, stop, .. } = *turn;
        if stop.is_requested() {
            return Err(TrialError::Interrupted);
        }
        let (started, changed) = (Timestamp::now(), Instant::now());
        live.reached(planned, Phase::Settle);
        let wanted = self.step(&applied.resolved.sysctl)?;
        sleep_or_stop(self.attach.settle.duration(), stop)?;
        let set_up = changed.elapsed();
        let generators = Programs::new(self.attach, stop).generators().map_err(unreachable)?;
        let window = Instant::now();
        let begin = self.read(&generators, stop)?;
        check_namespace(self.attach, &wanted, &begin)
            .map_err(|message| TrialError::Refused(Failure::requirement(message)))?;
        live.reached(planned, Phase::Measured);
        sleep_or_stop(experiment.measure(planned.cell).saturating_sub(window.elapsed()), stop)?;
        let (end, mut invalid) = self.close(&generators, stop)?;
        invalid.extend(self.meddled(&wanted));
        let mut sysctls = self.tree.recorded();
        sysctls.extend(wanted);
        let parts = Window::new(begin, end).account(self.attach.settle, Opening { started, set_up, sysctls }, invalid);
        let nobody = || TrialError::Refused(Failure::requirement("there is no load generator"));
        Ok(parts.ok_or_else(nobody)?.into_trial(turn))
    }

    fn finish(&mut self, directory: &Directory) -> Result<(), RunError> {
        let failures = self.restorer.take().map_or_else(Vec::new, Restorer::finish);
        if !failures.is_empty() {
            return Err(RunError::Requirement(format!("{}; set it by hand", failures.join("; "))));
        }
        self.changes.restored = true;
        directory.remove_empty_logs();
        // `__restore` has written it; what kept it from that is said here.
        Ok(directory.write_attached(&self.changes)?)
    }

    fn attached(&self) -> Option<&Attached> {
        Some(&self.changes)
    }
}

impl AttachedBench<'_> {
    /// The books at the end of the window, of those generators that were there at its beginning, and what is wrong with
    /// their number.
    fn close(&self, generators: &[SocketAddr], stop: &Stop) -> Result<(Books, Vec<String>), TrialError> {
        let now = Programs::new(self.attach, stop).generators().map_err(unreachable)?;
        let there: Vec<SocketAddr> = generators.iter().copied().filter(|address| now.contains(address)).collect();
        let mut invalid = Vec::new();
        if now != generators {
            let list = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            invalid.push(format!(
                "the load generators changed within the window: {} → {}",
                list(generators),
                list(&now)
            ));
        }
        Ok((self.read(&there, stop)?, invalid))
    }
}
