//! Bad input: one line that names the flag, the right exit code, and no time lost.

use std::process::{Command, Output};

use crate::lookout::{ACCEPTBENCH, Lookout};
use crate::namespace::private_network;

fn watch(args: &[&str]) -> Output {
    Command::new("timeout").args(["10", ACCEPTBENCH, "watch"]).args(args).env_clear().output().expect("timeout starts")
}

#[track_caller]
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let output = watch(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    assert!(said.starts_with("acceptbench: "), "{said}");
    assert!(!said.trim_end().contains(char::is_control), "{said:?}");
    for word in words {
        assert!(said.contains(word), "{args:?}: `{word}` is not in `{said}`");
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}");
}

#[test]
fn what_cannot_be_watched_is_refused_with_its_flag() {
    for (args, words) in [
        (&["--rate", "9"][..], &["--rate", "'9'", "from 10 to 100"][..]),
        (&["--rate", "101"], &["--rate", "from 10 to 100"]),
        (&["--rate", "-1"], &["--rate", "from 10 to 100"]),
        (&["--rate", "10.5"], &["--rate", "whole number"]),
        (&["--port", "0"], &["--port", "from 1 to 65535"]),
        (&["--port", "80,70000"], &["--port", "'70000'", "from 1 to 65535"]),
        (&["--port", "9010-9000"], &["--port", "write 9000-9010"]),
        (&["--port", "http"], &["--port", "80,443,9000-9010"]),
        (&["--address", "localhost"], &["--address", "IP/PREFIX"]),
        (&["--address", "10.0.0.0/33"], &["--address", "from 0 to 32"]),
        (&["--command", "a-name-that-is-too-long"], &["--command", "15 bytes"]),
        (&["--max-listeners", "0"], &["--max-listeners", "1 to"]),
        (&["--interval", "10ms"], &["--interval", "100ms to 1h"]),
        (&["--interval", "1"], &["--interval", "write a unit"]),
        (&["--sort", "name"], &["--sort", "fill, drops, address"]),
        (&["--admin", "9713"], &["--admin", "127.0.0.1"]),
        (&["--json"], &["--json", "--once"]),
        (&["--netns", "0"], &["--netns", "/run/netns/NAME"]),
        (&["--netns", "2147483647"], &["--netns", "no process 2147483647"]),
        (&["--netns", "/run/netns/no-such-name"], &["--netns", "no such file"]),
        (&["--netns", "/dev/null"], &["--netns", "not a network namespace"]),
        (&["--netns", "/proc/self/ns/uts"], &["--netns", "not a network namespace"]),
        (&["--netns", "/proc"], &["--netns", "not a network namespace"]),
        (&["--netns", "/\u{1b}[2J"], &["--netns", "/?[2J", "no such file"]),
        (&["eth0"], &["'eth0'", "--help"]),
    ] {
        refused(args, 64, words);
    }
}

#[test]
fn an_admin_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, _listener) = taken.expect("a port");
    refused(&["--admin", &address.to_string()], 64, &["--admin", &address.to_string(), "in use"]);
}

#[test]
fn the_environment_sets_it_too() {
    let mut command = Command::new(ACCEPTBENCH);
    command.args(["watch", "--once"]).env_clear().env("ACCEPTBENCH_WATCH_RATE", "5");
    let output = command.output().expect("the program starts");
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--rate"), "{output:?}");
}

#[test]
fn a_namespace_without_the_right_to_enter_it_is_a_requirement() {
    private_network("input::a_namespace_without_the_right_to_enter_it_is_a_requirement", || {
        let server = ["unshare", "-n", ACCEPTBENCH, "server", "--admin", "off", "--listen", "0.0.0.0:9999"];
        let there = Lookout::program(&server, "listening on ");
        let pid = there.pid().to_string();
        // Root without capabilities is nobody in particular.
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", ACCEPTBENCH, "watch", "--once"]);
        let output = command.args(["--netns", &pid]).env_clear().output().expect("setpriv starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in ["--netns", &pid, "needs root (sudo)", "CAP_SYS_ADMIN"] {
            assert!(said.contains(word), "`{word}` is not in `{said}`");
        }
    });
}
