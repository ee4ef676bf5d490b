use std::collections::{BTreeMap, BTreeSet};

use kernel::allowances::Allowances;
use kernel::environment::{Environment, Feature};
use kernel::process::Limits;

use super::super::{Diagnosis, text};
use super::*;
use crate::shipped::{EXPERIMENTS, find};

/// A machine that lacks nothing.
fn machine() -> Facts {
    let there = Feature { available: true, detail: None };
    Facts {
        environment: Environment {
            kernel_release: Some("6.12.9-amd64".to_owned()),
            architecture: Some("x86_64".to_owned()),
            cpus_online: Some(4),
            cpus_allowed: Some(4),
            memory_bytes: Some(16 << 30),
            hz: Some(250),
            clocksource: Some("tsc".to_owned()),
            privilege: Some(Privilege::UserNamespace),
            features: ["io-uring", "sock-diag"].map(|name| (name.to_owned(), there.clone())).into(),
            ..Environment::default()
        },
        allowances: Allowances {
            nofile: Limits { soft: 1024, hard: 524_288 },
            memlock: Some(8 << 20),
            timer_slack_ns: Some(50_000),
            memory_available: Some(8 << 30),
            cgroup_memory: None,
            cgroup_pids: None,
            tcp_memory: Some(2 << 30),
            somaxconn: Some(4096),
            ports: Some((32_768, 60_999)),
            time_wait_limit: Some(131_072),
            net_namespaces: Some(60_000),
        },
        tried: Ok(Tried { ipv6: true, ports: Some("32768 60999".to_owned()), ..Tried::default() }),
        veth: Module::Present,
        netem: Module::Loadable,
        rings: BTreeMap::new(),
        no_programs: BTreeSet::new(),
        late: Some(Duration::from_micros(60)),
    }
}

fn diagnosed(bend: impl FnOnce(&mut Facts)) -> Diagnosis {
    let experiments: Vec<Experiment> = EXPERIMENTS.iter().map(|(name, _)| find(name).expect("shipped")).collect();
    let mut facts = machine();
    bend(&mut facts);
    Diagnosis::of(&facts, &experiments)
}

fn tried(facts: &mut Facts) -> &mut Tried {
    facts.tried.as_mut().expect("tried")
}

/// Everything that is not fine, as `name: status`.
fn trouble(diagnosis: &Diagnosis) -> Vec<String> {
    let bad = diagnosis.findings.iter().filter(|finding| finding.status != Status::Ok);
    bad.map(|finding| format!("{}: {}", finding.name, finding.status.name())).collect()
}

fn outcome(diagnosis: &Diagnosis, experiment: &str) -> Outcome {
    diagnosis.experiments.iter().find(|verdict| verdict.name == experiment).expect("shipped").outcome
}

#[test]
fn a_program_that_is_not_installed_keeps_its_own_experiment_from_running_and_no_other() {
    let diagnosis = diagnosed(|facts| facts.no_programs = BTreeSet::from(["redis-server".to_owned()]));
    assert_eq!(trouble(&diagnosis), ["programs: missing"]);
    assert!(diagnosis.can_run);
    for (name, expected) in
        [("redis-backlog", Outcome::CannotRun), ("nginx-backlog", Outcome::Runs), ("backlog", Outcome::Runs)]
    {
        assert_eq!(outcome(&diagnosis, name), expected, "{name}");
    }
    let finding = diagnosis.findings.iter().find(|finding| finding.name == "programs").expect("looked for");
    assert_eq!(finding.fix.as_deref(), Some("install Debian's redis-server"));
}

#[test]
fn a_machine_that_lacks_nothing_runs_everything() {
    let diagnosis = diagnosed(|_| ());
    assert!(diagnosis.can_run);
    assert_eq!(trouble(&diagnosis), [""; 0]);
    for name in ["backlog", "phantoms", "syn-queue", "engines", "queueing-theory"] {
        assert_eq!(outcome(&diagnosis, name), Outcome::Runs, "{name}");
    }
    assert_eq!(outcome(&diagnosis, "sweep"), Outcome::NeedsDeployment);
}

#[test]
fn without_namespaces_nothing_runs_and_nothing_is_said_of_what_is_in_them() {
    let diagnosis = diagnosed(|facts| tried(facts).no_namespaces = Some("user namespaces are refused".to_owned()));
    assert!(!diagnosis.can_run);
    assert_eq!(trouble(&diagnosis), ["namespaces: missing"]);
    assert_eq!(outcome(&diagnosis, "phantoms"), Outcome::CannotRun);
    assert!(diagnosis.findings.iter().all(|finding| finding.name != "veth"));
    let broken = diagnosed(|facts| facts.tried = Err("no such file".to_owned()));
    assert!(!broken.can_run && trouble(&broken) == ["namespaces: missing"]);
}

#[test]
fn a_hidden_somaxconn_stops_what_varies_it_and_nothing_else() {
    let name = "net.core.somaxconn".to_owned();
    let diagnosis = diagnosed(|facts| drop(tried(facts).no_sysctls.insert(name, "it is hidden".to_owned())));
    assert!(!diagnosis.can_run);
    let finding = diagnosis.findings.iter().find(|finding| finding.name == "sysctls").expect("found");
    assert_eq!(finding.status, Status::Missing);
    let vary_it = ["backlog", "nginx-backlog", "redis-backlog"];
    assert_eq!(finding.experiments, vary_it, "the others keep to backlogs below what a fresh namespace has");
    assert!(finding.value.contains("net.core.somaxconn cannot be set: it is hidden"), "{}", finding.value);
    assert_eq!(outcome(&diagnosis, "phantoms"), Outcome::Runs);
}

#[test]
fn without_veth_trials_over_loopback_remain() {
    let diagnosis = diagnosed(|facts| tried(facts).no_veth = Some("Operation not supported".to_owned()));
    assert!(!diagnosis.can_run);
    assert_eq!(
        (outcome(&diagnosis, "syn-queue"), outcome(&diagnosis, "phantoms")),
        (Outcome::CannotRun, Outcome::Runs)
    );
    let on_the_disk = diagnosed(|facts| facts.veth = Module::Loadable);
    assert!(on_the_disk.can_run && trouble(&on_the_disk).is_empty());
}

#[test]
fn what_only_limits_lets_everything_run_and_is_named() {
    for (bend, name) in [
        ((|facts: &mut Facts| facts.environment.cpus_allowed = Some(1)) as fn(&mut Facts), "cpus"),
        (|facts| facts.environment.cgroup_cpu_limit = Some(1.5), "cpus"),
        (|facts| facts.environment.clocksource = Some("hpet".to_owned()), "clock"),
        (|facts| facts.late = Some(Duration::from_millis(4)), "wake-ups"),
        (|facts| facts.allowances.cgroup_memory = Some(64 << 20), "memory"),
        (|facts| facts.environment.kernel_release = Some("5.10.0-9-amd64".to_owned()), "kernel"),
    ] {
        let diagnosis = diagnosed(bend);
        assert!(diagnosis.can_run, "{name}");
        assert_eq!(trouble(&diagnosis), [format!("{name}: limits")]);
        let backlog = diagnosis.experiments.iter().find(|verdict| verdict.name == "backlog").expect("shipped");
        assert_eq!((backlog.outcome, backlog.because.as_slice()), (Outcome::Limited, &[name.to_owned()][..]));
    }
}

#[test]
fn what_no_shipped_experiment_uses_only_limits() {
    let diagnosis = diagnosed(|facts| tried(facts).ipv6 = false);
    assert_eq!(trouble(&diagnosis), ["ipv6: limits"]);
    assert_eq!(outcome(&diagnosis, "backlog"), Outcome::Runs);
}

/// Facts of a machine on which these uses of `io_uring` lack something.
fn lacking(needs: &[(Need, &str)]) -> Diagnosis {
    diagnosed(|facts| facts.rings = needs.iter().map(|(need, lacks)| (need.clone(), (*lacks).to_owned())).collect())
}

#[test]
fn a_ring_that_one_end_lacks_stops_nothing_that_only_the_other_uses() {
    let old = "the load generator's needs io_uring of Linux 6.8 or newer";
    let diagnosis = lacking(&[(Need::LoadgenRing, old), (Need::LoadgenRingSources, old)]);
    assert_eq!(trouble(&diagnosis), ["io-uring: missing"]);
    assert_eq!(outcome(&diagnosis, "engines"), Outcome::Runs, "its server has a ring, its load generator none");
    assert_eq!(outcome(&diagnosis, "queueing-theory"), Outcome::CannotRun);
    let finding = diagnosis.findings.iter().find(|finding| finding.name == "io-uring").expect("found");
    assert_eq!(finding.value, format!("there; {old}"), "once");
    assert_eq!(finding.limits.as_deref(), Some("no loadgen.engine = \"io-uring\""));
    assert_eq!(finding.experiments, ["queueing-theory"]);
}

#[test]
fn what_no_shipped_engine_uses_of_a_ring_only_limits() {
    let multishot = "engine io-uring-multishot needs Linux 5.19 or newer";
    for (need, lacks, limits) in [
        (Need::ServerMultishot, multishot, "no server.engine = \"io-uring-multishot\""),
        (Need::LoadgenRingSources, "Linux 6.11", "no loadgen.engine = \"io-uring\" with sources"),
    ] {
        let diagnosis = lacking(&[(need, lacks)]);
        assert_eq!(trouble(&diagnosis), ["io-uring: limits"]);
        let finding = diagnosis.findings.iter().find(|finding| finding.name == "io-uring").expect("found");
        assert_eq!((finding.value.as_str(), finding.limits.as_deref()), (&*format!("there; {lacks}"), Some(limits)));
        assert_eq!(outcome(&diagnosis, "engines"), Outcome::Runs);
    }
}

#[test]
fn without_io_uring_both_ends_go_without() {
    let needs = [Need::ServerRing, Need::ServerMultishot, Need::LoadgenRing, Need::LoadgenRingSources];
    let diagnosis = lacking(&needs.map(|need| (need, "it is refused")));
    for name in ["engines", "queueing-theory"] {
        assert_eq!(outcome(&diagnosis, name), Outcome::CannotRun, "{name}");
    }
    let finding = diagnosis.findings.iter().find(|finding| finding.name == "io-uring").expect("found");
    assert_eq!((finding.value.as_str(), finding.experiments.len()), ("it is refused", 2));
}

#[test]
fn too_few_descriptors_stop_the_experiments_with_the_largest_bursts() {
    let diagnosis = diagnosed(|facts| facts.allowances.nofile = Limits { soft: 256, hard: 256 });
    assert!(!diagnosis.can_run);
    let finding = diagnosis.findings.iter().find(|finding| finding.name == "descriptors").expect("found");
    assert!(finding.experiments.contains(&"backlog".to_owned()), "a burst of 400: {finding:?}");
    assert!(!finding.experiments.contains(&"phantoms".to_owned()), "{finding:?}");
}

#[test]
fn the_text_keeps_to_80_columns_and_says_what_to_do() {
    let diagnosis = diagnosed(|facts| {
        facts.environment.cpus_allowed = Some(1);
        tried(facts).no_sysctls = BTreeMap::from([("net.core.somaxconn".to_owned(), "hidden ".repeat(20))]);
    });
    let text = text::render(&diagnosis, 80);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert_eq!(line, line.trim_end());
    }
    assert!(text.starts_with("acceptbench run backlog cannot run here."), "{text}");
    assert!(text.contains("  cpus         limits   1 of 4 may be used\n"), "{text}");
    assert!(text.contains("to do:  give it two CPUs or more"), "{text}");
    let longest = EXPERIMENTS.iter().map(|(name, _)| name.len()).max().expect("some are shipped");
    for (name, says) in [("backlog", "cannot run for want of: sysctls"), ("phantoms", "can run, limited by: cpus")] {
        let line = format!("  {name:<longest$}  {says}\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
}
