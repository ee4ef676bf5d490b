//! The command line: subcommands and their arguments. Options of server and load generator are their own structs;
//! what stands here is what only a program has.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use lab::AdminAddress;
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
  probe        Measure what this kernel does with TCP sockets, claim by claim

Serve and load:
  server       Accept connections with a chosen backlog, acceptors and engine
  loadgen      Open connections at a controlled rate and account for each

Observe:
  watch        Every TCP listener of this host or a container: queue depth, limit, drops

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
    /// Exit 0 when the admin port of a server or load generator answers (for container health checks).
    #[command(hide = true)]
    Healthcheck(HealthcheckArgs),
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
}

/// Arguments of `healthcheck`.
#[derive(Args, Debug)]
pub(crate) struct HealthcheckArgs {
    /// The admin address.
    pub(crate) address: std::net::SocketAddr,
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
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::num::{NonZeroU8, NonZeroU32};
    use std::time::Duration;

    use loadgen::opts::{ArrivalKind, Expectation, Spin};
    use proptest::option;
    use proptest::prelude::*;
    use server::opts::{
        AcceptDelay, Batch, Cpus, Engine, Handler, OnAccept, Relisten, Retire, Reuseport, Stall, Workers,
    };
    use telemetry::units::{Rate, Span};

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

    /// The options that a command line of `command` gives.
    fn parsed(command: &str, args: &[String]) -> Command {
        let line = ["acceptbench", command].into_iter().map(str::to_owned).chain(args.iter().cloned());
        Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{args:?}: {error}")).command
    }

    fn span() -> impl Strategy<Value = Span> {
        (1..u64::from(u32::MAX)).prop_map(|ns| Duration::from_nanos(ns).into())
    }

    /// One of the values of a choice.
    fn any_of<T: clap::ValueEnum + Clone + std::fmt::Debug + 'static>() -> impl Strategy<Value = T> {
        proptest::sample::select(T::value_variants())
    }

    fn delay() -> impl Strategy<Value = AcceptDelay> {
        (0..5, span()).prop_map(|(kind, span)| match kind {
            0 => AcceptDelay::None,
            1 => AcceptDelay::Sleep(span),
            2 => AcceptDelay::Exponential(span),
            3 => AcceptDelay::Spin(span),
            _ => AcceptDelay::SpinExponential(span),
        })
    }

    fn cpus() -> impl Strategy<Value = Cpus> {
        prop_oneof![
            Just(Cpus::Off),
            Just(Cpus::Auto),
            proptest::collection::vec(0..64_usize, 1..5).prop_map(Cpus::List)
        ]
    }

    /// Settings that are not checked against each other, in groups small enough for tuples.
    fn server_opts() -> impl Strategy<Value = server::Opts> {
        let who = (
            any_of::<Workers>(),
            any_of::<Reuseport>(),
            any_of::<Engine>(),
            any_of::<Handler>(),
            option::of(1_u32..99),
            cpus(),
            1_u32..999,
        );
        let what = (any_of::<OnAccept>(), any_of::<server::opts::Close>(), span(), delay());
        let listener = (1..u16::MAX - 3, any::<bool>(), 0..=i32::MAX, any::<(bool, bool, u16)>(), span());
        let when = (any_of::<Relisten>(), option::of((span(), option::of(span()))), option::of((0..9_u32, span())));
        (who, what, listener, when, 1_u32..1024, any::<u64>()).prop_map(
            |(who, what, listener, when, acceptors, seed)| {
                let (workers, reuseport, engine, handler, batch, cpus, children) = who;
                let (on_accept, close, hold, accept_delay) = what;
                let (port, v6, backlog, (reuseaddr, v6only, fastopen), defer_accept) = listener;
                let (relisten, stall, retire) = when;
                let host = if v6 { "[::1]" } else { "0.0.0.0" };
                server::Opts {
                    listen: format!("{host}:{port}-{},127.0.0.1:{}", port + 1, port + 2).parse().expect("addresses"),
                    backlog: backlog.unsigned_abs(),
                    acceptors: NonZeroU32::new(acceptors).expect("1 or more"),
                    workers,
                    reuseport,
                    engine,
                    accept_batch: batch.and_then(NonZeroU32::new).map_or(Batch::All, Batch::AtMost),
                    cpus,
                    handler,
                    max_children: NonZeroU32::new(children).expect("1 or more"),
                    on_accept,
                    hold,
                    close,
                    accept_delay,
                    reuseaddr,
                    v6only,
                    defer_accept,
                    fastopen,
                    relisten,
                    stall: stall.map(|(at, lasts)| Stall { at, lasts }),
                    retire: retire.map(|(listener, at)| Retire { listener, at }),
                    seed,
                }
            },
        )
    }

    fn arrivals() -> impl Strategy<Value = ArrivalKind> {
        let stage =
            (0..1_000_u32, 1..1_000_u32, 1..1_000_u64).prop_map(|(from, to, ms)| format!("ramp:{from}-{to}x{ms}ms"));
        let profile = (proptest::collection::vec(stage, 1..4), any::<bool>()).prop_map(|(stages, repeat)| {
            format!("profile:{}{}", stages.join(","), if repeat { ",repeat" } else { "" })
        });
        prop_oneof![
            Just("constant".to_owned()),
            Just("poisson".to_owned()),
            (1_u32..10_000, span()).prop_map(|(size, every)| format!("burst:{size}/{every}")),
            (1_u32..10_000).prop_map(|n| format!("closed:{n}")),
            profile,
        ]
        .prop_map(|text| text.parse().expect("an arrival process"))
    }

    fn spin() -> impl Strategy<Value = Spin> {
        prop_oneof![Just(Spin::Auto), (0..1_000_000_u64).prop_map(|ns| Duration::from_nanos(ns).into())]
    }

    prop_compose! {
        /// What the workers are, and how their sockets live.
        fn workings()(
            engine in any_of(), cpus in cpus(), scheduling in any_of(), spin in spin(), sockets in any_of(), fastopen: bool,
            retries in option::of(1_u8..=127), user_timeout in option::of(span()), close in any_of(), hold in span(),
            keep in option::of(1_u32..),
        ) -> loadgen::Opts {
            loadgen::Opts {
                engine, cpus, scheduling, spin, sockets, fastopen, user_timeout, close, hold,
                syn_retries: retries.and_then(NonZeroU8::new),
                keep: keep.and_then(NonZeroU32::new),
                ..loadgen::Opts::default()
            }
        }
    }

    prop_compose! {
        fn loadgen_opts()(
            port in 1..u16::MAX, arrivals in arrivals(), rate in 0.001..1e7_f64, confirm in any_of(), sourced: bool,
            spans in [span(), span()], duration in option::of(span()), workers in option::of(1_u32..1024),
            most in option::of(1_u32..), shard in option::of(1_u32..9), start in option::of(0..4_000_000_000_u64),
            workings in workings(), seed: u64,
        ) -> loadgen::Opts {
            use loadgen::opts::{AutoCount, RunTime};
            let count = |n: Option<u32>| n.and_then(NonZeroU32::new).map_or(AutoCount::Auto, AutoCount::Exactly);
            loadgen::Opts {
                target: SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into(),
                arrivals,
                rate: Rate::new(rate).expect("above 0"),
                confirm,
                deadline: spans[1],
                send: "GET / HTTP/1.0\\r\\n\\r\\n".parse().expect("a message"),
                expect: if sourced { "HTTP/".parse().expect("a prefix") } else { Expectation::Any },
                duration: duration.map_or(RunTime::Forever, RunTime::For),
                warm_up: spans[0],
                workers: count(workers),
                max_in_flight: count(most),
                sources: sourced.then(|| "127.0.0.2,198.18.1.0/26".parse().expect("sources")),
                source_ports: most.map(|n| format!("20000-{}", 20_000 + n % 9_999).parse().expect("a range")),
                shard: shard.map(|index| format!("{index}/9").parse().expect("a shard")),
                start_at: start.map(|seconds| format!("@{seconds}").parse().expect("an instant")),
                seed,
                ..workings
            }
        }
    }

    proptest! {
        #[test]
        fn printed_server_options_parse_back(opts in server_opts()) {
            let Command::Server(args) = parsed("server", &opts.to_args()) else { panic!("another command") };
            prop_assert_eq!(args.opts, opts);
        }

        #[test]
        fn printed_loadgen_options_parse_back(opts in loadgen_opts()) {
            let Command::Loadgen(args) = parsed("loadgen", &opts.to_args()) else { panic!("another command") };
            prop_assert_eq!(args.opts, opts);
        }
    }
}
