//! A network and a process namespace of its own for each test: whatever it leaves behind ends with it.

use std::process::Command;

use kernel::link::Links;

/// Names the test that runs inside.
const INSIDE: &str = "ACCEPTBENCH_RESTART_TEST_INSIDE";

/// Runs `body` as process 1 of fresh namespaces, with a loopback: the test called `name` runs itself again under
/// unshare(1). Servers whose parent has ended become children of the test.
pub(crate) fn private(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        Links::open().and_then(|mut links| links.set_up("lo")).expect("a loopback");
        return body();
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare, of util-linux");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("unshare failed") && std::env::var_os("ACCEPTBENCH_REQUIRE_NETNS").is_none() {
        return eprintln!("skipped: no user namespaces here: {said}");
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    for line in said.lines().filter(|line| line.starts_with("measured: ")) {
        eprintln!("{line}");
    }
}
