//! The loop to compare with: wait, accept4, close, and nothing else.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use server::opts::Engine;
use socket2::{Domain, Socket, Type};

use crate::{BACKLOG, load};

/// Events taken per wait, as many as the server takes.
const EVENTS: usize = 256;

/// CPU per connection of the bare loop that waits like `engine`, µs.
pub(crate) fn cost(engine: Engine, connections: u32) -> io::Result<f64> {
    let blocking = engine == Engine::Blocking;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(!blocking)?;
    let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address"))?;
    let listener = OwnedFd::from(socket);
    let (own, stop) = (listener.try_clone()?, Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&stop);
    let acceptor =
        std::thread::spawn(move || if blocking { accept(&own, &told).map(drop) } else { wait_and_accept(&own, &told) });
    let cost = load(&listener, address, connections);
    stop.store(true, Ordering::Relaxed);
    // One more to wake it. The loop has nothing to wait for besides the listener, or it would not be bare.
    drop(std::net::TcpStream::connect(address)?);
    acceptor.join().map_err(|_| io::Error::other("the bare loop panicked"))??;
    cost
}

/// accept4 and close until nobody is left, which a blocking listener never says, or until told to stop.
fn accept(listener: &OwnedFd, stop: &AtomicBool) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(connection) => drop(connection),
            Err(Errno::AGAIN) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn wait_and_accept(listener: &OwnedFd, stop: &AtomicBool) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(0), EventFlags::IN)?;
    let mut events = Vec::with_capacity(EVENTS);
    while !stop.load(Ordering::Relaxed) {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        accept(listener, stop)?;
    }
    Ok(())
}
