//! What `docs/loadgen.md` says of options is what the program does: every refused combination is refused, every choice has
//! its row, and the plain commands on the page are understood.

use std::process::{Command, Output};

const PAGE: &str = include_str!("../../../docs/loadgen.md");

/// `acceptbench loadgen ARGS`, which must end by itself.
fn loadgen(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acceptbench"));
    command.env_clear().arg("loadgen").args(args).output().expect("the built program starts")
}

/// What stands between backticks at the beginning of the rows of a section's first table, its head aside.
fn rows(heading: &str) -> Vec<&'static str> {
    let lines = PAGE.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with("## "));
    let table = lines.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let first = table.filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    first.skip(1).collect()
}

#[test]
fn every_refused_combination_is_refused_in_one_line() {
    let refused = rows("## Refused");
    assert!(refused.len() > 15, "{refused:?}");
    for line in refused {
        let args: Vec<&str> = line.split(' ').chain(["--admin", "off"]).collect();
        let output = loadgen(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{line}: {said}");
        let mut flags = line.split(' ').filter_map(|word| word.strip_prefix("--"));
        assert!(flags.any(|flag| said.contains(flag)), "{line}: {said}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("connecting to"), "{line}: it began");
    }
}

#[test]
fn every_engine_and_every_arrival_process_has_its_row() {
    let output = loadgen(&["--engine", "nonsense"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let known = said.split_once("possible values: ").and_then(|(_, rest)| rest.split_once(']')).map(|(list, _)| list);
    let mut known: Vec<&str> = known.unwrap_or_else(|| panic!("{said}")).split(", ").map(str::trim).collect();
    let mut engines = rows("## Engines");
    known.sort_unstable();
    engines.sort_unstable();
    assert_eq!(engines, known);
    let arrivals = rows("## When attempts are planned");
    for how in &arrivals {
        // Asked for help it starts nothing, but has read what stands before.
        let output = loadgen(&["--arrivals", how, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{how}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let kinds: Vec<&str> = arrivals.iter().filter_map(|how| how.split(':').next()).collect();
    assert_eq!(kinds, ["constant", "poisson", "burst", "profile", "trace", "closed"]);
}

#[test]
fn every_command_of_the_page_is_understood() {
    let block = PAGE.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of commands");
    let mut commands = 0;
    for line in block.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let words = line.strip_prefix("acceptbench loadgen ").expect("a load generator").split_whitespace();
        let args: Vec<&str> = words.map(|word| word.trim_matches('\'')).collect();
        let output = loadgen(&[&args[..], &["--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        commands += 1;
    }
    assert!(commands >= 6);
}
