//! A running `acceptbench watch`, its pages, and other programs a test starts.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use telemetry::admin::get_local;

/// The program under test.
pub(crate) const ACCEPTBENCH: &str = env!("CARGO_BIN_EXE_acceptbench");

/// By then a program has started, or has ended.
const LIMIT: Duration = Duration::from_secs(20);

/// A program in the calling thread's namespace, killed with it.
#[derive(Debug)]
pub(crate) struct Lookout {
    child: Child,
    lines: Receiver<String>,
    admin: Option<SocketAddr>,
}

impl Lookout {
    /// `acceptbench watch` with a page on a free port of this namespace.
    pub(crate) fn start(args: &[&str]) -> Self {
        let words = [&[ACCEPTBENCH, "watch", "--admin", "127.0.0.1:0"], args].concat();
        Self::program(&words, "metrics on http://")
    }

    /// `acceptbench server` on this address, from when it listens.
    pub(crate) fn server(listen: &str) -> Self {
        Self::program(&[ACCEPTBENCH, "server", "--admin", "off", "--listen", listen], "listening on ")
    }

    /// A program, from when it has printed a line that begins with `ready`.
    pub(crate) fn program(words: &[&str], ready: &str) -> Self {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(words)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("setpriv starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut started = Self { child, lines, admin: None };
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.starts_with(ready)) {
            let line = started.lines.recv_timeout(LIMIT);
            said.push(line.unwrap_or_else(|_| panic!("{words:?} did not say {ready:?} but {said:#?}")));
        }
        let url = said.last().and_then(|line| line.strip_prefix("metrics on http://")?.strip_suffix("/metrics"));
        started.admin = url.map(|address| address.parse().expect("an address"));
        started
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn get(&self, path: &str) -> String {
        let (status, body) =
            get_local(self.admin.expect("an admin port"), path, Duration::from_secs(5)).expect("a page");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// A scrape.
    pub(crate) fn page(&self) -> Page {
        Page(self.get("/metrics"))
    }

    /// `/snapshot`.
    pub(crate) fn snapshot(&self) -> Value {
        serde_json::from_str(&self.get("/snapshot")).expect("a JSON document")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child that was not waited for");
    }

    /// SIGTERM ends it with 0; what it printed since it was ready.
    pub(crate) fn ends_well(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(LIMIT) {
            rest.push(line);
        }
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "{status}: {rest:#?}");
        rest
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        // Fails only when it was waited for; then there is nobody to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A page of metrics.
#[derive(Debug)]
pub(crate) struct Page(String);

impl Page {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The value of a series, as it stands on the page.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let mut values = self.0.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = values.next()?.parse().expect("a number");
        assert_eq!(values.next(), None, "{series} twice");
        Some(value)
    }

    /// A metric of one listener, without its prefix.
    pub(crate) fn listener(&self, metric: &str, label: &str) -> Option<f64> {
        self.value(&format!("acceptbench_listener_{metric}{{listener=\"{label}\"}}"))
    }

    /// Every listener that has this metric, in the order of the page.
    pub(crate) fn labels(&self, metric: &str) -> Vec<String> {
        let prefix = format!("acceptbench_listener_{metric}{{listener=\"");
        self.0.lines().filter_map(|line| Some(line.strip_prefix(&prefix)?.split_once('"')?.0.to_owned())).collect()
    }

    /// Command and uid of every listener.
    pub(crate) fn holders(&self) -> BTreeMap<String, (String, String)> {
        let infos = self.0.lines().filter_map(|line| line.strip_prefix("acceptbench_listener_info{"));
        let quoted = |line: &str| line.split('"').map(str::to_owned).collect::<Vec<_>>();
        infos.map(quoted).map(|part| (part[1].clone(), (part[3].clone(), part[5].clone()))).collect()
    }
}
