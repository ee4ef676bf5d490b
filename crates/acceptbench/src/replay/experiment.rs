//! The experiment of a replay, as the text of its file: who has its results directory can run it again without the recording.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use lab::Experiment;
use study::reach;

use super::model::Model;
use super::text;
use crate::cli::{ReplayArgs, Set};
use crate::exit::Failure;

/// Cells at most: more is a typing error.
const MOST_CELLS: usize = 64;

/// Settings with their values, as TOML has them.
type Level = Vec<(String, String)>;

/// The experiment, checked.
pub(super) fn of(model: &Model<'_>, args: &ReplayArgs) -> Result<Experiment, Failure> {
    let name = format!("{} as an experiment", model.file.display());
    let base = base(model, args);
    let alone = Experiment::parse(&name, &base).map_err(Failure::usage)?;
    if args.set.is_empty() {
        return Ok(alone);
    }
    let levels = levels(model, &alone, &args.set)?;
    let text = format!("{base}{}", factor(&levels, args.replicates.get() as usize));
    // Without the factor it was valid: what is wrong was set.
    Experiment::parse(&name, &text).map_err(|error| Failure::flag(format!("set: {}", error.message)))
}

/// The file without what is varied.
fn base(model: &Model<'_>, args: &ReplayArgs) -> String {
    let header = &model.recording.header;
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key} = {value}");
    };
    line("[experiment]\nname", "\"replay\"");
    line("question", &quoted(&format!("Would other knobs have saved the clients of {}?", header.listener)));
    line("analysis", &quoted(&text::opening(model)));
    line("replicates", &args.replicates.to_string());
    line("warm-up", "\"0s\"");
    line("measure", &quoted(&model.measure.to_string()));
    line("\n[server]\nbacklog", &model.limit().to_string());
    if !model.accept_delay.is_zero() {
        line("accept-delay", &quoted(&model.accept_delay.to_string()));
    }
    if let Some(stall) = &model.stall {
        line("stall", &quoted(stall));
    }
    line("\n[loadgen]\ndeadline", &quoted(&model.deadline.to_string()));
    line("arrivals", &quoted(&format!("trace:{}", model.trace)));
    text.push_str("\n[sysctl]\n");
    for (name, value) in &model.sysctls {
        let _ = writeln!(text, "{} = {}", quoted(name), literal(value));
    }
    text
}

/// What is varied, and what is compared.
fn factor(levels: &[Level], replicates: usize) -> String {
    let mut text = "\n[[factor]]\nlevels = [\n".to_owned();
    for level in levels {
        let settings: Vec<String> = level.iter().map(|(key, value)| format!("{} = {value}", quoted(key))).collect();
        let _ = writeln!(text, "    {{ {} }},", settings.join(", "));
    }
    let tested = reach::reachable_p(&vec![levels.len(); replicates]) <= reach::SIGNIFICANCE;
    let by = if tested { "findings" } else { "ranges" };
    let _ = writeln!(text, "]\n\n[compare]\nmetrics = [\"served-ratio\", \"confirm-latency.p99\"]\nby = \"{by}\"");
    text
}

/// Every combination of what was set; before them what was recorded.
fn levels(model: &Model<'_>, alone: &Experiment, sets: &[Set]) -> Result<Vec<Level>, Failure> {
    let mut keys = BTreeSet::new();
    if let Some(twice) = sets.iter().find(|set| !keys.insert(&set.key)) {
        return Err(Failure::flag(format!(
            "set {}: it is set twice; write its values into one, KEY=VALUE,VALUE",
            twice.key
        )));
    }
    let mut recorded = Level::new();
    let mut combinations = vec![Level::new()];
    for Set { key, values } in sets {
        recorded.push((key.clone(), literal(&as_recorded(model, alone, key)?)));
        let each = |head: &Level| {
            let longer = |value: &String| head.iter().cloned().chain([(key.clone(), literal(value))]).collect();
            values.iter().map(longer).collect::<Vec<Level>>()
        };
        combinations = combinations.iter().flat_map(each).collect();
        if combinations.len() >= MOST_CELLS {
            return Err(Failure::flag(format!("set {key}: that is more than {MOST_CELLS} cells; give fewer values")));
        }
    }
    let mut levels = vec![recorded];
    for level in combinations {
        if !levels.contains(&level) {
            levels.push(level);
        }
    }
    Ok(levels)
}

/// The value of a setting in the replay of what was recorded.
fn as_recorded(model: &Model<'_>, alone: &Experiment, key: &str) -> Result<String, Failure> {
    if let Some(name) = key.strip_prefix("sysctl.") {
        let known = model.sysctls.get(name).or_else(|| model.recording.header.sysctls.get(name));
        return known.cloned().ok_or_else(|| {
            let names: Vec<&str> = model.recording.header.sysctls.keys().map(String::as_str).collect();
            Failure::flag(format!(
                "set {key}: {} does not say what it was; it has {}",
                model.file.display(),
                names.join(", ")
            ))
        });
    }
    let base = alone.resolved.first().map(|cell| study::settings::of_options(&cell.server, &cell.loadgen));
    base.unwrap_or_default().remove(key).ok_or_else(|| {
        Failure::flag(format!(
            "set {key}: no setting that has a value in what was recorded; write server.KEY, loadgen.KEY or sysctl.NAME, \
             e.g. server.backlog=4096"
        ))
    })
}

/// A value as TOML has it.
fn literal(value: &str) -> String {
    if value.parse::<i64>().is_ok() || matches!(value, "true" | "false") { value.to_owned() } else { quoted(value) }
}

/// A basic string of TOML, whose escapes are those of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
