//! Servers that are not ours in the server's place: Debian's nginx and redis under the same microscope.

mod wrong;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loadgen::Verdict;
use study::quantity::Quantity;
use study::results::Trial;

use crate::host::{Host, answered, ordinary_program};
use crate::support::{Lab, machine, text};

/// Is a program installed? Where real servers are required it has to be.
fn installed(program: &str) -> bool {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let there = places.iter().any(|place| Path::new(place).join(program).exists());
    assert!(there || std::env::var_os("ACCEPTBENCH_REQUIRE_SERVERS").is_none(), "required here: {program}");
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    there
}

/// A shipped experiment's `[target]` with other words around it: what is tested is the file that is shipped.
fn shipped_target(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../experiments/{name}.toml"));
    let file = fs::read_to_string(path).expect("shipped");
    let (_, from) = file.split_once("\n[target]\n").expect("a target");
    let (table, _) = from.split_once("\n[sysctl]\n").expect("sysctls behind it");
    format!("[target]\n{table}\n")
}

/// A stall of which nobody recovers in time: who waits in the queue at its end is all that it held.
fn stalled(target: &str, rest: &str) -> String {
    let target = target.replace("pause = \"300ms+500ms\"", "pause = \"0s+forever\"");
    let target = target.replace("rate = 3000", "rate = 9000").replace("deadline = \"900ms\"", "deadline = \"300ms\"");
    assert!(target.contains("0s+forever") && target.contains("9000") && target.contains("300ms"), "{target}");
    format!(
        "[experiment]\nname = \"target\"\nquestion = \"how many wait?\"\nreplicates = 1\nretries = 1\nwarm-up = \"0s\"\n\
         measure = \"500ms\"\ntopology = \"veth\"\n{target}[sysctl]\n\"net.ipv4.tcp_syncookies\" = 0\n{rest}"
    )
}

fn value(trial: &Trial, quantity: &str) -> Option<f64> {
    Quantity::named(quantity).expect("in the catalogue").of(trial)
}

/// The limit is this one, exactly one more waits, and the end of every attempt is known.
fn holds_limit_plus_one(trial: &Trial, limit: u64) {
    let name = &trial.name;
    let listeners = &trial.server.listeners;
    assert_eq!(listeners.len(), 1, "{name}: {listeners:?}");
    let listener = &listeners[0];
    assert_eq!((u64::from(listener.limit), listener.deepest, listener.left), (limit, limit + 1, limit + 1), "{name}");
    assert!(trial.server.kernel.net.listen_overflows > 0, "{name}");
    for line in &trial.ledger.lines {
        assert_eq!(line.residual, 0, "{name} line {}: {}", line.number, line.equation);
    }
    let books = &trial.loadgen.measured;
    assert_eq!((books.planned, books.concluded()), (4500, 4500), "{name}");
    // All but those who came before it stood still wait in the queue, or are phantoms. It may have stopped between
    // accept(2) and the answer, so that it took more than it served.
    let (served, entered) = (books.verdict(Verdict::Served), trial.ledger.terms.entered);
    let taken = entered.checked_sub(limit + 1).expect("at least those who wait");
    assert!(served <= taken && taken < books.planned / 10, "{name}: {served} served, {taken} taken");
    assert_eq!(books.established, entered + trial.ledger.terms.phantoms, "{name}");
    assert_eq!(value(trial, "left"), Some((limit + 1) as f64), "{name}");
}

/// The trial of the cell in which these settings have these values.
fn cell<'a>(trials: &'a [Trial], settings: &[(&str, &str)]) -> &'a Trial {
    let fits = |trial: &&Trial| settings.iter().all(|(name, value)| trial.settings[*name] == *value);
    trials.iter().rfind(fits).expect("a trial of the cell")
}

const SOMAXCONN: &str = "sysctl.net.core.somaxconn";

fn limits_are(trials: &[Trial], setting: &str, limits: &[(&str, &str, u64)]) {
    for (somaxconn, level, limit) in limits {
        holds_limit_plus_one(cell(trials, &[(SOMAXCONN, somaxconn), (setting, level)]), *limit);
    }
}

#[test]
fn nginx_gets_the_smaller_of_its_backlog_and_somaxconn_and_holds_one_more() {
    if !installed("nginx") {
        return;
    }
    let _machine = machine();
    let file = stalled(
        &shipped_target("nginx-backlog"),
        "[[factor]]\nset = \"sysctl.net.core.somaxconn\"\nto = [128, 4096]\n[[factor]]\nset = \"target.values.listen\"\n\
         to = [\"default\", \"backlog-4096\"]\n",
    );
    let host = Host::at_rest();
    let lab = Lab::new();
    let (_, trials, said) = lab.try_trials(&file);
    assert!(trials.len() >= 4, "{said}");
    let (plain, asked) = ("default", "backlog-4096");
    limits_are(
        &trials,
        "target.values.listen",
        &[("4096", plain, 511), ("128", plain, 128), ("128", asked, 128), ("4096", asked, 4096)],
    );
    nothing_left(&lab, &host);
}

#[test]
fn nginx_of_an_ordinary_user_does_the_same() {
    if !installed("nginx") {
        return;
    }
    let _machine = machine();
    let lab = Lab::new();
    let rest = "[[factor]]\nset = \"sysctl.net.core.somaxconn\"\nto = [128, 4096]\n";
    lab.file("experiment.toml", &stalled(&shipped_target("nginx-backlog"), rest));
    let mut command = ordinary_program(&lab);
    command.args(["run", "experiment.toml", "--admin", "off"]).current_dir(lab.path());
    answered(&command.output().expect("the program starts"));
    let trials = lab.records();
    for (somaxconn, limit) in [("4096", 511), ("128", 128)] {
        holds_limit_plus_one(cell(&trials, &[(SOMAXCONN, somaxconn)]), limit);
    }
    nobody_is_left("/results/target-", &lab);
}

#[test]
fn redis_gets_the_smaller_of_tcp_backlog_and_somaxconn_and_holds_one_more() {
    if !installed("redis-server") {
        return;
    }
    let _machine = machine();
    let file = stalled(
        &shipped_target("redis-backlog"),
        "[[factor]]\nset = \"sysctl.net.core.somaxconn\"\nto = [128, 4096]\n[[factor]]\nset = \"target.values.backlog\"\n\
         to = [511, 1024]\n",
    );
    let host = Host::at_rest();
    let lab = Lab::new();
    let (_, trials, said) = lab.try_trials(&file);
    assert!(trials.len() >= 4, "{said}");
    limits_are(
        &trials,
        "target.values.backlog",
        &[("4096", "511", 511), ("128", "511", 128), ("128", "1024", 128), ("4096", "1024", 1024)],
    );
    nothing_left(&lab, &host);
}

#[test]
fn workers_of_nginx_with_a_queue_each_are_all_looked_at_and_what_it_serves_is_accounted_for() {
    if !installed("nginx") {
        return;
    }
    let _machine = machine();
    let target = shipped_target("nginx-backlog").replace("pause = ", "# pause = ");
    let target = target.replace("listen = \"default\"", "listen = \"reuseport\"");
    for topology in ["veth", "loopback"] {
        let file = format!(
            "[experiment]\nname = \"target\"\nquestion = \"who serves?\"\nreplicates = 1\nwarm-up = \"100ms\"\n\
             measure = \"500ms\"\ntopology = \"{topology}\"\n{target}[[expect]]\nthat = \"queue-limit = 1022\"\n"
        );
        let lab = Lab::new();
        let (_, trials, said) = lab.try_trials(&file);
        let trial = trials.last().expect("a trial");
        assert_eq!(trial.server.listeners.len(), 2, "{said}");
        assert!(trial.ledger.balances(), "{topology}: {:?}", trial.ledger);
        let served = trial.loadgen.whole().verdict(Verdict::Served);
        assert_eq!((served, trial.ledger.terms.entered), (1800, 1800), "{topology}: {said}");
        what_only_the_server_could_count_has_no_value(&lab, trial);
    }
}

/// Absent, and not 0: in quantities, in the table, on no page.
fn what_only_the_server_could_count_has_no_value(lab: &Lab, trial: &Trial) {
    for own in ["accepted", "accept-rate", "greetings", "replies", "late-handshakes", "empty-wakeups", "lost"] {
        assert_eq!(value(trial, own), None, "{own}");
    }
    assert!(trial.server.acceptors.is_empty() && trial.server.listeners[0].backlog_requested.is_none());
    let table = fs::read_to_string(lab.path().join("results/latest/trials.csv")).expect("a table");
    let mut rows = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let (head, row) = (rows.next().expect("a head"), rows.next().expect("a row"));
    let column = |name: &str| row[head.iter().position(|title| *title == name).expect("a column")];
    assert_eq!((column("accepted"), column("entered")), ("", "1800"), "{table}");
    let line = |number: u8| trial.ledger.lines.iter().find(|line| line.number == number).expect("a line");
    assert!(line(3).derived && line(3).equation.contains("not counted by the server"), "{}", line(3).equation);
    assert!(line(7).equation.starts_with("not evaluated"), "{}", line(7).equation);
    let target = trial.target.as_ref().expect("recorded");
    assert!(target.command[0].ends_with("nginx") && target.settings["target.values.workers"] == "2", "{target:?}");
}

/// Processes and namespaces are gone by then.
const GONE: Duration = Duration::from_secs(2);

/// The run's directories of targets are gone, and so is every process that ran in one.
fn nothing_left(lab: &Lab, host: &Host) {
    nobody_is_left("/results/target-", lab);
    assert_eq!(targets_left(lab), Vec::<PathBuf>::new());
    host.assert_untouched("a target");
}

/// Directories of targets below the run's logs.
fn targets_left(lab: &Lab) -> Vec<PathBuf> {
    let Ok(runs) = fs::read_dir(lab.path().join("results")) else { return Vec::new() };
    let logs = runs.flatten().filter_map(|run| fs::read_dir(run.path().join("logs")).ok());
    let mut found: Vec<PathBuf> =
        logs.flat_map(|logs| logs.flatten().map(|log| log.path())).filter(|path| path.is_dir()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Nobody whose command line has this word, and nobody at work anywhere below the directory of `lab`.
fn nobody_is_left(word: &str, lab: &Lab) {
    let ours = |process: &PathBuf| {
        text(&fs::read(process.join("cmdline")).unwrap_or_default()).contains(word)
            || fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(lab.path()))
    };
    let began = Instant::now();
    loop {
        let all = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
        let found: Vec<PathBuf> = all.filter(ours).collect();
        if found.is_empty() {
            return;
        }
        assert!(began.elapsed() < GONE, "still there: {found:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
