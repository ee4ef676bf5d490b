//! A network namespace of its own for each test.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kernel::link::Links;
use kernel::namespace::Privilege;

/// Set in the copy of this program that runs one test as root of a user namespace.
const INSIDE: &str = "ACCEPTBENCH_TEST_INSIDE";

/// A test that cannot be done here says why; where everything must be there, it fails.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("ACCEPTBENCH_REQUIRE_NETNS").is_none(), "required here: {reason}");
    eprintln!("skipped: {reason}");
}

/// Runs `body` in a fresh network namespace with a loopback, on a thread that alone is in it, as is every program started
/// from it. Who is not root runs the test called `name` again, as root of a user namespace.
pub(crate) fn private_network(name: &str, body: impl FnOnce() + Send + 'static) {
    if kernel::namespace::privilege() != Privilege::Root {
        return as_root_of_a_user_namespace(name);
    }
    let inside = thread::spawn(move || {
        kernel::namespace::new_net().expect("a network namespace");
        Links::open().and_then(|mut links| links.set_up("lo")).expect("a loopback");
        body();
    });
    if let Err(panic) = inside.join() {
        std::panic::resume_unwind(panic);
    }
}

fn as_root_of_a_user_namespace(name: &str) {
    assert!(std::env::var_os(INSIDE).is_none(), "no privilege in a user namespace");
    let works = Command::new("unshare").args(["-Urn", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        return skip("neither root nor user namespaces");
    }
    let program = std::env::current_exe().expect("own path");
    let mut again = Command::new("unshare");
    again.args(["-Ur", "--"]).arg(program).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    assert!(again.status().expect("unshare starts").success(), "{name} as root of a user namespace");
}

/// Waits until something is so, for ten seconds at most.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
