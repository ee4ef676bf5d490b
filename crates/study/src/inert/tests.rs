use super::*;
use crate::testing;

const ALIKE: &[(u64, u64)] = &[(500, 10), (501, 10), (502, 10)];
const OUTCOMES: [&[(u64, u64)]; 9] = [ALIKE; 9];

/// The shipped backlog design, every cell overflowing, the limit as the kernel makes it.
fn backlog() -> (Design, Vec<Trial>) {
    let design = testing::backlog_design();
    let mut trials = testing::trials(&design, &OUTCOMES);
    for trial in &mut trials {
        let number = |name: &str| trial.settings[name].parse::<u32>().unwrap();
        let (somaxconn, backlog) = (number("sysctl.net.core.somaxconn"), number("server.backlog"));
        trial.sysctls.insert("net.core.somaxconn".to_owned(), somaxconn.to_string());
        let listener = &mut trial.server.listeners[0];
        (listener.backlog_requested, listener.limit) = (Some(backlog), backlog.min(somaxconn));
        trial.server.kernel.net.listen_overflows = 100;
        trial.server.kernel.net.listen_drops = 100;
    }
    (design, trials)
}

fn inert(design: &Design, trials: &[Trial]) -> Inert {
    let summary = Summary::of(design, trials, &["served-ratio", "confirm-latency.p99"]).unwrap();
    of(design, trials, &summary, 0.05)
}

fn subjects(inert: &Inert) -> Vec<String> {
    inert.marks.iter().map(Mark::subject).collect()
}

/// One factor; every trial is bent by `bend` with its level.
fn one_factor(setting: &str, levels: &[&str], bend: impl Fn(&mut Trial, &str)) -> Inert {
    let design = testing::design(&[(None, vec![testing::factor(setting, levels)])]);
    let mut trials = testing::trials(&design, &OUTCOMES[..levels.len()]);
    for trial in &mut trials {
        let level = trial.settings[setting].clone();
        if let Some(sysctl) = setting.strip_prefix("sysctl.") {
            trial.sysctls.insert(sysctl.to_owned(), level.clone());
        }
        bend(trial, &level);
    }
    inert(&design, &trials)
}

#[test]
fn where_the_other_is_smaller_a_limit_knob_is_inert_and_only_there() {
    let (design, trials) = backlog();
    let inert = inert(&design, &trials);
    assert_eq!(
        subjects(&inert),
        [
            "somaxconn at backlog 16",
            "somaxconn 128, 1024 at backlog 128",
            "backlog at somaxconn 16",
            "backlog 128, 1024 at somaxconn 128",
        ]
    );
    assert_eq!(inert.marks[0].cells, [0, 3, 6]);
    assert!(inert.marks[0].reason.contains("limit 16"), "{}", inert.marks[0].reason);
    assert!(inert.marks[0].source.contains("net/socket.c"), "{}", inert.marks[0].source);
    assert!(inert.warnings.is_empty(), "{:?}", inert.warnings);
    assert_eq!(inert.in_words(60).as_deref(), Some("somaxconn at backlog 16; backlog at somaxconn 16"));
    assert_eq!(inert.in_words(40).as_deref(), Some("2 sweeps of a knob could not matter: see the report"));
    assert_eq!(Inert::default().in_words(60), None);
}

#[test]
fn fast_open_has_a_queue_that_somaxconn_caps_too() {
    let (design, mut trials) = backlog();
    for trial in &mut trials {
        trial.server.opts.fastopen = 8;
    }
    assert_eq!(inert(&design, &trials), Inert::default());
}

#[test]
fn a_queue_that_was_never_full_does_not_care_for_its_limit() {
    let (design, mut trials) = backlog();
    for trial in &mut trials {
        trial.server.kernel.net.listen_overflows = 0;
        trial.server.kernel.net.listen_drops = 0;
    }
    assert_eq!(inert(&design, &trials).marks.len(), 6, "every row and every column");
    for trial in trials.iter_mut().filter(|trial| trial.cell == 8) {
        trial.server.kernel.net.listen_drops = 1;
    }
    let marks = subjects(&inert(&design, &trials));
    assert!(marks.contains(&"somaxconn 16, 128 at backlog 1024".to_owned()), "{marks:?}");
}

#[test]
fn one_trial_of_a_cell_is_enough_to_break_a_rule() {
    let (design, mut trials) = backlog();
    trials[10].server.listeners[0].limit = 17;
    assert!(!subjects(&inert(&design, &trials)).contains(&"somaxconn at backlog 16".to_owned()));
    trials[10].invalid.push("residual".to_owned());
    assert!(subjects(&inert(&design, &trials)).contains(&"somaxconn at backlog 16".to_owned()), "it does not count");
}

#[test]
fn cells_without_a_valid_trial_are_in_no_mark() {
    let (design, mut trials) = backlog();
    trials.retain(|trial| trial.cell != 3);
    let inert = inert(&design, &trials);
    assert_eq!((inert.marks[0].cells.as_slice(), inert.marks[0].whole), ([0, 6].as_slice(), true));
}

#[test]
fn a_mark_that_the_measurement_contradicts_is_a_warning() {
    let (design, mut trials) = backlog();
    for trial in trials.iter_mut().filter(|trial| trial.cell == 6) {
        let block = u64::try_from(trial.block).unwrap();
        testing::serve(trial, 700 + block, 10);
    }
    let found = inert(&design, &trials);
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    let warning = &found.warnings[0];
    assert!(warning.starts_with("somaxconn at backlog 16 is INERT by rule"), "{warning}");
    assert!(warning.contains("yet served of planned is 50.1 % at 16 and 70.1 % at 1024: please report"), "{warning}");
    assert_eq!(found.marks.len(), 3);

    for (index, trial) in trials.iter_mut().filter(|trial| trial.cell == 6).enumerate() {
        testing::serve(trial, [495, 700, 520][index], 10);
    }
    assert!(inert(&design, &trials).warnings.is_empty(), "scatter is no contradiction");
    for trial in trials.iter_mut().filter(|trial| trial.cell == 6) {
        testing::serve(trial, 540, 10);
    }
    assert!(inert(&design, &trials).warnings.is_empty(), "4 points are below the smallest effect");
}

#[test]
fn max_syn_backlog_is_not_looked_at_with_cookies_or_without_a_drop_of_its_own() {
    let setting = "sysctl.net.ipv4.tcp_max_syn_backlog";
    let run = |cookies: &str, drops: u64| {
        one_factor(setting, &["64", "2048"], |trial, level| {
            trial.sysctls.insert("net.ipv4.tcp_syncookies".to_owned(), cookies.to_owned());
            trial.server.kernel.net.listen_drops = if level == "64" { drops } else { 0 };
        })
    };
    assert_eq!(subjects(&run("1", 9)), ["tcp_max_syn_backlog"]);
    assert_eq!(subjects(&run("0", 0)), ["tcp_max_syn_backlog"]);
    assert!(run("0", 9).marks.is_empty());
}

#[test]
fn cookies_0_and_1_come_to_the_same_while_the_syn_queue_has_room_and_2_never_does() {
    let run = |cookies: u64| {
        one_factor("sysctl.net.ipv4.tcp_syncookies", &["0", "1", "2"], |trial, level| {
            trial.server.kernel.net.request_queue_full_cookies = if level == "1" { cookies } else { 0 };
        })
    };
    assert_eq!(subjects(&run(0)), ["tcp_syncookies 0, 1"]);
    assert!(run(1).marks.is_empty());
}

#[test]
fn abort_on_overflow_needs_an_overflow_and_an_ack_without_a_cookie() {
    let run = |overflows: u64, cookies: &str| {
        one_factor("sysctl.net.ipv4.tcp_abort_on_overflow", &["0", "1"], |trial, _| {
            trial.sysctls.insert("net.ipv4.tcp_syncookies".to_owned(), cookies.to_owned());
            trial.server.kernel.net.listen_overflows = overflows;
        })
    };
    assert_eq!(subjects(&run(0, "0")), ["tcp_abort_on_overflow"]);
    assert_eq!(subjects(&run(5, "2")), ["tcp_abort_on_overflow"]);
    assert!(run(5, "1").marks.is_empty());
}

#[test]
fn the_number_of_retries_is_nothing_to_a_client_that_gives_up_before_the_first() {
    let run = |deadline: &str| {
        one_factor("sysctl.net.ipv4.tcp_syn_retries", &["1", "6"], |trial, _| {
            trial.loadgen.opts.deadline = deadline.parse().unwrap();
        })
    };
    assert_eq!(subjects(&run("999ms")), ["tcp_syn_retries"]);
    assert!(run("1s").marks.is_empty());
}

#[test]
fn rules_about_what_did_not_happen_need_it_not_to_happen() {
    let phantoms = |timeouts: u64, phantoms: u64| {
        one_factor("sysctl.net.ipv4.tcp_synack_retries", &["1", "5"], |trial, _| {
            trial.server.kernel.net.timeouts = timeouts;
            trial.ledger.terms.phantoms = phantoms;
        })
    };
    assert_eq!(phantoms(0, 0).marks.len(), 1);
    assert_eq!(phantoms(3, 0).marks.len() + phantoms(0, 3).marks.len(), 0);
    let migrate = |retired: bool| {
        one_factor("sysctl.net.ipv4.tcp_migrate_req", &["0", "1"], |trial, _| {
            trial.server.listeners[0].retired = retired;
        })
    };
    assert_eq!((migrate(false).marks.len(), migrate(true).marks.len()), (1, 0));
    let fastopen = |asked: bool| {
        one_factor("sysctl.net.ipv4.tcp_fastopen", &["0", "3"], |trial, _| trial.loadgen.opts.fastopen = asked)
    };
    assert_eq!((fastopen(false).marks.len(), fastopen(true).marks.len()), (1, 0));
    assert!(one_factor("loadgen.rate", &["100", "200"], |_, _| ()).marks.is_empty(), "no rule, no mark");
}

#[test]
fn a_level_of_several_settings_is_inert_only_if_all_of_them_are() {
    let mut factor = testing::factor("server.backlog", &["16", "128"]);
    for (level, abort) in factor.levels.iter_mut().zip(["0", "1"]) {
        level.settings.insert("sysctl.net.ipv4.tcp_abort_on_overflow".to_owned(), abort.to_owned());
    }
    let design = testing::design(&[(None, vec![factor])]);
    let mut trials = testing::trials(&design, &OUTCOMES[..2]);
    let found = inert(&design, &trials);
    assert_eq!(found.marks.len(), 1, "the limit is 128 of both, and nothing overflowed");
    assert!(found.marks[0].reason.contains("; "), "both reasons: {}", found.marks[0].reason);
    for trial in &mut trials {
        trial.server.kernel.net.listen_overflows = 1;
    }
    assert!(inert(&design, &trials).marks.is_empty(), "abort_on_overflow may matter now");
}
