//! Settings as text, under the names that an experiment file uses: `server.backlog`, `loadgen.rate`,
//! `sysctl.net.core.somaxconn`. Owns the way from typed options to those names, nothing else.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::results::Trial;

/// The first parts a setting's name may have.
pub const PREFIXES: [&str; 5] = ["server.", "target.", "loadgen.", "half-open.", "sysctl."];

/// Sockets that the load generator of a trial keeps half open: no option of it, but a setting of the experiment.
pub const HALF_OPEN: &str = "half-open.count";

/// Everything that was in force in a trial: the options of both ends and the sysctls read back from the server's
/// namespace. An option that was not set at all has no entry.
pub fn effective(trial: &Trial) -> BTreeMap<String, String> {
    let mut settings = match &trial.target {
        None => of_options(&trial.server.opts, &trial.loadgen.opts),
        Some(target) => of_target(&target.settings, &trial.loadgen.opts),
    };
    settings.insert(HALF_OPEN.to_owned(), trial.loadgen.half_open.kept.to_string());
    settings.extend(trial.sysctls.iter().map(|(name, value)| (format!("sysctl.{name}"), value.clone())));
    settings
}

/// The options of both ends as settings.
pub fn of_options(server: &server::Opts, loadgen: &loadgen::Opts) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    extend(&mut settings, "server.", server);
    extend(&mut settings, "loadgen.", loadgen);
    settings
}

/// The settings of a target and the options of the load generator beside it.
pub fn of_target(target: &BTreeMap<String, String>, loadgen: &loadgen::Opts) -> BTreeMap<String, String> {
    let mut settings = target.clone();
    extend(&mut settings, "loadgen.", loadgen);
    settings
}

fn extend(settings: &mut BTreeMap<String, String>, prefix: &str, options: &impl Serialize) {
    let texts =
        fields(options).into_iter().filter_map(|(name, value)| Some((format!("{prefix}{name}"), text(&value)?)));
    settings.extend(texts);
}

/// Options by their names, unset ones as null.
pub(crate) fn fields(options: &impl Serialize) -> BTreeMap<String, Value> {
    match serde_json::to_value(options) {
        Ok(Value::Object(fields)) => fields.into_iter().collect(),
        // Options are flat structs of texts and numbers, which JSON always can say.
        _ => BTreeMap::new(),
    }
}

/// An option as people write it; `None` where it is not set.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn options_and_sysctls_have_the_names_of_the_experiment_file() {
        let mut trial = testing::trial(0);
        trial.sysctls.insert("net.core.somaxconn".to_owned(), "77".to_owned());
        trial.server.opts.backlog = 4096;
        trial.loadgen.half_open.kept = 77;
        let settings = effective(&trial);
        assert_eq!(settings["half-open.count"], "77");
        assert_eq!(settings["server.backlog"], "4096");
        assert_eq!(settings["server.engine"], "epoll");
        assert_eq!(settings["loadgen.confirm"], "greeting");
        assert_eq!(settings["sysctl.net.core.somaxconn"], "77");
        assert!(!settings.contains_key("server.stall"), "an option that is not set has no value");
    }

    #[test]
    fn of_a_target_there_are_no_options_of_our_server() {
        let mut trial = testing::trial(0);
        let settings = BTreeMap::from([("target.values.backlog".to_owned(), "511".to_owned())]);
        trial.target = Some(crate::results::Target { settings, ..Default::default() });
        let settings = effective(&trial);
        assert_eq!(settings["target.values.backlog"], "511");
        assert!(settings.keys().all(|name| !name.starts_with("server.")), "{settings:?}");
        assert_eq!(settings["loadgen.confirm"], "greeting");
    }
}
