//! The experiments that come with the program, and how an argument names one of them or a file.

use std::path::Path;

use lab::Experiment;

use crate::exit::Failure;

/// Name and text of each, in the order in which `list` shows them.
pub(crate) const EXPERIMENTS: [(&str, &str); 22] = [
    ("backlog", include_str!("../../../experiments/backlog.toml")),
    ("phantoms", include_str!("../../../experiments/phantoms.toml")),
    ("who-speaks-first", include_str!("../../../experiments/who-speaks-first.toml")),
    ("abort-on-overflow", include_str!("../../../experiments/abort-on-overflow.toml")),
    ("connect-timeout", include_str!("../../../experiments/connect-timeout.toml")),
    ("recovery", include_str!("../../../experiments/recovery.toml")),
    ("syn-queue", include_str!("../../../experiments/syn-queue.toml")),
    ("defer-accept", include_str!("../../../experiments/defer-accept.toml")),
    ("fastopen", include_str!("../../../experiments/fastopen.toml")),
    ("acceptors", include_str!("../../../experiments/acceptors.toml")),
    ("engines", include_str!("../../../experiments/engines.toml")),
    ("processes-and-threads", include_str!("../../../experiments/processes-and-threads.toml")),
    ("fork-per-connection", include_str!("../../../experiments/fork-per-connection.toml")),
    ("reuseport-steering", include_str!("../../../experiments/reuseport-steering.toml")),
    ("restart-migrate", include_str!("../../../experiments/restart-migrate.toml")),
    ("ports-and-time-wait", include_str!("../../../experiments/ports-and-time-wait.toml")),
    ("queueing-theory", include_str!("../../../experiments/queueing-theory.toml")),
    ("capacity", include_str!("../../../experiments/capacity.toml")),
    ("nginx-backlog", include_str!("../../../experiments/nginx-backlog.toml")),
    ("redis-backlog", include_str!("../../../experiments/redis-backlog.toml")),
    ("your-server", include_str!("../../../experiments/your-server.toml")),
    ("sweep", include_str!("../../../experiments/sweep.toml")),
];

/// The experiment that an argument means: a shipped name, or a file.
pub(crate) fn find(argument: &str) -> Result<Experiment, Failure> {
    let shipped = EXPERIMENTS.iter().find(|(name, _)| *name == argument);
    match shipped {
        Some((name, text)) => Experiment::parse(&format!("experiments/{name}.toml"), text).map_err(Failure::usage),
        None if looks_like_a_file(argument) => Experiment::read(Path::new(argument)).map_err(Failure::usage),
        None => Err(Failure::Usage(format!(
            "no experiment is called `{argument}`; shipped are {}; a file's path ends in .toml",
            EXPERIMENTS.map(|(name, _)| name).join(", ")
        ))),
    }
}

fn looks_like_a_file(argument: &str) -> bool {
    argument.contains('/')
        || Path::new(argument).extension().is_some_and(|extension| extension == "toml")
        || Path::new(argument).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_experiment_is_valid_and_bears_its_name() {
        for (name, _) in EXPERIMENTS {
            let experiment = find(name).expect("valid");
            assert_eq!(experiment.name, name);
            if let Some(next) = &experiment.next {
                assert!(EXPERIMENTS.iter().any(|(name, _)| name == next), "{name} names {next}");
            }
        }
    }

    #[test]
    fn every_experiment_file_of_the_repository_is_shipped() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder")
            .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
            .collect();
        files.sort_unstable();
        let mut shipped = EXPERIMENTS.map(|(name, _)| name.to_owned()).to_vec();
        shipped.sort_unstable();
        assert_eq!(files, shipped);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        assert!(matches!(find("backlogg"), Err(Failure::Usage(text)) if text.contains("backlog, phantoms")));
    }
}
