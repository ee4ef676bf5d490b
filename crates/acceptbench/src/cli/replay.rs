//! Arguments of `replay`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use telemetry::admin::Listen;
use telemetry::units::Span;

/// Arguments of `replay`.
#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// What `acceptbench watch --record` wrote.
    #[arg(value_name = "FILE")]
    pub(crate) recording: PathBuf,
    /// Another value of a setting, by its name in experiment files; several values, separated by commas, are several cells:
    /// server.backlog=1024,4096. May be given several times; every combination is replayed, and what was recorded beside
    /// them.
    #[arg(long, value_name = "KEY=VALUE[,VALUE]")]
    pub(crate) set: Vec<Set>,
    /// How long a client waits for its first byte. It also says who is taken to have tried again after a drop, and so how many
    /// there were.
    #[arg(long, value_name = "TIME", default_value = "5s", allow_negative_numbers = true, value_parser = above_0)]
    pub(crate) deadline: Span,
    /// Time that serving a connection takes, instead of what the recording says.
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = above_0)]
    pub(crate) service_time: Option<Span>,
    /// Replay only what was recorded from here on.
    #[arg(long, value_name = "TIME", default_value = "0s", allow_negative_numbers = true)]
    pub(crate) from: Span,
    /// Replay only so much of the recording.
    #[arg(long = "for", value_name = "TIME", allow_negative_numbers = true, value_parser = above_0)]
    pub(crate) length: Option<Span>,
    /// Shorten stretches in which nothing came and nobody waited to this; not below the deadline. Without it they take as long
    /// as they took.
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = above_0)]
    pub(crate) measure_gap: Option<Span>,
    /// How often every cell is replayed; from six on two cells can be told apart by a test.
    #[arg(long, value_name = "N", default_value = "3", allow_negative_numbers = true)]
    pub(crate) replicates: NonZeroU32,
    /// Print the experiment instead of running it.
    #[arg(long, conflicts_with = "json")]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) into: MadeArgs,
}

/// Where an experiment that a command makes goes, and how it is told.
#[derive(Args, Debug)]
pub(crate) struct MadeArgs {
    /// Print JSON, a document a line, as `run` does, after one of the recording. The words go to stderr.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where results directories are made.
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
    /// Where to serve metrics while it runs: ADDR:PORT (a taken port is replaced by a free one) or off.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9712")]
    pub(crate) admin: Listen,
}

fn above_0(text: &str) -> Result<Span, String> {
    let time: Span = text.parse().map_err(|error| format!("{error}"))?;
    if time.is_zero() { Err("write a time above 0, e.g. 800ms".to_owned()) } else { Ok(time) }
}

/// A setting and its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    /// Its full name.
    pub(crate) key: String,
    /// As they were written.
    pub(crate) values: Vec<String>,
}

impl FromStr for Set {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let how = || {
            "write KEY=VALUE or KEY=VALUE,VALUE with a KEY of experiment files, e.g. server.backlog=1024,4096"
                .to_owned()
        };
        let (key, values) = text.split_once('=').ok_or_else(how)?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        if key.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(how());
        }
        Ok(Self { key: key.trim().to_owned(), values })
    }
}
