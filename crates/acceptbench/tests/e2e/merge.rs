//! Four processes that share one load, and `acceptbench merge` of what they said: exactly the load of one process.

use std::process::{Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use loadgen::{PhaseCounts, Snapshot};
use rerun::{Own, in_namespaces};
use serde_json::Value;

use crate::loadgen::Server;
use crate::support::{Lab, acceptbench, part_of_the_machine, text};

/// A load whose instants are random, with a warm-up.
const LOAD: [&str; 12] = [
    "loadgen",
    "--json",
    "--admin",
    "off",
    "--arrivals",
    "poisson",
    "--rate",
    "500",
    "--duration",
    "2s",
    "--warm-up",
    "500ms",
];

/// Runs the load several times at once, each with `more` of its own; a shard that was late is a result, too.
fn run_all(more: &[&str]) -> Vec<String> {
    let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 3;
    let children = more.iter().map(|more| {
        let mut command = acceptbench();
        command.args(LOAD).arg(format!("--start-at=@{start}")).args(more.split_whitespace());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the built program starts")
    });
    let children: Vec<_> = children.collect();
    let outputs = children.into_iter().map(|child| {
        let output = child.wait_with_output().expect("a child");
        assert!(matches!(output.status.code(), Some(0 | 2)), "{}", text(&output.stderr));
        text(&output.stdout)
    });
    outputs.collect()
}

fn last(log: &str) -> Value {
    serde_json::from_str(log.lines().last().expect("a line")).expect("JSON")
}

fn snapshot(value: &Value) -> Snapshot {
    serde_json::from_value(value.clone()).expect("a snapshot")
}

/// What does not depend on how the load was divided: nothing but the plan.
fn planned(counts: &PhaseCounts) -> (u64, u64) {
    (counts.planned, counts.concluded())
}

fn refused(output: &Output, says: &str) {
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(64), 1), "{said}");
    assert!(said.contains(says), "{says}: {said}");
}

#[test]
fn four_processes_are_one_load() {
    let _machine = part_of_the_machine();
    in_namespaces("merge::four_processes_are_one_load", Own::Network, || {
        let _server = Server::start(&[]);
        let logs =
            run_all(&["--shard 1/4", "--shard 2/4", "--shard index:2/4", "--shard 4/4", "", "--shard 2/4 --seed 9"]);
        let lab = Lab::new();
        for (name, log) in ["1", "2", "3", "4", "whole", "other"].into_iter().zip(&logs) {
            lab.file(name, log);
        }
        let [shards @ .., whole, _] = logs.as_slice() else { panic!("six") };
        let whole = snapshot(&last(whole)["snapshot"]);

        let output = lab.run(&["merge", "4", "1", "3", "2", "--json"]);
        assert!(matches!(output.status.code(), Some(0 | 2)), "{}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let merged = snapshot(&document);
        assert_eq!(merged.opts, whole.opts, "the same plan, without a shard");
        assert_eq!(planned(&merged.measured), planned(&whole.measured));
        assert_eq!(planned(&merged.warm_up), planned(&whole.warm_up));
        let mut sum = PhaseCounts::default();
        for shard in shards {
            let end = last(shard);
            assert!(end["planned"].as_u64() < Some(whole.measured.planned / 2), "a part: {end}");
            sum.absorb(&snapshot(&end["snapshot"]).measured);
        }
        assert_eq!(merged.measured, sum);
        assert_eq!(merged.measured.connect_latency.count, merged.measured.established);
        let shards = document["shards"].as_array().expect("shards").iter();
        assert_eq!(
            shards.map(|shard| shard["shard"].as_str()).collect::<Vec<_>>(),
            ["1/4", "2/4", "3/4", "4/4"].map(Some)
        );

        // As a log of all of them would be, read from standard input.
        let log = lab.file("log", &logs[..4].concat());
        let mut command = acceptbench();
        command.args(["merge", "-"]).stdin(std::fs::File::open(log).expect("a file"));
        let output = command.output().expect("the built program starts");
        let said = text(&output.stdout);
        let head = format!("planned {}  issued {}  in ", sum.planned, sum.issued);
        assert!(said.contains("merged from 4 shards\n") && said.contains(&head), "{said}");
        assert!(said.contains(&format!("(and {} in the warm-up)", whole.warm_up.planned)), "{said}");
        assert!(said.contains("first byte, from planned"), "{said}");

        refused(&lab.run(&["merge", "1", "2", "4"]), "shard 3/4 is missing; give its snapshot too");
        refused(&lab.run(&["merge", "1", "2", "3", "4", "2"]), "shard 2/4 is given twice, by 2 and by 2; leave one");
        refused(
            &lab.run(&["merge", "1", "other", "3", "4"]),
            "seed is 1 in 1 and 9 in other: these are parts of different loads",
        );
        refused(&lab.run(&["merge", "1", "whole"]), "these are parts of different loads");
        refused(&lab.run(&["merge", "nowhere"]), "cannot read nowhere: No such file");
        lab.file("cut", &logs[0].split_inclusive('\n').take(2).collect::<String>());
        refused(&lab.run(&["merge", "cut"]), "cut has no end: its load generator still runs, or was killed");
    });
}
