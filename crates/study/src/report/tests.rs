use std::collections::BTreeSet;

use telemetry::Warning;

use super::*;
use crate::expectation::{Expectation, Outcome};
use crate::testing;

const LOW: &[(u64, u64)] = &[(170, 800), (172, 800), (174, 800)];
const HIGH: &[(u64, u64)] = &[(1000, 2), (1000, 2), (1000, 2)];

fn markdown(bend: impl FnOnce(&mut [Trial])) -> String {
    markdown_of([LOW, HIGH, LOW], bend)
}

fn markdown_of(cells: [&[(u64, u64)]; 3], bend: impl FnOnce(&mut [Trial])) -> String {
    let design = testing::design(&[
        (None, vec![testing::factor("server.backlog", &["16", "1024"])]),
        (Some("sustained overload"), vec![testing::factor("server.backlog", &["16"])]),
    ]);
    let mut trials = testing::trials(&design, &cells);
    bend(&mut trials);
    let mut summary = Summary::of(&design, &trials, &["served-ratio", "confirm-latency.p99"]).unwrap();
    testing::compare(&design, &trials, &mut summary, &["served-ratio", "confirm-latency.p99"]);
    let expectation = Expectation { that: "overflows > 0".parse().unwrap(), cells: None };
    let expectations = [Outcome::of(&expectation, &design, &trials).unwrap()];
    let screen = Screen { expectations: &expectations, ..testing::screen(&design, &summary) };
    let environment = ["Linux 6.18 x86_64".to_owned()];
    Report { screen: &screen, trials: &trials, environment: &environment, command: "acceptbench run backlog" }
        .markdown()
        .unwrap()
}

#[test]
fn every_quantity_that_is_shown_exists() {
    for name in SHOWN {
        assert_eq!(Quantity::named(name).map(|quantity| quantity.name), Ok(name));
    }
}

#[test]
fn the_report_opens_with_question_and_answer() {
    let text = markdown(|_| ());
    assert!(
        text.starts_with(
            "# backlog\n\nWhen does raising somaxconn help?\n\n**Answer:** backlog to 1024: 17.2 → 100 %, p99 800 → 2.00 ms;"
        ),
        "{text}"
    );
    assert!(text.contains("\n9 trials, 9 valid, 9 with a balanced ledger.\n"), "{text}");
    assert!(text.contains("- **fails**: `overflows > 0` fails in 9 of 9 trials"), "{text}");
    assert!(text.ends_with("`trials.csv` has one row per trial.\n"), "{text}");
    assert!(text.contains("```\nacceptbench run backlog\n```"), "{text}");
}

#[test]
fn each_grid_is_a_table_of_medians_and_labelled_ranges() {
    let text = markdown(|_| ());
    assert!(text.contains("## Cells\n") && text.contains("## sustained overload\n"), "{text}");
    assert!(text.contains("\n| backlog 16 | 3/3 | 17.2 % (range 17.0–17.4 %) | 0 % |"), "{text}");
    assert_eq!(
        text.matches("| valid | served of planned |").count(),
        2,
        "the main quantity is shown once per table: {text}"
    );
    let (_, tables) = text.split_once("## Cells").unwrap();
    let columns: BTreeSet<usize> = tables
        .lines()
        .filter(|line| line.contains("served of planned |") || line.starts_with("| backlog"))
        .map(|l| l.matches('|').count())
        .collect();
    assert_eq!(columns.len(), 1, "rows of different lengths: {text}");
}

#[test]
fn the_ledger_names_the_worst_trial_of_each_line() {
    let text = markdown(|trials| {
        trials[2].server.kernel.net.embryonic_resets = 9;
        testing::settle(&mut trials[2]);
        trials[2].invalid.push("line 5 is off".to_owned());
    });
    assert!(text.contains("- trial 2 (backlog 16): line 5 is off\n"), "{text}");
    assert!(
        text.contains("| 5 request-sockets | 8/9 | 1 | trial 2: phantoms 10 + abandoned 0 = EmbryonicRsts(server) 9"),
        "{text}"
    );
    assert!(
        text.contains("| 2 syns | 9/9 | 0 | trial 0: ActiveOpens(client) 1000 = issued 1000 − before SYN 0 |"),
        "{text}"
    );
}

#[test]
fn only_sysctls_that_differ_are_listed_with_their_cells() {
    let text = markdown(|trials| {
        for trial in trials {
            let somaxconn = if trial.cell == 1 { "4096" } else { "128" };
            trial.sysctls.insert("net.core.somaxconn".to_owned(), somaxconn.to_owned());
            trial.sysctls.insert("net.ipv4.tcp_syncookies".to_owned(), "0".to_owned());
        }
    });
    assert!(text.contains("| net.core.somaxconn | 128 | backlog 16; sustained overload: backlog 16 |"), "{text}");
    assert!(text.contains("| net.core.somaxconn | 4096 | backlog 1024 |"), "{text}");
    assert!(!text.contains("tcp_syncookies"), "{text}");
    assert!(!markdown(|_| ()).contains("Sysctls that differ"));
}

#[test]
fn warnings_are_listed_once_with_their_trials() {
    let text = markdown(|trials| {
        for trial in &mut trials[..2] {
            trial.server.warnings.push(Warning::new("capped", "somaxconn 128 caps backlog 1024", "raise somaxconn"));
        }
    });
    assert_eq!(text.matches("- somaxconn 128 caps backlog 1024 (raise somaxconn): 2 trials").count(), 1, "{text}");
}

#[test]
fn a_bar_in_a_field_does_not_begin_a_column() {
    let text = table(&["a".to_owned()], &[vec!["x|y".to_owned()]]);
    assert_eq!(text, "| a |\n|---|\n| x\\|y |\n");
}

#[test]
fn findings_stand_with_their_figures_and_those_that_are_none_with_their_reason() {
    let few = markdown(|_| ());
    assert!(
        few.contains("## Findings\n\nnot tested: 2 cells in 3 blocks reach p 0.25 only; judged by range.\n"),
        "{few}"
    );
    assert!(
        few.contains(
            "| backlog 1024 | backlog 16 | served of planned | 17.2 → 100 % | +82.8 points | – | not tested |"
        )
    );
    let six = |per_mille: u64, ms: u64| (0..6).map(|n| (per_mille - n, ms)).collect::<Vec<_>>();
    let text = markdown_of([&six(175, 800), &six(1000, 805), &six(175, 800)], |_| ());
    assert!(
        text.contains("1 better of 2 comparisons, adjusted p ≤ 0.05.\n\nA finding is a difference of 5 points"),
        "{text}"
    );
    assert!(text.contains("by all 64 relabellings of cells within blocks"), "{text}");
    let better = "| served of planned | 17.3 → 99.8 % | +82.5 points | 0.031 | better |";
    assert!(text.contains(better), "{text}");
    let none = "| first byte p99 | 800 → 805 ms | +0.6 % | 0.031 | no difference: below the smallest effect |";
    assert!(text.contains(none), "{text}");
    assert!(text.contains("| backlog 16 | 6/6 | 17.3 % (96.9 % CI 17.0–17.5 %) | 0 % |"), "{text}");
}

#[test]
fn the_report_says_what_bound_what_cannot_matter_and_what_theory_expects() {
    let text = markdown(|_| ());
    assert!(!text.contains("What bound"), "nobody asked: {text}");
    let design = testing::design(&[(None, vec![testing::factor("server.backlog", &["16", "1024"])])]);
    let mut trials = testing::trials(&design, &[LOW, HIGH]);
    for trial in &mut trials {
        trial.server.kernel.net.listen_overflows = if trial.cell == 0 { 812 } else { 0 };
        trial.server.kernel.net.listen_drops = trial.server.kernel.net.listen_overflows;
        trial.server.listeners[0].limit = 16;
        trial.server.listeners[0].full_ns = 100_000_000;
        trial.server.listeners[0].backlog_requested = Some(if trial.cell == 0 { 16 } else { 1024 });
        trial.sysctls.insert("net.core.somaxconn".to_owned(), "16".to_owned());
    }
    let names = ["served-ratio", "confirm-latency.p99"];
    let summary = Summary::of(&design, &trials, &names).unwrap().explained(&design, &trials, 0.05);
    let screen = testing::screen(&design, &summary);
    let text = Report { screen: &screen, trials: &trials, environment: &[], command: "" }.markdown().unwrap();
    let row = "| backlog 16 | backlog and somaxconn alike | 3 | overflows 812; limit 16 = min(backlog 16, somaxconn 16); \
               queue full 10.0 % of the time |";
    assert!(text.contains(row), "{text}");
    assert!(text.contains("| backlog 1024 | nothing | 3 | 1000 of 1000 served, deepest queue 129 of 17 |"), "{text}");
    // The limit is the same and yet one of them served everybody: a rule or a measurement is wrong.
    assert!(text.contains("## Cannot matter here\n\n- backlog is INERT by rule"), "{text}");
    assert!(text.contains("yet first byte p99 is 2.00 ms at 1024 and 800 ms at 16: please report"), "{text}");
    assert!(!text.contains("Queueing theory"), "{text}");

    let screen = crate::screen::render(&screen, 80);
    assert!(screen.contains("\nBound   by backlog and somaxconn alike in 1 cell, nothing in 1\n"), "{screen}");
    assert!(screen.contains("\nWarning backlog is INERT by rule"), "{screen}");
    let stored: Summary = serde_json::from_str(&serde_json::to_string(&summary).unwrap()).unwrap();
    assert_eq!(stored, summary);
}
