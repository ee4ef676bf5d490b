//! Whatever is wrong with a command, a file or the machine: one line that names it and says what to do, the right
//! exit code, and nothing left behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use study::results::Trial;

use crate::host::{answered, gone_within, is_root, ordinary_program, skip};
use crate::support::{Lab, acceptbench, machine, text};

/// A valid experiment; each case breaks it.
const BASE: &str = r#"[experiment]
name = "bad-input"
question = "what is wrong with it?"
replicates = 1
warm-up = "0s"
measure = "100ms"
topology = "loopback"
[server]
backlog = 8
[loadgen]
rate = 100
deadline = "100ms"
"#;

/// Nothing here takes longer; what does was not refused.
const LIMIT: Duration = Duration::from_secs(20);

/// The valid experiment with one piece replaced.
fn with(piece: &str, other: &str) -> String {
    assert_eq!(BASE.matches(piece).count(), 1, "`{piece}`");
    BASE.replacen(piece, other, 1)
}

/// The valid experiment with something added.
fn and(more: &str) -> String {
    format!("{BASE}{more}")
}

/// Runs a command to its end, which must come.
fn finish(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if began.elapsed() > LIMIT {
            child.kill().expect("killed");
            let output = child.wait_with_output().expect("a child");
            panic!("{command:?} was not refused: {}{}", text(&output.stdout), text(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("a child")
}

/// `acceptbench ARGS` in the directory of `lab`, run to its end.
fn run(lab: &Lab, args: &[&str]) -> Output {
    let mut command = acceptbench();
    command.args(args).current_dir(lab.path());
    finish(command)
}

/// The one line that says what is wrong, checked for its form, the exit code and these words.
fn refused(output: &Output, code: i32, words: &[&str]) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    let last = said.lines().last().expect("a line on stderr");
    assert!(last.starts_with("acceptbench: "), "{said}");
    assert_eq!(said.matches("acceptbench: ").count(), 1, "one complaint: {said}");
    assert!(!said.contains("bug") && !said.contains("panicked"), "{said}");
    for word in words {
        assert!(last.contains(word), "`{word}` is not in `{last}`");
    }
    last.to_owned()
}

/// Names in the directory of `lab`, sorted.
fn left(lab: &Lab) -> Vec<String> {
    let entries = fs::read_dir(lab.path()).expect("the directory");
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// Nobody is at work in the directory of `lab` any more.
fn nobody_left(lab: &Lab) {
    gone_within(Duration::from_secs(2), lab.path(), &[]);
}

/// `run` and `check` refuse the file, at the line marked `# here`, and nothing is left.
pub(crate) fn file_is_refused(toml: &str, words: &[&str]) {
    let marked: Vec<usize> =
        toml.lines().enumerate().filter(|(_, l)| l.contains("# here")).map(|(n, _)| n + 1).collect();
    let [line] = marked[..] else { panic!("one line is marked: {toml}") };
    let lab = Lab::new();
    lab.file("bad.toml", toml);
    let output = run(&lab, &["run", "bad.toml", "--admin", "off"]);
    let complaint = refused(&output, 64, words);
    assert!(complaint.starts_with(&format!("acceptbench: bad.toml:{line}: ")), "line {line}: {complaint}");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(refused(&run(&lab, &["check", "bad.toml"]), 64, &[]), complaint, "`check` says the same");
    assert_eq!(left(&lab), ["bad.toml"]);
    nobody_left(&lab);
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let _machine = machine();
    file_is_refused(&with("backlog = 8", "baklog = 8 # here"), &["unknown field `baklog`", "`backlog`"]);
    file_is_refused(&with("rate = 100", "raet = 100 # here"), &["unknown field `raet`", "`rate`"]);
    file_is_refused(&with("replicates = 1", "replicats = 1 # here"), &["unknown field `replicats`", "`replicates`"]);
    file_is_refused(&format!("surplus = 1 # here\n{BASE}"), &["unknown field `surplus`", "`server`"]);
    file_is_refused(&with("[server]", "[sever] # here"), &["unknown field `sever`", "`server`"]);
}

#[test]
fn a_wrong_type_is_named_with_its_key_and_line() {
    let _machine = machine();
    let whole = "expected a whole number";
    file_is_refused(&with("backlog = 8", "backlog = \"many\" # here"), &["backlog: ", "\"many\"", whole]);
    file_is_refused(&with("backlog = 8", "backlog = 1.5 # here"), &["backlog: ", "`1.5`", whole]);
    file_is_refused(&with("rate = 100", "rate = true # here"), &["rate: ", "e.g. 1000"]);
    file_is_refused(&with("replicates = 1", "replicates = \"two\" # here"), &["replicates: ", whole]);
    file_is_refused(&with("\"loopback\"", "\"bridge\" # here"), &["topology: ", "`veth`, `loopback`, `attached`"]);
}

#[test]
fn an_impossible_value_is_named_with_its_key_and_line() {
    let _machine = machine();
    file_is_refused(&with("rate = 100", "rate = 0 # here"), &["rate", "greater than 0"]);
    file_is_refused(&with("backlog = 8", "backlog = -5 # here"), &["backlog", "`-5`", "0 or more"]);
    file_is_refused(&with("backlog = 8", "acceptors = 0 # here"), &["acceptors", "`0`", "1 or more"]);
    file_is_refused(&with("backlog = 8", "acceptors = 5000 # here"), &["acceptors 5000", "1024"]);
    file_is_refused(&with("backlog = 8", "retire = \"3@1s\" # here"), &["retire", "listener 3", "use reuseport"]);
    file_is_refused(&with("replicates = 1", "replicates = 0 # here"), &["replicates", "1 or more"]);
    file_is_refused(&with("replicates = 1", "replicates = 1000000 # here"), &["replicates", "100000"]);
    file_is_refused(&with("replicates = 1", "retries = 1000 # here"), &["retries", "100 or less", "0 repeats nothing"]);
    file_is_refused(&with("measure = \"100ms\"", "measure = \"0s\" # here"), &["measure", "above 0"]);
    file_is_refused(&with("deadline = \"100ms\"", "deadline = \"0s\" # here"), &["deadline", "above 0"]);
    file_is_refused(&with("rate = 100", "workers = 5000 # here"), &["workers 5000", "1024"]);
    file_is_refused(&with("rate = 100", "arrivals = \"burst:0/1s\" # here"), &["burst:0/1s", "e.g. burst:400/500ms"]);
    file_is_refused(&with("\"bad-input\"", "\"../bad\" # here"), &["experiment.name `../bad`", "use small letters"]);
}

#[test]
fn a_time_without_a_unit_is_refused() {
    let _machine = machine();
    let words = ["no unit", "write a unit, e.g. 500us, 500ms or 500s"];
    file_is_refused(&with("deadline = \"100ms\"", "deadline = 500 # here"), &["deadline", words[0], words[1]]);
    file_is_refused(&with("measure = \"100ms\"", "measure = \"500\" # here"), &["measure", words[0], words[1]]);
    file_is_refused(&with("backlog = 8", "accept-delay = \"500\" # here"), &["accept-delay", words[0], words[1]]);
}

#[test]
fn a_sysctl_that_no_namespace_has_is_refused_with_the_reason() {
    let _machine = machine();
    let sysctl = |line: &str| and(&format!("[sysctl]\n{line} # here\n"));
    let shared = ["net.core.netdev_max_backlog", "shared by all", "not a factor"];
    file_is_refused(&sysctl("\"net.core.netdev_max_backlog\" = 1000"), &shared);
    file_is_refused(&sysctl("\"fs.file-max\" = 1000"), &["fs.file-max", "the whole machine", "not a factor"]);
    let misspelt = ["net.ipv4.tcp_sincookies", "does not exist", "check its spelling"];
    file_is_refused(&sysctl("\"net.ipv4.tcp_sincookies\" = 1"), &misspelt);
    file_is_refused(&sysctl("\"net.core.somaxconn\" = 1.5"), &["net.core.somaxconn", "a whole number"]);
}

#[test]
fn a_value_that_the_kernel_refuses_ends_the_run_and_leaves_nothing_running() {
    let _machine = machine();
    let lab = Lab::new();
    lab.file("bad.toml", &and("[sysctl]\n\"net.core.somaxconn\" = -1\n"));
    let output = run(&lab, &["run", "bad.toml", "--admin", "off"]);
    if !is_root() && output.status.code() == Some(69) {
        return skip("this kernel hides net.core.somaxconn from user namespaces");
    }
    refused(&output, 64, &["net.core.somaxconn", "does not accept the value '-1'"]);
    nobody_left(&lab);
    let left = fs::read_dir(lab.path().join("results")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "a run that kept nothing leaves no directory and no link");
}

#[test]
fn a_wrong_factor_is_named_with_its_own_line() {
    let _machine = machine();
    let factor = |lines: &str| and(&format!("[[factor]]\n{lines}\n"));
    file_is_refused(
        &factor("set = \"sever.backlog\"\nto = [\n1, # here\n2]"),
        &["unknown setting `sever.backlog`", "write server.KEY"],
    );
    file_is_refused(&factor("set = \"server.baklog\"\nto = [1] # here"), &["unknown field `baklog`", "`backlog`"]);
    let many = factor("set = \"server.backlog\"\nto = [\n 1,\n \"many\" # here\n]");
    file_is_refused(&many, &["server.backlog", "\"many\"", "a whole number"]);
    file_is_refused(&factor("set = \"loadgen.rate\"\nto = [\n 1,\n 0 # here\n]"), &["loadgen.rate", "greater than 0"]);
    let level = factor("levels = [\n{ \"server.backlog\" = 1 },\n{ \"server.baklog\" = 2 }, # here\n]");
    file_is_refused(&level, &["unknown field `baklog`", "`backlog`"]);
    let bare = |lines: &str| and(&format!("[[factor]] # here\n{lines}\n"));
    file_is_refused(&bare("set = \"server.backlog\""), &["[[factor]]", "`set` and `to`"]);
    file_is_refused(&bare("name = \"nothing\""), &["[[factor]]", "`set` and `to`"]);
    file_is_refused(&bare("set = \"server.backlog\"\nto = []"), &["at least one level"]);
    let unlike = factor("levels = [\n{ \"server.backlog\" = 1 },\n{ \"server.acceptors\" = 2 }, # here\n]");
    file_is_refused(&unlike, &["every level of a factor sets the same settings", "server.backlog"]);
    let twice = factor("set = \"server.backlog\"\nto = [1]\n[[factor]]\nset = \"server.backlog\"\nto = [2] # here");
    file_is_refused(&twice, &["two factors set server.backlog"]);
    let sysctl = factor("set = \"sysctl.net.core.netdev_max_backlog\"\nto = [1] # here");
    file_is_refused(&sysctl, &["net.core.netdev_max_backlog", "shared by all"]);
    file_is_refused(&factor("set = \"loadgen.target\"\nto = [\"x:1\"] # here"), &["loadgen.target", "the lab points"]);
}

#[test]
fn a_wrong_condition_is_named_with_its_line() {
    let _machine = machine();
    let expect = |lines: &str| and(&format!("[[expect]]\n{lines}\n"));
    file_is_refused(&expect("that = \"overflows >\" # here"), &["`overflows >`", "expected a value", "e.g."]);
    file_is_refused(&expect("that = \"overflow > 0\" # here"), &["`overflow`", "did you mean `overflows`?"]);
    let nowhere = expect("that = \"overflows > 0\"\nwhere = \"server.backlog = 17\" # here");
    file_is_refused(&nowhere, &["`server.backlog = 17` matches no cell"]);
    let no_setting = expect("that = \"overflows > 0\"\nwhere = \"backlog = 8\" # here");
    file_is_refused(&no_setting, &["`backlog` is not a setting", "e.g. server.backlog"]);
    let compare = |lines: &str| and(&format!("[compare]\n{lines}\n"));
    let baseline = compare("metrics = [\"served-ratio\"]\nbaseline = \"server.backlog = 17\" # here");
    file_is_refused(&baseline, &["compare.baseline must match one cell", "it matches 0"]);
    file_is_refused(&compare("metrics = [\"speed\"] # here"), &["`speed` does not exist"]);
    let negative = compare("metrics = [\"served-ratio\"]\nsmallest-effect = -1.0 # here");
    file_is_refused(&negative, &["compare.smallest-effect must be 0 or more"]);
    let word = compare("metrics = [\"served-ratio\"]\nby = \"feeling\" # here");
    file_is_refused(&word, &["unknown variant `feeling`", "`findings`", "`ranges`"]);
}

#[test]
fn a_comparison_that_can_find_nothing_is_refused_with_the_replicates_it_needs() {
    let _machine = machine();
    let two = |replicates: u32, rest: &str| {
        with("replicates = 1", &format!("replicates = {replicates}"))
            + &format!(
                "[[factor]]\nset = \"server.backlog\"\nto = [8, 16]\n[compare] # here\nmetrics = [\"served\"]\n{rest}\n"
            )
    };
    let words = ["2 cells × 3 replicates reach p 0.25", "experiment.replicates = 6", "compare.by = \"ranges\""];
    file_is_refused(&two(3, ""), &words);
    file_is_refused(&two(3, "by = \"findings\""), &words);
    let fixed = two(6, "by = \"findings\" # here")
        .replace("[compare] # here", "[compare]")
        .replace("replicates = 6", "replicates = 6\norder = \"as-written\"");
    file_is_refused(&fixed, &["needs experiment.order = \"random\"", "use \"ranges\""]);
    let lab = Lab::new();
    for (name, experiment) in [("six", two(6, "")), ("ranges", two(3, "by = \"ranges\""))] {
        let file = format!("{name}.toml");
        lab.file(&file, &experiment);
        let output = acceptbench().current_dir(lab.path()).args(["check", &file]).output().expect("check");
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    }
}

#[test]
fn a_pair_that_can_never_confirm_is_refused() {
    let _machine = machine();
    let words = ["server.on-accept", "loadgen.confirm", "can never succeed", "use on-accept = \"greet\""];
    file_is_refused(&with("backlog = 8", "on-accept = \"close\" # here"), &words);
    let factor = "[[factor]]\nset = \"server.on-accept\"\nto = [\n\"greet\",\n\"close\" # here\n]\n";
    file_is_refused(&and(factor), &words);
}

#[test]
fn what_is_no_experiment_file_is_refused_by_name() {
    let _machine = machine();
    let lab = Lab::new();
    fs::create_dir(lab.path().join("folder")).expect("a directory");
    let refuses = |argument: &str, words: &[&str]| {
        for command in ["run", "check"] {
            refused(&run(&lab, &[command, argument]), 64, words);
        }
        assert_eq!(left(&lab), ["folder"]);
    };
    refuses("missing.toml", &["missing.toml: cannot read the experiment file", "No such file", "check the path"]);
    refuses("./folder", &["./folder: cannot read the experiment file", "Is a directory", "name the file in it"]);
    refuses("backlogg", &["no experiment is called `backlogg`", "shipped are backlog"]);
    let no_results = ["cannot read the results directory nowhere", "name the directory of a run"];
    refused(&run(&lab, &["report", "nowhere"]), 64, &no_results);
}

#[test]
fn a_file_that_the_user_may_not_read_is_refused_by_name() {
    let _machine = machine();
    let lab = Lab::new();
    let file = lab.file("secret.toml", BASE);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("a mode");
    let mut command = ordinary_program(&lab);
    command.args(["run", "secret.toml"]).current_dir(lab.path());
    let words = ["secret.toml: cannot read the experiment file", "Permission denied", "make it readable"];
    refused(&finish(command), 64, &words);
    assert!(!lab.path().join("results").exists());
}

#[test]
fn a_wrong_flag_is_named_with_what_to_write_instead() {
    let _machine = machine();
    let lab = Lab::new();
    let refuses = |args: &[&str], words: &[&str]| {
        refused(&run(&lab, args), 64, words);
        assert!(left(&lab).is_empty(), "{args:?} left {:?}", left(&lab));
    };
    refuses(&["server", "--backlog", "-5"], &["--backlog", "'-5'", "write a whole number from 0"]);
    refuses(&["server", "--backlog", "many"], &["--backlog", "'many'", "write a whole number from 0"]);
    refuses(&["server", "--backlog", "2147483648"], &["--backlog", "to 2147483647"]);
    refuses(&["server", "--acceptors", "0"], &["--acceptors", "'0'", "1 or more"]);
    refuses(&["server", "--acceptors", "5000"], &["acceptors 5000", "1024"]);
    refuses(&["server", "--accept-delay", "500"], &["--accept-delay", "no unit", "500us"]);
    refuses(&["server", "--listen", "localhost"], &["--listen", "write IP:PORT"]);
    refuses(&["server", "--listen", "192.0.2.1:9700"], &["192.0.2.1:9700", "no interface"]);
    refuses(&["server", "--engine", "magic"], &["--engine", "epoll"]);
    refuses(&["server", "--baklog", "5"], &["--baklog", "--backlog"]);
    refuses(&["server", "--retire", "3@1s"], &["retire", "listener 3", "use reuseport"]);
    refuses(&["server", "--admin", "here"], &["--admin", "write e.g. 127.0.0.1:9710"]);
    refuses(&["loadgen", "--rate", "0"], &["--rate", "greater than 0", "e.g. 1000"]);
    refuses(&["loadgen", "--rate", "-5"], &["--rate", "greater than 0", "e.g. 1000"]);
    refuses(&["loadgen", "--deadline", "0"], &["deadline must be above 0", "5s"]);
    refuses(&["loadgen", "--deadline", "5"], &["--deadline", "no unit", "5s"]);
    refuses(&["loadgen", "--duration", "0s"], &["--duration", "above 0"]);
    refuses(&["loadgen", "--workers", "0"], &["--workers", "1 or more"]);
    refuses(&["loadgen", "--target", "nowhere"], &["--target", "write HOST:PORT"]);
    refuses(&["loadgen", "--send", "x"], &["send is what the client says first", "set confirm to reply"]);
    refuses(&["loadgen", "--send", "\\q", "--confirm", "reply"], &["--send", "after a backslash"]);
    refuses(&["loadgen", "--send", "@/nowhere"], &["--send", "cannot read /nowhere", "write @FILE"]);
    refuses(&["loadgen", "--expect", "x", "--confirm", "none"], &["expect", "set confirm to reply or greeting"]);
    refuses(&["loadgen", "--fastopen"], &["fastopen", "needs confirm reply"]);
    let ring = ["loadgen", "--fastopen", "--confirm", "reply", "--engine", "io-uring"];
    refuses(&ring, &["fastopen", "use engine epoll, or auto"]);
    refuses(&["loadgen", "--sockets", "reused", "--close", "fin"], &["sockets reused", "close must be reset"]);
    refuses(&["loadgen", "--sockets", "reused", "--confirm", "reply", "--fastopen"], &["sockets reused", "fastopen"]);
    refuses(&["loadgen", "--arrivals", "closed:4", "--keep", "3"], &["keep", "use hold, or another N"]);
    refuses(&["loadgen", "--keep", "0"], &["--keep", "1 or more"]);
    refuses(&["loadgen", "--syn-retries", "128"], &["--syn-retries", "1 to 127"]);
    refuses(&["loadgen", "--user-timeout", "900us"], &["user-timeout", "1 or more"]);
    refuses(&["loadgen", "--spin", "2s"], &["--spin", "1s at most"]);
    refuses(&["loadgen", "--cpus", "4095"], &["cpus", "4095"]);
    refuses(&["loadgen", "--engine", "magic"], &["--engine", "io-uring"]);
    refuses(&["run", "backlog", "--admin", "here"], &["--admin", "write e.g."]);
    refuses(&["run"], &["<EXPERIMENT>", "--help"]);
    refuses(&["fly"], &["'fly'", "--help"]);
}

#[test]
fn help_is_a_result_and_nothing_to_do_is_a_mistake() {
    let help = acceptbench().arg("--help").output().expect("the program starts");
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("acceptbench run backlog"));
    let nothing = acceptbench().output().expect("the program starts");
    assert_eq!(nothing.status.code(), Some(64));
    assert_eq!(text(&nothing.stdout), "");
    assert!(text(&nothing.stderr).contains("acceptbench run backlog"));
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let _machine = machine();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = taken.local_addr().expect("an address").to_string();
    let lab = Lab::new();
    let listen = run(&lab, &["server", "--listen", &address, "--admin", "off"]);
    refused(&listen, 64, &[&address, "Address already in use", "choose another port with --listen"]);
    let admin = run(&lab, &["server", "--listen", "127.0.0.1:0", "--admin", &address]);
    refused(&admin, 64, &[&address, "Address already in use", "--admin"]);
}

#[test]
fn a_privileged_port_is_refused_to_an_ordinary_user_with_its_flag() {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first.trim().parse() == Ok(0) {
        return skip("every port is open to everybody here (net.ipv4.ip_unprivileged_port_start = 0)");
    }
    let _machine = machine();
    let lab = Lab::new();
    let mut command = ordinary_program(&lab);
    command.args(["server", "--listen", "127.0.0.1:1", "--admin", "off"]);
    refused(&finish(command), 64, &["127.0.0.1:1", "Permission denied", "CAP_NET_BIND_SERVICE", "--listen"]);
}

#[test]
fn a_run_takes_a_free_admin_port_when_the_one_asked_for_is_taken() {
    let _machine = machine();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = taken.local_addr().expect("an address").to_string();
    let lab = Lab::new();
    lab.file("fine.toml", BASE);
    let output = run(&lab, &["run", "fine.toml", "--admin", &address]);
    let said = text(&output.stderr);
    answered(&output);
    let line = said.lines().find(|line| line.starts_with("metrics on http://")).expect("the address is printed");
    assert!(line.contains("taken") && !line.contains(&address), "{line}");
}

#[test]
fn a_machine_without_user_namespaces_is_told_from_a_wrong_request() {
    let _machine = machine();
    let lab = Lab::new();
    lab.file("fine.toml", BASE);
    let program = ordinary_program(&lab).get_program().to_owned();
    // Root of a user namespace may forbid further ones below it; without capabilities the lab needs one.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces || exit 99
        exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all \"$0\" run fine.toml --admin off";
    let mut command = shell(&["unshare", "-Ur"], script);
    command.arg(program).current_dir(lab.path());
    if is_root() {
        command.uid(65534).gid(65534);
    }
    let output = finish(command);
    if !matches!(output.status.code(), Some(64 | 69 | 70 | 0)) {
        return skip(&format!("no user namespace with a limit of its own: {}", text(&output.stderr)));
    }
    refused(&output, 69, &["user namespaces", "/proc/sys/user/max_user_namespaces", "run as root"]);
    assert!(!lab.path().join("results").exists());
    nobody_left(&lab);
}

/// `WRAPPER… sh -c SCRIPT`, with a clean environment; what is added as arguments are `$0`, `$1`, ….
fn shell(wrapper: &[&str], script: &str) -> Command {
    let words: Vec<&str> = wrapper.iter().copied().chain(["sh", "-c", script]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    command
}

#[test]
fn too_few_descriptors_for_the_plan_are_named() {
    let _machine = machine();
    let lab = Lab::new();
    lab.file("burst.toml", &with("rate = 100", "arrivals = \"burst:400/1s\""));
    let words = ["burst:400/1s", "needs 528 descriptors", "RLIMIT_NOFILE allows 200", "ulimit -n", "lower"];
    for args in ["run burst.toml --admin off", "loadgen --arrivals burst:400/1s --admin off"] {
        let mut command = shell(&[], &format!("ulimit -n 200; exec \"$0\" {args}"));
        command.arg(env!("CARGO_BIN_EXE_acceptbench")).current_dir(lab.path());
        refused(&finish(command), 69, &words);
        assert_eq!(left(&lab), ["burst.toml"]);
    }
}

#[test]
fn a_results_directory_that_cannot_be_made_is_named_with_its_flag() {
    let _machine = machine();
    let lab = Lab::new();
    lab.file("fine.toml", BASE);
    lab.file("occupied", "");
    for results in ["occupied", "occupied/below"] {
        let output = run(&lab, &["run", "fine.toml", "--admin", "off", "--results", results]);
        refused(&output, 64, &[results, "write elsewhere with --results DIR"]);
    }
    assert_eq!(left(&lab), ["fine.toml", "occupied"]);
    let mut command = ordinary_program(&lab);
    let closed = lab.path().join("closed");
    fs::create_dir(&closed).expect("a directory");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).expect("a mode");
    command.args(["run", "fine.toml", "--admin", "off", "--results", "closed/results"]).current_dir(lab.path());
    let words = ["closed/results", "Permission denied", "write elsewhere with --results DIR"];
    refused(&finish(command), 64, &words);
    assert_eq!(fs::read_dir(&closed).expect("the directory").count(), 0);
    nobody_left(&lab);
}

/// Runs `fine.toml` with its results on a file system of this size, and copies what is there afterwards to `kept`.
/// `None` when no file system can be mounted.
fn on_a_small_disk(lab: &Lab, size: &str, meanwhile: &str) -> Option<Output> {
    fs::create_dir(lab.path().join("disk")).expect("a directory");
    let script = format!(
        "mount -t tmpfs -o size={size} none disk || exit 99
        {meanwhile}
        \"$0\" run fine.toml --admin off --results disk/results; code=$?
        kill $! 2>/dev/null
        cp -a disk/results kept || exit 98
        exit $code"
    );
    let mut command = shell(if is_root() { &["unshare", "-m"] } else { &["unshare", "-Urm"] }, &script);
    command.arg(env!("CARGO_BIN_EXE_acceptbench")).current_dir(lab.path());
    let output = finish(command);
    if !matches!(output.status.code(), Some(0 | 64 | 69 | 70 | 98)) {
        skip(&format!("cannot mount a small file system: {}", text(&output.stderr)));
        return None;
    }
    Some(output)
}

#[test]
fn a_disk_that_cannot_hold_the_results_is_refused_before_the_start() {
    let _machine = machine();
    let lab = Lab::new();
    lab.file("fine.toml", &with("replicates = 1", "replicates = 4"));
    let Some(output) = on_a_small_disk(&lab, "64k", "") else { return };
    refused(&output, 69, &["disk/results", "KiB free", "4 trials", "--results DIR"]);
    let runs = fs::read_dir(lab.path().join("kept")).expect("a copy").filter_map(Result::ok);
    let runs: Vec<_> = runs.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).collect();
    assert!(runs.is_empty(), "no results directory is left: {runs:?}");
    nobody_left(&lab);
}

#[test]
fn a_disk_that_fills_up_costs_no_finished_trial() {
    let _machine = machine();
    let lab = Lab::new();
    lab.file("fine.toml", &with("replicates = 1", "replicates = 6"));
    let fill = "(while [ \"$(cat disk/results/latest/trials.jsonl 2>/dev/null | wc -l)\" -lt 2 ]; do sleep 0.01; done
          exec dd if=/dev/zero of=disk/fill bs=512 2>/dev/null) &";
    let Some(output) = on_a_small_disk(&lab, "600k", fill) else { return };
    let said = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(64 | 69)), "{said}");
    let last = said.lines().last().expect("a line");
    assert!(last.starts_with("acceptbench: ") && last.contains("No space left on device"), "{said}");
    assert!(last.ends_with("; free some space, then go on with acceptbench run --resume DIR"), "{said}");
    let trials = whole_trials(&lab.path().join("kept/latest/trials.jsonl"));
    assert!((2..6).contains(&trials), "{trials} trials were kept");
    let report = run(&lab, &["report", "kept/latest"]);
    answered(&report);
    assert!(text(&report.stdout).contains(&format!("{trials} of 6 trials are stored")), "{}", text(&report.stdout));
    nobody_left(&lab);
}

/// The trials in a file, every line of which must be whole; none where no trial was kept.
pub(crate) fn whole_trials(path: &Path) -> usize {
    let stored = fs::read_to_string(path).unwrap_or_default();
    assert!(stored.is_empty() || stored.ends_with('\n'), "the last line is whole");
    for line in stored.lines() {
        serde_json::from_str::<Trial>(line).expect("a trial");
    }
    stored.lines().count()
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let _machine = machine();
    let lab = Lab::new();
    lab.file("fine.toml", BASE);
    for args in [&["list"][..], &["--help"], &["check", "backlog"], &["run", "fine.toml", "--admin", "off"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = acceptbench();
        let output = command.args(args).current_dir(lab.path()).stdout(writer).output().expect("the program starts");
        answered(&output);
        assert!(!text(&output.stderr).contains("bug"), "{args:?}: {}", text(&output.stderr));
    }
    let mut command = shell(&[], "exec \"$0\" list >&- 2>&- <&-");
    command.arg(env!("CARGO_BIN_EXE_acceptbench"));
    assert_eq!(finish(command).status.code(), Some(0), "no streams at all");
}

#[test]
fn the_environment_sets_a_server_and_is_said_to_be_ignored_by_a_run() {
    let _machine = machine();
    let mut command = acceptbench();
    command.args(["server", "--listen", "127.0.0.1:0", "--admin", "off"]).env("ACCEPTBENCH_SERVER_BACKLOG", "7");
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut lines = BufReader::new(server.stdout.take().expect("a pipe"));
    let mut said = String::new();
    while !said.contains("listening on") && lines.read_line(&mut said).expect("a line") > 0 {}
    kill_process(Pid::from_child(&server), Signal::TERM).expect("a signal");
    lines.read_to_string(&mut String::new()).expect("the rest");
    assert_eq!(server.wait().expect("a child").code(), Some(0));
    assert!(said.contains("backlog 7, "), "{said}");

    let lab = Lab::new();
    lab.file("fine.toml", BASE);
    let mut command = acceptbench();
    command.args(["run", "fine.toml", "--admin", "off"]).env("ACCEPTBENCH_SERVER_BACKLOG", "7").current_dir(lab.path());
    let output = finish(command);
    let said = text(&output.stderr);
    answered(&output);
    assert!(said.contains("ACCEPTBENCH_SERVER_BACKLOG ignored"), "{said}");
    let trials = lab.records();
    let trial = trials.last().expect("a trial");
    assert_eq!(trial.server.listeners[0].backlog_requested, Some(8), "the file decides");

    let mut command = acceptbench();
    command.args(["server", "--admin", "off"]).env("ACCEPTBENCH_SERVER_BACKLOG", "many");
    refused(&finish(command), 64, &["--backlog", "'many'", "write a whole number"]);
}
