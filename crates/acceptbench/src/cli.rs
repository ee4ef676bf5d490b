//! The command line: subcommands and their arguments. Options of server and load generator are their own structs;
//! what stands here is what only a program has.

mod desk;
mod replay;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use lab::AdminAddress;
use study::condition::Condition;
use telemetry::admin::Listen;
use telemetry::log::LogOpts;

pub(crate) use self::replay::{MadeArgs, ReplayArgs, Set};
use crate::base_url::BaseUrl;
use crate::terminal;
pub(crate) use desk::{CompareArgs, CompletionsArgs, DoctorArgs, ListArgs, ManArgs, MergeArgs, OpenMetrics};

/// Shown in place of clap's flat list of subcommands.
const HELP: &str = "\
{about}

Usage: acceptbench <COMMAND>

Experiment:
  run          Run an experiment in private network namespaces and answer its question
  check        Check an experiment file: cells, trials, time
  list         Shipped experiments with their questions
  report       Show a run's answer again
  compare      Hold two runs of one experiment against each other, cell by cell
  replay       What a recording of watch would have come to with other knobs
  probe        Measure what this kernel does with TCP sockets, claim by claim

Serve and load:
  server       Accept connections with a chosen backlog, acceptors and engine
  loadgen      Open connections at a controlled rate and account for each
  merge        Put the snapshots of a load's shards together, exactly

Observe:
  watch        Every TCP listener of this host or a container: queue depth, limit, drops; and recordings
  doctor       What this machine allows, and which experiments that limits

Housekeeping:
  schema       JSON Schema of an experiment file
  completions  Completions for a shell
  man          Manual pages

{options}

`acceptbench COMMAND --help` explains each. Start with: acceptbench run backlog{after-help}";

/// Shown at the end of the help and of the manual page.
const EXIT_CODES: &str = "\
Exit codes: 0 all well, 1 an expectation failed, 2 invalid trials, 64 usage or file,
69 the machine lacks something, 70 a bug, 130 interrupted.";

#[derive(Parser)]
#[command(name = "acceptbench", version, about = "What happens to connections at the accept path, and which knob changes it.", help_template = HELP, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    log: LogOpts,
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an experiment in private network namespaces and answer its question.
    Run(RunArgs),
    /// Check an experiment file: cells, trials, time.
    Check(CheckArgs),
    /// Shipped experiments with their questions.
    List(ListArgs),
    /// Show a run's answer again, from its stored trials; nothing is run.
    Report(ReportArgs),
    /// Hold two runs of one experiment against each other, cell by cell: two kernels, two machines, two builds. Nothing is
    /// run.
    Compare(CompareArgs),
    /// Put the snapshots of a load's shards (loadgen --shard I/N) together: counts are summed, histograms by bucket. Shows what
    /// one generator would have shown at its end; exit code 2 when a shard was a bottleneck. What does not belong together is
    /// refused. Nothing is run.
    Merge(MergeArgs),
    /// Replay what `watch --record` wrote of a listener in private network namespaces, with its own queue limit and with other
    /// knobs: would they have saved its clients? Says what was recorded, what is assumed, and the answer in a sentence.
    Replay(ReplayArgs),
    /// Measure what this kernel does with TCP sockets, claim by claim, in private network namespaces: what holds of the
    /// notes this project began with, and of what was measured since.
    Probe(ProbeArgs),
    /// Accept connections with a chosen backlog, acceptors and engine, and count what happens to them.
    ///
    /// SIGTERM or SIGINT: stop accepting, serve what is open (5 s at most), print the outcome, end; a second one ends at
    /// once. SIGUSR2: hot restart. The program that now stands at the same path is started with the same arguments and
    /// environment, inherits the listening sockets and the admin port, and accepts; this one serves what it has open (5 s
    /// at most), prints its own outcome and ends. No connection is lost. A successor that does not accept within 10 s is
    /// ended, and this server goes on as if nothing had happened. Refused as process 1 of a container, which would end
    /// with it.
    Server(ServerArgs),
    /// Open connections at a controlled rate and account for each.
    Loadgen(LoadgenArgs),
    /// Show and export every TCP listener of this host, or of another network namespace: accept queue depth, limit, drops.
    Watch(WatchArgs),
    /// Say what this machine allows, what that limits, and which shipped experiments can run. Changes nothing; exit code 69
    /// when `acceptbench run backlog` cannot run here.
    Doctor(DoctorArgs),
    /// Print the JSON Schema of an experiment file, for editors.
    Schema,
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, or write one of every command into a directory.
    Man(ManArgs),
    /// Exit 0 when the admin port of a server or load generator answers (for container health checks).
    #[command(hide = true)]
    Healthcheck(HealthcheckArgs),
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Name of a shipped experiment (see `acceptbench list`) or path of an experiment file.
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    pub(crate) experiment: Option<String>,
    /// Go on with the run in this results directory, by default results/latest: what it is, and what is missing, stands
    /// there.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "results/latest", conflicts_with = "results")]
    pub(crate) resume: Option<PathBuf>,
    /// Run only the cells for which this holds, e.g. "server.backlog = 16"; given several times, all must hold.
    #[arg(long, value_name = "CONDITION", conflicts_with = "resume")]
    pub(crate) only: Vec<Condition>,
    /// Print JSON, a document a line: start, each trial as it begins and ends, end. The words go to stderr.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where results directories are made.
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
    /// Where to serve metrics while it runs: ADDR:PORT (a taken port is replaced by a free one) or off.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9712")]
    pub(crate) admin: Listen,
    #[command(flatten)]
    pub(crate) attach: AttachArgs,
}

/// What an attached experiment is attached to, in place of what its file says.
#[derive(Args, Debug)]
#[command(next_help_heading = "Experiments with topology = \"attached\"")]
pub(crate) struct AttachArgs {
    /// Admin address of the running server, instead of the file's attach.server.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) attach_server: Option<AdminAddress>,
    /// Admin address of a running load generator, instead of the file's attach.loadgens; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) attach_loadgen: Vec<AdminAddress>,
    /// Tree of the server's sysctls, like /proc/sys/net, instead of the file's attach.sysctl-path.
    #[arg(long, value_name = "DIR")]
    pub(crate) sysctl_path: Option<PathBuf>,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Names of shipped experiments or paths of experiment files.
    #[arg(required = true)]
    pub(crate) experiments: Vec<String>,
}

/// Arguments of `report`.
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// The results directory.
    #[arg(default_value = "results/latest")]
    pub(crate) directory: PathBuf,
    /// Also write what Prometheus would have seen of the run, as OpenMetrics text with time stamps: `promtool tsdb
    /// create-blocks-from openmetrics FILE DATA` puts it into a Prometheus. Without =FILE it is openmetrics.txt in the
    /// results directory.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "",
          value_parser = OpenMetrics::parse)]
    pub(crate) openmetrics: Option<OpenMetrics>,
    /// Address of a Grafana that has the run's metrics: report.html then links each trial to its time on a dashboard.
    #[arg(long, value_name = "URL")]
    pub(crate) grafana: Option<BaseUrl>,
}

/// Arguments of `probe`.
#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// Only this group (connect, bind, listen, accept, fork, close), claim (`connect.name`) or note (1.2); may be given
    /// several times. A claim given by its name is measured even if it needs --full.
    #[arg(long, value_name = "GROUP|CLAIM|NOTE")]
    pub(crate) only: Vec<String>,
    /// Only the numbered notes, in their order, with reasons and counters.
    #[arg(long)]
    pub(crate) notes: bool,
    /// Also what waits out the kernel's default time-outs: two minutes more.
    #[arg(long)]
    pub(crate) full: bool,
    /// One JSON document instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `server`.
#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) opts: server::Opts,
    /// Where to serve /metrics, /healthz, /readyz and /snapshot: ADDR:PORT or off.
    #[arg(long, env = "ACCEPTBENCH_SERVER_ADMIN", value_name = "ADDR:PORT", default_value = "127.0.0.1:9710")]
    pub(crate) admin: Listen,
}

/// Arguments of `loadgen`.
#[derive(Args, Debug)]
pub(crate) struct LoadgenArgs {
    #[command(flatten)]
    pub(crate) opts: loadgen::Opts,
    /// Where to serve /metrics, /healthz, /readyz and /snapshot: ADDR:PORT or off.
    #[arg(long, env = "ACCEPTBENCH_LOADGEN_ADMIN", value_name = "ADDR:PORT", default_value = "127.0.0.1:9711")]
    pub(crate) admin: Listen,
    /// Print JSON, a document a line: start, progress every second, end. The words go to stderr.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) opts: watch::Opts,
    /// Where to serve /metrics, /healthz, /readyz and /snapshot: ADDR:PORT or off.
    #[arg(long, env = "ACCEPTBENCH_WATCH_ADMIN", value_name = "ADDR:PORT", default_value = "127.0.0.1:9713")]
    pub(crate) admin: Listen,
    /// Watch for one interval, print the table once and end; no metrics are served.
    #[arg(long)]
    pub(crate) once: bool,
    /// With --once: print one JSON document instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) record: watch::RecordOpts,
}

/// Arguments of `healthcheck`.
#[derive(Args, Debug)]
pub(crate) struct HealthcheckArgs {
    /// The admin address.
    pub(crate) address: std::net::SocketAddr,
}

/// The whole command line, for what is made from it.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

/// Reads a command line, the program's name first. `Err` carries the exit code of a request for help or of an error already told.
pub(crate) fn parse(line: Vec<OsString>) -> Result<Command, ExitCode> {
    let parsed = Cli::command().try_get_matches_from(line).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => {
            telemetry::log::init(&cli.log);
            Ok(cli.command)
        }
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                terminal::say(error.to_string().trim_end());
                Err(ExitCode::SUCCESS)
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
                terminal::note(Cli::command().render_help().to_string().trim_end());
                Err(ExitCode::from(64))
            }
            _ => {
                terminal::complain(&format!("{}{}", one_line(&error.to_string()), hint(error.kind())));
                Err(ExitCode::from(64))
            }
        },
    }
}

/// Where clap says only what is wrong: what to do, with leading punctuation.
fn hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument => {
            "; --help lists what there is"
        }
        _ => "",
    }
}

/// clap's paragraphs as one line: cause and tip, without usage.
fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
        .trim_start_matches("error: ")
        .replace(":; ", ": ")
}

#[cfg(test)]
mod tests;
