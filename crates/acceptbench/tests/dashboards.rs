//! Every query of every dashboard has an answer, and every alert fires: a real Prometheus scrapes live programs that
//! fail in every way the boards are about, and each panel, variable and annotation is asked what Grafana would ask;
//! another takes the rules, first while all is well.
//!
//! Everything runs in a private network namespace: this program starts itself again in one (unshare(1)), so that
//! somaxconn can be changed there and no port of the host is taken. Needs prometheus and promtool (Debian package
//! `prometheus`) and, for an ordinary user, user namespaces; without them the test says so and passes, unless
//! `ACCEPTBENCH_REQUIRE_PROMETHEUS=1` or `ACCEPTBENCH_REQUIRE_NETNS=1`.
//!
//! ```sh
//! cargo test -p acceptbench --test dashboards -- --nocapture      # prints every query and how many series it has
//! ACCEPTBENCH_CALM_SECONDS=600 cargo test -p acceptbench --test dashboards alert -- --nocapture  # ten healthy minutes first
//! ```
#![expect(clippy::print_stdout, reason = "this test prints every query and what came back")]

#[path = "dashboards/alarm.rs"]
mod alarm;
#[path = "dashboards/ask.rs"]
mod ask;
#[path = "dashboards/backfilled.rs"]
mod backfilled;
#[path = "dashboards/binds.rs"]
mod binds;
#[path = "report_page/browser.rs"]
mod browser;
#[path = "prometheus/children.rs"]
mod children;
#[path = "dashboards/look.rs"]
mod look;
#[path = "dashboards/provoked.rs"]
mod provoked;
#[path = "prometheus/put.rs"]
mod put;
#[path = "dashboards/scene.rs"]
mod scene;

use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kernel::link::Links;
use kernel::namespace::{Privilege, privilege};
use kernel::sysctl;

use children::Running;

/// In the environment of this program when it runs in the namespace; [`REQUIRED`] when it may skip nothing.
const INSIDE: &str = "DASHBOARDS_SCENE";

/// The value of [`INSIDE`] under `ACCEPTBENCH_REQUIRE_NETNS=1`.
const REQUIRED: &str = "required";

/// The kernel parameter that scenes change.
const SOMAXCONN: &str = "net.core.somaxconn";

/// For a whole scene, but for the time in which all is well.
const LIMIT: Duration = Duration::from_mins(3);

/// How long all is well before an alert is provoked: `ACCEPTBENCH_CALM_SECONDS`, or 15 s.
fn calm_for() -> Duration {
    let asked = std::env::var(alarm::CALM_SECONDS).or_else(|_| std::env::var("ACCEPTBENCH_CALM_SECONDS"));
    let seconds =
        asked.map(|text| text.parse().unwrap_or_else(|error| panic!("{text} is no number of seconds: {error}")));
    Duration::from_secs(seconds.unwrap_or(15))
}

#[test]
fn every_query_of_every_board_has_an_answer() {
    // The scene looks at the boards, too, where there is a browser; what is required is not known inside.
    let _ = browser::is_missing();
    in_a_namespace("every_query_of_every_board_has_an_answer", scene::play);
}

#[test]
fn every_alert_fires_when_its_failure_is_there_and_none_when_all_is_well() {
    in_a_namespace("every_alert_fires_when_its_failure_is_there_and_none_when_all_is_well", alarm::play);
}

#[test]
fn runs_that_nobody_scraped_compare_on_the_board_experiment() {
    if missing_tool("promtool") {
        return;
    }
    in_a_namespace("runs_that_nobody_scraped_compare_on_the_board_experiment", backfilled::play);
}

/// Scenes load this machine, so one is played at a time.
static STAGE: Mutex<()> = Mutex::new(());

/// Starts this program again in a namespace, where `test` plays its scene on a loopback that is up.
fn in_a_namespace(test: &str, play: fn(bool)) {
    if let Some(how) = std::env::var_os(INSIDE) {
        Links::open().expect("links").set_up("lo").expect("loopback");
        play(how == REQUIRED);
        return;
    }
    let _stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if missing_tool("prometheus") {
        return;
    }
    let mut unshare = vec!["--net"];
    if privilege() == Privilege::UserNamespace {
        unshare.extend(["--user", "--map-root-user"]);
    }
    let probe = [&unshare[..], &["true"]].concat();
    if missing("unshare", &probe, "ACCEPTBENCH_REQUIRE_NETNS", "user namespaces, or root") {
        return;
    }
    let program = std::env::current_exe().expect("the path of this program");
    let program = program.to_str().expect("a path in UTF-8");
    let inside = format!("{INSIDE}={}", if is_set("ACCEPTBENCH_REQUIRE_NETNS") { REQUIRED } else { "optional" });
    // A new user namespace forgets who is to die with whom, so that is said again inside.
    let calm = format!("{}={}", alarm::CALM_SECONDS, calm_for().as_secs());
    unshare.extend(["env", &inside, &calm, "setpriv", "--pdeathsig", "KILL", "--", program]);
    unshare.extend(["--exact", test, "--nocapture"]);
    let (status, printed) = Running::start("unshare", unshare).finish(LIMIT + calm_for());
    println!("{}", printed.join("\n"));
    assert!(status.success(), "inside the namespace: {status}");
}

/// Inside the namespace: sets its somaxconn. `false`, and said, when the kernel hides that there; not where it is
/// `required`.
fn set_somaxconn(value: &str, required: bool) -> bool {
    if !sysctl::exists(SOMAXCONN) {
        assert!(!required, "{SOMAXCONN} is hidden in this namespace");
        println!("skipped: this kernel hides {SOMAXCONN} in namespaces of ordinary users; run it as root");
        return false;
    }
    sysctl::write(SOMAXCONN, value).expect("somaxconn of this namespace");
    true
}

/// Says so when there is no such program of Prometheus.
fn missing_tool(program: &str) -> bool {
    missing(program, &["--version"], "ACCEPTBENCH_REQUIRE_PROMETHEUS", "the Debian package prometheus")
}

/// Says so when a program cannot do what is needed.
fn missing(program: &str, arguments: &[&str], required: &str, hint: &str) -> bool {
    let works = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if works {
        return false;
    }
    assert!(!is_set(required), "{program} does not work, and {required}=1 requires it (needs {hint})");
    eprintln!("skipped: {program} does not work; needs {hint}");
    true
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}
