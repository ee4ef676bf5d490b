//! acceptbench: what happens to connections at the accept path, and which knob changes it.

mod base_url;
mod check;
mod cli;
mod compare;
mod completions;
mod doctor;
mod exit;
mod handover;
mod healthcheck;
mod interrupt;
mod list;
mod loadgen;
mod merge;
#[cfg(test)]
mod metrics_page;
mod needs;
mod notify;
mod pages;
mod probe;
mod program;
mod replay;
mod report;
mod run;
mod schema;
mod server;
mod shipped;
mod terminal;
mod watch;

use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    exit::on_panic();
    // A trial starts four processes of this program: they skip the command line's machinery.
    let role = std::env::args().nth(1).unwrap_or_default();
    let process =
        lab::inside::process(&role).or_else(|| ::server::process(&role)).or_else(|| ::probe::process::process(&role));
    if let Some(process) = process {
        telemetry::log::init(&telemetry::log::LogOpts::default());
        return process();
    }
    let command = match cli::parse(handover::command_line()) {
        Ok(command) => command,
        Err(code) => return code,
    };
    let result = match command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::List(args) => list::list(&args),
        Command::Report(args) => report::report(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Merge(args) => merge::merge(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Probe(args) => probe::probe(&args),
        Command::Server(args) => server::serve(args),
        Command::Loadgen(args) => loadgen::generate(args),
        Command::Watch(args) => watch::watch(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Schema => schema::schema(),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
        Command::Healthcheck(args) => healthcheck::healthcheck(&args),
    };
    exit::code(result)
}
