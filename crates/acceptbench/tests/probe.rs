//! `acceptbench probe` end to end: the built program, real namespaces. Every claim gets the verdict that is known for
//! Linux 6.18, a wrong expectation is noticed, the document is what its schema says, and nothing is left behind.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use probe::{Claim, Expect, Group, Is, Takes, Verdict};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Who measures without any privilege (nobody).
const ORDINARY: u32 = 65534;

/// What an ordinary user cannot observe: a user namespace of one user has no second one.
const NEEDS_ROOT: [&str; 1] = ["bind.reuseport-other-user"];

/// What cannot be observed while something else keeps the CPUs busy.
const NEEDS_IDLE_CPUS: [&str; 2] = ["listen.threads-on-one-listener", "listen.threads-on-listeners-of-their-own"];

/// How often what compares times is measured until it comes out as known.
const TRIES: usize = 3;

/// The default claims, once as whoever runs the tests and once as an ordinary user, are measured in that time.
const DEFAULT_RUNS: Duration = Duration::from_secs(100);

/// Processes of a killed program are gone by then.
const GONE: Duration = Duration::from_secs(3);

/// One run at a time: two would be each other's noise.
static MACHINE: Mutex<()> = Mutex::new(());

fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_acceptbench");

fn probe(args: &[&str]) -> Command {
    probe_by(Path::new(PROGRAM), args)
}

fn probe_by(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env_clear().arg("probe").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> Output {
    probe(args).output().expect("the built program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Can this user make namespaces here? Otherwise says why not, which is a failure where everything must be there.
fn namespaces() -> bool {
    let ready = probe::run::ready(Path::new(PROGRAM));
    if let Err(reason) = &ready {
        assert!(std::env::var_os("ACCEPTBENCH_REQUIRE_NETNS").is_none(), "required here: {reason}");
        eprintln!("skipped: {reason}");
    }
    ready.is_ok()
}

/// Does this kernel have the verdicts that the claims know?
fn known_kernel() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let known = release.starts_with("6.18.");
    if !known {
        eprintln!("verdicts are known for Linux 6.18, this is {release}: differences are printed, not judged");
    }
    known
}

/// The document of a run that came to its end.
fn document(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a JSON document")
}

fn schema() -> jsonschema::Validator {
    let schema = serde_json::from_str(probe::document::SCHEMA).expect("the schema is JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("the schema is a JSON Schema");
    jsonschema::draft202012::new(&schema).expect("the schema compiles")
}

/// What does not fit the schema.
fn misfits(document: &Value) -> Vec<String> {
    schema().iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// `name: verdict, not known one: what this kernel did` for each row that is other than on Linux 6.18.
fn surprises(document: &Value) -> Vec<String> {
    let rows = document["claims"].as_array().expect("claims");
    let ordinary = document["privilege"] == "user-namespace";
    let excused = |row: &Value| {
        let named = |names: &[&str]| names.iter().any(|name| row["name"] == *name);
        let excused = named(&NEEDS_IDLE_CPUS) || (ordinary && named(&NEEDS_ROOT));
        row["verdict"] == "not-observed" && row["failed"] == false && excused
    };
    let other = |row: &&Value| row["verdict"] != row["known"] && !excused(row);
    let line = |row: &Value| {
        format!("{}: {}, not {}: {} {}", row["name"], row["verdict"], row["known"], row["did"], row["unmet"])
    };
    rows.iter().filter(other).map(line).collect()
}

/// Who measures: the program, and whether as [`ORDINARY`].
struct User {
    program: PathBuf,
    ordinary: bool,
}

impl User {
    /// Starts measuring these claims.
    fn start(&self, claims: &[&Claim]) -> JoinHandle<Output> {
        let mut command = probe_by(&self.program, &["--json"]);
        command.args(claims.iter().flat_map(|claim| ["--only", claim.name]));
        if self.ordinary {
            command.uid(ORDINARY).gid(ORDINARY);
        }
        std::thread::spawn(move || command.output().expect("the program starts"))
    }
}

/// A copy of the program for everybody, since the build directory may be closed to others.
fn copied_to(directory: &TempDir) -> PathBuf {
    let program = directory.path().join("acceptbench");
    fs::copy(PROGRAM, &program).expect("a copy of the program");
    for path in [directory.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    program
}

/// What compares times is measured again when it came out otherwise: a machine that has other guests is slower for moments.
fn undisturbed(user: &User, claims: &[&Claim]) -> Output {
    let mut output = user.start(claims).join().expect("a run");
    for _ in 1..TRIES {
        if surprises(&document(&output)).is_empty() || !known_kernel() {
            break;
        }
        output = user.start(claims).join().expect("a run");
    }
    output
}

#[test]
fn every_claim_gets_its_known_verdict_with_and_without_privilege() {
    let _machine = machine();
    if !namespaces() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory");
    let root = rustix::process::geteuid().is_root();
    let mut users = vec![User { program: PROGRAM.into(), ordinary: false }];
    users.extend(root.then(|| User { program: copied_to(&directory), ordinary: true }));
    let default = probe::claims().filter(|claim| !matches!(claim.takes, Takes::Full(_)));
    let (alone, together): (Vec<&Claim>, Vec<&Claim>) = default.partition(|claim| claim.takes == Takes::Alone);
    let began = Instant::now();
    let at_once: Vec<_> = users.iter().map(|user| user.start(&together)).collect();
    let mut outputs: Vec<Output> = at_once.into_iter().map(|run| run.join().expect("a run")).collect();
    // What measures CPU time would only disturb the other user's.
    outputs.extend(users.iter().map(|user| undisturbed(user, &alone)));
    let took = began.elapsed();
    let documents: Vec<Value> = outputs.iter().map(document).collect();
    println!("{} claims as {} users in {:.1} s", together.len() + alone.len(), users.len(), took.as_secs_f64());
    for document in &documents {
        let (misfits, surprises) = (misfits(document), surprises(document));
        assert!(misfits.is_empty(), "{misfits:#?}");
        println!("{}: other than on Linux 6.18: {surprises:#?}", document["privilege"]);
        assert!(surprises.is_empty() || !known_kernel(), "{surprises:#?}");
    }
    if root {
        let privileges: Vec<&Value> = documents.iter().map(|document| &document["privilege"]).collect();
        assert_eq!(privileges, ["root", "user-namespace", "root", "user-namespace"]);
    }
    assert!(took < DEFAULT_RUNS, "took {took:?}");
}

/// The same claim with every figure expected to be something else.
fn contradicted(claim: &Claim) -> Claim {
    let wrong = |expect: &Expect| Expect {
        is: match expect.is {
            Is::Exactly(number) => Is::Exactly(number + 1.0),
            Is::Between(low, high) => Is::Between(high + 1.0, high + 1.0 + (high - low)),
            Is::Text(_) => Is::Text("something else"),
        },
        ..*expect
    };
    let expects: Vec<Expect> = claim.expects.iter().map(wrong).collect();
    Claim { expects: Box::leak(expects.into_boxed_slice()), ..*claim }
}

#[test]
fn a_wrong_expectation_is_reported_as_differs_in_every_group() {
    let _machine = machine();
    if !namespaces() {
        return;
    }
    for group in Group::ALL {
        let quick = |claim: &&Claim| claim.group == group && claim.takes == Takes::Moment;
        let claim = probe::claims().filter(quick).find(|claim| claim.known == Verdict::Holds);
        let Some(claim) = claim else { panic!("{} has no quick claim that holds", group.name()) };
        let rows = probe::run::run(Path::new(PROGRAM), &[*claim, contradicted(claim)], &|_| ());
        let [right, wrong] = rows.as_slice() else { panic!("two rows: {rows:?}") };
        assert_eq!(right.verdict, Verdict::Holds, "{right:?}");
        assert_eq!(wrong.verdict, Verdict::Differs, "{wrong:?}");
        assert_eq!(wrong.unmet.len(), claim.expects.len(), "{wrong:?}");
    }
}

#[test]
fn the_document_of_a_group_is_what_the_schema_says() {
    let _machine = machine();
    if !namespaces() {
        return;
    }
    let document = document(&run(&["--only", "connect", "--json"]));
    let found = misfits(&document);
    assert!(found.is_empty(), "{found:#?}");
    assert!(document["claims"].as_array().expect("claims").iter().all(|row| row["group"] == "connect"));
    // The schema is not so wide that everything fits it.
    for (pointer, wrong) in [
        ("/claims/0/verdict", json!("perhaps")),
        ("/claims/0/name", json!("Connect.Refused")),
        ("/claims/0/seconds", json!(-1)),
        ("/claims/0/observed/figures", json!({ "queued": [1] })),
        ("/claims/0/observed/server", json!({ "ListenOverflows": -1 })),
        ("/privilege", json!("somebody")),
        ("/notes/0/claims", json!([])),
        ("/claims", json!([])),
    ] {
        let mut broken = document.clone();
        *broken.pointer_mut(pointer).expect(pointer) = wrong;
        assert!(!misfits(&broken).is_empty(), "{pointer}");
    }
    let mut more = document;
    more["claims"][0]["verdicts"] = json!("holds");
    assert!(!misfits(&more).is_empty(), "a key that nobody knows");
}

/// The one line that refuses a command, checked for its form and these words.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with("acceptbench: ") && said.lines().count() == 1 && output.stdout.is_empty(), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in `{said}`");
    }
}

#[test]
fn what_is_not_there_is_refused_in_one_line_that_says_what_is() {
    refused(&run(&["--only", "conect"]), 64, &["`conect`", "connect, bind, listen, accept, fork, close", "1.1, 1.2"]);
    refused(&run(&["--only", "connect.nothing"]), 64, &["`connect.nothing`", "connect.refused-without-listener"]);
    refused(&run(&["--only", "1.9"]), 64, &["`1.9`", "3.10"]);
    refused(&run(&["--only", "connect", "--only", "Bind"]), 64, &["`Bind`", "bind"]);
    refused(&run(&["--only"]), 64, &["--only"]);
    refused(&run(&["--noted"]), 64, &["--noted", "--notes"]);
    refused(&run(&["connect"]), 64, &["connect"]);
    let own = probe::claims().find(|claim| claim.notes.is_empty()).expect("a claim of our own");
    refused(&run(&["--notes", "--only", own.name]), 64, &["--notes", "--only"]);
}

#[test]
fn a_machine_without_user_namespaces_is_one_line_not_a_row_for_each_claim() {
    if !namespaces() {
        return;
    }
    // Root of a user namespace may forbid further ones below it.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces || exit 99
        exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all \"$0\" probe --only connect";
    let directory = TempDir::new().expect("a temporary directory");
    let mut command = Command::new("unshare");
    command.args(["-Ur", "sh", "-c", script]).arg(copied_to(&directory)).stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(ORDINARY).gid(ORDINARY);
    }
    let output = command.output().expect("unshare starts");
    assert_ne!(output.status.code(), Some(99), "{}", text(&output.stderr));
    refused(&output, 69, &["user namespaces", "max_user_namespaces"]);
}

/// Pids of the processes that measure for `program`, and of the ones that hold descriptors for these: each names its
/// parent in its last argument, so that nobody else's are meant.
fn measuring(program: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut parents = vec![program];
    let all: Vec<(u32, Vec<String>)> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(|pid: u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, text(&line).split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect())
        })
        .collect();
    while let Some(parent) = parents.pop() {
        let of_parent = |words: &[String]| {
            words.iter().any(|word| word.starts_with("__probe")) && words.last() == Some(&parent.to_string())
        };
        for (pid, _) in all.iter().filter(|(_, words)| of_parent(words)) {
            found.push(*pid);
            parents.push(*pid);
        }
    }
    found
}

/// Does it still run `__probe`? A pid may have been given away meanwhile.
fn measures(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).contains("__probe"))
}

fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Starts a run that lasts seconds, sends the signal once many processes measure, and waits until they are gone.
fn killed_amid(signal: Signal) -> (std::process::ExitStatus, String) {
    let mut program = probe(&["--only", "connect", "--only", "listen"]).spawn().expect("the program starts");
    let pid = program.id();
    assert!(within(Duration::from_secs(10), || measuring(pid).len() >= 4), "four processes measure");
    let known = measuring(pid);
    kill_process(Pid::from_child(&program), signal).expect("a signal");
    let status = program.wait().expect("a child");
    let gone = within(GONE, || measuring(pid).is_empty() && !known.iter().any(|pid| measures(*pid)));
    assert!(gone, "after {signal:?} still there: {:?} of {known:?}", measuring(pid));
    let mut said = String::new();
    program.stderr.take().expect("stderr").read_to_string(&mut said).expect("text");
    (status, said)
}

#[test]
fn a_killed_program_leaves_no_process() {
    let _machine = machine();
    if !namespaces() {
        return;
    }
    let (status, _) = killed_amid(Signal::KILL);
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn an_interrupted_program_says_so_and_leaves_no_process() {
    let _machine = machine();
    if !namespaces() {
        return;
    }
    let (status, said) = killed_amid(Signal::INT);
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted") && said.contains("nothing is left"), "{said}");
}
