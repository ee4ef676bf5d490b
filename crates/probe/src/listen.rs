//! listen(2): the two queues of a listener, what they hold, and what happens when they are full.
//!
//! Three ways to stop a handshake where it is wanted, none of which needs a slow link or luck:
//! - a client that drops everything ([`half_open`]): the server keeps a request, the client stays in SYN_SENT;
//! - a listener that drops bare ACKs (`sockopt::drop_pure_acks_filter`): the client is connected, the request stays;
//! - a client that holds its last ACK back ([`holding`]) until it is told to send it ([`release`]).

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use kernel::sock_diag::{ListenerEntry, SockDiag};
use kernel::sockopt::{self, TcpState};
use socket2::Socket;

use crate::claim::{Doing, ProbeError};
use crate::scene::{Counters, Scene, eventually, in_state, info, start};

pub(crate) mod capacity;
pub(crate) mod cookies;
pub(crate) mod detect;
pub(crate) mod half_open;
pub(crate) mod late;
pub(crate) mod migrate;
pub(crate) mod namespace;
pub(crate) mod overflow;
pub(crate) mod overload;
pub(crate) mod phantoms;
pub(crate) mod queues;
pub(crate) mod report;
pub(crate) mod rights;
pub(crate) mod steering;
pub(crate) mod syn_queue;
pub(crate) mod threads;

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9720;

/// What the kernel does at once is seen within this, on a busy machine too.
const SOON: Duration = Duration::from_secs(2);

/// How long a client holds its last ACK back at most (`TCP_DELACK_MAX`).
const HELD: Duration = Duration::from_millis(200);

const SYNCOOKIES: &str = "net.ipv4.tcp_syncookies";
const ABORT_ON_OVERFLOW: &str = "net.ipv4.tcp_abort_on_overflow";
const SOMAXCONN: &str = "net.core.somaxconn";
const SYNACK_RETRIES: &str = "net.ipv4.tcp_synack_retries";
const LINEAR_TIMEOUTS: &str = "net.ipv4.tcp_syn_linear_timeouts";

/// Connections in the accept queue.
fn depth(listener: &Socket) -> Result<u32, ProbeError> {
    Ok(info(listener)?.unacked)
}

/// The queue's limit.
fn limit(listener: &Socket) -> Result<u32, ProbeError> {
    Ok(info(listener)?.sacked)
}

/// Segments the listener dropped.
fn drops(listener: &Socket) -> Result<u32, ProbeError> {
    sockopt::socket_drops(listener.as_fd()).doing("read SO_MEMINFO")
}

/// The port's listener as `sock_diag` shows it.
fn diag(port: u16) -> Result<ListenerEntry, ProbeError> {
    let mut diag = SockDiag::open().doing("open a sock_diag socket")?;
    let listeners = diag.listeners().map_err(|error| ProbeError::Failed(error.to_string()))?;
    let found = listeners.into_iter().find(|listener| listener.local.port() == port);
    found.ok_or_else(|| ProbeError::Failed(format!("sock_diag shows no listener on port {port}")))
}

/// Clients that are connected, queued at a listener that has room for them.
fn fill(scene: &Scene, count: usize, port: u16) -> Result<Vec<Socket>, ProbeError> {
    let clients = scene.connect_many(count, port)?;
    await_state(&clients, TcpState::Established, count)?;
    Ok(clients)
}

/// Waits until so many of the sockets are in a state.
fn await_state(sockets: &[Socket], state: TcpState, count: usize) -> Result<(), ProbeError> {
    if eventually(SOON, || Ok(in_state(sockets, state)? == count))? {
        return Ok(());
    }
    Err(ProbeError::Failed(format!(
        "{} of {} sockets are {}, not {count}",
        in_state(sockets, state)?,
        sockets.len(),
        state.name()
    )))
}

/// A client that is connected as soon as the SYN-ACK comes, and holds its last ACK back for [`HELD`] or until
/// [`release`]: `TCP_QUICKACK` off is "data will follow, save the ACK" (`tcp_rcv_synsent_state_process`).
fn holding(scene: &Scene, port: u16) -> Result<Socket, ProbeError> {
    let client = scene.client_socket()?;
    client.set_tcp_quickack(false).doing("unset TCP_QUICKACK")?;
    start(&client, scene.address(port)).doing("connect")?;
    Ok(client)
}

/// `count` clients as [`holding`] makes them.
fn holding_many(scene: &Scene, count: usize, port: u16) -> Result<Vec<Socket>, ProbeError> {
    (0..count).map(|_| holding(scene, port)).collect()
}

/// Has held clients that are connected send their last ACKs, one after the other.
fn release(clients: &[Socket]) -> Result<(), ProbeError> {
    clients.iter().try_for_each(|client| client.set_tcp_quickack(true).doing("set TCP_QUICKACK"))
}

/// One client whose last ACK met a full queue: `port` gets a listener with backlog 0, the queue is full.
struct Phantom {
    listener: Socket,
    /// The client that holds the only place.
    real: Socket,
    /// The client that does not know.
    client: Socket,
}

fn phantom(scene: &Scene, port: u16) -> Result<Phantom, ProbeError> {
    let listener = scene.listen(port, 0)?;
    let client = holding(scene, port)?;
    // No room in the SYN queue any more without cookies, so the real one comes once the other's place is its own.
    let clients = [client];
    await_state(&clients, TcpState::Established, 1)?;
    let [client] = clients;
    listener.listen(1).doing("listen again")?;
    let real = scene.connect(port)?;
    let clients = [real];
    await_state(&clients, TcpState::Established, 1)?;
    let [real] = clients;
    eventually(SOON, || Ok(depth(&listener)? == 1))?;
    listener.listen(0).doing("listen again")?;
    client.set_tcp_quickack(true).doing("set TCP_QUICKACK")?;
    Ok(Phantom { listener, real, client })
}

/// `count` clients that send SYNs and hear nothing: half open at the server. Closing one makes the next SYN-ACK draw a
/// RST, so keep them.
fn half_open(scene: &Scene, count: usize, port: u16) -> Result<Vec<Socket>, ProbeError> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let client = scene.client_socket()?;
        sockopt::drop_all_filter(client.as_fd()).doing("attach a filter to the client")?;
        start(&client, scene.address(port)).doing("connect")?;
        clients.push(client);
    }
    Ok(clients)
}

/// Waits until the server has so many half-open requests; how many it has then.
fn await_syn_recv(scene: &Scene, port: u16, count: u32) -> Result<u32, ProbeError> {
    eventually(SOON, || Ok(scene.syn_recv(port)? == count))?;
    scene.syn_recv(port)
}

/// Takes `count` connections from a queue that has them.
fn take(listener: &Socket, count: usize) -> Result<Vec<(Socket, SocketAddr)>, ProbeError> {
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        let (socket, address) = listener.accept().doing("accept")?;
        let address = address.as_socket().ok_or_else(|| ProbeError::Failed("not an IP address".to_owned()))?;
        taken.push((socket, address));
    }
    Ok(taken)
}

/// Port of a client.
fn local_port(socket: &Socket) -> Result<u16, ProbeError> {
    let address = socket.local_addr().doing("getsockname")?;
    address.as_socket().map(|address| address.port()).ok_or_else(|| ProbeError::Failed("not an IP address".to_owned()))
}

/// The counters at one moment, for what grew since.
struct Mark {
    server: Counters,
    client: Counters,
}

impl Mark {
    fn new(scene: &Scene) -> Result<Self, ProbeError> {
        let (server, client) = scene.counters()?;
        Ok(Self { server, client })
    }

    fn since(then: &Counters, now: &Counters, name: &str) -> u64 {
        let value = |counters: &Counters| counters.get(name).copied().unwrap_or(0);
        value(now) - value(then)
    }

    /// Growth at the server's end, in the order of `names`: `1 0 3`.
    fn server(&self, scene: &Scene, names: &[&str]) -> Result<String, ProbeError> {
        let (now, _) = scene.counters()?;
        Ok(join(names.iter().map(|name| Self::since(&self.server, &now, name))))
    }

    /// Growth of one counter at the server's end.
    fn server_one(&self, scene: &Scene, name: &str) -> Result<u64, ProbeError> {
        Ok(Self::since(&self.server, &scene.counters()?.0, name))
    }

    /// Growth of one counter at the client's end.
    fn client_one(&self, scene: &Scene, name: &str) -> Result<u64, ProbeError> {
        Ok(Self::since(&self.client, &scene.counters()?.1, name))
    }
}

/// Values as a text that an expectation can state: `1 2 6`.
fn join<T: std::fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(" ")
}
