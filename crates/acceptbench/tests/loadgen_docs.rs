//! The commands of `docs/loadgen.md` are understood by the program.

use std::process::Command;

const PAGE: &str = include_str!("../../../docs/loadgen.md");

#[test]
fn every_command_of_the_page_is_understood() {
    let block = PAGE.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of commands");
    let mut commands = 0;
    for line in block.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let args = line.strip_prefix("acceptbench loadgen ").expect("a load generator").split_whitespace();
        let mut command = Command::new(env!("CARGO_BIN_EXE_acceptbench"));
        // Asked for help it starts nothing, but has read what stands before.
        let output = command.env_clear().arg("loadgen").args(args).arg("--help").output().expect("the program starts");
        assert_eq!(output.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        commands += 1;
    }
    assert!(commands >= 3);
}
