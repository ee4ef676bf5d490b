//! The text forms of spans and rates, as people write them and as records hold them.

use super::*;
use proptest::prelude::*;

#[test]
fn spans_are_read_exactly_as_written() {
    for (text, ns) in [
        ("0", 0),
        ("0s", 0),
        ("250ns", 250),
        ("500us", 500_000),
        ("500µs", 500_000),
        ("1.5ms", 1_500_000),
        (" 800 ms ", 800_000_000),
        ("5s", 5_000_000_000),
        ("0.1s", 100_000_000),
        ("0.000000001s", 1),
        ("1m", 60_000_000_000),
        ("1.5m", 90_000_000_000),
        ("1.25h", 4_500_000_000_000),
    ] {
        assert_eq!(text.parse::<Span>().map(Span::as_ns), Ok(ns), "{text}");
    }
}

#[test]
fn spans_are_printed_in_the_shortest_exact_form() {
    for (ns, text) in [
        (0, "0"),
        (1, "1ns"),
        (1_000, "1us"),
        (500_000, "500us"),
        (1_500_000, "1.5ms"),
        (800_000_000, "800ms"),
        (1_000_000_001, "1.000000001s"),
        (60_000_000_000, "1m"),
        (90_000_000_000, "90s"),
        (7_200_000_000_000, "2h"),
    ] {
        assert_eq!(Span::from(Duration::from_nanos(ns)).to_string(), text);
    }
    assert_eq!(format!("{:>6}", Span::from(Duration::from_secs(5))), "    5s");
}

#[test]
fn a_wrong_span_names_its_cause_and_the_fix() {
    for (text, expected) in [
        ("500", "write a unit, e.g. 500us, 500ms or 500s"),
        ("5 parsecs", "\"parsecs\" is not a unit; use ns, us, ms, s, m or h"),
        ("-5s", "does not begin with a number"),
        ("", "does not begin with a number"),
        ("1.2.3s", "does not begin with a number"),
        ("1.s", "does not begin with a number"),
        ("1.5ns", "whole number of nanoseconds; use fewer decimals"),
        ("0.00000000001m", "whole number of nanoseconds; use fewer decimals"),
        ("99999999999999999999h", "too long"),
        ("999999999999999999999999999999999999999999h", "too long"),
    ] {
        let error = text.parse::<Span>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains(&format!("{:?}", text.trim())), "{error} does not name what was written");
    }
}

#[test]
fn a_span_in_a_file_is_text_and_an_integer_is_told_so() {
    assert_eq!(serde_json::to_string(&"500us".parse::<Span>().unwrap()).unwrap(), "\"500us\"");
    assert_eq!(serde_json::from_str::<Span>("\"5s\"").unwrap(), Duration::from_secs(5).into());
    let error = serde_json::from_str::<Span>("500").unwrap_err().to_string();
    assert!(error.contains("it has no unit; write a unit, e.g. 500us"), "{error}");
    let error = serde_json::from_str::<Span>("\"500\"").unwrap_err().to_string();
    assert!(error.contains("it has no unit"), "{error}");
}

#[test]
fn spans_beyond_u64_nanoseconds_saturate_only_in_as_ns() {
    let ages = Span::from(Duration::MAX);
    assert_eq!(ages.as_ns(), u64::MAX);
    assert_eq!(ages.to_string().parse(), Ok(ages));
}

#[test]
fn rates_are_read_with_and_without_suffix() {
    for (text, rate) in
        [("1000", 1000.0), ("2.5k", 2500.0), ("1000/s", 1000.0), ("1.001k/s", 1001.0), ("1M", 1e6), ("0.5", 0.5)]
    {
        assert_eq!(text.parse(), Rate::new(rate), "{text}");
    }
}

#[test]
fn a_wrong_rate_names_its_cause_and_the_fix() {
    for (text, expected) in [
        ("0", "greater than 0"),
        ("-5", "greater than 0"),
        ("inf", "not a number"),
        ("nan", "not a number"),
        ("1e3k", "not a number"),
        ("", "not a number"),
        ("fast", "write attempts per second, e.g. 1000, 2.5k or 1000/s"),
    ] {
        let error = text.parse::<Rate>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_rate_in_a_file_is_a_number_or_text() {
    for json in ["2500", "2500.0", "\"2.5k\""] {
        assert_eq!(serde_json::from_str::<Rate>(json).unwrap().per_second().to_string(), "2500", "{json}");
    }
    assert_eq!(serde_json::to_string(&Rate::new(2500.0).unwrap()).unwrap(), "2500.0");
    assert!(serde_json::from_str::<Rate>("-1").unwrap_err().to_string().contains("greater than 0"));
    assert!(serde_json::from_str::<Rate>("[]").unwrap_err().to_string().contains("e.g. 1000 or \"2.5k\""));
}

proptest! {
    #[test]
    fn every_span_parses_back(seconds in prop_oneof![0u64..10, 0u64..100_000, any::<u64>()], nanos in prop_oneof![Just(0), 0..1_000_000_000u32]) {
        let span = Span::from(Duration::new(seconds, nanos));
        prop_assert_eq!(span.to_string().parse(), Ok(span));
        let json = serde_json::to_string(&span).unwrap();
        prop_assert_eq!(serde_json::from_str::<Span>(&json).unwrap(), span);
    }

    #[test]
    fn every_rate_parses_back(per_second in prop_oneof![1e-9..1e12f64, (1u32..).prop_map(f64::from)]) {
        let rate = Rate::new(per_second).unwrap();
        prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        let json = serde_json::to_string(&rate).unwrap();
        let back = serde_json::from_str::<Rate>(&json).unwrap().per_second();
        // serde_json reads the last digit of a long fraction exactly only with its feature `float_roundtrip`.
        prop_assert!((back / per_second - 1.0).abs() <= 4.0 * f64::EPSILON, "{} became {}", per_second, back);
    }
}
