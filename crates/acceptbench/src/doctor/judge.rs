//! From facts to findings: what each allows, what it limits, what to do about it, and which experiments that touches. Pure.

use std::time::Duration;

use kernel::modules::Module;
use kernel::namespace::Privilege;
use lab::{Experiment, Tried};
use study::format;

use super::facts::Facts;
use super::finding::{Finding, Outcome, Status, Verdict};
use crate::needs::{self, Need};

/// Clock sources that are read without a system call or a device.
const FAST_CLOCKS: [&str; 6] =
    ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "timebase", "tod"];

/// A wake-up later than this makes the generator late in every trial.
const LATE: Duration = Duration::from_millis(1);

/// Less than this for everything is too little for bursts of connections.
const LITTLE_MEMORY: u64 = 256 << 20;

/// A socket in `TIME_WAIT` (`struct tcp_timewait_sock`), bytes.
const TIME_WAIT_BYTES: u64 = 256;

/// Oldest kernel that experiments were made for.
const OLDEST: (u32, u32) = (5, 15);

/// Everything that was found, in the order in which it is told.
pub(super) fn findings(facts: &Facts, experiments: &[Experiment]) -> Vec<Finding> {
    let of = |wanted: fn(&Need) -> bool| -> Vec<String> {
        let needs = |experiment: &&Experiment| needs::of(experiment).iter().any(wanted);
        experiments.iter().filter(needs).map(|experiment| experiment.name.clone()).collect()
    };
    let private = of(|need| *need == Need::Namespaces);
    let mut found = vec![kernel(facts, &private), namespaces(facts, &private)];
    if let Ok(tried) = &facts.tried
        && tried.no_namespaces.is_none()
    {
        found.push(veth(facts, tried, of(|need| *need == Need::Veth)));
        found.push(sysctls(tried, experiments));
        found.push(ipv6(tried, of(|need| *need == Need::Ipv6)));
    }
    found.extend([cpus(facts, &private), clock(facts, &private), wake_ups(facts, &private)]);
    found.extend([descriptors(facts, experiments), ports(facts), memory(facts, &private)]);
    found.extend([
        io_uring(facts, experiments),
        programs(facts, experiments),
        somaxconn(facts),
        netem(facts),
        sock_diag(facts),
    ]);
    found
}

/// What the findings mean for each experiment.
pub(super) fn verdicts(findings: &[Finding], experiments: &[Experiment]) -> Vec<Verdict> {
    let verdict = |experiment: &Experiment| {
        let naming = |status: Status| -> Vec<String> {
            let touches =
                |finding: &&Finding| finding.status == status && finding.experiments.contains(&experiment.name);
            findings.iter().filter(touches).map(|finding| finding.name.to_owned()).collect()
        };
        let (missing, limits) = (naming(Status::Missing), naming(Status::Limits));
        let (outcome, because) = if experiment.place.attach().is_some() {
            (Outcome::NeedsDeployment, Vec::new())
        } else if !missing.is_empty() {
            (Outcome::CannotRun, missing)
        } else if !limits.is_empty() {
            (Outcome::Limited, limits)
        } else {
            (Outcome::Runs, Vec::new())
        };
        Verdict { name: experiment.name.clone(), outcome, because }
    };
    experiments.iter().map(verdict).collect()
}

fn kernel(facts: &Facts, private: &[String]) -> Finding {
    let environment = &facts.environment;
    let release = environment.kernel_release.clone().unwrap_or_else(|| "unknown".to_owned());
    let architecture = environment.architecture.as_deref().unwrap_or("unknown");
    let virtual_machine = if environment.virtualized == Some(true) { ", in a virtual machine" } else { "" };
    let finding = Finding::ok("kernel", format!("Linux {release} on {architecture}{virtual_machine}"));
    let mut parts = release.split(['.', '-']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST => finding.limits(
            "older than Linux 5.15: nothing was measured there",
            "trust what `acceptbench probe` says of it",
            private.to_vec(),
        ),
        _ => finding,
    }
}

fn namespaces(facts: &Facts, private: &[String]) -> Finding {
    let how = match facts.environment.privilege {
        Some(Privilege::Root) => "as root: each trial has network and PID namespaces of its own",
        _ => "as an ordinary user: each trial has user, network and PID namespaces of its own",
    };
    let finding = Finding::ok("namespaces", how);
    let refused = |value: &str| {
        Finding::ok("namespaces", value).missing(
            "no experiment can run, and no probe; server, loadgen and watch work",
            "allow user namespaces, or run as root: the machine stays untouched all the same",
            private.to_vec(),
        )
    };
    match &facts.tried {
        Err(reason) => refused(&format!("could not be tried: {reason}")),
        Ok(Tried { no_namespaces: Some(reason), .. }) => refused(reason),
        Ok(_) => finding,
    }
}

fn veth(facts: &Facts, tried: &Tried, users: Vec<String>) -> Finding {
    match (&tried.no_veth, facts.veth) {
        (Some(reason), _) => Finding::ok("veth", reason.clone()).missing(
            "no trial with topology = \"veth\"",
            "load the module veth, or set topology = \"loopback\" in a copy of the experiment",
            users,
        ),
        (None, Module::Loadable) => Finding::ok("veth", "a module that is not loaded; the first trial loads it"),
        (None, Module::Present | Module::NotSeen) => Finding::ok("veth", "a pair was made between two namespaces"),
    }
}

fn sysctls(tried: &Tried, experiments: &[Experiment]) -> Finding {
    if tried.no_sysctls.is_empty() {
        return Finding::ok("sysctls", "all that shipped experiments set can be set in a trial's namespaces");
    }
    let lacks = |experiment: &&Experiment| {
        let set = |need: &Need| matches!(need, Need::Sysctl(name) if tried.no_sysctls.contains_key(name));
        experiment.place.attach().is_none() && needs::of(experiment).iter().any(set)
    };
    let users = experiments.iter().filter(lacks).map(|experiment| experiment.name.clone()).collect();
    let names: Vec<&str> = tried.no_sysctls.keys().map(String::as_str).collect();
    let reason = tried.no_sysctls.values().next().cloned().unwrap_or_default();
    Finding::ok("sysctls", format!("{} cannot be set: {reason}", names.join(", "))).missing(
        "no experiment that sets them",
        "run as root (the machine stays untouched), or vary server.backlog instead",
        users,
    )
}

fn ipv6(tried: &Tried, users: Vec<String>) -> Finding {
    if tried.ipv6 {
        return Finding::ok("ipv6", "there, for family = \"ipv6\"");
    }
    let fix = "boot with IPv6, or stay with family = \"ipv4\"";
    let finding = Finding::ok("ipv6", "not there");
    let limits = "no trial with family = \"ipv6\"";
    if users.is_empty() { finding.limits(limits, fix, users) } else { finding.missing(limits, fix, users) }
}

fn cpus(facts: &Facts, private: &[String]) -> Finding {
    let environment = &facts.environment;
    let online = environment.cpus_online.unwrap_or(1);
    let allowed = environment.cpus_allowed.unwrap_or(online);
    let mut value = format!("{allowed} of {online} may be used");
    if let Some(limit) = environment.cgroup_cpu_limit {
        value = format!("{value}, and {limit} CPUs' time by the control group");
    }
    let usable = environment.cgroup_cpu_limit.unwrap_or(f64::INFINITY).min(allowed as f64);
    let finding = Finding::ok("cpus", value);
    if usable < 2.0 {
        return finding.limits(
            "server and load generator take turns: trials in which the generator was late do not count",
            "give it two CPUs or more",
            private.to_vec(),
        );
    }
    finding
}

fn clock(facts: &Facts, private: &[String]) -> Finding {
    let source = facts.environment.clocksource.as_deref().unwrap_or("unknown");
    let hz = facts.environment.hz.map_or_else(String::new, |hz| format!(", {hz} ticks per second"));
    let finding = Finding::ok("clock", format!("{source}{hz}"));
    if FAST_CLOCKS.contains(&source) || source == "unknown" {
        return finding;
    }
    finding.limits(
        "reading the clock is slow, and every attempt reads it several times: rates are lower than elsewhere",
        "choose another in /sys/devices/system/clocksource/clocksource0/current_clocksource",
        private.to_vec(),
    )
}

fn wake_ups(facts: &Facts, private: &[String]) -> Finding {
    let slack = facts.allowances.timer_slack_ns.map_or_else(String::new, |ns| {
        format!(" (timer slack {} here, 1 ns in workers)", format::time(ns as f64 / 1e9))
    });
    let Some(late) = facts.late else { return Finding::ok("wake-ups", format!("not measured{slack}")) };
    let finding = Finding::ok("wake-ups", format!("{} late{slack}", format::time(late.as_secs_f64())));
    if late <= LATE {
        return finding;
    }
    finding.limits(
        "attempts are issued late, in every trial: those with a late generator do not count",
        "let the machine come to rest; in a virtual machine, ask its host",
        private.to_vec(),
    )
}

fn descriptors(facts: &Facts, experiments: &[Experiment]) -> Finding {
    let kernel::process::Limits { soft, hard } = facts.allowances.nofile;
    let number = |count: u64| if count == u64::MAX { "unlimited".to_owned() } else { count.to_string() };
    let finding = Finding::ok("descriptors", format!("{}, raised to {} by itself", number(soft), number(hard)));
    let refusal = |experiment: &Experiment| {
        let mut cells = experiment.resolved.iter().filter(|_| experiment.place.attach().is_none());
        let error = cells.find_map(|cell| loadgen::check_descriptors(&cell.loadgen, cell.half_open, hard).err())?;
        Some((experiment.name.clone(), error.to_string()))
    };
    let (users, reasons): (Vec<String>, Vec<String>) = experiments.iter().filter_map(refusal).unzip();
    match reasons.into_iter().next() {
        Some(reason) => finding.missing(reason, "raise the hard limit (ulimit -Hn)", users),
        None => finding,
    }
}

fn ports(facts: &Facts) -> Finding {
    let range =
        |low: u16, high: u16| format!("{low}-{high}: {} per source address", u32::from(high) + 1 - u32::from(low));
    let here = facts.allowances.ports.map_or_else(|| "unknown".to_owned(), |(low, high)| range(low, high));
    let trial = facts.tried.as_ref().ok().and_then(|tried| tried.ports.clone());
    let trial = trial.map_or_else(String::new, |ports| format!("; a trial's own {}", ports.replace(' ', "-")));
    Finding::ok("ports", format!("{here}{trial}"))
}

fn memory(facts: &Facts, private: &[String]) -> Finding {
    let allowances = &facts.allowances;
    let size = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let mut parts = Vec::new();
    if let Some(available) = allowances.memory_available {
        let of = facts.environment.memory_bytes.map_or_else(String::new, |all| format!(" of {}", size(all)));
        parts.push(format!("{}{of} available", size(available)));
    }
    if let Some(limit) = allowances.cgroup_memory {
        parts.push(format!("{} by the control group", size(limit)));
    }
    if let Some(buffers) = allowances.tcp_memory {
        parts.push(format!("{} of TCP buffers at most", size(buffers)));
    }
    if let Some(sockets) = allowances.time_wait_limit {
        let mib = sockets.saturating_mul(TIME_WAIT_BYTES) >> 20;
        parts.push(format!("{sockets} sockets in TIME_WAIT at most ({mib} MiB)"));
    }
    let finding = Finding::ok("memory", parts.join("; "));
    let usable = [allowances.memory_available, allowances.cgroup_memory].into_iter().flatten().min();
    if usable.is_some_and(|bytes| bytes < LITTLE_MEMORY) {
        return finding.limits(
            "bursts of thousands of connections may end the programs",
            "free some memory, or give the control group more",
            private.to_vec(),
        );
    }
    finding
}

fn io_uring(facts: &Facts, experiments: &[Experiment]) -> Finding {
    let lacks = &facts.rings;
    let Some(reason) = lacks.values().next() else {
        return Finding::ok("io-uring", "there, with all that the engines of both ends use");
    };
    let (value, limits) = if lacks.contains_key(&Need::ServerRing) {
        (reason.clone(), "no engine io-uring or io-uring-multishot".to_owned())
    } else {
        // With sources an engine lacks what it lacks without them.
        let engines = [
            (Need::ServerMultishot, "server.engine = \"io-uring-multishot\""),
            (Need::LoadgenRing, "loadgen.engine = \"io-uring\""),
            (Need::LoadgenRingSources, "loadgen.engine = \"io-uring\" with sources"),
        ];
        let shown = |need: &Need| *need != Need::LoadgenRingSources || !lacks.contains_key(&Need::LoadgenRing);
        let lacking =
            || engines.iter().filter(|(need, _)| shown(need)).filter_map(|(need, e)| Some((lacks.get(need)?, e)));
        let reasons: Vec<&str> = lacking().map(|(reason, _)| reason.as_str()).collect();
        let engines: Vec<String> = lacking().map(|(_, engine)| format!("no {engine}")).collect();
        (format!("there; {}", reasons.join("; ")), engines.join(", "))
    };
    let asks = |experiment: &&Experiment| needs::of(experiment).iter().any(|need| lacks.contains_key(need));
    let users: Vec<String> = experiments.iter().filter(asks).map(|experiment| experiment.name.clone()).collect();
    let finding = Finding::ok("io-uring", value);
    let fix = "use another engine; the default ones need no io_uring";
    if users.is_empty() { finding.limits(limits, fix, users) } else { finding.missing(limits, fix, users) }
}

/// Servers that are not ours, for experiments with a target.
fn programs(facts: &Facts, experiments: &[Experiment]) -> Finding {
    let missing: Vec<&str> = facts.no_programs.iter().map(String::as_str).collect();
    if missing.is_empty() {
        return Finding::ok("programs", "nginx, redis and whatever else shipped experiments put in the server's place");
    }
    let lacks = |experiment: &&Experiment| {
        needs::programs(experiment).iter().any(|program| missing.contains(&program.as_str()))
    };
    let users = experiments.iter().filter(lacks).map(|experiment| experiment.name.clone()).collect();
    let packages: Vec<&str> = missing.iter().filter_map(|program| lab::package_of(program)).collect();
    Finding::ok("programs", format!("not installed: {}", missing.join(", "))).missing(
        "no experiment that puts them in the server's place",
        format!("install Debian's {}", packages.join(", ")),
        users,
    )
}

fn somaxconn(facts: &Facts) -> Finding {
    match facts.allowances.somaxconn {
        Some(limit) => Finding::ok(
            "somaxconn",
            format!("{limit}: no listener here gets a longer queue, whatever its backlog; trials have their own"),
        ),
        None => Finding::ok("somaxconn", "hidden in this namespace"),
    }
}

fn netem(facts: &Facts) -> Finding {
    let value = match facts.netem {
        Module::Present => "there",
        Module::Loadable => "a module that is not loaded",
        Module::NotSeen => "not there",
    };
    Finding::ok("netem", format!("{value}; no shipped experiment adds delay or loss"))
}

fn sock_diag(facts: &Facts) -> Finding {
    let feature = facts.environment.features.get("sock-diag");
    match feature.filter(|feature| !feature.available) {
        None => Finding::ok("sock-diag", "there: watch sees every listener"),
        Some(refused) => Finding::ok("sock-diag", refused.detail.clone().unwrap_or_else(|| "refused".to_owned()))
            .limits(
                "watch sees nothing, and servers do not see their SYN queues",
                "load the module tcp_diag, or allow NETLINK_SOCK_DIAG",
                Vec::new(),
            ),
    }
}

#[cfg(test)]
mod tests;
