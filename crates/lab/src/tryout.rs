//! Can a trial have what it needs here? Tried by a process of its own, which makes the namespaces of a trial, looks around
//! in them, and ends; with it everything it made is gone. The machine stays as it is: a veth pair is only made where the
//! kernel need not load anything for it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use kernel::link::Links;
use kernel::namespace::{self, NetNs};
use kernel::process;
use kernel::sysctl::{self, NetTree};
use serde::{Deserialize, Serialize};

use crate::inside::{CLIENT_LINK, SERVER_LINK, TRY_OUT, command_of};

/// What is to be tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Wanted {
    /// Sysctls that trials set.
    pub sysctls: Vec<String>,
    /// Whether to make a veth pair.
    pub veth: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tried {
    /// Why a trial can have no namespaces of its own; then nothing else was tried.
    pub no_namespaces: Option<String>,
    /// Why no veth pair could be made; nothing where none was wanted.
    pub no_veth: Option<String>,
    /// Why sysctls of a trial cannot be set, by name; those that can have no entry.
    pub no_sysctls: BTreeMap<String, String>,
    /// Do its namespaces have IPv6?
    pub ipv6: bool,
    /// Ports of a new namespace (`net.ipv4.ip_local_port_range`).
    pub ports: Option<String>,
}

/// What goes to the process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Request {
    parent: u32,
    wanted: Wanted,
}

/// Tries it out; `program` is this program.
///
/// # Errors
/// When the process does not start or does not answer: that says nothing about namespaces.
pub fn try_out(program: &Path, wanted: Wanted) -> io::Result<Tried> {
    let mut child =
        command_of(program, TRY_OUT, Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let request = Request { parent: std::process::id(), wanted };
    if let Some(input) = child.stdin.take() {
        serde_json::to_writer(input, &request)?;
    }
    let output = child.wait_with_output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The process that tries.
pub(crate) fn process() -> ExitCode {
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "try out");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> io::Result<()> {
    let request: Request = serde_json::from_reader(io::stdin())?;
    process::die_with_parent(Some(request.parent))?;
    Ok(serde_json::to_writer(io::stdout(), &tried(&request.wanted))?)
}

fn tried(wanted: &Wanted) -> Tried {
    let made = namespace::unshare_for_trial(namespace::privilege()).map_err(|error| error.to_string());
    let made =
        made.and_then(|()| Links::open().and_then(|mut links| links.set_up("lo")).map_err(|error| error.to_string()));
    if let Err(reason) = made {
        return Tried { no_namespaces: Some(reason), ..Tried::default() };
    }
    let tree = NetTree::default();
    let refused = |name: &String| Some((name.clone(), tree.check_writable(name).err()?.to_string()));
    Tried {
        no_namespaces: None,
        no_sysctls: wanted.sysctls.iter().filter_map(refused).collect(),
        ipv6: Path::new("/proc/thread-self/net/if_inet6").exists(),
        ports: sysctl::read("net.ipv4.ip_local_port_range").ok(),
        no_veth: if wanted.veth { pair().err() } else { None },
    }
}

/// A veth pair between two namespaces, as a trial has it.
fn pair() -> Result<(), String> {
    let server = NetNs::current().map_err(|error| error.to_string())?;
    namespace::new_net().map_err(|error| error.to_string())?;
    let mut links = Links::open().map_err(|error| error.to_string())?;
    links.add_veth(CLIENT_LINK, SERVER_LINK, &server).map_err(|error| error.to_string())
}
