//! The committed files are what the code makes, and the program says so in one line.

use std::process::{Command, Output};

fn dashboards(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dashboards"))
        .args(arguments)
        .current_dir("/")
        .output()
        .expect("the program starts")
}

fn said(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn the_committed_files_are_up_to_date() {
    let output = dashboards(&["--check"]);
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
}

#[test]
fn a_file_that_differs_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().to_str().expect("UTF-8");
    assert!(dashboards(&["--dir", path]).status.success());
    assert!(dashboards(&["--check", "--dir", path]).status.success(), "what was written is up to date");

    let file = directory.path().join("grafana/overview.json");
    let text = std::fs::read_to_string(&file).expect("a board");
    assert!(text.ends_with("}\n"));
    std::fs::write(&file, text.replace("now-5m", "now-6h")).expect("write");
    let output = dashboards(&["--check", "--dir", path]);
    let error = said(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("overview.json is out of date"), "{error}");

    std::fs::write(&file, text).expect("write");
    let rules = directory.path().join("prometheus/alerts.rules.yml");
    let text = std::fs::read_to_string(&rules).expect("rules");
    std::fs::write(&rules, text.replace("> 0.8", "> 0.9")).expect("write");
    let error = said(&dashboards(&["--check", "--dir", path]).stderr);
    assert!(error.contains("alerts.rules.yml is out of date"), "{error}");
    std::fs::write(&rules, text).expect("write");

    std::fs::write(directory.path().join("prometheus/by-hand.test.yml"), "").expect("write");
    assert!(dashboards(&["--check", "--dir", path]).status.success(), "tests of rules are written by hand");
    for old in ["grafana/old.json", "prometheus/old.rules.yml"] {
        let old = directory.path().join(old);
        std::fs::write(&old, "{}").expect("write");
        let error = said(&dashboards(&["--check", "--dir", path]).stderr);
        assert!(error.contains("is none of the files made"), "{error}");
        std::fs::remove_file(&old).expect("remove");
    }
}

#[test]
fn every_query_is_listed_with_its_board_and_place() {
    let output = dashboards(&["--list"]);
    let lines = said(&output.stdout);
    assert!(output.status.success());
    assert!(lines.lines().all(|line| line.split('\t').count() == 4), "{lines}");
    for place in ["acceptbench: Overview\tpanel 'Attempts served'\tA\t", "variable 'job'", "annotation 'Trials'"] {
        assert!(lines.contains(place), "{place} is not in {lines}");
    }
}

#[test]
fn a_wrong_command_line_is_one_line_and_64() {
    for wrong in [&["--dir"][..], &["--chek"], &["overview"], &["--preview"], &["--preview", "9090"]] {
        let output = dashboards(wrong);
        assert_eq!(output.status.code(), Some(64));
        assert_eq!(said(&output.stderr).lines().count(), 1, "{}", said(&output.stderr));
    }
}

#[test]
fn a_preview_without_a_prometheus_is_one_line_that_names_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // Nobody listens on the port of a listener that is gone.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let path = directory.path().to_str().expect("UTF-8");
    let output = dashboards(&["--preview", &gone.to_string(), "--dir", path]);
    let error = said(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.lines().count() == 1 && error.contains(&gone.to_string()), "{error}");
}
