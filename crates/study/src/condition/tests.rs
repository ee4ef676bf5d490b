use proptest::prelude::*;

use super::*;
use crate::testing;

fn condition(text: &str) -> Condition {
    Condition::parse(text).unwrap()
}

fn cell(settings: &[(&str, &str)]) -> Cell {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Cell { index: 0, grid: 0, levels: Vec::new(), settings }
}

#[test]
fn operators_need_no_spaces_and_values_have_units() {
    let parsed = condition("served-ratio>=99.9 % and confirm-latency.p99 < 50 ms and overflows!=0 and accepted>2.5k");
    let values: Vec<_> = parsed.comparisons().iter().map(|c| (c.operator, c.value.clone())).collect();
    assert_eq!(
        values,
        [
            (Operator::AtLeast, Value::Percent(99.9)),
            (Operator::Less, Value::Time("50ms".parse().unwrap())),
            (Operator::NotEqual, Value::Number(0.0)),
            (Operator::Greater, Value::Number(2500.0)),
        ]
    );
    assert_eq!(parsed.comparisons()[1].value.number(), Some(0.05));
}

#[test]
fn errors_name_the_character_and_what_was_expected() {
    for (text, position, expected, found) in [
        ("", 1, "a metric or setting", "the end"),
        ("overflows", 10, "one of = != < <= > >=", "the end"),
        ("overflows == 0", 11, "one of = != < <= > >=", "`==`"),
        ("overflows >", 12, "a value", "the end"),
        ("µ > 0 and and", 11, "a metric or setting", "`and`"),
        ("overflows > 0 and", 18, "a metric or setting", "the end"),
        ("overflows > 0 < 5", 15, "`and` or the end", "`<`"),
        ("> 5", 1, "a metric or setting", "`>`"),
    ] {
        let error = Condition::parse(text).unwrap_err();
        assert_eq!((error.position, error.expected, error.found.as_str()), (position, expected, found), "{text}");
    }
    let message = Condition::parse("overflows 3").unwrap_err().to_string();
    assert!(message.starts_with("read the condition `overflows 3`: at character 11, expected one of"), "{message}");
}

#[test]
fn all_comparisons_must_hold_in_a_trial() {
    let trial = testing::trial(0);
    for (text, holds) in [
        ("served-ratio = 78 %", true),
        ("served-ratio < 78 %", false),
        ("served-ratio <= 0.78", true),
        ("served-ratio > 0.77 and phantoms = 10", true),
        ("served-ratio > 0.77 and phantoms != 10", false),
        ("accepted >= 791", false),
        ("accept-rate = 790", true),
        ("queue-full-seconds < 1ms", true),
    ] {
        assert_eq!(condition(text).holds_for_trial(&trial), Ok(holds), "{text}");
    }
}

#[test]
fn a_quantity_without_a_value_satisfies_nothing() {
    let trial = testing::trial(0);
    for operator in Operator::ALL {
        let text = format!("confirm-latency.p99 {} 50ms", operator.symbol());
        assert_eq!(condition(&text).holds_for_trial(&trial), Ok(false), "{text}");
    }
    assert_eq!(
        condition("confirm-latency.p99 < 50ms and phantoms = 0").found_in(&trial),
        "confirm-latency.p99 has no value, phantoms 10"
    );
}

#[test]
fn unknown_metrics_and_words_are_errors_even_when_something_else_fails_first() {
    let trial = testing::trial(0);
    let error = condition("phantoms = 11 and overflow > 0").holds_for_trial(&trial).unwrap_err().to_string();
    assert!(error.contains("did you mean `overflows`?"), "{error}");
    let error = condition("phantoms = many").check_quantities().unwrap_err().to_string();
    assert_eq!(
        error,
        "evaluate `phantoms = many`: `phantoms` is a number, `many` is none; write a number, `12 %` or `50ms`"
    );
}

#[test]
fn settings_match_by_number_time_or_text() {
    let settings = [
        ("server.backlog", "16"),
        ("sysctl.net.core.somaxconn", "128"),
        ("server.accept-delay", "0.5ms"),
        ("server.reuseport", "hash"),
        ("loadgen.rate", "2.5k"),
        ("sysctl.net.ipv4.ip_local_port_range", "32768\t60999"),
    ];
    let cell = cell(&settings);
    for (text, matches) in [
        ("server.backlog = 16 and sysctl.net.core.somaxconn = 128", true),
        ("server.backlog = 16 and sysctl.net.core.somaxconn = 16", false),
        ("server.backlog = 16.0", true),
        ("server.backlog != 16", false),
        ("server.backlog < 128", true),
        ("server.accept-delay = 500us", true),
        ("server.accept-delay > 1ms", false),
        ("server.reuseport = hash", true),
        ("server.reuseport != off", true),
        ("server.reuseport < off", false),
        ("loadgen.rate = 2500", true),
        ("sysctl.net.ipv4.ip_local_port_range = 32768 60999", true),
    ] {
        assert_eq!(condition(text).matches_cell(&cell, &BTreeMap::new()), Ok(matches), "{text}");
    }
}

#[test]
fn a_setting_the_cell_does_not_make_is_looked_up_in_the_effective_ones() {
    let mut trial = testing::trial(0);
    trial.server.opts.backlog = 4096;
    let cell = cell(&[("server.backlog", "16")]);
    let matches = |text: &str| condition(text).matches_trial(&cell, &trial);
    assert_eq!(matches("server.backlog = 16"), Ok(true), "the cell comes first");
    assert_eq!(matches("server.engine = epoll and loadgen.deadline = 5s"), Ok(true));
    assert_eq!(matches("server.stall != 1s+2s"), Ok(false), "not set: satisfies nothing");
    let error = matches("backlog = 16").unwrap_err().to_string();
    assert!(error.contains("settings begin with server., loadgen., half-open. or sysctl."), "{error}");
}

#[test]
fn a_condition_is_text_in_files() {
    let parsed: Condition = serde_json::from_str("\"overflows>0\"").unwrap();
    assert_eq!(serde_json::to_string(&parsed).unwrap(), "\"overflows > 0\"");
    assert!(serde_json::from_str::<Condition>("\"overflows\"").is_err());
}

fn value() -> impl Strategy<Value = Value> {
    let word = "[a-z][a-z0-9:/_+-]{0,8}( [a-z][a-z0-9]{0,4})?";
    prop_oneof![
        (-1e12..1e12f64).prop_map(Value::Number),
        (0u32..1_000_000).prop_map(|n| Value::Number(f64::from(n))),
        (0.0..1e4f64).prop_map(Value::Percent),
        (1u64..1 << 50).prop_map(|ns| Value::Time(std::time::Duration::from_nanos(ns).into())),
        word.prop_filter("`and` ends a value", |word| word.split(' ').all(|part| part != "and")).prop_map(Value::Word),
    ]
}

fn comparison() -> impl Strategy<Value = Comparison> {
    let name = "[a-z][a-z0-9._-]{0,20}".prop_filter("`and` is no name", |name| name != "and");
    (name, proptest::sample::select(&Operator::ALL[..]), value()).prop_map(|(name, operator, value)| Comparison {
        name,
        operator,
        value,
    })
}

proptest! {
    #[test]
    fn what_is_displayed_parses_back(comparisons in proptest::collection::vec(comparison(), 1..4)) {
        let condition = Condition { comparisons };
        prop_assert_eq!(Condition::parse(&condition.to_string()), Ok(condition));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ a-zµ0-9=<>!%.]{0,30}|.{0,20}") {
        if let Err(error) = Condition::parse(&text) {
            prop_assert!(error.position <= text.chars().count() + 1);
        }
    }
}
