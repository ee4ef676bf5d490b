//! For tests: runs one of them again in namespaces of its own, where it may count on zero counters, set sysctls and leave
//! processes behind, without a right of its own. Nothing of the host is seen or changed.
//!
//! The test calls [`in_namespaces`] with its own name. Outside, that starts the same test program again under unshare(1)
//! of util-linux with this one test; inside, it calls the body.

use std::process::Command;

use kernel::link::Links;

/// Set inside.
const INSIDE: &str = "ACCEPTBENCH_TEST_INSIDE";

/// What a test has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// A network, with a loopback that is up.
    Network,
    /// A network and processes: the test is process 1, and what it leaves behind ends with it.
    NetworkAndProcesses,
}

/// Runs `body`, which is the test called `name` (with its modules), in namespaces of its own, and shows what it printed.
/// Where there are none for an ordinary user it says so and does nothing, unless `ACCEPTBENCH_REQUIRE_NETNS` is set.
///
/// # Panics
/// When the test inside fails or is not found.
#[expect(clippy::print_stdout, reason = "what a test says")]
pub fn in_namespaces(name: &str, own: Own, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        Links::open().and_then(|mut links| links.set_up("lo")).expect("a loopback");
        return body();
    }
    let processes: &[&str] = match own {
        Own::Network => &[],
        Own::NetworkAndProcesses => &["--pid", "--fork", "--kill-child"],
    };
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .args(processes)
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare, of util-linux");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("unshare failed") && std::env::var_os("ACCEPTBENCH_REQUIRE_NETNS").is_none() {
        return println!("skipped: no user namespaces here: {said}");
    }
    assert!(output.status.success(), "{name} failed in namespaces of its own: {said}");
    assert!(said.contains("1 passed"), "{name} is not the name of a test: {said}");
    let head = format!("test {name} ... ");
    let noise =
        |line: &&str| !["", "ok"].contains(line) && !line.starts_with("running ") && !line.starts_with("test result");
    for line in said.lines().map(|line| line.strip_prefix(&head).unwrap_or(line)).filter(noise) {
        println!("{line}");
    }
}
