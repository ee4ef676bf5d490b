//! What people see: a table on a terminal, lines in a journal, a table or a document once.

use std::os::fd::OwnedFd;
use std::process::Command;

use serde_json::Value;

use crate::lookout::{ACCEPTBENCH, Lookout};
use crate::namespace::{private_network, skip};
use crate::sockets::{Shared, connect, listen};

fn once(args: &[&str]) -> String {
    let mut command = Command::new(ACCEPTBENCH);
    command.args(["watch", "--once", "--interval", "500ms"]).args(args).env_clear();
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_look_for_one_interval_gives_a_table_or_a_document() {
    private_network("terminal::a_look_for_one_interval_gives_a_table_or_a_document", || {
        let full = "127.0.0.1:8080";
        let _listeners = [listen("[::1]:8081", 128, Shared::No), listen(full, 3, Shared::No)];
        let _clients: Vec<OwnedFd> = (0..9).map(|_| connect(full)).collect();
        let table = once(&[]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "2 TCP listeners of this network namespace");
        assert!(lines[1].starts_with("ListenOverflows ") && lines[2].starts_with("somaxconn "), "{table}");
        let words: Vec<&str> = lines[5].split_whitespace().collect();
        assert_eq!(words[..1], [full]);
        assert_eq!(words[2..6], ["4", "3", "4", "100%"], "{table}");
        assert_eq!(words.last(), Some(&"FULL"), "{table}");
        let quiet = ["0", "128", "0", "0%", "0", "0"];
        assert!(lines[6].starts_with("[::1]:8081 "), "{table}");
        assert_eq!(lines[6].split_whitespace().skip(2).collect::<Vec<_>>(), quiet, "{table}");
        assert_eq!(lines.len(), 7);

        let document: Value = serde_json::from_str(&once(&["--json", "--port", "8080"])).expect("one JSON document");
        let listeners = document["listeners"].as_array().expect("listeners");
        assert_eq!(listeners.len(), 1);
        assert_eq!(listeners[0]["listener"], full);
        assert_eq!((&listeners[0]["depth"], &listeners[0]["limit"]), (&4.into(), &3.into()));
        let seconds = document["window-ns"].as_f64().expect("a time") / 1e9;
        assert!((0.4..2.0).contains(&seconds), "{seconds}");
        assert!(document["samples"].as_u64().expect("a count") >= 5, "{document}");
    });
}

#[test]
fn a_journal_gets_a_few_lines_and_then_silence() {
    private_network("terminal::a_journal_gets_a_few_lines_and_then_silence", || {
        let _listener = listen("127.0.0.1:8080", 5, Shared::No);
        let watch = Lookout::program(
            &[ACCEPTBENCH, "watch", "--admin", "127.0.0.1:0", "--interval", "100ms"],
            "watching the TCP listeners of this network namespace, 2 now",
        );
        std::thread::sleep(std::time::Duration::from_millis(500));
        let rest = watch.ends_well();
        assert!(rest.len() == 1 && rest[0].starts_with("metrics on http://127.0.0.1:"), "{rest:#?}");
    });
}

#[test]
fn a_terminal_gets_a_table_and_is_given_back() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("script not found; install the Debian package bsdutils");
    }
    private_network("terminal::a_terminal_gets_a_table_and_is_given_back", || {
        let listeners: Vec<OwnedFd> =
            (1..40).map(|n| listen(&format!("127.0.0.1:{}", 8000 + n), 5, Shared::No)).collect();
        // In the foreground the signal goes to watch alone. Otherwise to its group, too, and a second one ends it at once.
        let watch = format!(
            "stty cols 80 rows 24; timeout --foreground --preserve-status -s INT 1.2 {ACCEPTBENCH} watch --admin off \
                             --interval 200ms --sort address"
        );
        let mut command = Command::new("script");
        command.args(["-qec", &watch, "/dev/null"]).env_clear().env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/sh");
        let output = command.output().expect("script starts");
        let seen = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{seen}");
        let (before, screens) = seen.split_once("\x1b[?1049h\x1b[?25l").expect("a screen of its own");
        assert!(before.contains("watching the TCP listeners of this network namespace, 39 now"), "{before}");
        let (screens, after) = screens.split_once("\x1b[?25h\x1b[?1049l").expect("given back with its cursor");
        let screens: Vec<&str> = screens.split("\x1b[H").skip(1).collect();
        assert!(screens.len() >= 3, "{screens:#?}");
        for screen in &screens {
            let lines: Vec<&str> = screen.trim_end_matches("\x1b[J").split("\r\n").collect();
            assert_eq!(lines.len(), 24, "{screen}");
            assert!(lines[5].starts_with("127.0.0.1:8001 "), "{screen}");
            assert!(lines[23].starts_with("… 21 more"), "{screen}");
            assert!(lines.iter().all(|line| line.trim_end_matches("\x1b[K").chars().count() <= 80), "{screen}");
        }
        assert!(after.contains("127.0.0.1:8001 ") && !after.contains('\x1b'), "the last table stays: {after}");
        drop(listeners);
    });
}
