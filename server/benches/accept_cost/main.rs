//! What measuring costs: the server's accept loop, with all its metrics and its sampler, against a bare one that only
//! calls accept4 and close. `cargo bench -p server --bench accept_cost [-- --check] [--rounds N] [--connections N]`.
//!
//! Both take the same load: one client thread of this process that connects and resets, one connection after the other,
//! on loopback. What counts is the CPU time of the whole process per connection (`CLOCK_PROCESS_CPUTIME_ID`), because on
//! loopback the kernel does the server's half of the handshake on the client's bill. The two take turns, so that a slow
//! spell of the machine hits both, and medians are compared.
//!
//! Measured alone, a count, a record and a scrape of 64 acceptors, and the sampler's share of a core. `--check` ends with
//! exit code 1 when one of the limits below is exceeded.
#![expect(clippy::print_stdout, reason = "a bench prints what it measures")]

mod bare;
mod parts;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kernel::process::monotonic_ns;
use kernel::sockopt;
use rustix::net::sockopt::set_socket_linger;
use rustix::time::{ClockId, clock_gettime};
use server::opts::{Engine, OnAccept};
use server::{Opts, Origin, Plan, Server};
use telemetry::namespace::Detail;

/// Our CPU time per connection over the bare loop's, at most.
const RATIO_LIMIT: f64 = 1.05;

/// The sampler's share of a core, at most.
const SAMPLER_LIMIT: f64 = 0.01;

/// A scrape of 64 acceptors, µs, at most.
const SCRAPE_LIMIT: f64 = 1_000.0;

/// The queue limit of every listener here, as far as somaxconn allows.
const BACKLOG: u32 = 4096;

/// The client waits for the server when more than this are in the queue, so that none is ever dropped.
const IN_QUEUE: u32 = 64;

/// Client threads. With one, each connection wakes an idle CPU or two, which costs three times what the connection does.
const CLIENTS: u32 = 2;

/// A queue that stays as it is for this long means that something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the command line asks for.
struct Settings {
    check: bool,
    rounds: u32,
    connections: u32,
}

fn settings() -> Result<Settings, String> {
    let mut settings = Settings { check: false, rounds: 40, connections: 4_000 };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = |least, most| {
            let value = args.next().and_then(|text| text.parse().ok()).filter(|n| (least..=most).contains(n));
            value.ok_or_else(|| format!("{arg} takes a number from {least} to {most}"))
        };
        match arg.as_str() {
            // cargo's own.
            "--bench" => {}
            "--check" => settings.check = true,
            "--rounds" => settings.rounds = number(1, 99)?,
            "--connections" => settings.connections = number(100, 1_000_000)?,
            _ => return Err(format!("unknown argument {arg}; see the head of benches/accept_cost/main.rs")),
        }
    }
    Ok(settings)
}

fn main() -> ExitCode {
    // `cargo test --all-targets` runs it too, without the argument that `cargo bench` adds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    match settings().and_then(|settings| run(&settings).map_err(|error| error.to_string())) {
        Ok(missed) if missed.is_empty() => ExitCode::SUCCESS,
        Ok(missed) => {
            for line in missed {
                println!("MISSED: {line}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("accept_cost: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything; the lines say which limits were exceeded, if that is asked.
fn run(settings: &Settings) -> io::Result<Vec<String>> {
    let mut missed = Vec::new();
    let mut require = |what: &str, value: f64, limit: f64| {
        if value > limit {
            missed.push(format!("{what} is {value:.4}, above {limit}"));
        }
    };
    let mut sampler = (0, 0);
    for engine in [Engine::Blocking, Engine::Epoll] {
        let ratio = compare(engine, settings, &mut sampler)?;
        require(&format!("CPU per connection, {engine}, ours / bare"), ratio, RATIO_LIMIT);
    }
    let share = sampler.0 as f64 / sampler.1.max(1) as f64;
    println!("sampler: {:.2} % of a core", share * 100.0);
    require("the sampler's share of a core", share, SAMPLER_LIMIT);
    println!("counter: {:.2} ns per add", parts::counter_ns());
    println!("histogram: {:.2} ns per record", parts::histogram_ns());
    let scrape = parts::scrape_us(settings.connections.min(5_000))?;
    let [read, write, scrape] = scrape;
    println!("scrape: {scrape:.0} µs with 64 acceptors (reading {read:.0}, writing {write:.0})");
    require("a scrape of 64 acceptors, µs,", scrape, SCRAPE_LIMIT);
    Ok(if settings.check { missed } else { Vec::new() })
}

/// Rounds of the server and of the bare loop in turn, each first every other time; the median of the rounds' ratios. Adds
/// the sampler's CPU time and the time it ran, both ns, to `sampler`.
fn compare(engine: Engine, settings: &Settings, sampler: &mut (u64, u64)) -> io::Result<f64> {
    let (mut ours, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=settings.rounds {
        let early = if round % 2 == 0 { Some(bare::cost(engine, settings.connections)?) } else { None };
        let began = monotonic_ns();
        let (a, sampler_ns) = of_server(engine, settings.connections)?;
        let wall = monotonic_ns() - began;
        let b = early.map_or_else(|| bare::cost(engine, settings.connections), Ok)?;
        // The first warms up caches and clocks.
        if round > 0 {
            println!("{engine} round {round}: ours {a:.2} µs, bare {b:.2} µs, ratio {:.3}", a / b);
            ours.push(a);
            bare.push(b);
            ratios.push(a / b);
            *sampler = (sampler.0 + sampler_ns, sampler.1 + wall);
        }
    }
    let ratio = median(&mut ratios);
    println!(
        "{engine}: ours {:.2} µs, bare {:.2} µs CPU per connection (medians); ratio {ratio:.3}, half of the rounds \
         {:.3} to {:.3}",
        median(&mut ours),
        median(&mut bare),
        ratios[ratios.len() / 4],
        ratios[ratios.len() * 3 / 4]
    );
    Ok(ratio)
}

/// CPU per connection of the server, µs, and of its sampler all in all, ns.
fn of_server(engine: Engine, connections: u32) -> io::Result<(f64, u64)> {
    let server = start(Opts { engine, ..Opts::default() })?;
    let listener = server.listeners()?.swap_remove(0);
    let cost = load(&listener, server.observer().addresses()[0], connections)?;
    drop(listener);
    server.stop_accepting();
    let books = server.finish(Detail::Books);
    let counted = [books.total(|a| a.accepts), books.batch.sum, books.wait.count];
    if counted != [u64::from(connections); 3] {
        return Err(io::Error::other(format!("{connections} connections, but accepts, batches and waits {counted:?}")));
    }
    Ok((cost, books.sampler_cpu_ns))
}

/// A server that closes what it accepts.
fn start(opts: Opts) -> io::Result<Server> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let opts = Opts { listen, backlog: BACKLOG, on_accept: OnAccept::Close, ..opts };
    let plan = Plan::try_from(opts).map_err(io::Error::other)?;
    let server = Server::start(&plan, Origin::default()).map_err(io::Error::other)?;
    server.begin(monotonic_ns());
    Ok(server)
}

/// Makes connections to `address`, where `listener` listens, until all are accepted. CPU of the process for each, µs.
fn load(listener: &OwnedFd, address: SocketAddr, connections: u32) -> io::Result<f64> {
    let before = cpu_ns();
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| connect(listener, address, connections / CLIENTS))).collect();
        clients
            .into_iter()
            .try_for_each(|client| client.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked"))))
    })?;
    wait_for_queue(listener, 0)?;
    Ok((cpu_ns() - before) as f64 / 1_000.0 / f64::from(connections))
}

/// One client's connections.
fn connect(listener: &OwnedFd, address: SocketAddr, connections: u32) -> io::Result<()> {
    for made in 0..connections {
        let stream = TcpStream::connect(address)?;
        set_socket_linger(&stream, Some(Duration::ZERO))?;
        drop(stream);
        if made % IN_QUEUE == 0 {
            wait_for_queue(listener, IN_QUEUE)?;
        }
    }
    Ok(())
}

/// Waits until at most `most` are in the queue.
fn wait_for_queue(listener: &OwnedFd, most: u32) -> io::Result<()> {
    let began = Instant::now();
    while sockopt::tcp_info(listener)?.unacked > most {
        if began.elapsed() > PATIENCE {
            return Err(io::Error::other("nobody accepts any more"));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The median; sorts.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] }
}
