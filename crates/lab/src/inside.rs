//! The processes that make and hold a trial's namespaces: `__trial` and, inside, `__init`.
//!
//! `__trial` is a child of the runner and single-threaded: it dies with the runner (`PR_SET_PDEATHSIG`), unshares
//! its namespaces, joins them by a veth pair, sets and reads back the sysctls, and then waits. `__init` is pid 1
//! of the trial's PID namespace: it starts the two ends and reaps. When it dies the kernel kills everything in
//! the trial, and with the last process the namespaces go: nothing has a name in the file system.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use kernel::link::Links;
use kernel::namespace::{self, NetNs, Privilege};
use kernel::{process, sysctl};
use loadgen::opts::Sources;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::attached;
use crate::child;
use crate::control::{Channel, ControlError, Failure};
use crate::experiment::Wiring;
use crate::{sources, tryout};

/// The first argument of each process of a trial.
pub(crate) const TRIAL: &str = "__trial";
const INIT: &str = "__init";
const SERVER: &str = "__server";
const LOADGEN: &str = "__loadgen";

/// The first argument of the process that puts sysctls back after an attached run.
pub(crate) const RESTORE: &str = "__restore";

/// The first argument of the process that finds out whether a trial can have what it needs.
pub(crate) const TRY_OUT: &str = "__try-out";

/// Messages that carry descriptors.
const CONTROL_SOCKETS: &[u8] = b"control sockets";
const NAMESPACES: &[u8] = b"namespaces";
const NAMESPACE: &[u8] = b"namespace";

/// Interface names inside the trial.
pub(crate) const SERVER_LINK: &str = "server0";
pub(crate) const CLIENT_LINK: &str = "client0";

/// What `__trial` is to build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SetUp {
    /// Pid of the runner: if it is not the parent any more, the runner died in between.
    pub(crate) runner: u32,
    pub(crate) wiring: Wiring,
    /// Address and prefix length of each end; unused on loopback.
    pub(crate) server: (IpAddr, u8),
    pub(crate) client: (IpAddr, u8),
    /// Where the load comes from, if not from the client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sources: Option<Sources>,
    /// Set in both namespaces, after the baseline.
    pub(crate) sysctls: BTreeMap<String, String>,
}

/// What the trial's namespaces came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Built {
    /// Effective sysctls of the server's namespace.
    pub(crate) sysctls: BTreeMap<String, String>,
}

/// Sysctls every trial starts from, where the kernel has them: a fresh namespace inherits `ip_forward` from the
/// initial one, and a peer "proven" by TCP metrics skips the SYN-queue rule.
const BASELINE: [(&str, &str); 2] = [("net.ipv4.ip_forward", "0"), ("net.ipv4.tcp_no_metrics_save", "1")];

/// A veth pair carries packets within milliseconds, or something is wrong.
const LINK_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of the set-up message at most; descriptors travel with its first byte.
const MESSAGE: usize = 64 * 1024;

/// The process of a run that this argument asks for; `None` for anything a user types.
pub fn process(role: &str) -> Option<fn() -> ExitCode> {
    match role {
        TRIAL => Some(trial),
        INIT => Some(init),
        SERVER => Some(child::server),
        LOADGEN => Some(child::loadgen),
        RESTORE => Some(attached::restore),
        TRY_OUT => Some(tryout::process),
        _ => None,
    }
}

/// The `__trial` process.
fn trial() -> ExitCode {
    match hold_trial() {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(%error, "trial");
            ExitCode::FAILURE
        }
    }
}

fn hold_trial() -> Result<ExitCode, ControlError> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let runner = UnixStream::from(stdin);
    let mut buffer = vec![0; MESSAGE];
    let (length, ends) = process::recv_fds(&runner, &mut buffer, 2)?;
    if length == 0 {
        return Err(ControlError::Closed);
    }
    let set_up: SetUp = serde_json::from_slice(&buffer[..length])?;
    process::die_with_parent(Some(set_up.runner))?;
    let mut channel = Channel::new(runner);
    let (mut init, inner) = match make(&set_up, &ends) {
        Ok((built, init, inner)) => {
            channel.send(&Ok::<Built, Failure>(built))?;
            (init, inner)
        }
        Err(failure) => {
            channel.send(&Err::<Built, Failure>(failure))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    wait_for_either(&channel, &[&init])?;
    drop(inner);
    let status = init.wait()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the trial's namespaces and its first process. The stream returned is the other end of that one's standard
/// input: closing it says that we died.
fn make(set_up: &SetUp, ends: &[OwnedFd]) -> Result<(Built, Child, UnixStream), Failure> {
    let privilege = namespace::privilege();
    namespace::unshare_for_trial(privilege).map_err(Failure::requirement)?;
    // Changing namespaces may have cleared it (prctl(2): credentials changed).
    process::die_with_parent(None).map_err(Failure::requirement)?;
    let cannot_start = |error| Failure::requirement(format!("cannot start the trial's first process: {error}"));
    // Starting programs takes as long as making the namespaces: both at once, on two CPUs.
    let (inner, theirs) = process::channel().map_err(cannot_start)?;
    let init = command(INIT, Stdio::from(OwnedFd::from(theirs))).spawn().map_err(cannot_start)?;
    let ends: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
    process::send_fds(&inner, CONTROL_SOCKETS, &ends).map_err(cannot_start)?;
    let namespaces = build(set_up, privilege)?;
    // They live on in their processes.
    process::send_fds(&inner, NAMESPACES, &[namespaces.server.as_fd(), namespaces.client.as_fd()])
        .map_err(cannot_start)?;
    // This thread is in the server's namespace; the ends start meanwhile.
    Ok((Built { sysctls: sysctl::recorded() }, init, inner))
}

/// The namespaces of the two ends; the same one twice on loopback.
struct Namespaces {
    server: NetNs,
    client: NetNs,
}

fn build(set_up: &SetUp, privilege: Privilege) -> Result<Namespaces, Failure> {
    let server = NetNs::current().map_err(Failure::requirement)?;
    configure(set_up, privilege)?;
    let namespaces = match set_up.wiring {
        Wiring::Loopback => {
            let mut links = Links::open().map_err(Failure::requirement)?;
            sources::own(&mut links, sources::LOOPBACK, set_up).map_err(Failure::requirement)?;
            Namespaces { client: NetNs::current().map_err(Failure::requirement)?, server }
        }
        Wiring::Veth => {
            let client = namespace::new_net().map_err(Failure::requirement)?;
            configure(set_up, privilege)?;
            let mut links = Links::open().map_err(Failure::requirement)?;
            links.add_veth(CLIENT_LINK, SERVER_LINK, &server).map_err(Failure::requirement)?;
            bring_up(&mut links, CLIENT_LINK, set_up.client)?;
            sources::own(&mut links, CLIENT_LINK, set_up).map_err(Failure::requirement)?;
            server.enter().map_err(Failure::requirement)?;
            let mut server_links = Links::open().map_err(Failure::requirement)?;
            bring_up(&mut server_links, SERVER_LINK, set_up.server)?;
            sources::lead_back(&mut server_links, SERVER_LINK, set_up).map_err(Failure::requirement)?;
            // A pair that is up still drops its first packets for a moment, which would cost a SYN retry.
            links.wait_running(CLIENT_LINK, LINK_LIMIT).map_err(Failure::requirement)?;
            server_links.wait_running(SERVER_LINK, LINK_LIMIT).map_err(Failure::requirement)?;
            Namespaces { server, client }
        }
    };
    Ok(namespaces)
}

fn bring_up(links: &mut Links, name: &str, (address, prefix): (IpAddr, u8)) -> Result<(), Failure> {
    links.add_address(name, address, prefix).map_err(Failure::requirement)?;
    links.set_up(name).map_err(Failure::requirement)
}

/// Loopback, baseline and the trial's sysctls in the namespace just entered.
fn configure(set_up: &SetUp, privilege: Privilege) -> Result<(), Failure> {
    Links::open().and_then(|mut links| links.set_up("lo")).map_err(Failure::requirement)?;
    for (name, value) in BASELINE {
        if sysctl::exists(name) {
            sysctl::write(name, value).map_err(Failure::requirement)?;
        }
    }
    for (name, value) in &set_up.sysctls {
        if !sysctl::exists(name) {
            return Err(missing_sysctl(name, privilege));
        }
        let now = sysctl::write(name, value).map_err(Failure::usage)?;
        if !same_value(&now, value) {
            return Err(Failure::usage(format!("sysctl {name}: {value} was written, the kernel made it {now}")));
        }
    }
    Ok(())
}

fn missing_sysctl(name: &str, privilege: Privilege) -> Failure {
    let advice = match privilege {
        Privilege::UserNamespace => {
            "; kernels before 6.12 hide some (net.core.somaxconn among them) from user namespaces: run as root (the host stays untouched), or vary the backlog instead"
        }
        Privilege::Root => "; this kernel does not have it per network namespace",
    };
    Failure::requirement(format!("sysctl {name} does not exist in a private network namespace{advice}"))
}

/// Compares what was written with what is read back: `1024 65000` reads back with a tab.
pub(crate) fn same_value(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

/// A process of the trial: this program again, with an empty environment.
pub(crate) fn command(role: &str, stdin: Stdio) -> Command {
    command_of(Path::new("/proc/self/exe"), role, stdin)
}

/// The same with another path for this program.
pub(crate) fn command_of(program: &Path, role: &str, stdin: Stdio) -> Command {
    let mut command = Command::new(program);
    command.arg(role).env_clear().stdin(stdin).stdout(Stdio::null());
    command
}

/// The `__init` process.
fn init() -> ExitCode {
    match hold_init() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "init");
            ExitCode::FAILURE
        }
    }
}

fn hold_init() -> Result<(), ControlError> {
    process::die_with_parent(None)?;
    let parent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let [server_end, client_end] = receive(&parent, CONTROL_SOCKETS)?;
    let (server, server_door) = start_end(SERVER, server_end)?;
    let (client, client_door) = start_end(LOADGEN, client_end)?;
    let [server_ns, client_ns] = receive(&parent, NAMESPACES)?;
    process::send_fds(&server_door, NAMESPACE, &[server_ns.as_fd()])?;
    process::send_fds(&client_door, NAMESPACE, &[client_ns.as_fd()])?;
    drop((server_ns, client_ns));
    let channel = Channel::new(parent);
    // Either end first: the other is told by the runner, or ends with us.
    let mut left = vec![server, client];
    while !left.is_empty() {
        wait_for_either(&channel, &left.iter().collect::<Vec<_>>())?;
        let mut running = Vec::new();
        for mut child in left {
            if child.try_wait()?.is_none() {
                running.push(child);
            }
        }
        left = running;
    }
    Ok(())
}

/// Starts one end of the trial. Its standard output is a socket over which it gets its namespace: it prints nothing.
fn start_end(role: &str, control: OwnedFd) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = process::channel()?;
    let child = command(role, Stdio::from(control)).stdout(Stdio::from(OwnedFd::from(theirs))).spawn()?;
    Ok((child, ours))
}

/// Enters the namespace that `__init` hands to an end of the trial, which has no second thread yet.
pub(crate) fn enter_namespace() -> Result<(), ControlError> {
    let door = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let [namespace] = receive(&door, NAMESPACE)?;
    Ok(NetNs::from(namespace).enter()?)
}

/// Descriptors that come with the message `what`.
pub(crate) fn receive<const N: usize>(stream: &UnixStream, what: &[u8]) -> Result<[OwnedFd; N], ControlError> {
    // No longer than the message: the next one stays for the next call.
    let mut buffer = vec![0; what.len()];
    let (length, fds) = process::recv_fds(stream, &mut buffer, N)?;
    if length == 0 {
        return Err(ControlError::Closed);
    }
    if buffer != what {
        return Err(ControlError::Unexpected);
    }
    fds.try_into().map_err(|_| ControlError::Unexpected)
}

/// Waits until one of `children` has ended. [`ControlError::Closed`] when the parent died first: the caller exits,
/// and the kernel ends what is below.
fn wait_for_either(parent: &Channel, children: &[&Child]) -> Result<(), ControlError> {
    let mut pidfds = Vec::new();
    for child in children {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(ControlError::Unexpected)?;
        pidfds.push(pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?);
    }
    loop {
        let mut fds: Vec<_> = pidfds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        fds.push(PollFd::new(parent, PollFlags::IN | PollFlags::RDHUP));
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result.map_err(io::Error::from)?,
        };
        let (parent, children) = fds.split_last().ok_or(ControlError::Unexpected)?;
        if children.iter().any(|fd| !fd.revents().is_empty()) {
            return Ok(());
        }
        if !parent.revents().is_empty() {
            return Err(ControlError::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::same_value;

    #[test]
    fn read_back_values_are_compared_by_their_words() {
        assert!(same_value("1024\t65000", "1024 65000"));
        assert!(!same_value("1024", "128"));
    }
}
