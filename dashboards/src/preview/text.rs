//! Values and names as a reader sees them.

use serde_json::Value;

use crate::client::Series;

/// For HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The name of a series: the legend with its labels.
pub(super) fn named(legend: &str, series: &Series) -> String {
    let mut parts = legend.split("{{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (label, rest) = part.split_once("}}").unwrap_or((part, ""));
        out.push_str(series.label(label.trim()));
        out.push_str(rest);
    }
    out
}

/// A value in a unit of Grafana's.
pub(super) fn value(value: f64, unit: &str) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    match unit {
        "percentunit" => format!("{} %", short(value * 100.0)),
        "s" if value.abs() >= 1.0 || value == 0.0 => format!("{} s", short(value)),
        "s" if value.abs() >= 1e-3 => format!("{} ms", short(value * 1e3)),
        "s" => format!("{} µs", short(value * 1e6)),
        "cps" => format!("{} /s", short(value)),
        "none" => format!("{value}"),
        _ => short(value),
    }
}

/// Three digits that say something, down to millionths.
fn short(value: f64) -> String {
    let size = value.abs();
    let (value, unit) = match size {
        1e9.. => (value / 1e9, "G"),
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        0.01.. => 4,
        _ => 6,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// The colour of a value by a panel's thresholds.
pub(super) fn colour(value: f64, panel: &Value) -> &'static str {
    let steps = panel.pointer("/fieldConfig/defaults/thresholds/steps").and_then(Value::as_array);
    let mut steps = steps.into_iter().flatten().filter(|step| step["value"].as_f64().is_none_or(|from| value >= from));
    match steps.next_back().and_then(|step| step["color"].as_str()) {
        Some("red") => "#c4162a",
        Some("orange") => "#b8590a",
        Some("green") => "#19730e",
        _ => "#24292e",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_have_three_digits_and_their_unit() {
        let said = [
            (0.0523, "percentunit"),
            (0.0042, "s"),
            (2.0, "s"),
            (12345.0, "short"),
            (512.0, "cps"),
            (4096.0, "none"),
            (0.000_21, "short"),
        ];
        let said: Vec<String> = said.map(|(number, unit)| value(number, unit)).into();
        assert_eq!(said, ["5.23 %", "4.2 ms", "2 s", "12.3k", "512 /s", "4096", "0.00021"]);
    }

    #[test]
    fn a_legend_is_filled_in() {
        let series = Series { labels: json!({"instance": "a:1", "le": "1"}), points: Vec::new() };
        assert_eq!(named("p99 · {{instance}} {{none}}!", &series), "p99 · a:1 !");
    }
}
