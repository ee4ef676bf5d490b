//! Axes: where a value stands between the ends of a chart, and which values are written beside it.

use crate::format;
use crate::quantity::Unit;

/// From values to places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// In proportion, from 0.
    Linear {
        /// The value at the far end.
        to: f64,
    },
    /// In proportion to the logarithm.
    Log {
        /// The value at the near end.
        from: f64,
        /// The value at the far end.
        to: f64,
    },
    /// This many places of their own, by index.
    Places(usize),
}

impl Scale {
    /// Where a value stands: 0 at the near end, 1 at the far one.
    pub(super) fn part(self, value: f64) -> f64 {
        let part = match self {
            Self::Linear { to } => value / to,
            Self::Log { from, to } => (value.max(from) / from).ln() / (to / from).ln(),
            Self::Places(count) => (value + 0.5) / count as f64,
        };
        part.clamp(0.0, 1.0)
    }
}

/// A scale with its title and the values written beside it.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) title: String,
    pub(super) scale: Scale,
    /// Value and text.
    pub(super) ticks: Vec<(f64, String)>,
}

/// Times further apart than this are shown by their logarithm.
const WIDE: f64 = 30.0;

impl Axis {
    /// An axis for these values of a quantity: all of a ratio, otherwise from 0 or, for times that differ much, by the
    /// logarithm.
    pub(super) fn of_values(title: &str, unit: Unit, values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut greatest) = (f64::INFINITY, 0.0_f64);
        for value in values {
            if value > 0.0 {
                least = least.min(value);
            }
            greatest = greatest.max(value);
        }
        match unit {
            Unit::Ratio if greatest <= 1.0 => Self::linear(title, unit, 1.0),
            Unit::Seconds if least.is_finite() && greatest / least > WIDE => Self::log(title, unit, least, greatest),
            _ => Self::linear(title, unit, greatest),
        }
    }

    /// From 0 to a round value that is not less than `greatest`.
    pub(super) fn linear(title: &str, unit: Unit, greatest: f64) -> Self {
        let greatest = if greatest > 0.0 { greatest } else { 1.0 };
        let step = round_up(greatest / 4.0).max(if unit == Unit::Count { 1.0 } else { 0.0 });
        let steps = (greatest / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=4).map(f64::from).take_while(|n| *n <= steps).map(|n| n * step);
        let ticks = ticks.map(|value| (value, tidy(&format::value(value, unit)))).collect();
        Self { title: title.to_owned(), scale: Scale::Linear { to: steps * step }, ticks }
    }

    /// Between round values around `least` and `greatest`, both above 0.
    pub(super) fn log(title: &str, unit: Unit, least: f64, greatest: f64) -> Self {
        let from = round_down(least);
        let to = round_up(greatest).max(from * 10.0);
        let decades = (to / from).log10();
        let mut ticks = Vec::new();
        let mut decade = 10_f64.powf(from.log10().floor());
        while decade <= to * 1.001 {
            for digit in if decades > 2.5 { [1.0].as_slice() } else { &[1.0, 2.0, 5.0] } {
                let value = decade * digit;
                if value >= from * 0.999 && value <= to * 1.001 {
                    ticks.push((value, tidy(&format::value(value, unit))));
                }
            }
            decade *= 10.0;
        }
        Self { title: title.to_owned(), scale: Scale::Log { from, to }, ticks }
    }

    /// A place for each label.
    pub(super) fn places<'a>(title: &str, labels: impl Iterator<Item = &'a str>) -> Self {
        let ticks: Vec<(f64, String)> =
            labels.enumerate().map(|(index, label)| (index as f64, label.to_owned())).collect();
        Self { title: title.to_owned(), scale: Scale::Places(ticks.len()), ticks }
    }
}

/// The least of 1, 2, 5 times a power of ten that is not below `value`, which is above 0.
fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * decade).find(|round| *round >= value * 0.999).unwrap_or(value)
}

/// The greatest of 1, 2, 5 times a power of ten that is not above `value`, which is above 0.
fn round_down(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|digit| digit * decade).find(|round| *round <= value * 1.001).unwrap_or(decade)
}

/// A number without the zeros that only show its precision: `2.00 s` is `2 s` beside an axis.
pub(super) fn tidy(text: &str) -> String {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ratios_show_the_whole() {
        let axis = Axis::of_values("served", Unit::Ratio, [0.1, 0.4].into_iter());
        assert_eq!(axis.scale, Scale::Linear { to: 1.0 });
        assert_eq!(texts(&axis), ["0 %", "50 %", "100 %"]);
    }

    #[test]
    fn times_that_differ_much_stand_by_their_logarithm() {
        let axis = Axis::of_values("p99", Unit::Seconds, [0.0003, 1.2].into_iter());
        assert_eq!(axis.scale, Scale::Log { from: 0.0002, to: 2.0 });
        assert_eq!(texts(&axis), ["1 ms", "10 ms", "100 ms", "1 s"]);
        let near = Axis::of_values("p99", Unit::Seconds, [0.1, 0.35].into_iter());
        assert_eq!(near.scale, Scale::Linear { to: 0.4 });
        assert_eq!(texts(&near), ["0 s", "100 ms", "200 ms", "300 ms", "400 ms"]);
    }

    #[test]
    fn counts_have_whole_ticks_and_nothing_has_an_axis_too() {
        assert_eq!(texts(&Axis::of_values("phantoms", Unit::Count, [2.0].into_iter())), ["0", "1", "2"]);
        assert_eq!(texts(&Axis::of_values("phantoms", Unit::Count, [0.0].into_iter())), ["0", "1"]);
        assert_eq!(
            texts(&Axis::of_values("overflows", Unit::Count, [1023.0].into_iter())),
            ["0", "500", "1000", "1500"]
        );
    }

    #[test]
    fn parts_run_from_end_to_end() {
        assert!((Scale::Linear { to: 4.0 }.part(1.0) - 0.25).abs() < 1e-12);
        let log = Scale::Log { from: 0.001, to: 10.0 };
        assert!((log.part(0.1) - 0.5).abs() < 1e-12);
        assert_eq!((log.part(0.0), log.part(100.0)), (0.0, 1.0));
        assert!((Scale::Places(2).part(1.0) - 0.75).abs() < 1e-12);
    }
}
