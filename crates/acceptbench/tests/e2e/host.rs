//! The host is untouched: by a run that ends, by one that is interrupted, and by one whose processes are killed at
//! any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use crate::bad_input::whole_trials;
use crate::support::{Lab, acceptbench, machine, random, text};

/// Who runs the lab without any privilege (nobody).
const ORDINARY: u32 = 65534;

/// Processes and namespaces of a killed run are gone by then.
const GONE: Duration = Duration::from_secs(2);

/// A runner whose trial was killed ends by then.
const ENDED: Duration = Duration::from_secs(5);

/// Kills per victim, and how many runs go on at once: they mostly sleep.
const TRIES: u64 = 20;
const AT_ONCE: u64 = 5;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A test that cannot be done here says why; where everything must be there, it fails.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("ACCEPTBENCH_REQUIRE_NETNS").is_none(), "required here: {reason}");
    eprintln!("skipped: {reason}");
}

/// The run came to its end. On a busy machine its trials may not count (exit code 2): these tests measure nothing.
pub(crate) fn answered(output: &Output) {
    assert!(matches!(output.status.code(), Some(0 | 2)), "{:?}: {}", output.status, text(&output.stderr));
}

/// The program as an ordinary user may start it, and the directory of `lab` open to that user: a copy, since the
/// build directory may be closed to others.
pub(crate) fn ordinary_program(lab: &Lab) -> Command {
    if !is_root() {
        return acceptbench();
    }
    fs::set_permissions(lab.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
    as_ordinary(&copied_to(lab.path()))
}

fn copied_to(directory: &Path) -> PathBuf {
    let copy = directory.join("acceptbench");
    fs::copy(env!("CARGO_BIN_EXE_acceptbench"), &copy).expect("a copy of the program");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("a mode");
    copy
}

fn as_ordinary(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().uid(ORDINARY).gid(ORDINARY);
    command
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    pid: i32,
    parent: i32,
    /// Inherited by everything we start, and by nothing that others run on this machine at the same time.
    session: i32,
    /// Ticks since boot: with the pid, an identity.
    started: u64,
}

impl Stat {
    /// `None` for a process that is gone or waits to be reaped.
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        if matches!(fields[0], "Z" | "X") {
            return None;
        }
        let id = |index: usize| fields[index].parse().ok();
        Some(Self { pid, parent: id(1)?, session: id(3)?, started: fields[19].parse().ok()? })
    }
}

fn processes() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries.filter_map(|entry| Stat::of(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Everything below `ancestor`.
fn descendants(ancestor: i32) -> Vec<Stat> {
    let all = processes();
    let mut found: Vec<Stat> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for child in all.iter().filter(|child| child.parent == parent) {
            found.push(*child);
            parents.push(child.pid);
        }
    }
    found
}

/// Is it the process of a trial with this role?
fn has_role(pid: i32, role: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|argument| argument == role.as_bytes())
}

/// Waits until none of `known` lives and nobody is at work in `directory`, where every process of a run is.
pub(crate) fn gone_within(limit: Duration, directory: &Path, known: &[Identity]) {
    let began = Instant::now();
    loop {
        let at_work = |process: &Stat| {
            fs::read_link(format!("/proc/{}/cwd", process.pid)).is_ok_and(|cwd| cwd == directory)
                || known.contains(&Identity(*process))
        };
        let left: Vec<Stat> = processes().into_iter().filter(at_work).collect();
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < limit, "still there after {limit:?}: {left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process that is not mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity(Stat);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (self.0.pid, self.0.started) == (other.0.pid, other.0.started)
    }
}

/// What a run must not change.
pub(crate) struct Host {
    sysctls: BTreeMap<PathBuf, String>,
    links: BTreeSet<String>,
    named: BTreeSet<String>,
    mounts: BTreeSet<String>,
    namespaces: BTreeSet<u64>,
}

/// What changes without us: counts and random numbers.
const MOVING: [&str; 9] = [
    "/proc/sys/kernel/random/",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/pty/nr",
    "/proc/sys/fs/dentry-state",
    "/proc/sys/fs/inode-",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/aio-nr",
    "/proc/sys/net/netfilter/nf_conntrack_count",
    "/proc/sys/kernel/perf_event_max_sample_rate",
];

fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn read_sysctls(directory: &Path, into: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            read_sysctls(&path, into);
        } else if !MOVING.iter().any(|moving| path.starts_with(moving) || path.to_string_lossy().starts_with(moving))
            && let Ok(value) = fs::read(&path)
        {
            into.insert(path, text(&value));
        }
    }
}

/// Network namespaces that any process of this session is in.
fn namespaces() -> BTreeSet<u64> {
    let inode = |process: Stat| fs::metadata(format!("/proc/{}/ns/net", process.pid)).ok().map(|meta| meta.ino());
    let ours = Stat::of(std::process::id().cast_signed()).expect("this process").session;
    processes().into_iter().filter(|process| process.session == ours).filter_map(inode).collect()
}

impl Host {
    fn now() -> Self {
        let mut sysctls = BTreeMap::new();
        read_sysctls(Path::new("/proc/sys"), &mut sysctls);
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        Self {
            sysctls,
            links: names("/sys/class/net"),
            named: names("/run/netns"),
            mounts: mounts.lines().map(str::to_owned).collect(),
            namespaces: namespaces(),
        }
    }

    /// As it is now, without the sysctls that do not stand still.
    pub(crate) fn at_rest() -> Self {
        let first = Self::now();
        std::thread::sleep(Duration::from_millis(300));
        let mut host = Self::now();
        host.sysctls.retain(|path, value| first.sysctls.get(path) == Some(value));
        assert!(host.sysctls.len() > 200, "only {} sysctls can be read", host.sysctls.len());
        host
    }

    /// Nothing has changed; namespaces may take a moment to go.
    pub(crate) fn assert_untouched(&self, what: &str) {
        let now = Self::now();
        for (path, value) in &self.sysctls {
            assert_eq!(now.sysctls.get(path), Some(value), "{what}: {}", path.display());
        }
        assert_eq!(now.links, self.links, "{what}: network links");
        assert_eq!(now.named, self.named, "{what}: /run/netns");
        assert_eq!(now.mounts, self.mounts, "{what}: mounts");
        let began = Instant::now();
        loop {
            let new: Vec<u64> = namespaces().difference(&self.namespaces).copied().collect();
            if new.is_empty() {
                return;
            }
            assert!(began.elapsed() < GONE, "{what}: network namespaces {new:?} are still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A short experiment whose trials change sysctls of their own.
fn experiment(replicates: u32, topology: &str) -> String {
    format!(
        r#"
        [experiment]
        name = "host"
        question = "does the host notice?"
        replicates = {replicates}
        retries = 0
        warm-up = "0s"
        measure = "300ms"
        topology = "{topology}"
        [loadgen]
        rate = 300
        deadline = "200ms"
        [sysctl]
        "net.ipv4.tcp_syncookies" = 0
        "net.ipv4.tcp_max_syn_backlog" = 77
        "net.ipv4.ip_local_port_range" = "20000 30000"
        "#
    )
}

/// The run as whoever runs the tests, or, with a `program` that everybody may start, as an ordinary user.
fn start(lab: &Lab, program: Option<&Path>) -> Child {
    let mut command = match program {
        Some(program) => {
            fs::set_permissions(lab.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
            as_ordinary(program)
        }
        None => acceptbench(),
    };
    command.args(["run", "host.toml", "--admin", "off"]).current_dir(lab.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// A lab with the experiment in it.
fn lab(replicates: u32, topology: &str) -> Lab {
    let lab = Lab::new();
    lab.file("host.toml", &experiment(replicates, topology));
    lab
}

fn runs_without_a_trace(program: Option<&Path>) {
    for topology in ["veth", "loopback"] {
        let before = Host::at_rest();
        let lab = lab(2, topology);
        let output = start(&lab, program).wait_with_output().expect("a child");
        answered(&output);
        gone_within(GONE, lab.path(), &[]);
        assert_eq!(whole_trials(&lab.path().join("results/latest/trials.jsonl")), 2);
        before.assert_untouched(topology);
    }
}

#[test]
fn a_run_leaves_no_trace() {
    let _machine = machine();
    runs_without_a_trace(None);
}

#[test]
fn a_run_of_an_ordinary_user_leaves_no_trace() {
    let _machine = machine();
    let shared = Shared::new();
    // Without root there is nobody else to become: the tests are an ordinary user's already.
    runs_without_a_trace(shared.program());
}

/// A copy of the program that every user may start; none when the tests themselves are an ordinary user's.
struct Shared {
    _directory: TempDir,
    program: Option<PathBuf>,
}

impl Shared {
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let program = is_root().then(|| copied_to(directory.path()));
        Self { _directory: directory, program }
    }

    fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }
}

/// Every try, several at once, every other one as an ordinary user; then the host must be as before.
fn tries(what: &str, one: impl Fn(u64, Option<&Path>) + Sync) {
    let _machine = machine();
    let shared = Shared::new();
    let before = Host::at_rest();
    std::thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let (one, shared) = (&one, &shared);
            scope.spawn(move || {
                for number in (first..TRIES).step_by(usize::try_from(AT_ONCE).unwrap_or(1)) {
                    one(number, shared.program().filter(|_| number % 2 == 1));
                }
            });
        }
    });
    before.assert_untouched(what);
}

/// A moment between the first fork and the end of the second trial.
fn wait_a_while(number: u64) {
    std::thread::sleep(Duration::from_millis(random(number, 1100)));
}

#[test]
fn a_killed_runner_leaves_nothing_but_whole_trials() {
    tries("the runner was killed", |number, program| {
        let lab = lab(20, "veth");
        let runner = start(&lab, program);
        wait_a_while(number);
        kill_runner(runner, lab.path());
        let trials = lab.path().join("results/latest/trials.jsonl");
        if trials.exists() {
            whole_trials(&trials);
        }
    });
}

#[test]
fn a_killed_trial_ends_the_run_with_one_line() {
    tries("__trial was killed", |number, program| kill_below(number, program, "__trial"));
}

#[test]
fn a_killed_init_ends_the_run_with_one_line() {
    tries("__init was killed", |number, program| kill_below(number + TRIES, program, "__init"));
}

fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a pid")
}

/// The process with this role below a runner.
pub(crate) fn with_role(runner: &Child, role: &str) -> Option<Pid> {
    let below = descendants(pid_of(runner)).into_iter();
    below.map(|process| process.pid).find(|pid| has_role(*pid, role)).and_then(Pid::from_raw)
}

/// Kills a runner, and sees everything go that it started. `directory` is where it is at work.
pub(crate) fn kill_runner(mut runner: Child, directory: &Path) {
    let family: Vec<Identity> = descendants(pid_of(&runner)).into_iter().map(Identity).collect();
    runner.kill().expect("killed");
    runner.wait().expect("a child");
    gone_within(GONE, directory, &family);
}

/// Kills the process with this role below a runner, at a random moment. The runner must end by itself.
fn kill_below(number: u64, program: Option<&Path>, role: &str) {
    let lab = lab(20, "veth");
    let mut runner = start(&lab, program);
    wait_a_while(number);
    let mut known = Vec::new();
    let mut last_kill = Instant::now();
    while runner.try_wait().expect("a child").is_none() {
        let below = descendants(pid_of(&runner));
        // A victim killed when its trial was over is not missed: then it is the next one's turn.
        if let Some(victim) =
            below.iter().find(|process| has_role(process.pid, role) && !known.contains(&Identity(**process)))
        {
            known.extend(below.iter().copied().map(Identity));
            kill(*victim, role);
            last_kill = Instant::now();
        }
        if last_kill.elapsed() > ENDED {
            runner.kill().expect("killed");
            panic!("try {number}: {ENDED:?} after {role} was killed the runner had not noticed");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = runner.wait_with_output().expect("a child");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "try {number}: {said}");
    // A busy machine may also be told that a finished trial does not count.
    let mut complaints =
        said.lines().filter(|line| line.starts_with("acceptbench: ") && !line.contains("does not count"));
    let (Some(complaint), None) = (complaints.next(), complaints.next()) else {
        panic!("try {number}: one line: {said}")
    };
    assert!(
        complaint.starts_with("acceptbench: trial ")
            && ["ended", "Broken pipe"].iter().any(|word| complaint.contains(word)),
        "try {number}: {said}"
    );
    gone_within(GONE, lab.path(), &known);
    whole_trials(&lab.path().join("results/latest/trials.jsonl"));
}

/// Kills this very process: the descriptor cannot come to mean another one.
fn kill(victim: Stat, role: &str) {
    let pid = Pid::from_raw(victim.pid).expect("a pid");
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if Stat::of(victim.pid).map(Identity) == Some(Identity(victim)) && has_role(victim.pid, role) {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}

#[test]
fn an_interrupted_run_keeps_its_finished_trials() {
    let _machine = machine();
    let before = Host::at_rest();
    let lab = lab(20, "veth");
    let mut runner = start(&lab, None);
    let trials = lab.path().join("results/latest/trials.jsonl");
    let began = Instant::now();
    let stored = || fs::read_to_string(&trials).map_or(0, |lines| lines.matches('\n').count());
    while stored() < 2 {
        assert!(began.elapsed() < Duration::from_secs(20) && runner.try_wait().expect("a child").is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    // Into the middle of the third.
    std::thread::sleep(Duration::from_millis(150));
    let asked = Instant::now();
    kill_process(Pid::from_child(&runner), Signal::INT).expect("a signal");
    let output = runner.wait_with_output().expect("a child");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(asked.elapsed() < Duration::from_secs(2), "it ended after {:?}", asked.elapsed());
    assert!(text(&output.stdout).contains("cut short"), "{}", text(&output.stdout));
    gone_within(GONE, lab.path(), &[]);
    let kept = whole_trials(&trials);
    assert!((2..20).contains(&kept), "{kept} trials were kept");
    let report = lab.run(&["report"]);
    answered(&report);
    assert!(text(&report.stdout).contains(&format!("{kept} of 20 trials are stored")), "{}", text(&report.stdout));
    before.assert_untouched("interrupted");
}
