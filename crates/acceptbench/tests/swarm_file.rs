//! deploy/swarm/stack.yaml keeps the promises of docs/deploy.md. That it runs is shown by deploy/swarm/test.sh on an engine.

use std::path::Path;
use std::process::Command;

use serde_yaml::Value;

const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn stack() -> String {
    std::fs::read_to_string(Path::new(HOME).join("deploy/swarm/stack.yaml")).expect("deploy/swarm/stack.yaml")
}

/// `${NAME:-default}` and `${NAME:?why}` as pairs of the name and what follows it, in order.
fn variables(text: &str) -> Vec<(&str, &str)> {
    let inner = text.split("${").skip(1).map(|rest| rest.split_once('}').expect("a closed ${").0);
    inner.map(|variable| variable.split_once(':').unwrap_or_else(|| panic!("{variable} has no default"))).collect()
}

/// The file as `docker stack deploy` reads it with nothing but the start in the environment.
fn with_defaults() -> Value {
    let mut text = stack();
    for (name, rest) in variables(&stack()) {
        let value = if name == "START_AT" { "@4000000000" } else { rest.strip_prefix('-').expect("a default") };
        text = text.replace(&format!("${{{name}:{rest}}}"), value);
    }
    let mut value: Value = serde_yaml::from_str(&text).expect("YAML");
    value.apply_merge().expect("merge keys");
    value
}

#[test]
fn what_can_be_set_is_documented_and_only_the_start_must_be() {
    let docs = std::fs::read_to_string(Path::new(HOME).join("docs/deploy.md")).expect("docs/deploy.md");
    let (_, swarm) = docs.split_once("\n## Swarm").expect("a section");
    let text = stack();
    for (name, rest) in variables(&text) {
        assert!(swarm.contains(&format!("`{name}`")), "docs/deploy.md does not name {name}");
        assert_eq!(rest.starts_with('?'), name == "START_AT", "{name}");
    }
}

/// A stack knows no `build`, `depends_on` conditions or `security_opt`, and would only say that it ignores them.
#[test]
fn nothing_is_in_the_file_that_a_swarm_ignores() {
    for (name, service) in with_defaults()["services"].as_mapping().expect("services") {
        for key in ["build", "depends_on", "security_opt", "cpuset", "network_mode", "restart", "profiles"] {
            assert!(service.get(key).is_none(), "{name:?}: {key}");
        }
        // On a swarm a published port is open on every address of every node.
        assert!(service.get("ports").is_none(), "{name:?}");
    }
}

/// Task slots count from 1, as shards do.
#[test]
fn the_program_takes_what_every_task_is_given() {
    let stack = with_defaults();
    for (service, role) in [("server", "SERVER"), ("loadgen", "LOADGEN")] {
        let service = &stack["services"][service];
        let mut args: Vec<String> = serde_yaml::from_value(service["command"].clone()).expect("words");
        for (name, value) in service["environment"].as_mapping().expect("variables") {
            let (name, value) = (name.as_str().expect("a name"), value.as_str().expect("a text, in quotes"));
            let option = name.strip_prefix(&format!("ACCEPTBENCH_{role}_")).expect("an option of this program");
            let value = value.replace(
                "{{.Task.Slot}}",
                &stack["services"]["loadgen"]["deploy"]["replicas"].as_u64().expect("a number").to_string(),
            );
            args.push(format!("--{}={value}", option.to_lowercase().replace('_', "-")));
        }
        args.push("--help".to_owned());
        let output =
            Command::new(env!("CARGO_BIN_EXE_acceptbench")).args(&args).env_clear().output().expect("it starts");
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}
