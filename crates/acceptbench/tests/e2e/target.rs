//! Servers that are not ours in the server's place: Debian's nginx and redis under the same microscope, and targets that do
//! everything wrong, of which nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use loadgen::Verdict;
use study::quantity::Quantity;
use study::results::Trial;

use crate::bad_input::file_is_refused;
use crate::host::{Host, answered, ordinary_program};
use crate::support::{Lab, acceptbench, machine, text};

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
    let target = target.replace("rate = 3000", "rate = 12000").replace("deadline = \"900ms\"", "deadline = \"300ms\"");
    assert!(target.contains("0s+forever") && target.contains("12000") && target.contains("300ms"), "{target}");
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
    assert_eq!((books.planned, books.concluded()), (6000, 6000), "{name}");
    // Nobody accepted, so whoever was connected waits in the queue or is a phantom.
    assert_eq!(books.verdict(Verdict::Served), 0, "{name}");
    assert_eq!(trial.ledger.terms.entered, limit + 1, "{name}");
    assert_eq!(books.established, trial.ledger.terms.entered + trial.ledger.terms.phantoms, "{name}");
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
         to = [\"default_server\", \"default_server backlog=4096\"]\n",
    );
    let host = Host::at_rest();
    let lab = Lab::new();
    let (_, trials, said) = lab.try_trials(&file);
    assert!(trials.len() >= 4, "{said}");
    let (plain, asked) = ("default_server", "default_server backlog=4096");
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
    let trials = stored(&lab);
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
    let target = target.replace("listen = \"default_server\"", "listen = \"default_server reuseport\"");
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

fn stored(lab: &Lab) -> Vec<Trial> {
    let lines = fs::read_to_string(lab.path().join("results/latest/trials.jsonl")).expect("trials");
    lines.lines().map(|line| serde_json::from_str(line).expect("a trial")).collect()
}

/// The run's directories of targets are gone, and so is every process that ran in one.
fn nothing_left(lab: &Lab, host: &Host) {
    nobody_is_left("/results/target-", lab);
    assert_eq!(targets_left(lab), [PathBuf::new(); 0]);
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

/// An experiment about a target made of a shell command.
fn shell(script: &str, more: &str) -> String {
    format!(
        "[experiment]\nname = \"target\"\nquestion = \"what is wrong with it?\"\nreplicates = 1\nwarm-up = \"0s\"\n\
         measure = \"100ms\"\ntopology = \"loopback\"\n[target]\ncommand = [\"sh\", \"-c\", '''{script}''']\n{more}\n\
         [loadgen]\nrate = 100\ndeadline = \"100ms\"\nconfirm = \"none\"\n"
    )
}

/// A word by which the processes of a test are known, wherever they went.
fn mark(what: &str) -> String {
    format!("{what}-{}", std::process::id())
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

/// The run ends with one line that has these words and names command and log; nothing of the target is left.
fn fails(script: &str, more: &str, word: &str, words: &[&str]) -> String {
    let lab = Lab::new();
    lab.file("bad.toml", &shell(script, more));
    let output = lab.run(&["run", "bad.toml", "--admin", "off"]);
    let said = text(&output.stderr);
    let last = said.lines().last().expect("a line").to_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert_eq!(said.matches("acceptbench: ").count(), 1, "one complaint: {said}");
    for word in words.iter().chain(&["target `", "sh -c", "; its log is "]) {
        assert!(last.contains(word), "`{word}` is not in `{last}`");
    }
    let (_, log) = last.split_once("its log is ").expect("a log");
    assert!(Path::new(log).is_file(), "{log}");
    nobody_is_left(word, &lab);
    last
}

#[test]
fn a_target_that_never_listens_is_named_with_its_log_and_gone() {
    let _machine = machine();
    let word = mark("never");
    let began = Instant::now();
    let ready = "ready = \"300ms\"";
    fails(
        &format!(": {word}; sleep 600"),
        ready,
        &word,
        &["listened at no 127.0.0.1:9700 within 300ms", "target.ready"],
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    if installed("python3") {
        let word = mark("elsewhere");
        let script = format!("exec python3 -m http.server 9701 --bind {{address}} --directory {{dir}} # {word}");
        let hint = "it listens at 127.0.0.1:9701 instead: have it use {address} and {port}";
        fails(&script, "ready = \"3s\"", &word, &[hint]);
    }
}

#[test]
fn a_target_that_exits_at_once_is_told_with_its_last_words() {
    let _machine = machine();
    let word = mark("exits");
    fails(
        &format!(": {word}; echo no such option >&2; exit 3"),
        "",
        &word,
        &["ended (exit code 3) before it listened", "it last said: no such option"],
    );
    fails(&format!(": {word}; kill -9 $$"), "", &word, &["ended (signal 9) before it listened"]);
}

#[test]
fn a_target_that_goes_to_the_background_is_refused_and_killed_wherever_it_went() {
    let _machine = machine();
    let word = mark("daemon");
    // A session of its own, and an orphan: only the trial's PID namespace still holds it.
    let script = format!("setsid sh -c 'sleep 600; : {word}' & exit 0");
    fails(&script, "", &word, &["put itself in the background", "daemon off"]);
    if installed("redis-server") {
        let word = mark("redis-daemon");
        let script = format!("exec redis-server --daemonize yes --port {{port}} --save '' --dir {{dir}} # {word}");
        let script = script.replace(&format!(" # {word}"), &format!(" --proc-title-template {word}"));
        fails(&script, "", &word, &["put itself in the background", "daemonize no"]);
    }
}

#[test]
fn a_target_that_ignores_its_stop_signal_is_killed_and_named() {
    if !installed("python3") {
        return;
    }
    let _machine = machine();
    let word = mark("deaf");
    let script = format!(
        "trap \"\" TERM; : {word}; exec python3 -m http.server {{port}} --bind {{address}} --directory {{dir}}"
    );
    let last = fails(&script, "ready = \"10s\"", &word, &["did not end within 5 s of SIGTERM", "target.stop-signal"]);
    assert!(!last.contains("before it listened"), "{last}");
    // The same with a signal that it does not ignore.
    let lab = Lab::new();
    lab.file("good.toml", &shell(&script, "ready = \"10s\"\nstop-signal = \"KILL\""));
    answered(&lab.run(&["run", "good.toml", "--admin", "off"]));
    assert_eq!(targets_left(&lab), [PathBuf::new(); 0]);
    nobody_is_left(&word, &lab);
}

#[test]
fn a_target_that_ends_during_the_trial_ends_the_run() {
    if !installed("python3") {
        return;
    }
    let _machine = machine();
    let lab = Lab::new();
    let script = "python3 -m http.server {port} --bind {address} --directory {dir} & sleep 1; kill $!; exit 7";
    lab.file("ends.toml", &shell(script, "ready = \"10s\"").replace("measure = \"100ms\"", "measure = \"4s\""));
    let output = lab.run(&["run", "ends.toml", "--admin", "off"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("ended (exit code 7) during the trial"), "{said}");
    nobody_is_left("/results/target-", &lab);
}

/// A valid file; each case breaks it.
fn valid(more: &str) -> String {
    shell("sleep 1", more)
}

#[test]
fn what_is_wrong_with_the_file_is_named_with_its_line() {
    let _machine = machine();
    file_is_refused(&valid("comand = [\"x\"] # here"), &["unknown field `comand`", "`command`"]);
    file_is_refused(
        &valid("[target.files]\n\"a.conf\" = \"listen {prot};\"").replace("[target.files]", "[target.files] # here"),
        &["target.files.a.conf: the placeholder {prot} names nothing", "target.values.prot", "{port}"],
    );
    let command = "command = [\"sh\", \"-c\", '''sleep 1''']";
    file_is_refused(
        &valid("").replace(command, "command = [\"nginx\", \"{conf}\"] # here"),
        &["target.command: the placeholder {conf} names nothing"],
    );
    file_is_refused(&valid("").replace(command, "command = [] # here"), &["target.command names no program"]);
    file_is_refused(&valid("").replace(command, "port = 80").replace("[target]", "[target] # here"), &["command"]);
    file_is_refused(&valid("port = 0 # here"), &["port: ", "0"]);
    file_is_refused(&valid("ready = \"2m\" # here"), &["target.ready", "1m"]);
    file_is_refused(&valid("stop-signal = \"STOP\" # here"), &["stop-signal", "`STOP`", "TERM"]);
    file_is_refused(&valid("pause = \"soon\" # here"), &["pause", "`soon`", "0s+forever"]);
    file_is_refused(
        &valid("[server]\nbacklog = 7 # here"),
        &["[server] beside [target]", "target.values.NAME", "leave one of the two tables out"],
    );
    let factor = |set: &str, to: &str| valid(&format!("[[factor]]\nset = \"{set}\"\nto = [\n{to} # here\n]"));
    file_is_refused(&factor("server.backlog", "16"), &["server.backlog cannot be set beside [target]"]);
    file_is_refused(&factor("target.value.x", "16"), &["unknown setting `target.value.x`", "target.values.NAME"]);
    file_is_refused(&factor("target.prot", "16"), &["unknown field `prot`"]);
    let without = valid("").replace(&format!("[target]\n{command}\n"), "");
    let pause = format!("{without}[[factor]]\nset = \"target.pause\"\nto = [\n\"0s+1s\" # here\n]\n");
    file_is_refused(&pause, &["target.pause needs a [target] table"]);
}

#[test]
fn a_program_that_is_not_there_is_named_before_anything_is_made_and_check_goes_on() {
    let _machine = machine();
    let command = "command = [\"sh\", \"-c\", '''sleep 1''']";
    let lab = Lab::new();
    lab.file("unknown.toml", &valid("").replace(command, "command = [\"no-such-server\"]"));
    let output = lab.run(&["run", "unknown.toml", "--admin", "off"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("target.command: `no-such-server` is nowhere in PATH"), "{said}");
    let checked = lab.run(&["check", "unknown.toml"]);
    assert_eq!(checked.status.code(), Some(0));
    assert!(text(&checked.stdout).contains("in the server's place: no-such-server, which is nowhere in PATH here"));
    if !Path::new("/usr/sbin/varnishd").exists() {
        lab.file("known.toml", &valid("").replace(command, "command = [\"varnishd\"]"));
        let output = lab.run(&["run", "known.toml", "--admin", "off"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert!(said.contains("`varnishd` is not installed; Debian has it in the package varnish"), "{said}");
    }
    assert!(!lab.path().join("results").exists());
}

#[test]
fn a_factor_sets_whatever_the_target_has() {
    let _machine = machine();
    let text = format!(
        "{}[[factor]]\nset = \"target.values.program\"\nto = [\"one\", \"two\"]\n[[factor]]\nset = \"target.pause\"\n\
         to = [\"0s+1s\", \"1s+forever\"]\n[[factor]]\nset = \"target.files.a.conf\"\nto = [\"{{port}}\"]\n",
        valid("[target.values]\nprogram = \"sh\"")
    );
    let lab = Lab::new();
    lab.file("factors.toml", &text.replace("\"sh\", ", "\"{program}\", "));
    let output: std::process::Output =
        acceptbench().args(["check", "factors.toml"]).current_dir(lab.path()).output().expect("the program starts");
    let said = crate::support::text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", crate::support::text(&output.stderr));
    assert!(said.contains("program two, pause 1s+forever, conf {port}"), "{said}");
    assert!(said.contains("in the server's place: one") && said.contains("in the server's place: two"), "{said}");
}

#[test]
fn an_interrupt_does_not_wait_for_a_target() {
    let _machine = machine();
    let lab = Lab::new();
    let word = mark("slow");
    lab.file("slow.toml", &shell(&format!(": {word}; sleep 600"), "ready = \"30s\""));
    let mut command: Command = acceptbench();
    command.args(["run", "slow.toml", "--admin", "off"]).current_dir(lab.path());
    let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("the program starts");
    std::thread::sleep(Duration::from_millis(700));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    let began = Instant::now();
    assert_eq!(child.wait().expect("a child").code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    nobody_is_left(&word, &lab);
}
