//! deploy/kubernetes: what kustomize makes of it is valid Kubernetes, agrees with itself and with this program, and keeps the
//! promises of docs/deploy.md. What renders (kubectl or kustomize) and what validates (kubernetes-validate) may be
//! missing; then what needs it is skipped, and says so on the standard error output, which no test runner keeps to itself;
//! `ACCEPTBENCH_REQUIRE_KUBECTL=1` makes that of the first a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde::Deserialize;
use serde_yaml::Value;

use crate::files::{self, acceptbench, assert_takes, flags, items, keys, str_of, strings, texts};

/// Both of what can be applied.
const DIRECTORIES: [&str; 2] = ["deploy/kubernetes/base", "deploy/kubernetes/overlays/one-million"];

/// What a kubelet lets every pod set (`pkg/kubelet/sysctl/safe_sysctls.go`), as far as it is used here.
const SAFE_SYSCTLS: [&str; 2] = ["net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies"];

/// `kubectl apply` keeps what it applied in an annotation, and annotations hold 256 KiB.
const MOST_APPLIED: usize = 256 << 10;

/// What a custom resource of the Prometheus operator is called.
const OPERATOR: &str = "monitoring.coreos.com/v1";

/// The two renderings as text; `None` where nothing renders them.
fn rendered() -> Option<&'static [String; 2]> {
    static RENDERED: OnceLock<Option<[String; 2]>> = OnceLock::new();
    let rendered = RENDERED.get_or_init(|| {
        let programs = [("kustomize", "build"), ("kubectl", "kustomize")];
        let found = programs.into_iter().find(|(program, _)| Command::new(program).arg("--help").output().is_ok());
        let Some((program, verb)) = found else {
            skipped("neither kustomize nor kubectl is installed; most tests of deploy/kubernetes pass without a look");
            return None;
        };
        Some(DIRECTORIES.map(|directory| {
            let output = Command::new(program).arg(verb).arg(files::path(directory)).output();
            text(&output.expect("it ran a moment ago"))
        }))
    });
    let required = std::env::var_os("ACCEPTBENCH_REQUIRE_KUBECTL").is_some_and(|value| value == "1");
    assert!(rendered.is_some() || !required, "nothing renders, and ACCEPTBENCH_REQUIRE_KUBECTL=1 requires it");
    rendered.as_ref()
}

/// Says so where it is seen although the test passes.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// What a program that must end well printed.
fn text(output: &Output) -> String {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    said(&output.stdout)
}

fn objects(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text).map(|document| Value::deserialize(document).expect("YAML")).collect()
}

/// The one object of this kind and name.
fn object<'a>(objects: &'a [Value], kinds: &[&str], name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| {
        kinds.contains(&str_of(&object["kind"], "kind")) && object["metadata"]["name"].as_str() == Some(name)
    });
    found.next().unwrap_or_else(|| panic!("no {kinds:?} {name}"))
}

/// Pod templates by the name of what makes them.
fn templates(objects: &[Value]) -> BTreeMap<&str, &Value> {
    let named = objects.iter().filter(|object| !object["spec"]["template"].is_null());
    named.map(|object| (str_of(&object["metadata"]["name"], "name"), &object["spec"]["template"])).collect()
}

/// What envFrom of a container comes to.
fn options(objects: &[Value], container: &Value) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    for source in items(&container["envFrom"]) {
        let name = str_of(&source["configMapRef"]["name"], "a ConfigMap");
        options.extend(texts(&object(objects, &["ConfigMap"], name)["data"]));
    }
    options
}

#[test]
fn what_is_rendered_is_valid_kubernetes() {
    let Some(rendered) = rendered() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    for (number, text_of_it) in rendered.iter().enumerate() {
        let file: PathBuf = directory.path().join(format!("{number}.yaml"));
        std::fs::write(&file, text_of_it).expect("a file");
        let Ok(output) = Command::new("kubernetes-validate").arg("--strict").arg(&file).output() else {
            return skipped("kubernetes-validate is not installed (PyPI has it); what is rendered is not validated");
        };
        let said = text(&output);
        // What it does not know it only warns of: the custom resources, which have tests of their own.
        let unknown: Vec<&str> = said.lines().filter(|line| !line.starts_with("INFO ")).collect();
        let tested = |line: &&str| line.contains("PodMonitor") || line.contains("PrometheusRule");
        assert!(unknown.iter().all(tested), "{unknown:#?}");
        assert_eq!(said.lines().count(), objects(text_of_it).len(), "{said}");
    }
}

/// A custom resource, whose schema comes with the Prometheus operator (monitoring.coreos.com/v1).
#[test]
fn the_pod_monitor_finds_every_pod_and_names_its_job() {
    let Some(rendered) = rendered() else { return };
    for text in rendered {
        let objects = objects(text);
        let monitor = object(&objects, &["PodMonitor"], "acceptbench");
        assert_eq!(monitor["apiVersion"], OPERATOR);
        assert_eq!(keys(&monitor["spec"]), ["jobLabel", "podMetricsEndpoints", "selector"].into());
        let endpoints = monitor["spec"]["podMetricsEndpoints"].as_sequence().expect("endpoints");
        let [endpoint] = endpoints.as_slice() else { panic!("{endpoints:?}") };
        assert_eq!(keys(endpoint), ["interval", "path", "port", "scrapeTimeout"].into());
        // The operator refuses a time-out above the interval.
        assert_eq!((&endpoint["interval"], &endpoint["scrapeTimeout"]), (&"1s".into(), &"1s".into()));
        let selector = monitor["spec"]["selector"]["matchLabels"].as_mapping().expect("labels");
        let templates = templates(&objects);
        assert_eq!(templates.keys().copied().collect::<Vec<_>>(), ["loadgen", "server", "watch"]);
        for (name, template) in templates {
            let labels = &template["metadata"]["labels"];
            assert!(selector.iter().all(|(key, value)| &labels[key] == value), "{name} is not found: {labels:?}");
            let job = &labels[str_of(&monitor["spec"]["jobLabel"], "jobLabel")];
            assert_eq!(job, name, "the job that the dashboards know");
            let ports = template["spec"]["containers"][0]["ports"].as_sequence().expect("ports");
            assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{name} has no such port");
        }
    }
}

/// The groups of a file of rules.
fn groups(text: &str) -> Vec<Value> {
    let value: Value = serde_yaml::from_str(text).expect("YAML");
    items(&value["groups"]).cloned().collect()
}

/// Prometheus' way to write a length of time, as the resource's schema has it, in one unit.
fn is_duration(value: &Value) -> bool {
    let text = str_of(value, "a duration");
    let number = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    number.parse::<u64>().is_ok() && ["ms", "s", "m", "h", "d", "w", "y"].contains(&&text[number.len()..])
}

/// The other custom resource: exactly the rules of the files that promtool checks and the other deployments load, in the
/// fields that its schema has, and no name twice.
#[test]
fn the_prometheus_rule_is_what_the_rule_files_are() {
    let committed = files::read("dashboards/prometheus/prometheus-rule.yaml");
    let mut resources = vec![(None, objects(&committed).pop().expect("a resource"))];
    for text in rendered().into_iter().flatten() {
        resources.push((Some("acceptbench"), object(&objects(text), &["PrometheusRule"], "acceptbench").clone()));
    }
    let rules = ["recording.rules.yml", "alerts.rules.yml"];
    let files: Vec<Value> =
        rules.iter().flat_map(|name| groups(&files::read(&format!("dashboards/prometheus/{name}")))).collect();
    for (namespace, resource) in &resources {
        assert_eq!((&resource["apiVersion"], &resource["kind"]), (&OPERATOR.into(), &"PrometheusRule".into()));
        assert_eq!(resource["metadata"]["namespace"].as_str(), *namespace);
        assert_eq!(keys(&resource["spec"]), ["groups"].into());
        let groups: Vec<Value> = items(&resource["spec"]["groups"]).cloned().collect();
        assert_eq!(groups, files);
        assert_eq!(
            groups.len(),
            groups.iter().map(|group| str_of(&group["name"], "name")).collect::<BTreeSet<_>>().len()
        );
        for group in &groups {
            assert_eq!(keys(group), ["interval", "name", "rules"].into());
            assert!(is_duration(&group["interval"]), "{group:?}");
            for rule in items(&group["rules"]) {
                if rule["record"].is_null() {
                    assert_eq!(keys(rule), ["alert", "annotations", "expr", "for", "labels"].into());
                    assert!(is_duration(&rule["for"]), "{rule:?}");
                    assert_eq!(texts(&rule["labels"]).len(), 1, "severity");
                    assert_eq!(texts(&rule["annotations"]).len(), 3);
                } else {
                    assert_eq!(keys(rule), ["expr", "record"].into());
                }
            }
        }
    }
    let alerts = items(&files[1]["rules"]).count();
    assert_eq!(alerts, dashboards::rules::alerts::all().len());
}

/// The number of shards stands in three places, and each shard must be one that the program takes.
#[test]
fn the_shards_are_one_load_and_the_program_takes_every_argument() {
    let Some(rendered) = rendered() else { return };
    let mut shards_of = Vec::new();
    for text in rendered {
        let objects = objects(text);
        let job = object(&objects, &["Job"], "loadgen");
        let shards = job["spec"]["completions"].as_u64().expect("completions");
        assert_eq!(
            (&job["spec"]["completionMode"], job["spec"]["parallelism"].as_u64()),
            (&"Indexed".into(), Some(shards))
        );
        let loadgen = &job["spec"]["template"]["spec"]["containers"][0];
        let args = strings(&loadgen["args"]);
        assert!(args.contains(&format!("--shard=index:$(JOB_COMPLETION_INDEX)/{shards}")), "{args:?}");
        for (index, start, code) in [(0, "@4000000000", 0), (shards - 1, "@4000000000", 0), (shards, "@4000000000", 64)]
        {
            let mut args = args.clone();
            for arg in &mut args {
                *arg = arg.replace("$(JOB_COMPLETION_INDEX)", &index.to_string()).replace("START_AT", start);
            }
            args.extend(flags("loadgen", &options(&objects, loadgen)));
            args.push("--help".to_owned());
            let output = acceptbench(&args);
            assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        }
        for role in ["server", "watch"] {
            let container = &templates(&objects)[role]["spec"]["containers"][0];
            let mut args = strings(&container["args"]);
            for arg in &mut args {
                *arg = arg.replace("$(HOST_IP)", "192.0.2.1");
            }
            args.extend(flags(role, &options(&objects, container)));
            assert_takes(args);
        }
        shards_of.push((shards, options(&objects, loadgen)["ACCEPTBENCH_LOADGEN_RATE"].clone()));
    }
    assert_eq!(shards_of, [(4, "4000".to_owned()), (16, "1000000".to_owned())]);
}

#[test]
fn a_start_that_nobody_filled_in_is_refused_by_name() {
    let output = acceptbench(&["loadgen", "--start-at=START_AT"].map(str::to_owned));
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`START_AT` is no instant"), "{output:?}");
}

/// Each shard of the overlay has a server, and they are one for one.
#[test]
fn a_million_connections_have_as_many_servers_as_shards() {
    let Some([_, million]) = rendered() else { return };
    let objects = objects(million);
    let server = object(&objects, &["StatefulSet"], "server");
    let job = object(&objects, &["Job"], "loadgen");
    assert_eq!(server["spec"]["replicas"], job["spec"]["completions"]);
    let service = str_of(&server["spec"]["serviceName"], "serviceName");
    assert_eq!(
        object(&objects, &["Service"], service)["spec"]["clusterIP"],
        "None",
        "names of their own need no address"
    );
    let args = strings(&job["spec"]["template"]["spec"]["containers"][0]["args"]);
    assert!(args.contains(&format!("--target=server-$(JOB_COMPLETION_INDEX).{service}:9700")), "{args:?}");
}

#[test]
fn only_the_overlay_sets_what_a_kubelet_must_allow_and_says_so() {
    let Some(rendered) = rendered() else { return };
    let unsafe_of = |text: &str| -> BTreeSet<String> {
        let objects = objects(text);
        let pods = templates(&objects).into_values();
        let sysctls = pods.flat_map(|template| items(&template["spec"]["securityContext"]["sysctls"]));
        let names = sysctls.map(|sysctl| str_of(&sysctl["name"], "a sysctl").to_owned());
        names.filter(|name| !SAFE_SYSCTLS.contains(&name.as_str())).collect()
    };
    assert_eq!(unsafe_of(&rendered[0]), BTreeSet::new());
    let needed = unsafe_of(&rendered[1]).into_iter().collect::<Vec<_>>().join(",");
    for file in ["deploy/kubernetes/overlays/one-million/kustomization.yaml", "docs/deploy.md"] {
        assert!(
            files::read(file).contains(&format!("--allowed-unsafe-sysctls={needed}")),
            "{file} does not name {needed}"
        );
    }
}

/// Nothing but `watch` is in the network of its node, and nothing has a right at all.
#[test]
fn no_pod_has_a_right_it_does_not_need() {
    let Some(rendered) = rendered() else { return };
    for text in rendered {
        let objects = objects(text);
        for (name, template) in templates(&objects) {
            let pod = &template["spec"];
            assert_eq!(pod["hostNetwork"].as_bool().unwrap_or(false), name == "watch", "{name}");
            assert_eq!(
                (&pod["hostPID"], &pod["automountServiceAccountToken"]),
                (&Value::Null, &false.into()),
                "{name}"
            );
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            let context = &pod["containers"][0]["securityContext"];
            assert_eq!(
                (&context["readOnlyRootFilesystem"], &context["allowPrivilegeEscalation"]),
                (&true.into(), &false.into())
            );
            assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"], "{name}");
            assert!(context["capabilities"]["add"].is_null() && context["privileged"].is_null(), "{name}");
        }
    }
}

/// Also without kustomize: its file names each board once.
#[test]
fn every_board_is_a_config_map_that_can_be_applied() {
    let dashboards = files::path("dashboards");
    let list: Value = serde_yaml::from_str(&files::read("dashboards/kustomization.yaml")).expect("YAML");
    let listed: Vec<String> = items(&list["configMapGenerator"]).flat_map(|map| strings(&map["files"])).collect();
    let mut boards: Vec<String> = std::fs::read_dir(dashboards.join("grafana"))
        .expect("dashboards/grafana")
        .map(|entry| format!("grafana/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .collect();
    boards.sort();
    assert_eq!(listed, boards, "dashboards/kustomization.yaml lists every board, in their order");
    for board in &boards {
        let size = std::fs::metadata(dashboards.join(board)).expect("a board").len();
        // JSON in JSON: every quote takes a backslash more. Half is a fair allowance for that, and for the rest.
        assert!(usize::try_from(size).expect("small") * 3 / 2 < MOST_APPLIED, "{board} has {size} bytes");
    }
    let Some(rendered) = rendered() else { return };
    for text in rendered {
        let objects = objects(text);
        for board in &boards {
            let name = board.trim_start_matches("grafana/");
            let map = format!("acceptbench-dashboard-{}", name.trim_end_matches(".json"));
            let map = object(&objects, &["ConfigMap"], &map);
            let committed = files::read(&format!("dashboards/{board}"));
            assert_eq!(str_of(&map["data"][name], name), committed, "{board}");
            assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1", "what Grafana's sidecar looks for");
        }
    }
}
