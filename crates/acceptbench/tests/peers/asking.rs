//! What the command line asks for.

use crate::settings::{Format, Part, Request, Settings, parse};
use crate::words::Words;

fn asked(words: &[&str]) -> Result<Request, String> {
    parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn complaint(words: &[&str]) -> String {
    asked(&[words, &["--bench"]].concat()).expect_err("a complaint")
}

#[test]
fn without_cargos_word_there_is_nothing_to_do() {
    assert_eq!(asked(&[]), Ok(Request::Nothing));
    assert_eq!(asked(&["--test-threads=1", "--nonsense"]), Ok(Request::Nothing));
}

#[test]
fn everything_is_measured_unless_something_is_named() {
    let usual = Settings { rounds: 5, seconds: 3, parts: Part::ALL.to_vec(), format: Format::Text, json: None };
    assert_eq!(asked(&["--bench"]), Ok(Request::Measure(usual.clone())));
    let all =
        ["--rounds", "7", "--seconds", "2", "--only", "pacing,churn", "--markdown", "--json", "x.json", "--bench"];
    let parts = vec![Part::Churn, Part::Pacing];
    let json = Some("x.json".into());
    assert_eq!(
        asked(&all),
        Ok(Request::Measure(Settings { rounds: 7, seconds: 2, parts, format: Format::Markdown, json }))
    );
    let twice = ["--only", "http", "--only", "http,http", "--bench"];
    assert_eq!(asked(&twice), Ok(Request::Measure(Settings { parts: vec![Part::Http], ..usual })));
}

#[test]
fn what_is_wrong_is_named() {
    assert!(complaint(&["--round", "3"]).starts_with("unknown argument --round; "));
    assert!(complaint(&["churn"]).starts_with("unknown argument churn; "));
    assert_eq!(complaint(&["--rounds", "0"]), "--rounds takes a whole number from 1 to 99");
    assert_eq!(complaint(&["--rounds"]), "--rounds takes a whole number from 1 to 99");
    assert_eq!(complaint(&["--seconds", "61"]), "--seconds takes a whole number from 1 to 60");
    assert_eq!(complaint(&["--only", "speed"]), "--only speed: use churn, http, pacing");
    assert_eq!(complaint(&["--json", "--markdown"]), "--json takes the file to write");
}

#[test]
fn the_bench_tells_its_own_processes_by_name() {
    let words = |words: &[&str]| Words::read(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut two = words(&["threads=2", "rate=1.5"]).unwrap();
    assert_eq!((two.take("threads"), two.take("rate")), (Ok(2u32), Ok(1.5f64)));
    assert_eq!(two.end(), Ok(()));
    assert_eq!(words(&["threads"]).unwrap_err(), "unknown argument threads; write name=value");
    assert_eq!(words(&["treads=2"]).unwrap().end(), Err("unknown argument treads".to_owned()));
    assert_eq!(words(&[]).unwrap().take::<u32>("threads"), Err("missing argument threads=...".to_owned()));
    let wrong = words(&["threads=two"]).unwrap().take::<u32>("threads");
    assert_eq!(wrong, Err("threads=two: invalid digit found in string".to_owned()));
}
