use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32};
use std::sync::LazyLock;
use std::time::Duration;

use loadgen::opts::{ArrivalKind, Expectation, Spin};
use proptest::option;
use proptest::prelude::*;
use server::opts::{
    AcceptDelay, Batch, Cpus, Engine, Handler, OnAccept, Relisten, Retire, Reuseport, Scheduling, Stall, Workers,
};
use telemetry::units::{Rate, Span};

use super::*;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn errors_become_one_line() {
    let error = Cli::command().try_get_matches_from(["acceptbench", "server", "--acceptors", "0"]).expect_err("zero");
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
    prop_oneof![Just(Cpus::Off), Just(Cpus::Auto), proptest::collection::vec(0..64_usize, 1..5).prop_map(Cpus::List)]
}

/// Settings that are not checked against each other, in groups small enough for tuples.
fn server_opts() -> impl Strategy<Value = server::Opts> {
    let who = (
        any_of::<Workers>(),
        any_of::<Reuseport>(),
        any_of::<Engine>(),
        any_of::<Handler>(),
        option::of(1_u32..99),
        (cpus(), any_of::<Scheduling>()),
        1_u32..999,
    );
    let what = (any_of::<OnAccept>(), any_of::<server::opts::Close>(), span(), delay());
    let listener = (1..u16::MAX - 3, any::<bool>(), 0..=i32::MAX, any::<(bool, bool, u16)>(), span());
    let when = (any_of::<Relisten>(), option::of((span(), option::of(span()))), option::of((0..9_u32, span())));
    (who, what, listener, when, 1_u32..1024, any::<u64>()).prop_map(|(who, what, listener, when, acceptors, seed)| {
        let (workers, reuseport, engine, handler, batch, (cpus, scheduling), children) = who;
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
            scheduling,
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
    })
}

fn arrivals() -> impl Strategy<Value = ArrivalKind> {
    let stage =
        (0..1_000_u32, 1..1_000_u32, 1..1_000_u64).prop_map(|(from, to, ms)| format!("ramp:{from}-{to}x{ms}ms"));
    let profile = (proptest::collection::vec(stage, 1..4), any::<bool>())
        .prop_map(|(stages, repeat)| format!("profile:{}{}", stages.join(","), if repeat { ",repeat" } else { "" }));
    prop_oneof![
        Just("constant".to_owned()),
        Just("poisson".to_owned()),
        (1_u32..10_000, span()).prop_map(|(size, every)| format!("burst:{size}/{every}")),
        (1_u32..10_000).prop_map(|n| format!("closed:{n}")),
        profile,
        (0..9_u32, 1..9_u32, 1..9_u32).prop_map(|(gap, count, times)| format!("trace:1us:{gap}x{count}*{times},7")),
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

/// What does not fit the schema of experiment files in a file with these options in a table of their own.
fn misfits(table: &str, options: &impl serde::Serialize) -> Vec<String> {
    static SCHEMA: LazyLock<jsonschema::Validator> =
        LazyLock::new(|| jsonschema::draft202012::new(&lab::schema()).expect("a schema"));
    let mut options = serde_json::to_value(options).expect("options are JSON");
    let keys = options.as_object_mut().expect("a table");
    // The lab decides these itself.
    for reserved in ["listen", "target", "duration", "warm-up", "start-at", "seed"] {
        keys.remove(reserved);
    }
    let file = serde_json::json!({ "experiment": { "name": "a", "question": "?" }, table: options });
    SCHEMA.iter_errors(&file).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

proptest! {
    #[test]
    fn server_options_fit_the_schema_of_experiments(opts in server_opts()) {
        prop_assert_eq!(misfits("server", &opts), Vec::<String>::new());
    }

    #[test]
    fn loadgen_options_fit_the_schema_of_experiments(opts in loadgen_opts()) {
        prop_assert_eq!(misfits("loadgen", &opts), Vec::<String>::new());
    }

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
