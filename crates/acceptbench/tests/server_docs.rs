//! What `docs/server.md` says of options is what the program does: every refused combination is refused, every engine
//! has its row, and the plain commands on the page are understood.

use std::process::{Command, Output};

const PAGE: &str = include_str!("../../../docs/server.md");

/// `acceptbench server ARGS`, which must end by itself.
fn server(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acceptbench"));
    command.env_clear().arg("server").args(args).output().expect("the built program starts")
}

/// The lines between a heading and the next.
fn section(heading: &str) -> impl Iterator<Item = &'static str> {
    let lines = PAGE.lines().skip_while(move |line| *line != heading).skip(1);
    lines.take_while(|line| !line.starts_with("## "))
}

/// What stands between backticks at the beginning of the rows of a section's first table, its head aside.
fn rows(heading: &str) -> Vec<&'static str> {
    let table = section(heading).skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let first = table.filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    first.skip(1).collect()
}

#[test]
fn every_refused_combination_is_refused_in_one_line() {
    let refused = rows("## Refused");
    assert!(refused.len() > 20, "{refused:?}");
    for line in refused {
        // A server that starts all the same must not stay: it has no port to listen on.
        let mut args: Vec<&str> = line.split(' ').collect();
        if !line.contains("--listen") {
            args.extend(["--listen", "192.0.2.1:9700"]);
        }
        args.extend(["--admin", "off"]);
        let output = server(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{line}: {said}");
        assert!(!said.contains("cannot listen on"), "not refused, but not started either: {line}: {said}");
        let flag = line.split(' ').find(|word| word.starts_with("--")).expect("a flag");
        let flags: Vec<&str> = line.split(' ').filter_map(|word| word.split('=').next()?.strip_prefix("--")).collect();
        assert!(flags.iter().any(|flag| said.contains(flag)), "{flag}: {said}");
    }
}

#[test]
fn every_engine_has_its_row() {
    let output = server(&["--engine", "nonsense"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let known = said.split_once("possible values: ").and_then(|(_, rest)| rest.split_once(']')).map(|(list, _)| list);
    let known: Vec<&str> = known.unwrap_or_else(|| panic!("{said}")).split(", ").map(str::trim).collect();
    assert_eq!(rows("## Engines: how an acceptor waits and accepts"), known);
}

#[test]
fn every_command_of_the_page_is_understood() {
    let block = PAGE.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of commands");
    let mut commands = 0;
    for line in block.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let args: Vec<&str> = line.strip_prefix("acceptbench server ").expect("a server").split_whitespace().collect();
        // Asked for help it starts nothing, but has read what stands before.
        let output = server(&[&args[..], &["--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        commands += 1;
    }
    assert!(commands >= 4);
}
