//! `acceptbench merge`: the snapshots of a load's shards as one. Nothing is run.

use std::fs;
use std::io::Read;
use std::path::Path;

use loadgen::Snapshot;
use serde::Deserialize;
use serde_json::Value;
use study::format;
use study::merge::{Build, Part};

use crate::cli::MergeArgs;
use crate::exit::{End, Failure};
use crate::loadgen::summary;
use crate::terminal::{note, say};

/// Counts beyond this are no counts: thousands of shards could not be added up.
const MOST: u64 = 1 << 53;

/// Merges and prints.
pub(crate) fn merge(args: &MergeArgs) -> Result<End, Failure> {
    let mut parts = Vec::new();
    for file in &args.files {
        let (name, text) = read(file)?;
        parts.extend(snapshots(&name, &text)?);
    }
    let merged = study::merge::merge(parts).map_err(Failure::usage)?;
    if args.json {
        say(&serde_json::to_string(&merged).map_err(Failure::requirement)?);
    } else {
        say(format!("acceptbench loadgen {}", merged.books.opts.to_args().join(" ")).trim_end());
        say(&format!("merged from {}", format::plural(merged.shards.len(), "shard")));
        for line in summary::lines(&merged.books) {
            say(&line);
        }
    }
    for about in merged.notes() {
        note(&format!("warning: {about}"));
    }
    for warning in summary::warnings(&merged.books.limits) {
        note(&warning);
    }
    Ok(if merged.books.limits.is_empty() { End::Success } else { End::Invalid })
}

/// A file's name in messages, and what it holds.
fn read(file: &Path) -> Result<(String, String), Failure> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut text);
        let name = "standard input".to_owned();
        read.map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
        return Ok((name, String::from_utf8_lossy(&text).into_owned()));
    }
    let name = file.display().to_string();
    let text = fs::read(file).map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
    Ok((name, String::from_utf8_lossy(&text).into_owned()))
}

/// The snapshots in a text: JSON documents one after the other, or lines of which some are JSON documents.
fn snapshots(name: &str, text: &str) -> Result<Vec<Part>, Failure> {
    let documents: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    let documents: Vec<(String, Value)> = match documents {
        Ok(documents) if documents.len() == 1 => documents.into_iter().map(|one| (name.to_owned(), one)).collect(),
        Ok(documents) => (1..).zip(documents).map(|(n, one)| (format!("document {n} of {name}"), one)).collect(),
        // A log: words in between are none of ours.
        Err(_) => (1..)
            .zip(text.lines())
            .filter_map(|(n, line)| {
                Some((format!("{name}:{n}"), serde_json::from_str(line.get(line.find('{')?..)?).ok()?))
            })
            .collect(),
    };
    let mut parts = Vec::new();
    let mut began = false;
    for (place, document) in documents {
        match document.get("event").and_then(Value::as_str) {
            None if document.get("opts").is_some() => parts.push(part(place, &document)?),
            Some("end") => match document.get("snapshot") {
                Some(snapshot) => {
                    let interrupted = document["exit"]["code"] == End::Interrupted.code();
                    parts.push(Part { interrupted, ..part(place, snapshot)? });
                }
                None => {
                    return Err(Failure::Usage(format!(
                        "{place} is the end of an older acceptbench, without its snapshot"
                    )));
                }
            },
            event => began |= event.is_some(),
        }
    }
    if let [only] = parts.as_mut_slice() {
        name.clone_into(&mut only.name);
    }
    match (parts.is_empty(), began) {
        (false, _) => Ok(parts),
        (true, true) => Err(Failure::Usage(format!(
            "{name} has no end: its load generator still runs, or was killed; ask the /snapshot of one that runs"
        ))),
        (true, false) => Err(Failure::Usage(format!(
            "{name} holds no snapshot; give what /snapshot of a load generator answers, or what loadgen --json printed"
        ))),
    }
}

fn part(name: String, document: &Value) -> Result<Part, Failure> {
    let wrong = |error: String| Failure::Usage(format!("{name} is no snapshot of a load generator: {error}"));
    for phase in ["warm-up", "measured"] {
        plausible(&document[phase]).map_err(|count| wrong(format!("{count} attempts in its {phase}")))?;
    }
    let build = Build::deserialize(document).map_err(|error| wrong(error.to_string()))?;
    let books = Snapshot::deserialize(document).map_err(|error| wrong(error.to_string()))?;
    Ok(Part { name, build, books, interrupted: false })
}

/// Sums and maxima of times may be any number; `Err` is a count that is none.
fn plausible(value: &Value) -> Result<(), u64> {
    match value {
        Value::Number(number) => number.as_u64().filter(|count| *count > MOST).map_or(Ok(()), Err),
        Value::Array(values) => values.iter().try_for_each(plausible),
        Value::Object(fields) => {
            fields.iter().filter(|(key, _)| *key != "sum" && *key != "max").try_for_each(|(_, value)| plausible(value))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use loadgen::Verdict;
    use serde_json::json;

    use super::*;

    fn document(shard: &str) -> Value {
        let mut books = Snapshot::default();
        books.opts.shard = Some(shard.parse().expect("a shard"));
        books.measured.verdicts.insert(Verdict::Served, 3);
        books.measured.lag.record(u64::MAX);
        serde_json::to_value(crate::pages::Signed::new(&books)).expect("JSON")
    }

    fn names(text: &str) -> Vec<(String, String)> {
        let parts = snapshots("f", text).expect("snapshots");
        parts.into_iter().map(|part| (part.name, part.books.opts.shard.expect("a shard").to_string())).collect()
    }

    fn refused(text: &str) -> String {
        snapshots("f", text).expect_err("no snapshot").message().to_owned()
    }

    #[test]
    fn snapshots_are_found_wherever_they_stand() {
        let [one, two] = ["1/2", "2/2"].map(document);
        let end = json!({ "event": "end", "planned": 3, "snapshot": two });
        let found = |names: &[(&str, &str)]| -> Vec<(String, String)> {
            names.iter().map(|(name, shard)| ((*name).to_owned(), (*shard).to_owned())).collect()
        };
        assert_eq!(names(&one.to_string()), found(&[("f", "1/2")]));
        assert_eq!(names(&serde_json::to_string_pretty(&one).expect("JSON")), found(&[("f", "1/2")]));
        assert_eq!(names(&format!("{one}{two}\n")), found(&[("document 1 of f", "1/2"), ("document 2 of f", "2/2")]));
        let stopped = json!({ "event": "end", "exit": { "code": 130 }, "snapshot": two });
        let interrupted = |text: &str| snapshots("f", text).expect("a snapshot")[0].interrupted;
        assert!(interrupted(&stopped.to_string()) && !interrupted(&end.to_string()));
        let log = format!("connecting to x\n{one}\n{{\"event\":\"progress\"}}\nload_2.x | {end}\n{{ no JSON\n");
        assert_eq!(names(&log), found(&[("f:2", "1/2"), ("f:4", "2/2")]));
    }

    #[test]
    fn who_wrote_it_is_kept() {
        let parts = snapshots("f", &document("1/1").to_string()).expect("a snapshot");
        assert_eq!(parts[0].build.version, crate::pages::VERSION);
        let mut old = document("1/1");
        old.as_object_mut().expect("an object").retain(|key, _| key != "version" && key != "revision");
        assert_eq!(snapshots("f", &old.to_string()).expect("a snapshot")[0].build, Build::default());
    }

    #[test]
    fn what_is_no_snapshot_is_refused_and_why() {
        assert!(refused("").starts_with("f holds no snapshot; give what /snapshot"));
        assert!(refused("planned 3  issued 3").starts_with("f holds no snapshot"));
        assert!(
            refused("{\"event\":\"start\"}\n{\"event\":\"progress\"}\n")
                .starts_with("f has no end: its load generator")
        );
        assert!(refused("{\"event\":\"end\"}").starts_with("f is the end of an older acceptbench"));
        assert!(refused("{\"opts\":{}}").starts_with("f is no snapshot of a load generator: missing field"));
        let mut wrong = document("1/1");
        wrong["measured"]["verdicts"]["served"] = json!(u64::MAX);
        assert!(refused(&wrong.to_string()).contains("18446744073709551615 attempts in its measured"));
        let mut wrong = document("1/1");
        wrong["measured"]["lag"]["count"] = json!(2);
        assert!(refused(&wrong.to_string()).contains("count says 2 values, its buckets hold 1"));
    }
}
