//! deploy/swarm/stack.yaml, and the Prometheus in it.

use serde_yaml::Value;

use crate::files;

fn stack() -> String {
    files::read("deploy/swarm/stack.yaml")
}

/// The file as `docker stack deploy` reads it with nothing but the start in the environment.
fn with_defaults() -> Value {
    files::with_defaults(&stack(), &[("START_AT", "@4000000000")])
}

#[test]
fn what_can_be_set_is_documented_and_only_the_start_must_be() {
    let docs = files::read("docs/deploy.md");
    let (_, swarm) = docs.split_once("\n## Swarm").expect("a section");
    let text = stack();
    files::assert_documented(&text, swarm);
    for (name, rest) in files::variables(&text) {
        assert_eq!(rest.starts_with('?'), name == "START_AT", "{name}");
    }
}

/// A stack knows no `build`, `depends_on` conditions or `security_opt`, and would only say that it ignores them.
#[test]
fn nothing_is_in_the_file_that_a_swarm_ignores() {
    for (name, service) in files::fields(&with_defaults()["services"]) {
        for key in ["build", "depends_on", "security_opt", "cpuset", "network_mode", "restart", "profiles"] {
            assert!(service.get(key).is_none(), "{name}: {key}");
        }
        // On a swarm a published port is open on every address of every node.
        assert!(service.get("ports").is_none(), "{name}");
    }
}

/// Task slots count from 1, as shards do.
#[test]
fn the_program_takes_what_every_task_is_given() {
    let stack = with_defaults();
    let last = stack["services"]["loadgen"]["deploy"]["replicas"].as_u64().expect("a number").to_string();
    for role in ["server", "loadgen"] {
        let service = &stack["services"][role];
        let mut args = files::strings(&service["command"]);
        args.extend(files::flags(role, &files::texts(&service["environment"])));
        for arg in &mut args {
            *arg = arg.replace("{{.Task.Slot}}", &last);
        }
        files::assert_takes(args);
    }
}

/// Every config is a file that exists and is mounted once; a swarm takes up to 500 KiB each. The rules are those that the
/// dashboards crate makes, at a path that `rule_files` matches.
#[test]
fn prometheus_has_its_configuration_and_every_rule() {
    let stack = with_defaults();
    let prometheus = &stack["services"]["prometheus"];
    let mounted: Vec<(&str, &str)> = files::items(&prometheus["configs"])
        .map(|config| (files::str_of(&config["source"], "source"), files::str_of(&config["target"], "target")))
        .collect();
    let file_of = |name: &str| {
        let file = files::str_of(&stack["configs"][name]["file"], "a file").to_owned();
        files::read(&format!("deploy/swarm/{file}"))
    };
    let mut sources: Vec<&str> = mounted.iter().map(|(source, _)| *source).collect();
    sources.sort_unstable();
    assert_eq!(sources, files::keys(&stack["configs"]).into_iter().collect::<Vec<_>>());
    assert!(sources.iter().all(|source| file_of(source).len() < 500 << 10), "{sources:?}");

    let at = |target: &str| {
        let found = mounted.iter().find(|(_, mounted)| *mounted == target);
        file_of(found.unwrap_or_else(|| panic!("nothing at {target}")).0)
    };
    let command = files::strings(&prometheus["command"]);
    assert!(command.contains(&"--config.file=/etc/prometheus/prometheus.yml".to_owned()), "{command:?}");
    let config: Value = serde_yaml::from_str(&at("/etc/prometheus/prometheus.yml")).expect("YAML");
    assert_eq!(files::strings(&config["rule_files"]), ["/etc/prometheus/rules/*.rules.yml"]);
    for (name, text) in dashboards::rules::files().iter().filter(|(name, _)| name.ends_with(".rules.yml")) {
        assert_eq!(&at(&format!("/etc/prometheus/rules/{name}")), text, "{name}");
    }
    assert_eq!(mounted.len(), 3, "{mounted:?}");
}
