//! Arguments of the commands that only read and print.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Where `report --openmetrics` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OpenMetrics {
    /// Into the results directory.
    InResults,
    /// Into a file of one's own.
    File(PathBuf),
}

impl OpenMetrics {
    #[expect(clippy::unnecessary_wraps, reason = "what clap asks of a parser")]
    pub(crate) fn parse(text: &str) -> Result<Self, std::convert::Infallible> {
        Ok(if text.is_empty() { Self::InResults } else { Self::File(text.into()) })
    }
}

/// Arguments of `list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// One JSON document instead of the lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `compare`.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The results directory that is compared with.
    #[arg(value_name = "A")]
    pub(crate) one: PathBuf,
    /// The results directory that is compared.
    #[arg(value_name = "B")]
    pub(crate) other: PathBuf,
    /// Compare the cells that both runs have with the same settings, though the experiments differ.
    #[arg(long)]
    pub(crate) common: bool,
    /// One JSON document instead of the tables.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `merge`.
#[derive(Args, Debug)]
pub(crate) struct MergeArgs {
    /// What /snapshot of a load generator answered or what loadgen --json printed, words among the lines allowed; a file may
    /// hold several. `-` is standard input: kubectl logs --selector app.kubernetes.io/component=loadgen --tail=-1 | acceptbench merge -
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The merged snapshot as one JSON document, with what each shard did, instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// One JSON document instead of the lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell, e.g. `acceptbench completions bash > /etc/bash_completion.d/acceptbench`.
    pub(crate) shell: Shell,
}

/// Arguments of `man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Where to write acceptbench.1, acceptbench-run.1 and so on, instead of printing the first.
    pub(crate) directory: Option<PathBuf>,
}
