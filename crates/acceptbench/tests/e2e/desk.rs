//! What only reads: doctor leaves the machine as it is, compare refuses what is not the same experiment, list speaks JSON.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::host::{Host, answered, is_root, ordinary_program};
use crate::support::{Lab, machine, text};

/// Two cells of which one overflows.
const EXPERIMENT: &str = r#"[experiment]
name = "pair"
question = "are they alike?"
replicates = 2
warm-up = "0s"
measure = "200ms"
topology = "loopback"
[server]
accept-delay = "5ms"
[loadgen]
rate = 400
deadline = "150ms"
[[factor]]
set = "server.backlog"
to = [4, 512]
[compare]
metrics = ["served-ratio", "overflows"]
by = "ranges"
"#;

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

/// Checks a diagnosis against what becomes of a run here.
fn agrees_with_a_run(lab: &Lab, diagnosis: &Output, run: &Output) {
    let found = json(diagnosis);
    assert_eq!(found["can-run"], diagnosis.status.success(), "{found}");
    assert_eq!(diagnosis.status.code(), Some(if found["can-run"] == true { 0 } else { 69 }));
    let phantoms = found["experiments"].as_array().expect("experiments").iter().find(|e| e["name"] == "phantoms");
    let outcome = phantoms.expect("shipped")["outcome"].as_str().expect("an outcome");
    let ran = run.status.code() != Some(69);
    assert_eq!(outcome != "cannot-run", ran, "{found}: {}", text(&run.stderr));
    if ran {
        answered(run);
        let stored = fs::read_to_string(lab.path().join("results/latest/environment.json")).expect("an environment");
        let stored: Value = serde_json::from_str(&stored).expect("JSON");
        let kernel = stored["kernel-release"].as_str().expect("a release");
        assert!(found["findings"][0]["value"].as_str().expect("a value").contains(kernel), "{found}");
    }
}

#[test]
fn doctor_says_whether_a_run_is_possible_and_changes_nothing() {
    let _machine = machine();
    let before = Host::at_rest();
    let lab = Lab::new();
    lab.file("pair.toml", EXPERIMENT);
    let diagnosis = lab.run(&["doctor", "--json"]);
    before.assert_untouched("doctor");
    agrees_with_a_run(&lab, &diagnosis, &lab.run(&["run", "pair.toml", "--admin", "off"]));
    let words = lab.run(&["doctor"]);
    assert_eq!(words.status.code(), diagnosis.status.code());
    let words = text(&words.stdout);
    assert!(words.lines().all(|line| line.chars().count() <= 80), "{words}");
    assert!(words.contains("\nShipped experiments\n  backlog "), "{words}");
}

#[test]
fn doctor_speaks_of_an_ordinary_user_as_one() {
    if !is_root() {
        return;
    }
    let _machine = machine();
    let lab = Lab::new();
    lab.file("pair.toml", EXPERIMENT);
    let as_user = |args: &[&str]| {
        ordinary_program(&lab).args(args).current_dir(lab.path()).output().expect("the built program starts")
    };
    let diagnosis = as_user(&["doctor", "--json"]);
    agrees_with_a_run(&lab, &diagnosis, &as_user(&["run", "pair.toml", "--admin", "off"]));
    let found = json(&diagnosis);
    let namespaces = found["findings"].as_array().expect("findings").iter().find(|f| f["name"] == "namespaces");
    let namespaces = namespaces.expect("a finding");
    assert!(
        namespaces["status"] == "missing" || namespaces["value"].as_str().is_some_and(|v| v.contains("ordinary user")),
        "{namespaces}"
    );
}

/// Runs the experiment; the name of its results directory.
fn run(lab: &Lab, experiment: &str) -> String {
    lab.file("pair.toml", experiment);
    answered(&lab.run(&["run", "pair.toml", "--admin", "off"]));
    let latest = lab.path().join("results/latest").canonicalize().expect("a results directory");
    latest.display().to_string()
}

fn refused(output: &Output, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in {said}");
    }
}

#[test]
fn compare_holds_two_runs_against_each_other_and_refuses_what_is_not_the_same() {
    let _machine = machine();
    let lab = Lab::new();
    let (a, b) = (run(&lab, EXPERIMENT), run(&lab, EXPERIMENT));
    let files = |directory: &str| -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
        let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
        files.sort();
        files.iter().map(|path| (path.display().to_string(), fs::read(path).expect("a file"))).collect()
    };
    let before = [files(&a), files(&b)];
    let compared = lab.run(&["compare", &a, &b, "--json"]);
    assert_eq!(compared.status.code(), Some(0), "{}", text(&compared.stderr));
    assert_eq!([files(&a), files(&b)], before, "it only reads");
    let found = json(&compared);
    let name = |path: &str| Path::new(path).file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(found["runs"], serde_json::json!([name(&a), name(&b)]));
    assert_eq!((&found["environment"], &found["sysctls"]), (&serde_json::json!([]), &serde_json::json!([])));
    let cells = found["cells"].as_array().expect("cells");
    assert_eq!(cells.iter().map(|cell| &cell["name"]).collect::<Vec<_>>(), ["backlog 4", "backlog 512"]);
    let served = &cells[0]["quantities"][0];
    let summary = |directory: &str| -> Value {
        serde_json::from_slice(&fs::read(Path::new(directory).join("summary.json")).expect("a summary")).expect("JSON")
    };
    for (side, directory) in [&a, &b].into_iter().enumerate() {
        let own = &summary(directory)["cells"][0]["quantities"]["served-ratio"];
        assert_eq!(&served["spreads"][side], own, "the figures of the run itself");
    }
    let words = text(&lab.run(&["compare", &a, &b]).stdout);
    assert!(words.contains("\nMachines: no difference\n") && words.contains("\nserved of planned"), "{words}");

    let other = run(&lab, &EXPERIMENT.replace("[4, 512]", "[4, 64]").replace("replicates = 2", "replicates = 1"));
    refused(&lab.run(&["compare", &a, &other]), &["only A has the cell backlog 512", "--common compares the 1 cell"]);
    let common = lab.run(&["compare", &a, &other, "--common", "--json"]);
    assert_eq!(common.status.code(), Some(0), "{}", text(&common.stderr));
    assert_eq!(json(&common)["cells"].as_array().map(Vec::len), Some(1));
    let faster = run(&lab, &EXPERIMENT.replace("rate = 400", "rate = 300"));
    let differs = ["loadgen.rate is 400.0 in A and 300.0 in B (2 cells)", "no cell in common"];
    refused(&lab.run(&["compare", &a, &faster, "--common"]), &differs);
    refused(&lab.run(&["compare", &a, "results/none"]), &["results/none"]);
}

#[test]
fn list_says_in_json_what_it_says_in_words() {
    let lab = Lab::new();
    let listed = json(&lab.run(&["list", "--json"]));
    let words = text(&lab.run(&["list"]).stdout);
    let experiments = listed["experiments"].as_array().expect("experiments");
    assert_eq!(experiments.len(), words.lines().count());
    for (experiment, line) in experiments.iter().zip(words.lines()) {
        assert!(line.starts_with(experiment["name"].as_str().expect("a name")), "{line}");
        assert!(line.contains(experiment["question"].as_str().expect("a question")), "{line}");
        assert!(line.contains(&format!("({} trials", experiment["trials"])), "{line}");
        let product = experiment["cells"].as_u64().zip(experiment["replicates"].as_u64()).map(|(a, b)| a * b);
        // Of a search it is the most it can take that stands there.
        let searches = experiment["name"] == "capacity";
        assert_eq!(
            product.cmp(&experiment["trials"].as_u64()),
            if searches { Ordering::Less } else { Ordering::Equal }
        );
        assert!(experiment["seconds"].as_f64().is_some_and(|seconds| seconds > 1.0), "{experiment}");
        assert!(!experiment["needs"].as_array().expect("needs").is_empty());
    }
}
