//! Where a claim is measured: network namespaces of its own, the kernel's counters of both ends, and the few socket
//! steps that every measurement needs.
//!
//! A scene lives in a process of its own. Its thread stands in the server's namespace; [`Scene::on_client`] steps over.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kernel::link::Links;
use kernel::namespace::{self, NetNs};
use kernel::sockopt::{self, TcpInfo, TcpState};
use kernel::sysctl;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use socket2::{Domain, Socket, Type};

use crate::claim::{Doing, Ends, ProbeError};
use crate::process::HOLD;

/// Interface names and addresses (RFC 2544's range for benchmarks) of a veth scene.
const SERVER_LINK: &str = "server0";
const CLIENT_LINK: &str = "client0";
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// A fresh namespace takes `ip_forward` from the initial one, and a peer "proven" by TCP metrics skips the SYN queue's rule.
const BASELINE: [(&str, &str); 2] = [("net.ipv4.ip_forward", "0"), ("net.ipv4.tcp_no_metrics_save", "1")];

/// A veth pair carries packets within milliseconds, or something is wrong.
const LINK_LIMIT: Duration = Duration::from_secs(5);

/// Counters of one network namespace by the kernel's names, since it was made.
pub type Counters = BTreeMap<String, u64>;

/// Two ends and everything a measurement needs of them.
#[derive(Debug)]
pub struct Scene {
    server: NetNs,
    client: NetNs,
    ends: Ends,
    began: (Counters, Counters),
}

impl Scene {
    /// Makes the namespaces for the calling, single-threaded process.
    ///
    /// # Errors
    /// [`ProbeError::CannotHere`] where this user may not make namespaces.
    pub(crate) fn set_up(ends: Ends) -> Result<Self, ProbeError> {
        let cannot = |error: &dyn std::fmt::Display| ProbeError::CannotHere(error.to_string());
        let failed = |error: &dyn std::fmt::Display| ProbeError::Failed(error.to_string());
        namespace::unshare_net(namespace::privilege()).map_err(|error| cannot(&error))?;
        let server = NetNs::current().doing("open the server's namespace")?;
        configure()?;
        let client = match ends {
            Ends::Loopback => NetNs::current().doing("open the client's namespace")?,
            Ends::Veth => {
                let client = namespace::new_net().map_err(|error| cannot(&error))?;
                configure()?;
                let mut links = Links::open().map_err(|error| failed(&error))?;
                links.add_veth(CLIENT_LINK, SERVER_LINK, &server).map_err(|error| failed(&error))?;
                bring_up(&mut links, CLIENT_LINK, CLIENT)?;
                server.enter().doing("enter the server's namespace")?;
                let mut server_links = Links::open().map_err(|error| failed(&error))?;
                bring_up(&mut server_links, SERVER_LINK, SERVER)?;
                // A pair that is up still drops its first packets for a moment, which would cost a SYN retry.
                links.wait_running(CLIENT_LINK, LINK_LIMIT).map_err(|error| failed(&error))?;
                server_links.wait_running(SERVER_LINK, LINK_LIMIT).map_err(|error| failed(&error))?;
                client
            }
        };
        let mut scene = Self { server, client, ends, began: Default::default() };
        scene.began = scene.counters_now()?;
        Ok(scene)
    }

    /// Sets a sysctl in both ends' namespaces, before the sockets it is to act on are made.
    ///
    /// # Errors
    /// [`ProbeError::CannotHere`] when this kernel does not have it or takes another value.
    pub fn sysctl(&self, name: &str, value: impl std::fmt::Display) -> Result<(), ProbeError> {
        let value = value.to_string();
        let set = || {
            if !sysctl::exists(name) {
                return Err(ProbeError::CannotHere(format!("{name} does not exist in this namespace")));
            }
            sysctl::write(name, &value).map(drop).map_err(|error| ProbeError::CannotHere(error.to_string()))
        };
        set()?;
        if self.ends == Ends::Veth { self.on_client(set)? } else { Ok(()) }
    }

    /// Runs `f` with the calling thread in the client's namespace: sockets made there stay there.
    ///
    /// # Errors
    /// When a namespace cannot be entered, which is this program's mistake.
    pub fn on_client<T>(&self, f: impl FnOnce() -> T) -> Result<T, ProbeError> {
        if self.ends == Ends::Loopback {
            return Ok(f());
        }
        self.client.enter().doing("enter the client's namespace")?;
        let result = f();
        self.server.enter().doing("enter the server's namespace")?;
        Ok(result)
    }

    /// Moves another thread into the client's namespace for good.
    ///
    /// # Errors
    /// As [`Scene::on_client`].
    pub fn enter_client(&self) -> Result<(), ProbeError> {
        self.client.enter().doing("enter the client's namespace")
    }

    /// The server's address.
    pub fn address(&self, port: u16) -> SocketAddr {
        let ip = if self.ends == Ends::Veth { SERVER } else { Ipv4Addr::LOCALHOST };
        SocketAddr::from((ip, port))
    }

    /// The client's address, with port 0.
    pub fn client_address(&self) -> SocketAddr {
        let ip = if self.ends == Ends::Veth { CLIENT } else { Ipv4Addr::LOCALHOST };
        SocketAddr::from((ip, 0))
    }

    /// A blocking TCP socket at the server's end.
    ///
    /// # Errors
    /// When there is none.
    pub fn socket(&self) -> Result<Socket, ProbeError> {
        Socket::new(Domain::IPV4, Type::STREAM, None).doing("open a socket")
    }

    /// A listener on the server's address with `SO_REUSEADDR`: accept blocks.
    ///
    /// # Errors
    /// When a step fails.
    pub fn listen(&self, port: u16, backlog: i32) -> Result<Socket, ProbeError> {
        let socket = self.socket()?;
        socket.set_reuse_address(true).doing("set SO_REUSEADDR")?;
        socket.bind(&self.address(port).into()).doing("bind the listener")?;
        socket.listen(backlog).doing("listen")?;
        Ok(socket)
    }

    /// A socket at the client's end, non-blocking.
    ///
    /// # Errors
    /// When there is none.
    pub fn client_socket(&self) -> Result<Socket, ProbeError> {
        self.on_client(|| Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).doing("open a client socket"))?
    }

    /// A client whose connect(2) to the server's port is under way. An error other than EINPROGRESS is the caller's to
    /// expect: use [`Scene::client_socket`] then.
    ///
    /// # Errors
    /// When connect(2) fails at once.
    pub fn connect(&self, port: u16) -> Result<Socket, ProbeError> {
        let socket = self.client_socket()?;
        start(&socket, self.address(port)).doing("connect")?;
        Ok(socket)
    }

    /// `count` clients as [`Scene::connect`] makes them.
    ///
    /// # Errors
    /// When one fails at once.
    pub fn connect_many(&self, count: usize, port: u16) -> Result<Vec<Socket>, ProbeError> {
        (0..count).map(|_| self.connect(port)).collect()
    }

    /// Growth of the counters since the scene was made, server's end and client's end; only what moved.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn counters(&self) -> Result<(Counters, Counters), ProbeError> {
        let (server, client) = self.counters_now()?;
        Ok((grown(&self.began.0, server), grown(&self.began.1, client)))
    }

    /// Growth of one counter at the server's end (`ListenOverflows`).
    ///
    /// # Errors
    /// As [`Scene::counters`].
    pub fn server_counter(&self, name: &str) -> Result<u64, ProbeError> {
        Ok(self.counters()?.0.get(name).copied().unwrap_or(0))
    }

    /// Growth of one counter at the client's end (`ActiveOpens`).
    ///
    /// # Errors
    /// As [`Scene::counters`].
    pub fn client_counter(&self, name: &str) -> Result<u64, ProbeError> {
        Ok(self.counters()?.1.get(name).copied().unwrap_or(0))
    }

    fn counters_now(&self) -> Result<(Counters, Counters), ProbeError> {
        let server = read_counters()?;
        let client = self.on_client(read_counters)??;
        Ok((server, client))
    }

    /// Half-open requests to the server's port (`SYN_RECV`).
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn syn_recv(&self, port: u16) -> Result<u32, ProbeError> {
        let mut diag = kernel::sock_diag::SockDiag::open().doing("open a sock_diag socket")?;
        diag.syn_recv(port).map_err(|error| ProbeError::Failed(error.to_string()))
    }

    /// A process that holds a copy of `socket`'s descriptor, as a child after fork does: until it is dropped, the socket
    /// has one more reference. The child does nothing else.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn hold(&self, socket: &Socket) -> Result<Holder, ProbeError> {
        let kept = fcntl_getfd(socket).doing("read the descriptor's flags")?;
        fcntl_setfd(socket, FdFlags::empty()).doing("let the descriptor be inherited")?;
        let spawned = Command::new("/proc/self/exe")
            .args([HOLD, &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        fcntl_setfd(socket, kept).doing("keep the descriptor to this process again")?;
        let mut child = spawned.doing("start a process that holds the descriptor")?;
        // It says one byte when it runs.
        let mut ready = [0];
        if let Some(stdout) = &mut child.stdout {
            io::Read::read_exact(stdout, &mut ready).doing("wait for the process that holds the descriptor")?;
        }
        Ok(Holder { child })
    }
}

/// A process that keeps a descriptor open until this is dropped. It is killed then, and waited for.
#[derive(Debug)]
pub struct Holder {
    child: Child,
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It fails only when the child is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// connect(2) on a non-blocking socket: under way or done.
///
/// # Errors
/// Everything but EINPROGRESS.
pub fn start(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// Waits until `condition` is true; false when it is not within `limit`.
///
/// # Errors
/// Those of `condition`.
pub fn eventually(
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool, ProbeError>,
) -> Result<bool, ProbeError> {
    let end = Instant::now() + limit;
    while !condition()? {
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}

/// Waits until the socket is readable, writable (`PollFlags::OUT`: connected or failed) or the time is up; what it is.
///
/// # Errors
/// Those of poll(2).
pub fn wait(socket: &Socket, what: PollFlags, limit: Duration) -> Result<PollFlags, ProbeError> {
    let end = Instant::now() + limit;
    loop {
        let mut fds = [PollFd::new(socket, what)];
        let left = end.saturating_duration_since(Instant::now());
        let timeout = rustix::event::Timespec::try_from(left).unwrap_or_default();
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).doing("poll"),
            Ok(_) => return Ok(fds[0].revents()),
        }
    }
}

/// How a connect(2) under way ended: `connected`, an errno's name, or `SYN_SENT` when it had not by `limit`.
///
/// # Errors
/// Those of poll(2) and getsockopt(2).
pub fn outcome(socket: &Socket, limit: Duration) -> Result<String, ProbeError> {
    if wait(socket, PollFlags::OUT, limit)?.is_empty() {
        return Ok("SYN_SENT".to_owned());
    }
    match socket.take_error().doing("read SO_ERROR")? {
        None => Ok("connected".to_owned()),
        Some(error) => Ok(errno_name(&error)),
    }
}

/// What a result is called: `ok` or the errno's name.
pub fn result_name<T>(result: &io::Result<T>) -> String {
    result.as_ref().map_or_else(errno_name, |_| "ok".to_owned())
}

/// The name of an errno, as errno(3) has it.
pub fn errno_name(error: &io::Error) -> String {
    use rustix::io::Errno;
    const NAMES: [(Errno, &str); 24] = [
        (Errno::ACCESS, "EACCES"),
        (Errno::ADDRINUSE, "EADDRINUSE"),
        (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::ALREADY, "EALREADY"),
        (Errno::BADF, "EBADF"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::INPROGRESS, "EINPROGRESS"),
        (Errno::INTR, "EINTR"),
        (Errno::INVAL, "EINVAL"),
        (Errno::ISCONN, "EISCONN"),
        (Errno::MFILE, "EMFILE"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::NFILE, "ENFILE"),
        (Errno::NOTCONN, "ENOTCONN"),
        (Errno::NOPROTOOPT, "ENOPROTOOPT"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::PERM, "EPERM"),
        (Errno::PIPE, "EPIPE"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        (Errno::DESTADDRREQ, "EDESTADDRREQ"),
    ];
    let number = error.raw_os_error();
    NAMES
        .iter()
        .find(|(errno, _)| number == Some(errno.raw_os_error()))
        .map_or_else(|| error.to_string(), |(_, name)| (*name).to_owned())
}

/// `TCP_INFO` of a socket.
///
/// # Errors
/// Those of getsockopt(2).
pub fn info(socket: &Socket) -> Result<TcpInfo, ProbeError> {
    sockopt::tcp_info(socket.as_fd()).doing("read TCP_INFO")
}

/// How many of these sockets are in a state.
///
/// # Errors
/// Those of getsockopt(2).
pub fn in_state(sockets: &[Socket], state: TcpState) -> Result<usize, ProbeError> {
    let mut count = 0;
    for socket in sockets {
        count += usize::from(info(socket)?.state == state);
    }
    Ok(count)
}

fn grown(before: &Counters, now: Counters) -> Counters {
    now.into_iter()
        .filter_map(|(name, value)| {
            let grown = value.saturating_sub(before.get(&name).copied().unwrap_or(0));
            (grown > 0).then_some((name, grown))
        })
        .collect()
}

/// Tcp and `TcpExt` counters of the calling thread's namespace (net/ipv4/proc.c: a line of names, a line of values).
fn read_counters() -> Result<Counters, ProbeError> {
    let mut counters = Counters::new();
    for (file, group) in [("snmp", "Tcp: "), ("netstat", "TcpExt: ")] {
        let path = format!("/proc/thread-self/net/{file}");
        let text = std::fs::read_to_string(&path).doing(&format!("read {path}"))?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // Gauges and constants may be negative (MaxConn); no claim is about them.
            counters.insert(name.to_owned(), value.parse().unwrap_or(0));
        }
    }
    Ok(counters)
}

fn configure() -> Result<(), ProbeError> {
    let failed = |error: &dyn std::fmt::Display| ProbeError::Failed(error.to_string());
    Links::open().and_then(|mut links| links.set_up("lo")).map_err(|error| failed(&error))?;
    for (name, value) in BASELINE {
        if sysctl::exists(name) {
            sysctl::write(name, value).map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}

fn bring_up(links: &mut Links, name: &str, address: Ipv4Addr) -> Result<(), ProbeError> {
    links
        .add_address(name, address.into(), 24)
        .and_then(|()| links.set_up(name))
        .map_err(|error| ProbeError::Failed(error.to_string()))
}
