//! The log: lines on stderr, never on stdout, which belongs to results.
//!
//! Owns the `--log` option and the one global subscriber. Nothing on the hot path logs.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// What a level may be called.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// How much to log. A struct of its own: no experiment file or record contains it.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct LogOpts {
    /// What to log to stderr: error, warn, info, debug, trace or off, or a filter such as "warn,server=debug"
    #[arg(long, value_name = "LEVEL", env = "ACCEPTBENCH_LOG", default_value_t, global = true)]
    pub log: LogFilter,
}

/// A checked filter: a level, or `target=level` directives separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

/// A text that is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "read the log filter {text:?}: {cause}; use off, error, warn, info, debug or trace, e.g. \"warn,server=debug\""
)]
pub struct LogFilterError {
    text: String,
    cause: String,
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("warn".to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        let refuse = |cause: String| LogFilterError { text: text.to_owned(), cause };
        // EnvFilter takes a lone unknown word for the name of a target, and would then log that target at trace:
        // "--log wran" must not silence everything else.
        let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
        if let Some(word) = text.split(',').map(str::trim).find(|part| !part.contains('=') && !is_level(part)) {
            return Err(refuse(format!("{word:?} is not a level")));
        }
        EnvFilter::try_new(text).map_err(|error| refuse(error.to_string()))?;
        Ok(Self(text.to_owned()))
    }
}

/// Starts logging to stderr. The first call decides; later ones (tests, a library user with a subscriber) do nothing.
pub fn init(opts: &LogOpts) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&opts.log.0))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("start logging: a subscriber is already installed, it stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        log: LogOpts,
    }

    #[test]
    fn the_default_is_warn_and_flags_override_it() {
        assert_eq!(LogOpts::default().log.to_string(), "warn");
        let parsed = Cli::try_parse_from(["x", "--log", "info,server=trace"]).unwrap();
        assert_eq!(parsed.log.log.to_string(), "info,server=trace");
    }

    #[test]
    fn a_misspelt_level_is_refused_with_the_choices() {
        for text in ["wran", "", "warn,server=loud", "warn,,info"] {
            let error = text.parse::<LogFilter>().unwrap_err().to_string();
            assert!(error.contains("use off, error, warn, info, debug or trace"), "{text}: {error}");
        }
        assert_eq!("WARN".parse::<LogFilter>().map(|f| f.to_string()), Ok("WARN".to_owned()));
    }
}
