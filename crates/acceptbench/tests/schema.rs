//! The schema of experiment files: the committed one is the generated one, everything shipped fits it, and what is wrong
//! does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jsonschema::Validator;
use serde_json::Value;

/// The file that editors read.
const COMMITTED: &str = include_str!("../../../experiments/experiment.schema.json");

/// A valid experiment; each wrong one breaks it.
const BASE: &str = r#"
[experiment]
name = "small"
question = "does it fit?"
measure = "300ms"
[server]
backlog = 16
accept-delay = "exp:500us"
[loadgen]
rate = "2.5k"
workers = 1
[sysctl]
"net.ipv4.tcp_syncookies" = 0
[[factor]]
set = "sysctl.net.core.somaxconn"
to = [16, 128]
[[factor]]
levels = [{ "server.backlog" = 16, "half-open.count" = 3 }, { "server.backlog" = 64, "half-open.count" = 9 }]
[[expect]]
that = "overflows>0 and served-ratio >= 12 %"
[compare]
metrics = ["served-ratio"]
by = "ranges"
"#;

/// A piece of it, and what makes it wrong.
const WRONG: [(&str, &str); 18] = [
    ("name = \"small\"", "name = \"Small one\""),
    ("question = \"does it fit?\"", ""),
    ("measure = \"300ms\"", "measure = 300"),
    ("measure = \"300ms\"", "replicates = 0"),
    ("measure = \"300ms\"", "order = \"shuffled\""),
    ("measure = \"300ms\"", "topology = \"attached\"\nmeasure = \"1s\""),
    ("backlog = 16\n", "backlog = -1\n"),
    ("backlog = 16\n", "backlogs = 16\n"),
    ("backlog = 16\n", "listen = \"127.0.0.1:1\"\n"),
    ("\"exp:500us\"", "\"exp:500\""),
    ("\"2.5k\"", "0"),
    ("workers = 1", "workers = 0"),
    ("\"net.ipv4.tcp_syncookies\" = 0", "\"fs.file-max\" = 0"),
    ("\"sysctl.net.core.somaxconn\"", "\"sysctl.somaxconn\""),
    ("to = [16, 128]", "levels = [{ \"server.backlog\" = 16 }]"),
    ("\"half-open.count\" = 9", "\"half-open.cuont\" = 9"),
    ("[\"served-ratio\"]", "[\"served-ration\"]"),
    ("by = \"ranges\"", "by = \"range\""),
];

fn validator() -> Validator {
    let schema = lab::schema();
    jsonschema::draft202012::meta::validate(&schema).expect("the schema is a JSON Schema");
    jsonschema::draft202012::new(&schema).expect("the schema compiles")
}

/// What of a file does not fit.
fn misfits(validator: &Validator, text: &str) -> Vec<String> {
    let file: Value = toml::from_str(text).expect("TOML");
    validator.iter_errors(&file).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments")
}

#[test]
fn the_committed_schema_is_the_generated_one_and_what_the_program_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_acceptbench")).arg("schema").output().expect("the program starts");
    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8(output.stdout).expect("text");
    assert_eq!(serde_json::from_str::<Value>(&printed).expect("JSON"), lab::schema());
    assert!(
        printed == COMMITTED,
        "experiments/experiment.schema.json is old; acceptbench schema > experiments/experiment.schema.json"
    );
}

#[test]
fn every_shipped_experiment_fits_and_tells_its_editor_so() {
    let validator = validator();
    let mut seen = 0;
    for entry in fs::read_dir(experiments()).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(&path).expect("an experiment");
            assert_eq!(misfits(&validator, &text), Vec::<String>::new(), "{}", path.display());
            assert!(text.starts_with("#:schema ./experiment.schema.json\n"), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} experiments");
}

#[test]
fn what_the_program_refuses_the_schema_refuses_too() {
    let validator = validator();
    lab::Experiment::parse("base.toml", BASE).expect("valid");
    assert_eq!(misfits(&validator, BASE), Vec::<String>::new());
    for (piece, wrong) in WRONG {
        assert_eq!(BASE.matches(piece).count(), 1, "`{piece}`");
        let text = BASE.replacen(piece, wrong, 1);
        assert!(lab::Experiment::parse("wrong.toml", &text).is_err(), "accepted: {wrong}");
        assert_ne!(misfits(&validator, &text), Vec::<String>::new(), "fits: {wrong}");
    }
}

#[test]
fn a_target_stands_in_the_place_of_the_server() {
    let base = "[experiment]\nname = \"t\"\nquestion = \"?\"\n[target]\ncommand = [\"x\", \"{size}\"]\n\
                [target.values]\nsize = 5\n[target.files]\n\"x.conf\" = \"{port}\"\n[[factor]]\n\
                set = \"target.values.size\"\nto = [1, 2]\n[[factor]]\nlevels = [{ \"target.files.x.conf\" = \"\" }]\n";
    let validator = validator();
    lab::Experiment::parse("base.toml", base).expect("valid");
    assert_eq!(misfits(&validator, base), Vec::<String>::new());
    for (piece, wrong) in [
        ("[target]\n", "[server]\nbacklog = 5\n[target]\n"),
        ("command = ", "stop-signal = \"STOP\"\ncommand = "),
        ("command = [\"x\", \"{size}\"]\n", ""),
        ("size = 5", "size = [5]"),
        ("size = 5", "size = 5\nSize = 6"),
        ("\"target.values.size\"", "\"target.value.size\""),
    ] {
        let text = base.replacen(piece, wrong, 1);
        assert!(lab::Experiment::parse("wrong.toml", &text).is_err(), "accepted: {wrong}");
        assert_ne!(misfits(&validator, &text), Vec::<String>::new(), "fits: {wrong}");
    }
}

#[test]
fn every_option_has_a_description_and_a_default_where_it_has_one() {
    let schema = lab::schema();
    for table in ["Server", "Target", "Loadgen", "HalfOpen", "Experiment", "Attach", "Search"] {
        let keys = schema["$defs"][table]["properties"].as_object().unwrap_or_else(|| panic!("no table {table}"));
        assert!(!keys.is_empty());
        for (key, option) in keys {
            assert!(option["description"].as_str().is_some_and(|text| text.len() > 10), "{table}.{key}: {option}");
        }
    }
    assert_eq!(schema["$defs"]["Server"]["properties"]["backlog"]["default"], 128);
    assert_eq!(schema["$defs"]["Loadgen"]["properties"]["deadline"]["default"], "5s");
    assert_eq!(schema["$defs"]["Loadgen"]["properties"]["keep"]["type"], "integer", "no null: TOML has none");
}
