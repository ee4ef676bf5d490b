use super::*;
use crate::cli::{Command, parse};
use crate::replay::experiment;

const HEADER: &str = r#"{"acceptbench-recording":1,"listener":"10.0.0.1:80","started":"2026-01-31T12:00:00Z","interval-us":1000,"limit":16,"depth":0,"other-listeners":1,"kernel":"6.18.0","sysctls":{"net.core.somaxconn":"128","net.ipv4.tcp_syncookies":"0","net.ipv4.no_such_thing":"7"}}"#;

/// 60 at once: 18 enter, 42 are dropped; one is accepted per 2 ms.
fn burst() -> String {
    let drain: Vec<String> = (0..17).rev().map(|depth| format!("[2000,1000,0,{depth},0,0,0,0,0]\n")).collect();
    let text = format!("{HEADER}\n[100000,1000,18,17,42,42,0,0,0]\n{}", drain.concat());
    text + "{\"end\":\"stopped\",\"since-us\":1000,\"looks\":135,\"late\":0,\"cpu-us\":1000}\n"
}

fn parsed(args: &[&str]) -> ReplayArgs {
    let line = [&["acceptbench", "replay", "a.rec"], args].concat();
    match parse(line.into_iter().map(Into::into).collect()) {
        Ok(Command::Replay(args)) => args,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn source(recording: &str, args: &[&str]) -> Result<String, Failure> {
    let recording = Recording::parse("a.rec", recording.as_bytes()).expect("a recording");
    let args = parsed(args);
    let model = Model::of(&recording, &args)?;
    experiment::of(&model, &args).map(|experiment| experiment.source)
}

#[test]
fn batches_are_spread_evenly_over_their_intervals() {
    let batch = |began, ended, count| Batch { began, ended, count };
    let of = |batches: &[Batch]| {
        let trace = Trace::new(TICK.into(), steps(batches.iter().copied())).expect("a trace");
        (trace.to_string(), trace.attempts())
    };
    assert_eq!(of(&[batch(0, 1000, 4), batch(2000, 3000, 1)]), ("1us:0,250*3,1250".to_owned(), 5));
    assert_eq!(of(&[batch(0, 0, 5), batch(0, 10, 25)]), ("1us:0x5,0x7,1x2*9".to_owned(), 30));
    assert_eq!(of(&[batch(0, 1000, 3), batch(1000, 2000, 3)]).0, "1us:0,333*2,334,333*2");
}

#[test]
fn a_recording_becomes_an_experiment_with_its_limit_first() {
    let text = source(
        &burst(),
        &["--deadline", "800ms", "--set", "server.backlog=16,64", "--set", "sysctl.net.core.somaxconn=4096"],
    )
    .expect("an experiment");
    let document: toml::Table = text.parse().expect("TOML");
    let at = |table: &str, key: &str| document[table][key].to_string();
    assert_eq!(at("server", "backlog"), "16");
    assert_eq!(at("server", "accept-delay"), "\"2ms\"");
    assert_eq!(at("loadgen", "arrivals"), "\"trace:1us:0,16*59\"");
    assert_eq!((at("experiment", "warm-up"), at("experiment", "measure")), ("\"0s\"".to_owned(), "\"1ms\"".to_owned()));
    assert_eq!(at("sysctl", "net.core.somaxconn"), "128");
    assert_eq!(at("sysctl", "net.ipv4.tcp_syncookies"), "0");
    let levels: Vec<String> =
        document["factor"][0]["levels"].as_array().expect("levels").iter().map(ToString::to_string).collect();
    let level = |backlog, somaxconn| {
        format!("{{ \"server.backlog\" = {backlog}, \"sysctl.net.core.somaxconn\" = {somaxconn} }}")
    };
    assert_eq!(levels, [level(16, 128), level(16, 4096), level(64, 4096)]);
    assert_eq!(document["compare"]["by"].as_str(), Some("ranges"), "three cells need four blocks");
    let tested = source(&burst(), &["--set", "server.backlog=64", "--replicates", "6"]).expect("an experiment");
    assert!(tested.contains("by = \"findings\""), "{tested}");
}

#[test]
fn who_is_patient_came_again_and_who_is_not_was_another() {
    // A second later 42 packets: 10 enter, 32 are dropped again.
    let text = burst().replace("{\"end\"", "[986000,1000,10,9,32,32,0,0,0]\n{\"end\"");
    let attempts = |deadline| {
        let recording = Recording::parse("a.rec", text.as_bytes()).expect("a recording");
        let args = parsed(&["--deadline", deadline]);
        let model = Model::of(&recording, &args).expect("a model");
        (model.trace.attempts(), model.arrivals.retries, model.arrivals.lost)
    };
    assert_eq!(attempts("1500ms"), (60, 42, 32));
    assert_eq!(attempts("800ms"), (102, 0, 74));
}

#[test]
fn what_cannot_be_replayed_is_refused_with_the_fix() {
    let refused = |text: &str, args: &[&str]| match source(text, args) {
        Err(Failure::Usage(message)) => message,
        other => panic!("{args:?}: {other:?}"),
    };
    assert!(refused(&format!("{HEADER}\n"), &[]).starts_with("a.rec: nothing arrived"));
    for (set, says) in [
        ("server.listen=1.2.3.4:80", "the lab gives the server its address"),
        ("sever.backlog=1", "--set sever.backlog: no setting"),
        ("sysctl.net.ipv4.tcp_rmem=1", "does not say what it was; it has net.core.somaxconn"),
        ("server.backlog=many", "--set: server.backlog"),
        ("server.relisten=on-change,sometimes", "--set: server.relisten"),
        (
            "loadgen.rate=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,60,61,62,63,64",
            "more than 64 cells",
        ),
    ] {
        let message = refused(&burst(), &["--set", set]);
        assert!(message.contains(says) && !message.contains('\n'), "{set}: {message}");
    }
    let twice = refused(&burst(), &["--set", "server.backlog=1", "--set", "server.backlog=2"]);
    assert!(twice.contains("it is set twice"), "{twice}");
}

#[test]
fn a_limit_that_may_be_somaxconns_is_not_told_from_the_backlog() {
    let assumed = |args: &[&str]| {
        let recording = Recording::parse("a.rec", burst().as_bytes()).expect("a recording");
        Model::of(&recording, &parsed(args)).expect("a model").assumed.join("; ")
    };
    let (somaxconn, backlog) = ("sysctl.net.core.somaxconn=4096", "server.backlog=4096");
    assert!(assumed(&["--set", somaxconn]).contains("somaxconn alone changes nothing here"));
    assert!(!assumed(&["--set", somaxconn, "--set", backlog]).contains("changes nothing"));
}

#[test]
fn quiet_time_is_cut_and_the_stall_moves_with_it() {
    // A burst, ten quiet seconds, and a burst whose first is accepted after 300 ms.
    let mut text = burst().split("{\"end\"").next().expect("lines").to_owned();
    text.push_str("[10000000,1000,5,5,0,0,0,0,0]\n[300000,1000,0,4,0,0,0,0,0]\n[2000,1000,0,3,0,0,0,0,0]\n");
    let model = |args: &[&str]| {
        let recording = Recording::parse("a.rec", text.as_bytes()).expect("a recording");
        let args = parsed(args);
        let model = Model::of(&recording, &args).expect("a model");
        (model.measure.to_string(), model.stall.clone(), model.assumed.join("; "))
    };
    let (measure, stall, assumed) = model(&[]);
    assert_eq!((measure.as_str(), stall.as_deref()), ("10.035s", Some("10.034s+301ms")));
    assert!(assumed.contains("another listener is there") && assumed.contains("cut off"), "{assumed}");
    let (measure, stall, assumed) = model(&["--measure-gap", "6s"]);
    assert_eq!((measure.as_str(), stall.as_deref()), ("6.036s", Some("6.035s+301ms")));
    assert!(assumed.contains("(--measure-gap)"), "{assumed}");
}
