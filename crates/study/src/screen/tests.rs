use super::*;
use crate::expectation::Expectation;
use crate::results::Trial;
use crate::testing;

const LOW: &[(u64, u64)] = &[(170, 800), (172, 800), (174, 800)];
const MID: &[(u64, u64)] = &[(600, 90), (610, 90), (620, 90)];
const HIGH: &[(u64, u64)] = &[(1000, 2), (1000, 2), (1000, 2)];

fn rendered<'a>(design: &'a Design, trials: &[Trial], bend: impl FnOnce(&mut Screen<'a>)) -> String {
    // Leaked so that it lives as long as what `bend` borrows.
    let summary: &'a Summary =
        Box::leak(Box::new(Summary::of(design, trials, &["served-ratio", "confirm-latency.p99"]).unwrap()));
    let mut screen = Screen { next: Some("acceptbench run phantoms"), ..testing::screen(design, summary) };
    bend(&mut screen);
    render(&screen, 80)
}

fn assert_fits(text: &str) {
    for line in text.lines() {
        assert!(width(line) <= 80, "{} characters: {line}", width(line));
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn two_factors_make_the_grid_of_the_design_document() {
    let levels = ["16", "128", "1024"];
    let design = testing::design(&[
        (None, vec![testing::factor("sysctl.net.core.somaxconn", &levels), testing::factor("server.backlog", &levels)]),
        (Some("sustained overload"), vec![testing::factor("server.backlog", &levels)]),
    ]);
    let trials = testing::trials(&design, &[LOW, LOW, LOW, LOW, MID, MID, LOW, MID, HIGH, MID, MID, MID]);
    let text = rendered(&design, &trials, |_| ());
    let expected = "\
backlog: when does raising somaxconn help?            36 trials · host untouched
served of planned  backlog      16     128    1024
somaxconn   16              17.2 %  17.2 %  17.2 %
           128              17.2 %  61.0 %  61.0 %
          1024              17.2 %  61.0 %   100 %
sustained overload          61.0 %  61.0 %  61.0 %
Answer  raising one alone changed nothing; both to 1024: 17.2 → 100 %, p99 800 →
        2.00 ms; sustained overload: no level stands out beyond the spread
        (served of planned 61.0 %)
Ledger  36/36 balance      Both ends share 2 CPUs: rates are not your NIC's.
Report  results/latest/report.html    next: acceptbench run phantoms
";
    assert_eq!(text, expected);
    assert_fits(&text);
}

#[test]
fn one_factor_shows_median_and_range_in_columns() {
    let design = testing::design(&[(None, vec![testing::factor("server.backlog", &["16", "1024"])])]);
    let trials = testing::trials(&design, &[LOW, HIGH]);
    let text = rendered(&design, &trials, |_| ());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        &lines[1..4],
        [
            "served of planned  backlog           16         1024",
            "median                           17.2 %        100 %",
            "range                       17.0–17.4 %        100 %",
        ]
    );
}

#[test]
fn three_factors_and_wide_levels_become_lists() {
    let two = ["16", "128"];
    let factors = vec![
        testing::factor("sysctl.net.core.somaxconn", &two),
        testing::factor("server.backlog", &two),
        testing::factor("server.acceptors", &["1", "2"]),
    ];
    let design = testing::design(&[(None, factors)]);
    let text = rendered(&design, &testing::trials(&design, &[LOW, LOW, MID, HIGH]), |_| ());
    assert!(text.contains("\n  somaxconn 16, backlog 128, acceptors 2"), "{text}");
    let last = text.lines().find(|line| line.contains("somaxconn 128, backlog 128, acceptors 2")).unwrap();
    assert!(last.ends_with('–'), "not run: {last}");
    assert_fits(&text);

    let wide: Vec<String> = (0..9).map(|n| format!("burst:{n}00/500ms")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    let design = testing::design(&[(None, vec![testing::factor("loadgen.arrivals", &wide)])]);
    let text = rendered(&design, &testing::trials(&design, &[LOW, HIGH]), |_| ());
    assert!(text.contains("\n  arrivals burst:100/500ms"), "{text}");
    assert_fits(&text);
}

#[test]
fn another_grid_with_other_levels_is_a_table_of_its_own() {
    let design = testing::design(&[
        (None, vec![testing::factor("server.backlog", &["16", "1024"])]),
        (Some("engines"), vec![testing::factor("server.engine", &["epoll", "blocking"])]),
    ]);
    let text = rendered(&design, &testing::trials(&design, &[LOW, HIGH, LOW, HIGH]), |_| ());
    let heading = text.lines().find(|line| line.starts_with("engines")).unwrap();
    assert!(heading.ends_with(" epoll     blocking"), "{heading}");
    assert!(text.contains("\nserved of planned"), "{text}");
    assert_fits(&text);
}

#[test]
fn invalid_trials_are_said_plainly_with_their_reasons() {
    let design = testing::design(&[(None, vec![testing::factor("server.backlog", &["16", "1024"])])]);
    let mut trials = testing::trials(&design, &[LOW, HIGH]);
    for (late, trial) in trials[3..].iter_mut().enumerate() {
        trial.invalid.push(format!("the generator was the bottleneck: {late} late"));
    }
    trials[0].ledger.lines[0].residual = 1;
    let text = rendered(&design, &trials, |_| ());
    let said = "\nInvalid 3 of 6 trials are left out: 3 × the generator was the bottleneck (e.g. 0\n        late)\n";
    assert!(text.contains(said), "{text}");
    assert!(text.contains("\nLedger  5/6 balance"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("median") && line.ends_with("invalid")), "{text}");
}

#[test]
fn expectations_are_counted_when_they_hold_and_spelled_out_when_not() {
    let design = testing::design(&[(None, vec![testing::factor("server.backlog", &["16", "1024"])])]);
    let trials = testing::trials(&design, &[LOW, HIGH]);
    let outcome = |that: &str| {
        let expectation = Expectation { that: that.parse().unwrap(), cells: None };
        Outcome::of(&expectation, &design, &trials).unwrap()
    };
    let holding = [outcome("served-ratio > 0"), outcome("served-ratio <= 1")];
    assert!(rendered(&design, &trials, |screen| screen.expectations = &holding).contains("\nExpect  2/2 hold\n"));
    let broken = [outcome("served-ratio > 0"), outcome("served-ratio = 1")];
    let text = rendered(&design, &trials, |screen| screen.expectations = &broken);
    assert!(text.contains("\nExpect  `served-ratio = 1` fails in 3 of 6"), "{text}");
    assert_fits(&text);
}

#[test]
fn long_questions_and_notes_are_wrapped_under_their_beginning() {
    let design = testing::design(&[(None, vec![])]);
    let trials = testing::trials(&design, &[LOW]);
    let notes =
        ["net.ipv4.tcp_syn_linear_timeouts does not exist on this kernel, so SYNs are sent again after 1, 3 and 7 s"
            .to_owned()];
    let text = rendered(&design, &trials, |screen| {
        screen.question = "SYN cookies: do they help when the accept queue rather than the SYN queue is full?";
        screen.notes = &notes;
        screen.place = Place::Lab { cpus: 1 };
        screen.next = None;
    });
    assert_fits(&text);
    assert!(text.starts_with("backlog: SYN cookies"), "an abbreviation keeps its capitals: {text}");
    assert!(text.contains("\nNote    net.ipv4"), "{text}");
    assert!(text.contains("so SYNs\n        are sent again after 1, 3 and 7 s\n"), "{text}");
    assert!(text.contains("share one CPU"), "{text}");
    assert!(text.ends_with("Report  results/latest/report.html\n"), "{text}");
}

#[test]
fn wrapping_keeps_numbers_with_their_units() {
    assert_eq!(wrap("aaaa 17.2 % b", 8, 2), ["aaaa", "  17.2 %", "  b"]);
    assert_eq!(wrap("a  b", 80, 0), ["a  b"]);
    assert_eq!(wrap("unbreakable", 4, 2), ["unbreakable"]);
}

#[test]
fn an_attached_run_says_what_it_changed_and_whether_it_is_back() {
    let design = testing::design(&[(None, vec![testing::factor("sysctl.net.core.somaxconn", &["16", "128"])])]);
    let trials = testing::trials(&design, &[LOW, HIGH]);
    let mut attached = Attached {
        server: "127.0.0.1:9710".to_owned(),
        loadgens: vec!["loadgen:9711".to_owned()],
        sysctl_path: "/sysctl".into(),
        originals: [("net.core.somaxconn".to_owned(), "4096".to_owned())].into(),
        restored: true,
    };
    let text =
        rendered(&design, &trials, |screen| screen.place = Place::Attached(Box::leak(Box::new(attached.clone()))));
    assert_fits(&text);
    assert!(
        text.starts_with("backlog: when does raising somaxconn help?           6 trials · sysctls restored\n"),
        "{text}"
    );
    assert!(
        text.contains("\nChanged net.core.somaxconn of the running deployment: 16, 128; now again 4096\n"),
        "{text}"
    );
    assert!(text.contains("\nLedger  6/6 balance        within what moved while the books were read\n"), "{text}");
    assert!(!text.contains("host untouched") && !text.contains("CPU"), "{text}");
    attached.restored = false;
    let text =
        rendered(&design, &trials, |screen| screen.place = Place::Attached(Box::leak(Box::new(attached.clone()))));
    assert!(
        text.contains("sysctls not restored") && text.contains("16, 128; perhaps not again\n        4096\n"),
        "{text}"
    );
}

#[test]
fn the_screen_says_what_was_found_and_what_was_judged_by_range() {
    let levels = ["16", "128", "512", "1024"];
    let design = testing::design(&[
        (None, vec![testing::factor("server.backlog", &levels)]),
        (Some("sustained overload"), vec![testing::factor("server.backlog", &levels[..2])]),
    ]);
    let [low, high] = [[170, 172, 174, 171], [600, 610, 620, 605]].map(|served| served.map(|s| (s, 5)));
    let cells: [&[(u64, u64)]; 6] = [&low, &low, &low, &high, &low, &high];
    let trials = testing::trials(&design, &cells);
    let mut summary = Summary::of(&design, &trials, &["served-ratio", "confirm-latency.p99"]).unwrap();
    testing::compare(&design, &trials, &mut summary, &["served-ratio", "confirm-latency.p99"]);
    let text = rendered(&design, &trials, |screen| screen.summary = Box::leak(Box::new(summary.clone())));
    assert_fits(&text);
    let said = "\nFinding 1 better of 6 comparisons, adjusted p ≤ 0.05; sustained overload: backlog 16: by range, 2 cells in 4 \
                blocks reach p 0.12 only\n";
    assert!(text.replace("\n        ", " ").contains(said), "{text}");
    assert!(text.find("\nAnswer") < text.find("\nFinding") && text.find("\nFinding") < text.find("\nLedger"), "{text}");
}

#[test]
fn from_six_trials_on_the_row_is_an_interval_with_its_coverage() {
    let design = testing::design(&[(None, vec![testing::factor("server.backlog", &["16", "1024"])])]);
    let nine: Vec<(u64, u64)> = (0..9).map(|n| (170 + n, 800)).collect();
    let text = rendered(&design, &testing::trials(&design, &[&nine, &[(1000, 2); 9]]), |_| ());
    // The second and the eighth of nine.
    assert!(text.contains("\n96.1 % CI                   17.1–17.7 %        100 %\n"), "{text}");
    let text = rendered(&design, &testing::trials(&design, &[&nine, HIGH]), |_| ());
    assert!(
        text.contains("\nrange                       17.0–17.8 %        100 %\n"),
        "not every cell has six: {text}"
    );
}
