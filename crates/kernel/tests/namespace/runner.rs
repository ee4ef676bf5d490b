//! The runner: this program once per case and privilege, and libtest's lines.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use kernel::namespace::{self, Privilege};
use kernel::sysctl;

use super::{CASE, PRIVILEGE, SKIPPED};

/// An id without any privilege ("nobody").
const NOBODY: u32 = 65534;
/// For one case; the slowest takes some 20 ms.
const TIME_LIMIT: Duration = Duration::from_secs(30);

enum Outcome {
    Ok,
    Skipped(String),
    Failed(String),
}

/// Runs every case in a process of its own, once per privilege, and prints what libtest would.
pub(super) fn run_all(cases: &[(&str, fn())]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let root = namespace::privilege() == Privilege::Root;
    let modes: &[&str] = if root { &["root", "user"] } else { &["user"] };
    let mut tests: Vec<(String, &str, &str)> = Vec::new();
    for (name, _) in cases {
        tests.extend(modes.iter().map(|mode| (format!("{name}::{mode}"), *name, *mode)));
    }
    tests.retain(|(title, ..)| filters.is_empty() || filters.iter().any(|filter| title.contains(*filter)));
    if arguments.iter().any(|argument| argument == "--list") {
        for (title, ..) in &tests {
            println!("{title}: test");
        }
        return ExitCode::SUCCESS;
    }

    let required = std::env::var_os("ACCEPTBENCH_REQUIRE_NETNS").is_some_and(|value| value == "1");
    let (started, before) = (Instant::now(), sysctl::recorded());
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    println!("\nrunning {} tests", tests.len() + 1);
    let program = Program::new(root);
    for (title, name, mode) in &tests {
        match program.run(name, mode) {
            Outcome::Ok => {
                passed += 1;
                println!("test {title} ... ok");
            }
            Outcome::Skipped(reason) if !required => {
                ignored += 1;
                println!("test {title} ... ignored, {reason}");
            }
            Outcome::Skipped(reason) | Outcome::Failed(reason) => {
                failed += 1;
                println!("test {title} ... FAILED\n{reason}");
            }
        }
    }
    // Every case that sets something does so in its own namespace.
    if sysctl::recorded() == before {
        passed += 1;
        println!("test the_host_keeps_its_settings ... ok");
    } else {
        failed += 1;
        println!("test the_host_keeps_its_settings ... FAILED");
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {} filtered out; finished \
         in {:.2}s\n",
        cases.len() * modes.len() - tests.len(),
        started.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// This program, and a copy that an ordinary user may run: the build directory can be private to root.
struct Program {
    path: PathBuf,
    copy: Option<(tempfile::TempDir, PathBuf)>,
}

impl Program {
    fn new(root: bool) -> Self {
        let path = std::env::current_exe().expect("own path");
        let copy = root.then(|| {
            let directory = tempfile::tempdir().expect("temporary directory");
            let copy = directory.path().join("namespace-test");
            std::fs::copy(&path, &copy).expect("copy");
            for path in [directory.path(), copy.as_path()] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
            }
            (directory, copy)
        });
        Self { path, copy }
    }

    fn run(&self, name: &str, mode: &str) -> Outcome {
        let mut command = match &self.copy {
            Some((_, copy)) if mode == "user" => {
                let mut command = Command::new(copy);
                command.uid(NOBODY).gid(NOBODY);
                command
            }
            _ => Command::new(&self.path),
        };
        command.env_clear().env(CASE, name).env(PRIVILEGE, mode).env("RUST_BACKTRACE", "0").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Outcome::Failed(format!("starting the case: {error}")),
        };
        let deadline = Instant::now() + TIME_LIMIT;
        while child.try_wait().expect("wait").is_none() {
            if Instant::now() > deadline {
                child.kill().expect("kill");
                child.wait().expect("wait");
                return Outcome::Failed(format!("not done after {TIME_LIMIT:?}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = child.wait_with_output().expect("output");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        match output.status.code() {
            Some(0) => Outcome::Ok,
            Some(SKIPPED) => Outcome::Skipped(text),
            _ => Outcome::Failed(format!("{}: {text}", output.status)),
        }
    }
}
