//! Targets that do everything wrong: what is said of each, and that nothing is left of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{installed, nobody_is_left, targets_left};
use crate::bad_input::file_is_refused;
use crate::host::answered;
use crate::support::{Lab, acceptbench, machine, text};

/// An experiment about a target made of a shell command.
fn shell(script: &str, more: &str) -> String {
    format!(
        "[experiment]\nname = \"target\"\nquestion = \"what is wrong with it?\"\nreplicates = 1\nwarm-up = \"0s\"\n\
         measure = \"100ms\"\ntopology = \"loopback\"\n[target]\ncommand = [\"sh\", \"-c\", '''{script}''']\n{more}\n\
         [loadgen]\nrate = 100\ndeadline = \"100ms\"\nconfirm = \"none\"\n"
    )
}

/// A word by which the processes of a test are known, wherever they went.
fn mark(what: &str) -> String {
    format!("{what}-{}", std::process::id())
}

/// The run ends with one line that has these words and names command and log; nothing of the target is left.
fn fails(script: &str, more: &str, word: &str, words: &[&str]) -> String {
    let lab = Lab::new();
    lab.file("bad.toml", &shell(script, more));
    let output = lab.run(&["run", "bad.toml", "--admin", "off"]);
    let said = text(&output.stderr);
    let last = said.lines().last().expect("a line").to_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert_eq!(said.matches("acceptbench: ").count(), 1, "one complaint: {said}");
    for word in words.iter().chain(&["target `", "sh -c", "; its log is "]) {
        assert!(last.contains(word), "`{word}` is not in `{last}`");
    }
    let (_, log) = last.split_once("its log is ").expect("a log");
    assert!(Path::new(log).is_file(), "{log}");
    nobody_is_left(word, &lab);
    last
}

#[test]
fn a_target_that_never_listens_is_named_with_its_log_and_gone() {
    let _machine = machine();
    let word = mark("never");
    let began = Instant::now();
    let ready = "ready = \"300ms\"";
    fails(
        &format!(": {word}; sleep 600"),
        ready,
        &word,
        &["listened at no 127.0.0.1:9700 within 300ms", "target.ready"],
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    if installed("python3") {
        let word = mark("elsewhere");
        let script = format!("exec python3 -m http.server 9701 --bind {{address}} --directory {{dir}} # {word}");
        let hint = "it listens at 127.0.0.1:9701 instead: have it use {address} and {port}";
        fails(&script, "ready = \"3s\"", &word, &[hint]);
    }
}

#[test]
fn a_target_that_exits_at_once_is_told_with_its_last_words() {
    let _machine = machine();
    let word = mark("exits");
    fails(
        &format!(": {word}; echo no such option >&2; exit 3"),
        "",
        &word,
        &["ended (exit code 3) before it listened", "it last said: no such option"],
    );
    fails(&format!(": {word}; kill -9 $$"), "", &word, &["ended (signal 9) before it listened"]);
}

#[test]
fn a_file_of_its_own_can_be_the_program() {
    let _machine = machine();
    let lab = Lab::new();
    let files = "[target.files]\n\"run.sh\" = \"#!/bin/sh\\nexit 5\\n\"\n";
    let text_of = shell("true", files).replace("[\"sh\", \"-c\", '''true''']", "[\"{dir}/run.sh\"]");
    lab.file("own.toml", &text_of);
    let output = lab.run(&["run", "own.toml", "--admin", "off"]);
    let said = text(&output.stderr);
    assert!(said.contains("run.sh` ended (exit code 5) before it listened"), "{said}");
}

#[test]
fn listeners_that_never_stand_still_are_named() {
    if !installed("python3") {
        return;
    }
    let _machine = machine();
    let word = mark("restless");
    let program = "import socket, time\nwhile True:\n s = socket.create_server((\"127.0.0.1\", 9700))\n time.sleep(0.02)\n s.close()";
    let script = format!("exec python3 -c '{program}' {word}");
    fails(&script, "ready = \"300ms\"", &word, &["kept no listener at 127.0.0.1:9700 open within 300ms"]);
}

#[test]
fn a_target_that_goes_to_the_background_is_refused_and_killed_wherever_it_went() {
    let _machine = machine();
    let word = mark("daemon");
    // A session of its own, and an orphan: only the trial's PID namespace still holds it.
    let script = format!("setsid sh -c 'sleep 600; : {word}' & exit 0");
    fails(&script, "", &word, &["put itself in the background", "daemon off"]);
    if installed("redis-server") {
        let word = mark("redis-daemon");
        let script = format!("exec redis-server --daemonize yes --port {{port}} --save '' --dir {{dir}} # {word}");
        let script = script.replace(&format!(" # {word}"), &format!(" --proc-title-template {word}"));
        fails(&script, "", &word, &["put itself in the background", "daemonize no"]);
    }
}

#[test]
fn a_target_that_ignores_its_stop_signal_is_killed_and_named() {
    if !installed("python3") {
        return;
    }
    let _machine = machine();
    let word = mark("deaf");
    let script = format!(
        "trap \"\" TERM; : {word}; exec python3 -m http.server {{port}} --bind {{address}} --directory {{dir}}"
    );
    let last = fails(&script, "ready = \"10s\"", &word, &["did not end within 5 s of SIGTERM", "target.stop-signal"]);
    assert!(!last.contains("before it listened"), "{last}");
    // The same with a signal that it does not ignore.
    let lab = Lab::new();
    lab.file("good.toml", &shell(&script, "ready = \"10s\"\nstop-signal = \"KILL\""));
    answered(&lab.run(&["run", "good.toml", "--admin", "off"]));
    assert_eq!(targets_left(&lab), Vec::<PathBuf>::new());
    nobody_is_left(&word, &lab);
}

#[test]
fn a_target_that_ends_during_the_trial_ends_the_run() {
    if !installed("python3") {
        return;
    }
    let _machine = machine();
    let lab = Lab::new();
    let script = "python3 -m http.server {port} --bind {address} --directory {dir} & sleep 1; kill $!; exit 7";
    lab.file("ends.toml", &shell(script, "ready = \"10s\"").replace("measure = \"100ms\"", "measure = \"4s\""));
    let output = lab.run(&["run", "ends.toml", "--admin", "off"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("ended (exit code 7) during the trial"), "{said}");
    nobody_is_left("/results/target-", &lab);
}

/// A valid file; each case breaks it.
fn valid(more: &str) -> String {
    shell("sleep 1", more)
}

#[test]
fn what_is_wrong_with_the_file_is_named_with_its_line() {
    let _machine = machine();
    file_is_refused(&valid("comand = [\"x\"] # here"), &["unknown field `comand`", "`command`"]);
    file_is_refused(
        &valid("[target.files]\n\"a.conf\" = \"listen {prot};\"").replace("[target.files]", "[target.files] # here"),
        &["target.files.a.conf: the placeholder {prot} names nothing", "target.values.prot", "{port}"],
    );
    let command = "command = [\"sh\", \"-c\", '''sleep 1''']";
    file_is_refused(
        &valid("").replace(command, "command = [\"nginx\", \"{conf}\"] # here"),
        &["target.command: the placeholder {conf} names nothing"],
    );
    file_is_refused(&valid("").replace(command, "command = [] # here"), &["target.command names no program"]);
    file_is_refused(&valid("").replace(command, "port = 80").replace("[target]", "[target] # here"), &["command"]);
    file_is_refused(&valid("port = 0 # here"), &["port: ", "0"]);
    file_is_refused(&valid("ready = \"2m\" # here"), &["target.ready", "1m"]);
    file_is_refused(&valid("stop-signal = \"STOP\" # here"), &["stop-signal", "`STOP`", "TERM"]);
    file_is_refused(&valid("pause = \"soon\" # here"), &["pause", "`soon`", "0s+forever"]);
    file_is_refused(
        &valid("[server]\nbacklog = 7 # here"),
        &["[server] beside [target]", "target.values.NAME", "leave one of the two tables out"],
    );
    file_is_refused(
        &valid("[[expect]]\nthat = \"accepted > 0\" # here"),
        &["accepted has no value with [target]", "`entered`"],
    );
    file_is_refused(
        &valid("[search]\nfind = \"loadgen.rate\"\nbetween = [100, 200]\nwhile = \"accept-rate > 10\" # here"),
        &["accept-rate has no value with [target]"],
    );
    let factor = |set: &str, to: &str| valid(&format!("[[factor]]\nset = \"{set}\"\nto = [\n{to} # here\n]"));
    file_is_refused(&factor("server.backlog", "16"), &["server.backlog cannot be set beside [target]"]);
    file_is_refused(&factor("target.value.x", "16"), &["unknown setting `target.value.x`", "target.values.NAME"]);
    file_is_refused(&factor("target.prot", "16"), &["unknown field `prot`"]);
    let without = valid("").replace(&format!("[target]\n{command}\n"), "");
    let pause = format!("{without}[[factor]]\nset = \"target.pause\"\nto = [\n\"0s+1s\" # here\n]\n");
    file_is_refused(&pause, &["target.pause needs a [target] table"]);
}

#[test]
fn a_program_that_is_not_there_is_named_before_anything_is_made_and_check_goes_on() {
    let _machine = machine();
    let command = "command = [\"sh\", \"-c\", '''sleep 1''']";
    let lab = Lab::new();
    lab.file("unknown.toml", &valid("").replace(command, "command = [\"no-such-server\"]"));
    let output = lab.run(&["run", "unknown.toml", "--admin", "off"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("target.command: `no-such-server` is nowhere in PATH"), "{said}");
    let checked = lab.run(&["check", "unknown.toml"]);
    assert_eq!(checked.status.code(), Some(0));
    assert!(text(&checked.stdout).contains("in the server's place: no-such-server, which is nowhere in PATH here"));
    if !Path::new("/usr/sbin/varnishd").exists() {
        lab.file("known.toml", &valid("").replace(command, "command = [\"varnishd\"]"));
        let output = lab.run(&["run", "known.toml", "--admin", "off"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert!(said.contains("`varnishd` is not installed; Debian has it in the package varnish"), "{said}");
    }
    assert!(!lab.path().join("results").exists());
}

#[test]
fn a_factor_sets_whatever_the_target_has() {
    let _machine = machine();
    let text = format!(
        "{}[[factor]]\nset = \"target.values.program\"\nto = [\"one\", \"two\"]\n[[factor]]\nset = \"target.pause\"\n\
         to = [\"0s+1s\", \"1s+forever\"]\n[[factor]]\nset = \"target.files.a.conf\"\nto = [\"{{port}}\"]\n",
        valid("[target.values]\nprogram = \"sh\"")
    );
    let lab = Lab::new();
    lab.file("factors.toml", &text.replace("\"sh\", ", "\"{program}\", "));
    let output: std::process::Output =
        acceptbench().args(["check", "factors.toml"]).current_dir(lab.path()).output().expect("the program starts");
    let said = crate::support::text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", crate::support::text(&output.stderr));
    assert!(said.contains("program two, pause 1s+forever, conf {port}"), "{said}");
    assert!(said.contains("in the server's place: one") && said.contains("in the server's place: two"), "{said}");
}

#[test]
fn an_interrupt_does_not_wait_for_a_target() {
    let _machine = machine();
    let lab = Lab::new();
    let word = mark("slow");
    lab.file("slow.toml", &shell(&format!(": {word}; sleep 600"), "ready = \"30s\""));
    let mut command: Command = acceptbench();
    command.args(["run", "slow.toml", "--admin", "off"]).current_dir(lab.path());
    let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("the program starts");
    std::thread::sleep(Duration::from_millis(700));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    let began = Instant::now();
    assert_eq!(child.wait().expect("a child").code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    nobody_is_left(&word, &lab);
}
