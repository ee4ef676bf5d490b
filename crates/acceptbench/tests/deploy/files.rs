//! What the tests share: files of the repository, their variables, YAML, and this program with the arguments that stand there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_yaml::Value;

/// A path below the root of the repository.
pub(super) fn path(below: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(below)
}

/// The text of a file of the repository.
pub(super) fn read(below: &str) -> String {
    std::fs::read_to_string(path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
}

/// `${NAME:-default}` and `${NAME:?why}` as pairs of the name and what follows its colon, in order; no other form is used.
pub(super) fn variables(text: &str) -> Vec<(&str, &str)> {
    let inner = text.split("${").skip(1).map(|rest| rest.split_once('}').expect("a closed ${").0);
    let pairs = inner.map(|variable| variable.split_once(':').unwrap_or_else(|| panic!("{variable} has no default")));
    let checked = pairs.inspect(|(name, rest)| {
        assert!(name.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{name}");
        assert!(rest.starts_with(['-', '?']), "{name}:{rest}");
    });
    checked.collect()
}

/// YAML as an engine reads it with `given` in its environment and nothing else.
pub(super) fn with_defaults(text: &str, given: &[(&str, &str)]) -> Value {
    let mut filled = text.to_owned();
    for (name, rest) in variables(text) {
        let given = given.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let value = given.or(rest.strip_prefix('-')).unwrap_or_else(|| panic!("{name} must be given"));
        filled = filled.replace(&format!("${{{name}:{rest}}}"), value);
    }
    let mut value: Value = serde_yaml::from_str(&filled).expect("YAML");
    value.apply_merge().expect("merge keys");
    value
}

/// Every variable of a file stands in `docs`.
pub(super) fn assert_documented(text: &str, docs: &str) {
    for (name, _) in variables(text) {
        assert!(docs.contains(&format!("`{name}`")), "docs/deploy.md does not name {name}");
    }
}

pub(super) fn str_of<'a>(value: &'a Value, what: &str) -> &'a str {
    value.as_str().unwrap_or_else(|| panic!("{what}: {value:?}"))
}

/// The items of a list; none where there is no list.
pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_sequence().into_iter().flatten()
}

pub(super) fn strings(value: &Value) -> Vec<String> {
    items(value).map(|item| str_of(item, "a text").to_owned()).collect()
}

/// The names and values of a mapping.
pub(super) fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let mapping = value.as_mapping().unwrap_or_else(|| panic!("no mapping: {value:?}"));
    mapping.iter().map(|(key, value)| (str_of(key, "key"), value))
}

pub(super) fn keys(value: &Value) -> BTreeSet<&str> {
    fields(value).map(|(key, _)| key).collect()
}

/// The texts of a mapping.
pub(super) fn texts(value: &Value) -> BTreeMap<String, String> {
    fields(value).map(|(key, value)| (key.to_owned(), str_of(value, "a text, in quotes").to_owned())).collect()
}

/// Options of `ACCEPTBENCH_{ROLE}_*` as flags of the same names.
pub(super) fn flags(role: &str, options: &BTreeMap<String, String>) -> Vec<String> {
    let prefix = format!("ACCEPTBENCH_{}_", role.to_uppercase());
    let flag = |(name, value): (&String, &String)| {
        let option = name.strip_prefix(&prefix).unwrap_or_else(|| panic!("{name} is not of {role}"));
        format!("--{}={value}", option.to_lowercase().replace('_', "-"))
    };
    options.iter().map(flag).collect()
}

/// This program, with these arguments and nothing in its environment.
pub(super) fn acceptbench(args: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_acceptbench")).args(args).env_clear().output().expect("the built program starts")
}

/// This program would run with these arguments: it reads them all before it helps.
pub(super) fn assert_takes(mut args: Vec<String>) {
    args.push("--help".to_owned());
    let output = acceptbench(&args);
    assert!(output.status.success(), "{args:?}: {output:?}");
}
