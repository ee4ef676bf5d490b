//! deploy/compose.yaml is a compose file by the compose specification.

use std::collections::BTreeSet;

use compose_spec::Compose;
use serde_yaml::{Mapping, Value};

use crate::files;

/// The file as written, and as compose reads it.
fn compose() -> (String, Value) {
    let text = files::read("deploy/compose.yaml");
    let value = files::with_defaults(&text, &[]);
    (text, value)
}

fn services(compose: &Value) -> impl Iterator<Item = (&str, &Mapping)> {
    files::fields(&compose["services"]).map(|(name, service)| (name, service.as_mapping().expect("a service")))
}

#[test]
fn the_file_follows_the_compose_specification() {
    let (_, value) = compose();
    let parsed: Compose = serde_yaml::from_value(value).expect("a compose file");
    parsed.validate_all().expect("networks, volumes and services named are there");
    let names: BTreeSet<String> = parsed.services.keys().map(ToString::to_string).collect();
    assert_eq!(
        names,
        ["grafana", "loadgen", "observe", "prometheus", "server", "sweep", "watch"].map(str::to_owned).into()
    );
}

/// What only one of docker-compose 1.29 and compose v2 takes is not used.
#[test]
fn both_generations_of_compose_take_the_file() {
    let (text, value) = compose();
    for key in ["name", "include", "configs", "secrets", "version"] {
        assert!(value.get(key).is_none(), "top-level {key}");
    }
    for word in ["start_interval", "required:", "!reset", "!override", "develop:"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn every_service_has_a_health_check_and_a_pinned_image_that_can_be_replaced() {
    let (text, value) = compose();
    for (name, service) in services(&value) {
        // The sweep ends by itself: its exit code is its verdict.
        assert_eq!(service.contains_key("healthcheck"), name != "sweep", "{name}");
        let image = service["image"].as_str().expect("an image");
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        assert!(image.starts_with("acceptbench:") || tag.contains('.'), "{image} names no version");
        assert!(text.contains(&format!(":-{image}}}")), "{image} cannot be replaced from the environment");
    }
}

#[test]
fn nothing_is_published_beyond_the_loopback() {
    let (_, value) = compose();
    for (name, service) in services(&value) {
        for port in service.get("ports").and_then(Value::as_sequence).into_iter().flatten() {
            assert!(port.as_str().is_some_and(|port| port.starts_with("127.0.0.1:")), "{name}: {port:?}");
        }
        if service.get("network_mode").and_then(Value::as_str) == Some("host") {
            let command = serde_yaml::to_string(&service["command"]).expect("YAML");
            assert!(command.contains("127.0.0.1:"), "{name} listens on the host: {command}");
        }
    }
}

/// The program runs without any right; only the sweep may administer the one network it steps.
#[test]
fn no_service_of_ours_has_a_right_it_does_not_need() {
    let (_, value) = compose();
    for (name, service) in services(&value).filter(|(_, service)| service["image"] == "acceptbench:latest") {
        assert_eq!(service["cap_drop"], serde_yaml::from_str::<Value>("[ALL]").expect("YAML"), "{name}");
        assert_eq!(service["read_only"], Value::Bool(true), "{name}");
        let added = service.get("cap_add").map(|rights| serde_yaml::to_string(rights).expect("YAML"));
        assert_eq!(added.as_deref(), (name == "sweep").then_some("- NET_ADMIN\n"), "{name}");
        assert!(service.get("privileged").is_none(), "{name}");
    }
}

/// Every variable of the file stands in docs/deploy.md, and every file it mounts exists.
#[test]
fn what_can_be_set_is_documented_and_what_is_mounted_is_there() {
    let (text, value) = compose();
    files::assert_documented(&text, &files::read("docs/deploy.md"));
    for (name, service) in services(&value) {
        for volume in service.get("volumes").and_then(Value::as_sequence).into_iter().flatten() {
            let source = volume.as_str().and_then(|volume| volume.split(':').next()).expect("a short volume");
            if source.starts_with('.') {
                assert!(files::path("deploy").join(source).exists(), "{name} mounts {source}, which is not there");
            }
        }
    }
}
