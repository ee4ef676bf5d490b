//! A deployment to attach to: server and load generator in the network namespace of a test that was run again in it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kernel::link::Links;
use study::results::Trial;

use crate::host::{is_root, skip};
use crate::support::{Lab, acceptbench, machine, text};

/// Set in the process that is inside the namespace.
const INSIDE: &str = "ACCEPTBENCH_TEST_INSIDE";

/// Attempts per second of the deployment's load.
pub(super) const RATE: f64 = 1000.0;

/// Programs come up within this time.
const UP: Duration = Duration::from_secs(10);

/// Runs `body` in a network namespace of its own: this test program again, started by unshare(1).
pub(super) fn inside(test: &str, body: fn()) {
    if env::var_os(INSIDE).is_some() {
        Links::open().expect("netlink").set_up("lo").expect("loopback");
        if !Path::new("/proc/sys/net/core/somaxconn").exists() {
            return skip("this kernel hides net.core.somaxconn from user namespaces");
        }
        return body();
    }
    let _machine = machine();
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--net").arg("--").arg(env::current_exe().expect("this program"));
    let output = command.args([&format!("attached::{test}"), "--exact", "--nocapture"]).env(INSIDE, "1").output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(&format!("unshare(1): {error}")),
    };
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    if !is_root() && said.contains("unshare failed") {
        return skip(&said);
    }
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    eprint!("{said}");
}

/// The namespace's own value. Never asked outside of [`inside`].
pub(super) fn somaxconn() -> String {
    kernel::sysctl::read("net.core.somaxconn").expect("the sysctl")
}

#[expect(clippy::cast_precision_loss, reason = "counts of a test of seconds")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

/// A server on 127.0.0.1:9700 (admin 9710) and a load generator (admin 9711), ended with the value.
pub(super) struct Deployment {
    server: Child,
    loadgen: Child,
}

impl Deployment {
    pub(super) fn start() -> Self {
        let server = started(&["server", "--backlog", "100"]);
        up(9710);
        let deployment = Self { server, loadgen: generator() };
        up(9711);
        deployment
    }

    /// Ends the load generator at once and starts another in its place.
    pub(super) fn restart_generator(&mut self) {
        end(&mut self.loadgen);
        self.loadgen = generator();
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        end(&mut self.loadgen);
        end(&mut self.server);
    }
}

fn generator() -> Child {
    let rate = RATE.to_string();
    started(&["loadgen", "--duration", "forever", "--rate", &rate, "--deadline", "400ms"])
}

fn started(args: &[&str]) -> Child {
    let mut command = acceptbench();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the built program starts")
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn up(port: u16) {
    let began = Instant::now();
    let address = (std::net::Ipv4Addr::LOCALHOST, port).into();
    while telemetry::admin::get_local(address, "/healthz", Duration::from_secs(1)).is_err() {
        assert!(began.elapsed() < UP, "nobody answers on {address}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A run attached to the deployment, in a directory of its own.
pub(super) struct Run {
    pub(super) lab: Lab,
}

impl Run {
    pub(super) fn new(experiment: &str) -> Self {
        let lab = Lab::new();
        lab.file("attached.toml", experiment);
        Self { lab }
    }

    pub(super) fn start(&self, more: &[&str]) -> Child {
        let mut command = acceptbench();
        command.args(["run", "attached.toml"]).current_dir(self.lab.path());
        if more.first() != Some(&"--admin") {
            command.args(["--admin", "off"]);
        }
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the built program starts")
    }

    /// Exit code, and everything it said.
    pub(super) fn to_its_end(&self, more: &[&str]) -> (Option<i32>, String) {
        let output = self.start(more).wait_with_output().expect("a child");
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }

    /// Its results directory, which `latest` points at only once it holds a trial.
    pub(super) fn directory(&self) -> PathBuf {
        let entries = fs::read_dir(self.lab.path().join("results")).expect("results").filter_map(Result::ok);
        let mut runs = entries.map(|entry| entry.path()).filter(|path| !path.is_symlink());
        runs.next().expect("a run")
    }

    pub(super) fn trials(&self) -> Vec<Trial> {
        self.lab.records()
    }

    /// Every process at work in the run's directory.
    pub(super) fn processes(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let here =
            |entry: &fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == self.lab.path());
        entries.filter(here).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}
