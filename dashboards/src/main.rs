//! `dashboards`: writes the boards to `grafana/` and the rules to `prometheus/`, or says what is wrong with what is
//! there.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use dashboards::client::{Client, Range};
use dashboards::{lint, preview, queries};

const USAGE: &str = "usage: dashboards [--check | --list | --preview ADDR:PORT] [--dir DIR]";

/// The exit code for a wrong command line, as in sysexits.h.
const EX_USAGE: u8 = 64;

/// What to do with the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Write the files.
    Write,
    /// Compare the files, and hold the boards against the rules.
    Check,
    /// Print every query.
    List,
    /// Draw every board from what the Prometheus there knows of the last five minutes.
    Preview(SocketAddr),
}

fn main() -> ExitCode {
    let (action, directory) = match arguments(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(error) => return fail(&error, EX_USAGE),
    };
    let done = match action {
        Action::Write => write(&directory),
        Action::Check => check(&directory),
        Action::List => list(),
        Action::Preview(addr) => draw(&directory, addr),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &str, code: u8) -> ExitCode {
    eprintln!("dashboards: {error}");
    ExitCode::from(code)
}

/// What is asked for, and the directory of the directories.
fn arguments(mut given: impl Iterator<Item = String>) -> Result<(Action, PathBuf), String> {
    let mut action = Action::Write;
    let mut directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--check" => action = Action::Check,
            "--list" => action = Action::List,
            "--preview" => {
                let addr = given.next().and_then(|text| text.parse().ok());
                action = Action::Preview(addr.ok_or_else(|| format!("--preview needs 127.0.0.1:9090 or so; {USAGE}"))?);
            }
            "--dir" => directory = given.next().ok_or_else(|| format!("--dir needs a directory; {USAGE}"))?.into(),
            other => return Err(format!("unexpected '{other}'; {USAGE}")),
        }
    }
    Ok((action, directory))
}

/// A line on standard output. A reader that has seen enough (`| head`) is no error.
fn say(line: &str) -> Result<(), String> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("write to standard output: {error}")),
        _ => Ok(()),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn write(directory: &Path) -> Result<(), String> {
    for file in dashboards::files().map_err(text)? {
        let directory = directory.join(file.directory);
        fs::create_dir_all(&directory).map_err(|error| format!("create {}: {error}", directory.display()))?;
        let path = directory.join(&file.name);
        fs::write(&path, file.text).map_err(|error| format!("write {}: {error}", path.display()))?;
        say(&path.display().to_string())?;
    }
    Ok(())
}

/// Every file is what would be written now, there is no other but tests, and the boards keep the rules.
fn check(directory: &Path) -> Result<(), String> {
    let files = dashboards::files().map_err(text)?;
    for file in &files {
        let path = directory.join(file.directory).join(&file.name);
        let stored = fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
        if stored != file.text {
            return Err(format!("{} is out of date: cargo run -p dashboards", path.display()));
        }
    }
    for place in [dashboards::GRAFANA, dashboards::PROMETHEUS] {
        let here: Vec<_> = files.iter().filter(|file| file.directory == place).collect();
        let directory = directory.join(place);
        let entries = fs::read_dir(&directory).map_err(|error| format!("read {}: {error}", directory.display()))?;
        for entry in entries {
            let name = entry.map_err(text)?.file_name();
            let by_hand = place == dashboards::PROMETHEUS && name.to_string_lossy().ends_with(".test.yml");
            if !by_hand && here.iter().all(|file| name != *file.name) {
                return Err(format!("{} is none of the files made: remove it", directory.join(name).display()));
            }
        }
    }
    let boards = dashboards::json().map_err(text)?;
    let findings = lint::lint(&boards);
    match findings.as_slice() {
        [] => say(&format!(
            "{} files are up to date, and {} boards keep {} rules",
            files.len(),
            boards.len(),
            lint::RULES.len()
        )),
        findings => {
            for finding in findings {
                say(&finding.to_string())?;
            }
            Err(format!("{} findings in the boards", findings.len()))
        }
    }
}

/// A line per query: board, place, name, text.
fn list() -> Result<(), String> {
    for board in dashboards::json().map_err(text)? {
        let title = board["title"].as_str().unwrap_or_default();
        for query in queries::of(&board) {
            say(&format!("{title}\t{}\t{}\t{}", query.place, query.ref_id, query.text))?;
        }
    }
    Ok(())
}

/// A page per board in `preview/`.
fn draw(directory: &Path, addr: SocketAddr) -> Result<(), String> {
    let directory = directory.join("preview");
    fs::create_dir_all(&directory).map_err(|error| format!("create {}: {error}", directory.display()))?;
    let to = SystemTime::now().duration_since(UNIX_EPOCH).map_err(text)?.as_secs_f64();
    let range = Range { from: to - 300.0, to };
    for board in dashboards::json().map_err(text)? {
        let name = board["uid"].as_str().unwrap_or_default().trim_start_matches(dashboards::model::UID_PREFIX);
        let path = directory.join(format!("{name}.html"));
        let page = preview::page(&board, Client::new(addr), range)?;
        fs::write(&path, page).map_err(|error| format!("write {}: {error}", path.display()))?;
        say(&path.display().to_string())?;
    }
    Ok(())
}
