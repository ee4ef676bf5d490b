//! Part `churn`: connect, accept, close with RST, in a closed loop. The generator against the server, and beside it the raw
//! client against the raw server, each engine with its like.

use crate::child::Process;
use crate::contest::{Contestant, Entry, Load, hold};
use crate::outputs;
use crate::scene::Scene;
use crate::settings::Settings;
use crate::table::Table;
use crate::tools::{acceptbench_server, closed, limit, loadgen};

/// In flight in total, all threads together.
const LEVELS: &[u32] = &[16, 64, 256];

/// How ours is told, and the raw mode that does the same.
const PAIRS: [Pair; 3] = [
    Pair {
        engine: "io_uring",
        names: ["acceptbench io-uring", "raw io-uring"],
        options: &["--engine=io-uring"],
        mode: "io-uring",
    },
    Pair { engine: "epoll", names: ["acceptbench epoll", "raw epoll"], options: &["--engine=epoll"], mode: "epoll" },
    Pair {
        engine: "io_uring, reused",
        names: ["acceptbench io-uring reused", "raw io-uring reused"],
        options: &["--engine=io-uring", "--sockets=reused"],
        mode: "io-uring-reused",
    },
];

struct Pair {
    /// In the table.
    engine: &'static str,
    /// Ours and raw, in progress and JSON.
    names: [&'static str; 2],
    options: &'static [&'static str],
    mode: &'static str,
}

/// Runs it. Ours and raw of a pair are neighbours: A B A B and, in even rounds, B A B A.
pub(crate) fn run(threads: usize, settings: &Settings) -> (Table, Vec<Entry>) {
    let contestants: Vec<Contestant> =
        PAIRS.iter().flat_map(|pair| [ours(pair, threads), raw(pair, threads)]).collect();
    let entries = hold("churn", &contestants, settings);
    (table(threads, settings, &entries), entries)
}

fn ours(pair: &'static Pair, threads: usize) -> Contestant {
    let scene = move |load: Load| {
        let closed = closed(load.level, load.seconds);
        let mut args = vec!["--confirm=none", "--close=reset", &closed[0], &closed[1]];
        args.extend(pair.options);
        scene(acceptbench_server(threads), loadgen(&args), threads, load)
    };
    let claim = |text: &str, load: Load| outputs::loadgen(text, f64::from(load.seconds));
    Contestant { name: pair.names[0], unit: "in flight", levels: LEVELS, scene: Box::new(scene), claim }
}

fn raw(pair: &'static Pair, threads: usize) -> Contestant {
    let scene = move |load: Load| {
        let number = format!("threads={threads}");
        let in_flight = format!("in-flight={}", (load.level as usize).div_ceil(threads));
        let (mode, time) = (format!("mode={}", pair.mode), format!("ms={}", load.seconds * 1000));
        let client = Process::own(&["raw-client", &mode, &number, &in_flight, &time]);
        scene(Process::own(&["raw-server", &number]), client, threads, load)
    };
    let claim = |text: &str, _: Load| outputs::raw(text);
    Contestant { name: pair.names[1], unit: "in flight", levels: LEVELS, scene: Box::new(scene), claim }
}

fn scene(server: Process, client: Process, threads: usize, load: Load) -> Scene {
    Scene { server, listeners: threads, clients: vec![client], client_cpus: Vec::new(), limit: limit(load.seconds) }
}

fn table(threads: usize, settings: &Settings, entries: &[Entry]) -> Table {
    let mut table = Table {
        title: format!(
            "Churn: connect, accept, close with RST; closed loop; {threads} client and {threads} server threads; {} \
             round(s) of {} s",
            settings.rounds, settings.seconds
        ),
        head: vec!["engine", "who", "in flight", "conn/s", "middle half", "µs CPU", "ours/raw"],
        words: 2,
        ..Table::default()
    };
    for (pair, entries) in PAIRS.iter().zip(entries.chunks(2)) {
        let ratio = entries[0].ratio_to(&entries[1]).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        for ((entry, who), ratio) in entries.iter().zip(["acceptbench", "raw"]).zip([ratio, String::new()]) {
            let mut row = vec![pair.engine.to_owned(), who.to_owned(), entry.level_cell()];
            match entry.cells() {
                Some(cells) if entry.failed.is_none() => row.extend(cells),
                _ => row.extend(["failed", "-", "-"].map(str::to_owned)),
            }
            row.push(ratio);
            table.rows.push(row);
            let complaint = entry.failed.iter();
            table.notes.extend(complaint.map(|why| format!("{}: {why}", entry.name)));
        }
    }
    table
}
