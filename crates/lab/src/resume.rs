//! What is another machine or another program than when a run began: it goes on all the same, and says so.

use kernel::environment::Environment;
use study::merge::Build;
use study::results::{Attached, Session};
use telemetry::Warning;

/// Where and with what a run is taken up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) build: &'a Build,
    /// What an attached run found at its deployment.
    pub(crate) attached: Option<&'a Attached>,
}

/// How a run began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Then<'a> {
    pub(crate) environment: Option<&'a Environment>,
    pub(crate) session: Option<&'a Session>,
    pub(crate) attached: Option<&'a Attached>,
}

/// What of it would make trials of before and after two kinds of trials; what was not recorded is not compared.
pub(crate) fn differences(then: Then<'_>, now: Now<'_>) -> Vec<Warning> {
    let mut differ = Vec::new();
    if let Some(environment) = then.environment {
        let here = now.environment;
        let count = |number: Option<usize>| number.map(|number| number.to_string());
        let share = |limit: Option<f64>| Some(limit.map_or("none".to_owned(), |limit| limit.to_string()));
        differ.extend([
            changed("kernel", environment.kernel_release.clone(), here.kernel_release.clone()),
            changed("CPU", environment.cpu_model.clone(), here.cpu_model.clone()),
            changed("CPUs that are on", count(environment.cpus_online), count(here.cpus_online)),
            changed("CPUs that may be used", count(environment.cpus_allowed), count(here.cpus_allowed)),
            changed("limit of CPU time", share(environment.cgroup_cpu_limit), share(here.cgroup_cpu_limit)),
        ]);
    }
    if let Some(session) = then.session {
        let before = format!("{} ({})", session.version, session.revision);
        differ.push(changed("acceptbench", Some(before), Some(now.build.to_string())));
    }
    if let (Some(before), Some(here)) = (then.attached, now.attached) {
        for (name, value) in &before.originals {
            differ.push(changed(
                &format!("{name} outside the run"),
                Some(value.clone()),
                here.originals.get(name).cloned(),
            ));
        }
    }
    let differ: Vec<String> = differ.into_iter().flatten().collect();
    if differ.is_empty() {
        return Vec::new();
    }
    vec![Warning::new(
        "resumed-elsewhere",
        format!("not all trials were run alike: {}", differ.join(", ")),
        "compare blocks of before and after, or run it again as a whole",
    )]
}

fn changed(what: &str, before: Option<String>, now: Option<String>) -> Option<String> {
    let (before, now) = (before?, now?);
    (before != now).then(|| format!("{what} {before} → {now}"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn build() -> Build {
        Build { version: "1.0.0".to_owned(), revision: "abc".to_owned() }
    }

    fn environment() -> Environment {
        Environment {
            kernel_release: Some("6.12.1".to_owned()),
            cpus_online: Some(4),
            cpus_allowed: Some(2),
            memory_bytes: Some(1 << 30),
            ..Environment::default()
        }
    }

    fn session() -> Session {
        let Build { version, revision } = build();
        Session { started: Timestamp::UNIX_EPOCH, version, revision, warnings: Vec::new() }
    }

    #[test]
    fn the_same_machine_and_program_are_no_news() {
        let (before, session) = (environment(), session());
        let mut here = environment();
        here.memory_bytes = None;
        let then = Then { environment: Some(&before), session: Some(&session), attached: None };
        let now = Now { environment: &here, build: &build(), attached: None };
        assert_eq!(differences(then, now), []);
        assert_eq!(differences(Then::default(), now), [], "an older version kept nothing to compare with");
    }

    #[test]
    fn what_matters_is_named_with_both_values() {
        let (before, session) = (environment(), session());
        let here = Environment {
            kernel_release: Some("6.18.0".to_owned()),
            cpus_allowed: Some(1),
            cgroup_cpu_limit: Some(1.5),
            ..environment()
        };
        let attached = |value: &str| Attached {
            server: String::new(),
            loadgens: Vec::new(),
            sysctl_path: "/sysctl".into(),
            originals: [("net.core.somaxconn".to_owned(), value.to_owned())].into(),
            restored: true,
        };
        let (outside, inside) = (attached("4096"), attached("128"));
        let then = Then { environment: Some(&before), session: Some(&session), attached: Some(&outside) };
        let build = Build { revision: "def".to_owned(), ..build() };
        let [warning] = &differences(then, Now { environment: &here, build: &build, attached: Some(&inside) })[..]
        else {
            panic!("one warning")
        };
        assert_eq!(
            warning.cause,
            "not all trials were run alike: kernel 6.12.1 → 6.18.0, CPUs that may be used 2 → 1, limit of CPU time none \
             → 1.5, acceptbench 1.0.0 (abc) → 1.0.0 (def), net.core.somaxconn outside the run 4096 → 128"
        );
    }
}
