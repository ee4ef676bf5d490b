//! A run that was ended at any moment goes on where it was: every trial once, none lost, nothing left behind. And a part
//! of a run, and what programs are told of one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::{Agenda, Experiment};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use study::results::Trial;

use crate::host::{Host, answered, kill_runner, skip, with_role};
use crate::support::{Lab, acceptbench, machine, random, text};

/// Kills unless `ACCEPTBENCH_KILLS` says otherwise.
const KILLS: u64 = 8;

/// From a start to a kill at most, ms: a runner ends two or three trials within it.
const LONGEST: u64 = 700;

/// Three cells in a random order, a tenth of a second each.
fn experiment(replicates: u32) -> String {
    format!(
        r#"
        [experiment]
        name = "resumed"
        question = "is it all there?"
        replicates = {replicates}
        seed = 7
        warm-up = "0s"
        measure = "60ms"
        [loadgen]
        rate = 200
        deadline = "60ms"
        [sysctl]
        "net.ipv4.tcp_max_syn_backlog" = 77
        [[factor]]
        set = "server.backlog"
        to = [16, 128, 1024]
        "#
    )
}

fn lab(replicates: u32) -> Lab {
    let lab = Lab::new();
    lab.file("resumed.toml", &experiment(replicates));
    lab
}

fn start(lab: &Lab, args: &[&str]) -> Child {
    let mut command = acceptbench();
    command.args(["run", "--admin", "off"]).args(args).current_dir(lab.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// The results directory that a runner began, if it came that far.
fn begun(lab: &Lab) -> Option<PathBuf> {
    let entries = fs::read_dir(lab.path().join("results")).ok()?.filter_map(Result::ok);
    entries.map(|entry| entry.path()).find(|path| path.join("experiment.toml").exists() && !path.is_symlink())
}

/// The lines of `trials.jsonl` that were written to their end.
fn whole_lines(directory: &Path) -> String {
    let mut lines = fs::read_to_string(directory.join("trials.jsonl")).unwrap_or_default();
    lines.truncate(lines.rfind('\n').map_or(0, |end| end + 1));
    lines
}

fn trials(directory: &Path) -> Vec<Trial> {
    whole_lines(directory).lines().map(|line| serde_json::from_str(line).expect("a trial")).collect()
}

/// Every place of the seeded order was run, in that order; none has two records that count, or one more than it may.
fn assert_whole(directory: &Path) {
    let experiment = Experiment::read(&directory.join("experiment.toml")).expect("the experiment");
    let planned: Vec<_> = Agenda::new(&experiment).left().map(|p| (p.trial, p.block, p.cell)).collect();
    let records = trials(directory);
    let firsts = records.iter().filter(|trial| trial.retry == 0).map(|trial| (trial.trial, trial.block, trial.cell));
    assert_eq!(firsts.collect::<Vec<_>>(), planned, "each once, in the order of the seed");
    for (trial, ..) in planned {
        let of_place: Vec<&Trial> = records.iter().filter(|record| record.trial == trial).collect();
        let retries: Vec<usize> = of_place.iter().map(|record| record.retry).collect();
        assert_eq!(retries, (0..of_place.len()).collect::<Vec<_>>(), "trial {trial}");
        let (last, before) = of_place.split_last().expect("one record");
        assert!(before.iter().all(|record| !record.is_valid()), "trial {trial} was run again though it counts");
        assert!(last.is_valid() || last.retry == experiment.retries, "trial {trial} is missing");
    }
}

#[test]
fn a_run_killed_at_any_moment_is_resumed_until_every_trial_is_there_once() {
    let kills = std::env::var("ACCEPTBENCH_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number of kills"));
    let _machine = machine();
    let before = Host::at_rest();
    let (mut lab, mut kept, mut finished, mut sessions) = (lab(2), String::new(), 0, 0);
    let (mut number, mut killed) = (0, 0);
    // The last run is resumed to its end.
    while killed < kills || sessions > 0 {
        let directory = begun(&lab);
        let mut runner = match &directory {
            Some(directory) => start(&lab, &["--resume", directory.to_str().expect("a path")]),
            None => start(&lab, &["resumed.toml"]),
        };
        sessions += 1;
        number += 1;
        if killed < kills {
            std::thread::sleep(Duration::from_millis(random(number, LONGEST)));
        }
        if killed < kills && runner.try_wait().expect("a child").is_none() {
            kill_runner(runner, lab.path());
            killed += 1;
            if let Some(directory) = begun(&lab) {
                let now = whole_lines(&directory);
                assert!(now.starts_with(&kept), "what was kept stays");
                kept = now;
            }
            continue;
        }
        answered(&runner.wait_with_output().expect("a child"));
        let directory = begun(&lab).expect("results");
        assert!(whole_lines(&directory).starts_with(&kept), "what was kept stays");
        assert_whole(&directory);
        let report = text(&lab.run(&["report", directory.to_str().expect("a path")]).stdout);
        assert!(report.contains("Resumed") || sessions == 1 || kept.is_empty(), "{report}");
        (lab, kept, sessions) = (self::lab(2), String::new(), 0);
        finished += 1;
    }
    before.assert_untouched("killed and resumed");
    eprintln!("measured: {killed} kills over {finished} runs, {number} runners; each run has every trial once");
}

/// Waits until `count` trials are kept in `results/latest`.
fn kept(lab: &Lab, runner: &mut Child, count: usize) -> PathBuf {
    let began = Instant::now();
    let latest = lab.path().join("results/latest");
    while trials(&latest).len() < count {
        assert!(began.elapsed() < Duration::from_secs(20) && runner.try_wait().expect("a child").is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    latest
}

#[test]
fn a_second_runner_is_refused_and_an_interrupted_run_goes_on() {
    let _machine = machine();
    // Longer than a second runner waits for the first.
    let lab = lab(12);
    let mut first = start(&lab, &["resumed.toml"]);
    let latest = kept(&lab, &mut first, 1);
    let second = lab.run(&["run", "--resume"]);
    assert_eq!(second.status.code(), Some(64));
    let said = text(&second.stderr);
    assert!(said.starts_with("acceptbench: another runner is at work in results/resumed-"), "{said}");
    assert!(said.ends_with("; wait for its end, or stop it first\n") && said.lines().count() == 1, "{said}");
    kill_process(Pid::from_child(&first), Signal::INT).expect("a signal");
    let output = first.wait_with_output().expect("a child");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let words = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("acceptbench run --resume results/resumed-"), "its own name, not the link: {words}");
    let before = trials(&latest);
    // A torn line, and another kernel than the run began on.
    let mut torn = fs::read(latest.join("trials.jsonl")).expect("trials");
    let line = torn.clone();
    torn.extend(&line[..line.len() / 2 / before.len()]);
    fs::write(latest.join("trials.jsonl"), torn).expect("written");
    let environment = fs::read_to_string(latest.join("environment.json")).expect("the machine");
    let mut environment: Value = serde_json::from_str(&environment).expect("JSON");
    environment["kernel-release"] = "5.15.0".into();
    fs::write(latest.join("environment.json"), environment.to_string()).expect("written");
    let output = lab.run(&["run", "--resume", "--admin", "off"]);
    answered(&output);
    let said = text(&output.stderr);
    let settled = before.iter().filter(|trial| trial.is_valid()).count();
    assert!(said.contains(&format!("resumed: {settled} of 36 trials are stored; ")), "{said}");
    assert!(said.contains("warning: not all trials were run alike: kernel 5.15.0 → "), "{said}");
    assert_whole(&latest);
    assert_eq!(trials(&latest)[..before.len()], before);
    let report = fs::read_to_string(latest.join("report.md")).expect("a report");
    assert!(report.contains("- Resumed once.\n- not all trials were run alike: kernel 5.15.0 → "), "{report}");
    let course = fs::read_to_string(latest.join("run.json")).expect("how it went");
    assert_eq!(course.matches("\"resumed-elsewhere\"").count(), 1, "{course}");
    // A finished run has nothing to go on with, and answers again.
    let lines = whole_lines(&latest);
    let again = lab.run(&["run", "--resume", "--admin", "off"]);
    answered(&again);
    assert!(text(&again.stderr).contains("resumed: all of 36 trials are stored"), "{}", text(&again.stderr));
    assert_eq!((text(&again.stdout), whole_lines(&latest)), (text(&output.stdout), lines));
    called_by_its_own_name(&lab, &latest);
}

/// Whatever led to a run, what is kept of it and what programs are told has its own name, and the link stays a link.
fn called_by_its_own_name(lab: &Lab, latest: &Path) {
    let own = fs::read_link(latest).expect("a link");
    let resume = |way: &str, place: &Path| {
        let mut command = acceptbench();
        let output = command.args(["run", "--json", "--admin", "off", "--resume", way]).current_dir(place).output();
        let output = output.expect("the program starts");
        answered(&output);
        let end = text(&output.stdout).lines().last().map(serde_json::from_str::<Value>);
        let end = end.expect("a line").expect("a document");
        assert_eq!(fs::read_link(latest).expect("a link"), own, "{way}");
        assert_eq!(Path::new(end["directory"].as_str().expect("a path")).file_name(), Some(own.as_os_str()), "{way}");
    };
    resume("results/latest/", lab.path());
    resume(".", latest);
    answered(&lab.run(&["report"]));
    let report = fs::read_to_string(latest.join("report.md")).expect("a report");
    assert!(!report.contains("results/latest"), "{report}");
}

#[test]
fn a_trial_that_does_not_count_is_repeated_at_the_end_of_its_block() {
    let _machine = machine();
    let lab = Lab::new();
    let file = experiment(2).replace("measure = \"60ms\"", "measure = \"700ms\"\norder = \"as-written\"");
    lab.file("resumed.toml", &file.replace("to = [16, 128, 1024]", "to = [16, 128]"));
    let mut runner = start(&lab, &["resumed.toml"]);
    let latest = kept(&lab, &mut runner, 1);
    // The last of the first block: `__trial` of the next one is started while its record is made, and is not needed yet.
    let began = Instant::now();
    let generator = loop {
        if let Some(generator) = with_role(&runner, "__loadgen") {
            break generator;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no load began");
        std::thread::sleep(Duration::from_millis(2));
    };
    std::thread::sleep(Duration::from_millis(300));
    kill_process(generator, Signal::STOP).expect("a signal");
    std::thread::sleep(Duration::from_millis(200));
    kill_process(generator, Signal::CONT).expect("a signal");
    let output = runner.wait_with_output().expect("a child");
    answered(&output);
    assert_whole(&latest);
    let records = trials(&latest);
    let disturbed = records.iter().position(|record| record.trial == 1).expect("it was run");
    let reasons = &records[disturbed].invalid;
    assert!(reasons.iter().any(|reason| reason.starts_with("the generator was the bottleneck")), "{reasons:?}");
    let block: Vec<usize> = records.iter().map(|record| record.block).collect();
    assert!(block.is_sorted() && block.iter().filter(|block| **block == 0).count() > 2, "{block:?}");
    let said = text(&output.stderr);
    assert!(said.contains("trial 2 does not count: the generator was the bottleneck"), "{said}");
    assert!(said.contains("does not count, will be repeated"), "{said}");
    let csv = fs::read_to_string(latest.join("trials.csv")).expect("a table");
    assert!(csv.starts_with("trial,retry,") && csv.contains("\n1,0,") && csv.contains("\n1,1,"), "{csv}");
    let report = fs::read_to_string(latest.join("report.md")).expect("a report");
    assert!(report.contains("- trial 1 (backlog 128): the generator was the bottleneck"), "{report}");
    let screen = text(&output.stdout);
    assert!(screen.contains("left out"), "{screen}");
}

#[test]
fn a_bar_replaces_itself_within_the_columns_of_the_terminal() {
    // script(1) makes a terminal for it.
    if Command::new("script").arg("--version").output().is_err() {
        return skip("script not found; install the Debian package bsdutils");
    }
    let _machine = machine();
    let lab = lab(2);
    let line = format!("stty cols 60; {} run resumed.toml --admin off", env!("CARGO_BIN_EXE_acceptbench"));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env_clear().env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/sh");
    let output = command.current_dir(lab.path()).stdin(Stdio::null()).output().expect("script starts");
    answered(&output);
    let said = text(&output.stdout);
    // A line that replaces itself begins with this.
    let bars: Vec<&str> = said.split("\r\x1b[2K").filter(|part| part.starts_with('[')).collect();
    assert!(bars.len() >= 6, "one a trial: {said:?}");
    assert!(bars.iter().all(|bar| bar.chars().count() < 60 && bar.contains("  done by ")), "{bars:?}");
    assert!(bars[0].starts_with("[                ] 0/6  done by "), "{bars:?}");
    assert!(bars[bars.len() - 1].starts_with("[=============   ] 5/6  "), "{bars:?}");
    assert!(!said.contains(" left\r\n"), "no line a trial: {said}");
    assert!(said.contains("after 1 of 2:"), "{said}");
}

#[test]
fn a_part_runs_its_cells_only_and_programs_are_told_everything() {
    let _machine = machine();
    let lab = lab(2);
    let only = ["--only", "server.backlog >= 128", "--only", "server.backlog != 1024 and loadgen.rate = 200"];
    let args = [&["run", "resumed.toml", "--json", "--admin", "127.0.0.1:0"][..], &only].concat();
    let output = lab.run(&args);
    answered(&output);
    let said = text(&output.stderr);
    assert!(said.contains("resumed: 2 trials of about ") && said.contains(" done by "), "{said}");
    assert!(said.contains("This was a part") && said.contains("Ledger"), "the words go to stderr: {said}");
    let documents: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
    let events = |name: &str| documents.iter().filter(|document| document["event"] == name).collect::<Vec<_>>();
    let (start, end) = (&documents[0], documents.last().expect("an end"));
    assert_eq!((&start["event"], &end["event"]), (&"start".into(), &"end".into()));
    assert_eq!((&start["cells"], &start["trials"], &start["done"]), (&1.into(), &2.into(), &0.into()));
    assert_eq!(start["only"][1], "server.backlog != 1024 and loadgen.rate = 200");
    assert!(start["metrics"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")), "{start}");
    let latest = lab.path().join("results/latest");
    let records = trials(&latest);
    assert_eq!((events("began").len(), events("ended").len()), (records.len(), records.len()));
    for (record, ended) in records.iter().zip(events("ended")) {
        assert_eq!(record.settings["server.backlog"], "128");
        let verdicts = serde_json::to_value(&record.loadgen.measured.verdicts).expect("JSON");
        assert_eq!((&ended["verdicts"], &ended["trial"]), (&verdicts, &record.trial.into()));
        assert_eq!(ended["valid"], record.is_valid());
    }
    let last = events("ended")[records.len() - 1];
    assert_eq!((&last["done"], &last["expected-seconds"]), (&2.into(), &0.0.into()));
    assert_eq!(end["exit"]["code"], output.status.code().expect("a code"));
    assert_eq!(end["summary"]["trials"], records.len());
    assert!(end["notes"][0].as_str().is_some_and(|note| note.ends_with("were run, 1 of 3.")), "{end}");
    let report = lab.run(&["report"]);
    answered(&report);
    assert!(text(&report.stdout).contains("This was a part"), "{}", text(&report.stdout));
    let markdown = fs::read_to_string(latest.join("report.md")).expect("a report");
    assert!(markdown.contains("--only \"server.backlog >= 128\" --only \"server.backlog != 1024 and"), "{markdown}");
    // A part that is whole has nothing to resume.
    let again = lab.run(&["run", "--resume", "--admin", "off"]);
    answered(&again);
    assert_eq!(trials(&latest), records);
}

#[test]
fn what_cannot_be_resumed_or_selected_is_said_in_one_line() {
    let _machine = machine();
    let lab = lab(1);
    for (args, words) in [
        (&["run", "--resume"][..], "cannot read the results directory results/latest: "),
        (&["run", "--resume", "nowhere"], "; name the directory of a run, or run an experiment first"),
        (&["run", "--resume", "."], "holds no experiment.toml"),
        (&["run"], "<EXPERIMENT>"),
        (&["run", "resumed.toml", "--resume"], "cannot be used with '--resume [<DIR>]'"),
        (&["run", "resumed.toml", "--only", "server.backlog = 17"], "--only: `server.backlog = 17` matches no cell"),
        (
            &["run", "resumed.toml", "--only", "backlog = 16"],
            "--only: evaluate `backlog = 16`: `backlog` is not a setting",
        ),
        (&["run", "resumed.toml", "--only", "server.backlog"], "'--only <CONDITION>': read the condition"),
        (&["run", "--resume", "--only", "server.backlog = 16"], "cannot be used with"),
        (&["run", "--resume", "--results", "elsewhere"], "cannot be used with"),
    ] {
        let output = lab.run(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {said}");
        assert!(said.contains(words) && said.lines().count() == 1, "{args:?}: {said}");
    }
    assert!(!lab.path().join("results").exists());
}
