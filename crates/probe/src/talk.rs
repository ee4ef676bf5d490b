//! What the two ends of a connection say to each other while a claim is measured: connect and wait in the queue, send,
//! read what came.

use std::time::{Duration, Instant};

use kernel::sockopt;
use rustix::event::PollFlags;
use rustix::net::SendFlags;
use socket2::{SockFilter, Socket};

use crate::claim::{Doing, ProbeError};
use crate::scene::{Scene, errno_name, eventually, info, outcome, wait};

/// Enough for what happens at once, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(3);

/// After so long without a sign, nothing is coming: everything here takes microseconds.
pub(crate) const QUIET: Duration = Duration::from_millis(150);

/// Waits until so many connections are in the accept queue.
///
/// # Errors
/// When they do not come.
pub(crate) fn queued(listener: &Socket, depth: usize) -> Result<(), ProbeError> {
    if eventually(SOON, || Ok(info(listener)?.unacked as usize == depth))? {
        return Ok(());
    }
    Err(ProbeError::Failed(format!("{} connections are in the accept queue, not {depth}", info(listener)?.unacked)))
}

/// `count` more clients in the accept queue, in this order.
///
/// # Errors
/// When one does not get there.
pub(crate) fn queue(scene: &Scene, listener: &Socket, port: u16, count: usize) -> Result<Vec<Socket>, ProbeError> {
    let before = info(listener)?.unacked as usize;
    (1..=count)
        .map(|more| {
            let client = scene.connect(port)?;
            queued(listener, before + more)?;
            Ok(client)
        })
        .collect()
}

/// A client and the server's end of its connection.
///
/// # Errors
/// When there is no connection.
pub(crate) fn pair(scene: &Scene, listener: &Socket, port: u16) -> Result<(Socket, Socket), ProbeError> {
    let client = scene.connect(port)?;
    queued(listener, 1)?;
    let (accepted, _) = listener.accept().doing("accept")?;
    Ok((client, accepted))
}

/// Sends a text.
///
/// # Errors
/// When it is not taken whole.
pub(crate) fn send(socket: &Socket, text: &str) -> Result<(), ProbeError> {
    let sent = rustix::net::send(socket, text.as_bytes(), SendFlags::NOSIGNAL).doing("send")?;
    if sent == text.len() {
        Ok(())
    } else {
        Err(ProbeError::Failed(format!("only {sent} bytes of {text:?} were sent")))
    }
}

/// What sending a byte comes to: `ok` or the errno's name.
pub(crate) fn try_send(socket: &Socket) -> String {
    rustix::net::send(socket, b"x", SendFlags::NOSIGNAL)
        .map_or_else(|errno| errno_name(&errno.into()), |_| "ok".to_owned())
}

/// What one read gives within `limit`: the text, `EOF`, the errno's name, or `nothing`.
///
/// # Errors
/// Those of poll(2).
pub(crate) fn read(socket: &Socket, limit: Duration) -> Result<String, ProbeError> {
    if wait(socket, PollFlags::IN, limit)?.is_empty() {
        return Ok("nothing".to_owned());
    }
    let mut buffer = [0; 64];
    Ok(match rustix::io::read(socket, buffer.as_mut_slice()) {
        Ok(0) => "EOF".to_owned(),
        Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
        Err(errno) => errno_name(&errno.into()),
    })
}

/// What each of these reads.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn read_all(sockets: &[Socket], limit: Duration) -> Result<Vec<String>, ProbeError> {
    sockets.iter().map(|socket| read(socket, limit)).collect()
}

/// How many of these answers are `answer`.
pub(crate) fn how_many(answers: &[String], answer: &str) -> usize {
    answers.iter().filter(|given| *given == answer).count()
}

/// The name of a socket's state, as tcp(7) and ss(8) say it: `CLOSE_WAIT`.
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn state(socket: &Socket) -> Result<String, ProbeError> {
    Ok(info(socket)?.state.name().to_uppercase())
}

/// Waits until a socket is in a state and says in which it is at last.
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn becomes(socket: &Socket, wanted: &str) -> Result<String, ProbeError> {
    eventually(SOON, || Ok(state(socket)? == wanted))?;
    state(socket)
}

/// Waits until a connection has received so many bytes of data.
///
/// # Errors
/// When they do not come.
pub(crate) fn wait_for_bytes(socket: &Socket, bytes: u64) -> Result<(), ProbeError> {
    if eventually(SOON, || Ok(info(socket)?.bytes_received >= bytes))? {
        return Ok(());
    }
    Err(ProbeError::Failed(format!("{bytes} bytes did not arrive")))
}

/// Makes a listener drop every segment that is no SYN, so that no handshake to it can end: clients are connected, the
/// server is not.
///
/// # Errors
/// EPERM where filters are refused.
fn hold_acks(listener: &Socket) -> Result<(), ProbeError> {
    const FLAGS: u32 = 13; // Offset in the TCP header, where a TCP socket's filter begins to count.
    const SYN: u32 = 0x02;
    const WHOLE: u32 = 0x4_0000;
    let program = [
        SockFilter::new(0x30, 0, 0, FLAGS), // BPF_LD | BPF_B | BPF_ABS
        SockFilter::new(0x45, 0, 1, SYN),   // BPF_JMP | BPF_JSET | BPF_K
        SockFilter::new(0x06, 0, 0, WHOLE), // BPF_RET | BPF_K
        SockFilter::new(0x06, 0, 0, 0),
    ];
    listener.attach_filter(&program).doing("hold the ACKs back")
}

/// How often a thread (`self/task/N`) or process (`N`) has gone to sleep, and whether it sleeps now.
///
/// # Errors
/// When it is gone.
pub(crate) fn sleeps(task: &str) -> Result<(u64, bool), ProbeError> {
    let path = format!("/proc/{task}/status");
    let text = std::fs::read_to_string(&path).doing(&format!("read {path}"))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let times = field("voluntary_ctxt_switches:").parse().unwrap_or(0);
    Ok((times, field("State:").starts_with('S')))
}

/// When a connection entered the accept queue, in seconds since `began`: by the kernel's clock, however late this
/// process looks. To be asked right after accept, before anything is sent.
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn entered(accepted: &Socket, began: Instant) -> Result<f64, ProbeError> {
    const TOGETHER: Duration = Duration::from_millis(5);
    loop {
        let before = began.elapsed();
        let waited = info(accepted)?.last_data_sent_ms;
        // Both clocks were read at one moment, unless this process was interrupted.
        if began.elapsed().saturating_sub(before) < TOGETHER {
            return Ok(before.as_secs_f64() - f64::from(waited) / 1e3);
        }
    }
}

/// A client that is connected while the server still misses its ACK: see [`hold_acks`]. The filter is off again, so the
/// handshake ends with the next SYN-ACK, a second after this instant.
///
/// # Errors
/// When the ACK was not held back.
pub(crate) fn late_client(scene: &Scene, listener: &Socket, port: u16) -> Result<(Socket, Instant), ProbeError> {
    hold_acks(listener)?;
    let began = Instant::now();
    let client = scene.connect(port)?;
    let held = outcome(&client, SOON)? == "connected" && info(listener)?.unacked == 0;
    sockopt::detach_filter(listener).doing("take the filter off")?;
    if held { Ok((client, began)) } else { Err(ProbeError::Failed("the client's ACK was not held back".to_owned())) }
}
