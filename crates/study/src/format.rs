//! Numbers as people read them: `17.2 %`, `530 µs`, `1.02 s`. Owns rounding for the eye; results files and
//! CSV keep every digit.

use crate::quantity::Unit;

/// A value of a quantity with its unit.
pub fn value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Ratio => percent(value),
        Unit::Seconds => time(value),
        Unit::Count => count(value),
        Unit::PerSecond => format!("{}/s", count(value)),
    }
}

/// From one value to another, the unit written once where it is the same: `17.2 → 100 %`.
pub fn change(from: f64, to: f64, unit: Unit) -> String {
    pair(from, to, unit, " → ")
}

/// A range, the unit written once where it is the same: `17.2–18.0 %`; one value when both ends read the same.
pub fn range([least, greatest]: [f64; 2], unit: Unit) -> String {
    if value(least, unit) == value(greatest, unit) {
        return value(least, unit);
    }
    pair(least, greatest, unit, "–")
}

fn pair(from: f64, to: f64, unit: Unit, between: &str) -> String {
    let (from, to) = (value(from, unit), value(to, unit));
    match (from.split_once(' '), to.split_once(' ')) {
        (Some((number, a)), Some((_, b))) if a == b => format!("{number}{between}{to}"),
        _ => format!("{from}{between}{to}"),
    }
}

/// A ratio in percent with one decimal. Only all is `100 %` and only none is `0 %`: what merely rounds to them is
/// shown as `99.9 %` and `<0.1 %`, because one lost connection in 100 000 is not none.
pub fn percent(ratio: f64) -> String {
    let tenths = (ratio * 1000.0).round();
    if ratio == 0.0 {
        "0 %".to_owned()
    } else if (ratio - 1.0).abs() < f64::EPSILON {
        "100 %".to_owned()
    } else if ratio > 0.0 && tenths < 1.0 {
        "<0.1 %".to_owned()
    } else if ratio < 1.0 && tenths >= 1000.0 {
        "99.9 %".to_owned()
    } else {
        format!("{:.1} %", tenths / 10.0)
    }
}

/// A time given in seconds, three significant digits.
pub fn time(seconds: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s")];
    if seconds == 0.0 {
        return "0 s".to_owned();
    }
    for (scale, name) in UNITS {
        let number = seconds / scale;
        // Compared after rounding: 999.7 µs is 1.00 ms, not 1000 µs.
        if number.abs() < 999.5 || name == "s" {
            return format!("{} {name}", three_digits(number));
        }
    }
    unreachable!("the last unit takes every number")
}

fn three_digits(number: f64) -> String {
    match number.abs() {
        n if n >= 99.95 => format!("{number:.0}"),
        n if n >= 9.995 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// A count, with a decimal only where it has one (a median of an even number of trials).
pub fn count(number: f64) -> String {
    if (number - number.round()).abs() < 0.05 { format!("{number:.0}") } else { format!("{number:.1}") }
}

/// A probability, to two digits and no lower than four decimals.
pub fn p_value(p: f64) -> String {
    if p < 0.000_05 {
        "<0.0001".to_owned()
    } else if p < 0.001 {
        format!("{p:.4}")
    } else if p < 0.0995 {
        format!("{p:.3}")
    } else {
        format!("{p:.2}")
    }
}

/// An effect with its sign: a difference of ratios in points, everything else as a share of where it began.
pub fn effect(effect: f64, unit: Unit) -> String {
    let sign = if effect < 0.0 { "−" } else { "+" };
    let size = effect.abs() * 100.0;
    let size = if size < 999.5 { format!("{size:.1}") } else { format!("{size:.0}") };
    format!("{sign}{size} {}", if unit == Unit::Ratio { "points" } else { "%" })
}

/// `1 trial`, `2 trials`.
pub fn plural(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_three_digits_and_carry_into_the_next_unit() {
        for (seconds, text) in [
            (0.0, "0 s"),
            (53e-9, "53.0 ns"),
            (530e-6, "530 µs"),
            (999.7e-6, "1.00 ms"),
            (0.0123, "12.3 ms"),
            (0.009_996, "10.0 ms"),
            (1.018, "1.02 s"),
            (135.0, "135 s"),
            (1e6, "1000000 s"),
            (-0.002, "-2.00 ms"),
        ] {
            assert_eq!(time(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn percent_never_rounds_a_loss_away() {
        for (ratio, text) in [
            (0.0, "0 %"),
            (0.000_01, "<0.1 %"),
            (0.172_4, "17.2 %"),
            (0.5, "50.0 %"),
            (0.999_99, "99.9 %"),
            (1.0, "100 %"),
            (1.5, "150.0 %"),
        ] {
            assert_eq!(percent(ratio), text, "{ratio}");
        }
    }

    #[test]
    fn a_shared_unit_is_written_once() {
        assert_eq!(change(0.172, 1.0, Unit::Ratio), "17.2 → 100 %");
        assert_eq!(change(2.1, 530e-6, Unit::Seconds), "2.10 s → 530 µs");
        assert_eq!(range([0.172, 0.18], Unit::Ratio), "17.2–18.0 %");
        assert_eq!(range([0.172, 0.172], Unit::Ratio), "17.2 %");
        assert_eq!(range([3.0, 12.5], Unit::Count), "3–12.5");
        assert_eq!(value(1234.0, Unit::PerSecond), "1234/s");
    }

    #[test]
    fn probabilities_are_never_rounded_to_nothing() {
        for (p, text) in
            [(0.000_01, "<0.0001"), (0.000_1, "0.0001"), (0.031_25, "0.031"), (0.099_6, "0.10"), (1.0, "1.00")]
        {
            assert_eq!(p_value(p), text, "{p}");
        }
    }

    #[test]
    fn effects_carry_their_sign_and_ratios_are_points() {
        assert_eq!(effect(0.385, Unit::Ratio), "+38.5 points");
        assert_eq!(effect(-0.123, Unit::Seconds), "−12.3 %");
        assert_eq!(effect(41.0, Unit::Count), "+4100 %");
    }

    #[test]
    fn nouns_agree_with_their_number() {
        assert_eq!((plural(1, "trial"), plural(0, "trial")), ("1 trial".to_owned(), "0 trials".to_owned()));
    }
}
