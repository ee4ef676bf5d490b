//! The command line: subcommands and their arguments. Options of server and load generator are their own structs;
//! what stands here is what only a program has.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use telemetry::admin::Listen;
use telemetry::log::LogOpts;

use crate::terminal;

/// Shown in place of clap's flat list of subcommands.
const HELP: &str = "\
{about}

Usage: acceptbench <COMMAND>

Experiment:
  run          Run an experiment in private network namespaces and answer its question
  check        Check an experiment file: cells, trials, time
  list         Shipped experiments with their questions
  report       Show a run's answer again

Serve and load:
  server       Accept connections with a chosen backlog, acceptors and engine
  loadgen      Open connections at a controlled rate and account for each

{options}

`acceptbench COMMAND --help` explains each. Start with: acceptbench run backlog
Exit codes: 0 all well, 1 an expectation failed, 2 invalid trials, 64 usage or file,
69 the machine lacks something, 70 a bug, 130 interrupted.";

#[derive(Parser)]
#[command(name = "acceptbench", version, about = "What happens to connections at the accept path, and which knob changes it.", help_template = HELP)]
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
    List,
    /// Show a run's answer again, from its stored trials; nothing is run.
    Report(ReportArgs),
    /// Accept connections with a chosen backlog, acceptors and engine, and count what happens to them.
    Server(ServerArgs),
    /// Open connections at a controlled rate and account for each.
    Loadgen(LoadgenArgs),
    /// Exit 0 when the admin port of a server or load generator answers (for container health checks).
    #[command(hide = true)]
    Healthcheck(HealthcheckArgs),
    #[command(name = "__trial", hide = true)]
    Trial,
    #[command(name = "__init", hide = true)]
    Init,
    #[command(name = "__server", hide = true)]
    TrialServer,
    #[command(name = "__loadgen", hide = true)]
    TrialLoadgen,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Name of a shipped experiment (see `acceptbench list`) or path of an experiment file.
    pub(crate) experiment: String,
    /// Where results directories are made.
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
    /// Where to serve metrics while it runs: ADDR:PORT (a taken port is replaced by a free one) or off.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9712")]
    pub(crate) admin: Listen,
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
}

/// Arguments of `healthcheck`.
#[derive(Args, Debug)]
pub(crate) struct HealthcheckArgs {
    /// The admin address.
    pub(crate) address: std::net::SocketAddr,
}

/// Reads the command line. `Err` carries the exit code of a request for help or of an error already told.
pub(crate) fn parse() -> Result<Command, ExitCode> {
    let parsed = Cli::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
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
                terminal::complain(&one_line(&error.to_string()));
                Err(ExitCode::from(64))
            }
        },
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
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn errors_become_one_line() {
        let error =
            Cli::command().try_get_matches_from(["acceptbench", "server", "--acceptors", "0"]).expect_err("zero");
        let line = one_line(&error.to_string());
        assert!(line.starts_with("invalid value '0' for '--acceptors <N>'"), "{line}");
        assert!(!line.contains('\n'));
    }

    #[test]
    fn every_visible_command_stands_in_the_help() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(HELP.contains(&format!("\n  {} ", command.get_name())), "{}", command.get_name());
        }
    }
}
