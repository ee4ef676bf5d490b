//! One load in namespaces of its own: fresh counters, no `TIME_WAIT` of an earlier one, nothing of the host touched.
//!
//! ```text
//! peers ── starts ──> scene   PDEATHSIG; unshares USER (if not root) + NET + PID
//!                       └───> stage   pid 1: loopback, sysctls, server, clients; its death kills whatever is left
//! ```
//!
//! No privilege is needed where ordinary users may make user namespaces. What clients claim is later held against the
//! connections that the kernel counted (`PassiveOpens`), which is why they must have the network to themselves.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kernel::link::Links;
use kernel::netstat::NetstatReader;
use kernel::sock_diag::SockDiag;
use kernel::{namespace, process, sysctl};
use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};

use crate::child::{Ended, OWN, Process, Running, within};

/// Where every server of the bench listens.
pub(crate) const ADDRESS: &str = "127.0.0.1:9700";
const PORT: u16 = 9700;

/// What every scene sets. As many ports as there are above the server's, so that no socket can meet itself, queues that nobody
/// fills, and no memory of earlier peers.
const SYSCTLS: [(&str, &str); 4] = [
    ("net.core.somaxconn", "65535"),
    ("net.ipv4.tcp_max_syn_backlog", "65535"),
    ("net.ipv4.ip_local_port_range", "9701 65535"),
    ("net.ipv4.tcp_no_metrics_save", "1"),
];

/// How long a server may take until it listens, and to end when told to.
const SERVER_SECONDS: u64 = 10;

/// A server, and who connects to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Scene {
    /// Must listen at [`ADDRESS`], and end on SIGTERM.
    pub(crate) server: Process,
    /// How many listening sockets it has.
    pub(crate) listeners: usize,
    /// Started together when it listens.
    pub(crate) clients: Vec<Process>,
    /// The CPUs clients may use; all when there are none.
    pub(crate) client_cpus: Vec<usize>,
    /// Seconds after which clients are killed.
    pub(crate) limit: u64,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Played {
    /// In the order of the scene.
    pub(crate) clients: Vec<Ended>,
    /// The server.
    pub(crate) server: Ended,
    /// Connections that were established at the server, by the kernel's count.
    pub(crate) connections: u64,
}

impl Scene {
    /// Plays it. Called by the bench's first process, which never changes namespaces itself.
    ///
    /// # Errors
    /// No namespaces here, or a process that failed or did not end.
    pub(crate) fn play(&self) -> anyhow::Result<Played> {
        let parent = std::process::id().to_string();
        let holder = Running::start(&Process::own(&["scene", &parent]), &serde_json::to_vec(self)?)?;
        // What is inside is bounded too; this is for the case that the inside fails to be.
        let ended = holder.wait(within(self.limit + 3 * SERVER_SECONDS))?;
        serde_json::from_str(&ended.stdout).context("read what a scene reports")
    }
}

/// The role `scene`: makes the namespaces and starts pid 1 in them, with its own input and output.
///
/// # Errors
/// This machine refuses namespaces, or the stage failed.
pub(crate) fn hold(parent: &str) -> anyhow::Result<()> {
    process::die_with_parent(Some(parent.parse()?))?;
    namespace::unshare_for_trial(namespace::privilege())?;
    let status = Command::new(OWN).arg("stage").stdin(Stdio::inherit()).status().context("start a stage")?;
    // It has said why.
    if status.success() { Ok(()) } else { bail!("") }
}

/// The role `stage`: plays the scene on its standard input and reports on its standard output.
///
/// # Errors
/// Whatever went wrong.
pub(crate) fn stage() -> anyhow::Result<Played> {
    process::die_with_parent(None)?;
    let scene: Scene = serde_json::from_reader(std::io::stdin()).context("read a scene")?;
    process::raise_nofile()?;
    Links::open()?.set_up("lo")?;
    for (name, value) in SYSCTLS {
        sysctl::write(name, value)?;
    }
    let mut server = Running::start(&scene.server, &[])?;
    wait_for_listeners(&mut server, scene.listeners)?;
    let mut counters = NetstatReader::open()?;
    let before = counters.read()?;
    let clients = clients(&scene)?;
    let connections = counters.read()?.since(&before).passive_opens;
    server.terminate()?;
    Ok(Played { clients, server: server.wait(within(SERVER_SECONDS))?, connections })
}

/// Waits by looking, not by connecting: a connection would count.
fn wait_for_listeners(server: &mut Running, wanted: usize) -> anyhow::Result<()> {
    let deadline = within(SERVER_SECONDS);
    let mut sockets = SockDiag::open()?;
    loop {
        server.must_run()?;
        if sockets.listeners()?.iter().filter(|listener| listener.local.port() == PORT).count() >= wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the server does not listen at {ADDRESS}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the clients, all at once.
fn clients(scene: &Scene) -> anyhow::Result<Vec<Ended>> {
    if !scene.client_cpus.is_empty() {
        // This process does nothing but wait while they run, and they inherit it.
        let mut set = CpuSet::new();
        for cpu in &scene.client_cpus {
            set.set(*cpu);
        }
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    let deadline = within(scene.limit);
    let running = scene.clients.iter().map(|client| Running::start(client, &[])).collect::<anyhow::Result<Vec<_>>>()?;
    running.into_iter().map(|client| client.wait(deadline)).collect()
}
