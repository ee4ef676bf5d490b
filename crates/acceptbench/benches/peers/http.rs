//! Part `http`: one request per connection, by every tool, against one responder.

use crate::contest::{Contestant, Entry, Load, hold};
use crate::outputs;
use crate::settings::Settings;
use crate::table::Table;
use crate::tools::{self, AB, H2LOAD, HTTPERF, Tool, WRK, against_responder, closed, loadgen};

/// Connections at a time, all threads or processes together.
const CONNECTIONS: &[u32] = &[16, 64, 256];

/// For httperf, which has one connection at a time: processes.
const PROCESSES: &[u32] = &[2, 4, 8];

/// Runs it.
pub(crate) fn run(threads: usize, settings: &Settings) -> (Table, Vec<Entry>) {
    let tools = [(WRK, wrk as Make), (AB, ab), (HTTPERF, httperf), (H2LOAD, h2load)];
    let mut contestants =
        vec![ours("acceptbench", "--close=fin", threads), ours("acceptbench, RST", "--close=reset", threads)];
    let missing: Vec<Tool> = tools.iter().map(|(tool, _)| *tool).filter(|tool| tool.path().is_none()).collect();
    contestants.extend(tools.iter().filter_map(|(tool, make)| Some(make(tool.path()?, threads))));
    let entries = hold("http", &contestants, settings);
    (table(threads, settings, &entries, &missing), entries)
}

type Make = fn(std::path::PathBuf, usize) -> Contestant;

fn ours(name: &'static str, close: &'static str, threads: usize) -> Contestant {
    let scene = move |load: Load| {
        let (closed, asking) = (closed(load.level, load.seconds), tools::asking());
        let mut args: Vec<&str> = closed.iter().chain(&asking).map(String::as_str).collect();
        args.push(close);
        against_responder(threads, vec![loadgen(&args)], load.seconds)
    };
    let claim = |text: &str, load: Load| outputs::loadgen(text, f64::from(load.seconds));
    Contestant { name, unit: "in flight", levels: CONNECTIONS, scene: Box::new(scene), claim }
}

fn wrk(program: std::path::PathBuf, threads: usize) -> Contestant {
    let scene = move |load: Load| {
        let client = tools::wrk(program.clone(), threads, load.level, load.seconds);
        against_responder(threads, vec![client], load.seconds)
    };
    let claim = |text: &str, _: Load| outputs::wrk(text);
    Contestant { name: WRK.program, unit: "connections", levels: CONNECTIONS, scene: Box::new(scene), claim }
}

fn ab(program: std::path::PathBuf, threads: usize) -> Contestant {
    let scene = move |load: Load| {
        let each = (load.level as usize).div_ceil(threads);
        let client = tools::ab(program.clone(), u32::try_from(each).unwrap_or(1), load.seconds);
        against_responder(threads, vec![client; threads], load.seconds)
    };
    let claim = |text: &str, _: Load| outputs::ab(text);
    Contestant { name: AB.program, unit: "connections", levels: CONNECTIONS, scene: Box::new(scene), claim }
}

fn httperf(program: std::path::PathBuf, threads: usize) -> Contestant {
    let scene = move |load: Load| {
        let client = tools::httperf(program.clone(), (load.count / u64::from(load.level)).max(1));
        against_responder(threads, vec![client; load.level as usize], load.seconds)
    };
    let claim = |text: &str, _: Load| outputs::httperf(text);
    Contestant { name: HTTPERF.program, unit: "processes", levels: PROCESSES, scene: Box::new(scene), claim }
}

fn h2load(program: std::path::PathBuf, threads: usize) -> Contestant {
    let scene = move |load: Load| {
        let client = tools::h2load(program.clone(), threads, load.level, load.count);
        against_responder(threads, vec![client], load.seconds)
    };
    let claim = |text: &str, _: Load| outputs::h2load(text);
    Contestant { name: H2LOAD.program, unit: "connections", levels: CONNECTIONS, scene: Box::new(scene), claim }
}

fn table(threads: usize, settings: &Settings, entries: &[Entry], missing: &[Tool]) -> Table {
    let mut table = Table {
        title: format!(
            "HTTP/1.1: connect, request, reply, close; closed loop; {threads} threads or processes against one \
             responder of {threads} threads; {} round(s) of {} s",
            settings.rounds, settings.seconds
        ),
        head: vec!["tool", "fastest with", "requests/s", "middle half", "µs CPU", "ours/its"],
        words: 2,
        ..Table::default()
    };
    for entry in entries {
        let mut row = vec![entry.name.to_owned(), format!("{} {}", entry.level_cell(), entry.unit)];
        match entry.cells() {
            Some(cells) if entry.failed.is_none() => row.extend(cells),
            _ => row.extend(["failed", "-", "-"].map(str::to_owned)),
        }
        row.push(entries[0].ratio_to(entry).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
        table.rows.push(row);
        table.notes.extend(entry.failed.iter().map(|why| format!("{}: {why}", entry.name)));
    }
    for tool in missing {
        let cells = [tool.program, "not installed", "-", "-", "-", "-"];
        table.rows.push(cells.map(str::to_owned).to_vec());
        table.notes.push(tool.missing());
    }
    table
}
