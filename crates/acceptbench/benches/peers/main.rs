//! acceptbench beside its peers: the tools that Debian packages (wrk, ab, httperf, h2load), and a raw baseline that does
//! nothing but connect, accept and close.
//!
//! ```sh
//! cargo bench -p acceptbench --bench peers -- [--rounds N] [--seconds S] [--only churn,http,pacing] [--markdown] [--json FILE]
//! ```
//!
//! Every single load runs in a network namespace of its own, without privilege, for a few seconds, on its loopback. The
//! contestants of a comparison take turns, every tool is first given the concurrency at which it is fastest, and what is
//! compared is the median of the rounds' ratios: the machine's drift between runs is larger than most differences. Figures
//! go to standard output, progress to standard error. What each part measures, and what it cannot say, is in
//! `docs/performance.md`.
//!
//! A tool that is not installed is named and left out. A contestant that fails is named, and the exit code is 1.
#![expect(clippy::print_stdout, reason = "a bench prints what it measures")]

mod child;
mod churn;
mod contest;
mod http;
mod outputs;
mod pacing;
mod raw;
mod responder;
mod scene;
mod settings;
mod sockets;
mod statistics;
mod table;
mod tools;
mod witness;
mod words;

use std::process::ExitCode;

use anyhow::Context;
use kernel::namespace::{self, Privilege};
use kernel::process::allowed_cpus;
use serde_json::{Value, json};

use settings::{Part, Request, Settings};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(result) = role(&args) {
        return result.map_or_else(
            |error| complain(&error),
            |said| {
                println!("{said}");
                ExitCode::SUCCESS
            },
        );
    }
    match settings::parse(&args) {
        Ok(Request::Nothing) => ExitCode::SUCCESS,
        Ok(Request::Measure(settings)) => measure(&settings).unwrap_or_else(|error| complain(&error)),
        Err(message) => {
            eprintln!("peers: {message}");
            ExitCode::from(64)
        }
    }
}

/// An empty error was told already.
fn complain(error: &anyhow::Error) -> ExitCode {
    let text = format!("{error:#}");
    if !text.is_empty() {
        eprintln!("peers: {text}");
    }
    ExitCode::from(69)
}

/// The processes that the bench starts of itself; what one of them has to say.
fn role(args: &[String]) -> Option<anyhow::Result<String>> {
    let (role, words) = args.split_first()?;
    Some(match role.as_str() {
        "scene" => words.first().context("whose child?").and_then(|parent| scene::hold(parent)).map(|()| String::new()),
        "stage" => scene::stage().and_then(|played| Ok(serde_json::to_string(&played)?)),
        "raw-client" => raw::client(words),
        "raw-server" => raw::server(words),
        "responder" => responder::respond(words),
        "witness" => witness::witness(words).and_then(|statement| Ok(serde_json::to_string(&statement)?)),
        _ => return None,
    })
}

/// Measures all that is asked for, prints it and writes it down.
fn measure(settings: &Settings) -> anyhow::Result<ExitCode> {
    if namespace::privilege() == Privilege::UserNamespace {
        namespace::user_namespaces_work()?;
    }
    let threads = allowed_cpus()?.len();
    let mut written = serde_json::Map::new();
    let mut failed = false;
    for part in &settings.parts {
        let (tables, entries) = match part {
            Part::Churn => {
                let (table, entries) = churn::run(threads, settings);
                (vec![table], json!(entries))
            }
            Part::Http => {
                let (table, entries) = http::run(threads, settings);
                (vec![table], json!(entries))
            }
            Part::Pacing => {
                let (tables, entries) = pacing::run(settings);
                (tables, json!(entries))
            }
        };
        for table in tables {
            println!("{}", table.render(settings.format));
        }
        failed |= entries.as_array().is_some_and(|entries| entries.iter().any(|entry| entry["failed"] != Value::Null));
        written.insert(part.name().to_owned(), entries);
    }
    if let Some(file) = &settings.json {
        let environment = kernel::environment::collect();
        let all = json!({
            "environment": environment,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "parts": written,
        });
        std::fs::write(file, serde_json::to_string_pretty(&all)?)
            .with_context(|| format!("write {}", file.display()))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
