//! A GET without an HTTP client: the healthcheck of a container and the tests need no more.
//!
//! It speaks HTTP/1.0, in which a response ends with its connection, and refuses redirects, encodings and everything
//! else a real client does. Source: RFC 1945.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The longest response worth reading; a page of 64 acceptors has some 100 kB.
const MAX_RESPONSE: usize = 64 << 20;

/// Why a page could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The connection failed or took too long.
    #[error("get http://{addr}{path}: {source}; is the program running, with its admin port there?")]
    Io {
        /// Whom we asked.
        addr: SocketAddr,
        /// For what.
        path: String,
        /// What the system said; `TimedOut` when the time was up.
        source: io::Error,
    },
    /// The answer is not HTTP.
    #[error("get http://{addr}{path}: the answer is not HTTP; does another program listen there?")]
    NotHttp {
        /// Whom we asked.
        addr: SocketAddr,
        /// For what.
        path: String,
    },
}

/// Gets `http://addr/path` and returns the status and the body. Blocks for `timeout` at most, all steps included.
///
/// # Errors
/// [`FetchError::Io`] when connecting, sending or receiving fails or takes too long, [`FetchError::NotHttp`] when what
/// comes back is no HTTP response. Any HTTP status is a success of this function.
pub fn get_local(addr: SocketAddr, path: &str, timeout: Duration) -> Result<(u16, String), FetchError> {
    let response = exchange(addr, path, timeout).map_err(|source| FetchError::Io {
        addr,
        path: path.to_owned(),
        source: match source.kind() {
            // What a socket time-out is called on Linux; "resource temporarily unavailable" would puzzle everyone.
            io::ErrorKind::WouldBlock => timed_out(),
            _ => source,
        },
    })?;
    parse(&response).ok_or_else(|| FetchError::NotHttp { addr, path: path.to_owned() })
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no complete answer in time")
}

fn exchange(addr: SocketAddr, path: &str, timeout: Duration) -> io::Result<Vec<u8>> {
    let started = Instant::now();
    // A time-out of zero would mean none, so the time being up is an error of our own.
    let left = || match timeout.saturating_sub(started.elapsed()) {
        Duration::ZERO => Err(timed_out()),
        left => Ok(left),
    };
    let mut stream = TcpStream::connect_timeout(&addr, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n").as_bytes())?;

    let mut response = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(response),
            Ok(n) => response.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if response.len() > MAX_RESPONSE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the answer exceeds 64 MiB"));
        }
    }
}

/// Status and body of a response, if it is one.
fn parse(response: &[u8]) -> Option<(u16, String)> {
    let end = response.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = str::from_utf8(&response[..end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = words.next()?.parse().ok()?;
    Some((status, String::from_utf8_lossy(&response[end + 4..]).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A peer that answers one connection with `answer` and keeps it open for `hold`.
    fn peer(answer: &'static [u8], hold: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(answer).unwrap();
            std::thread::sleep(hold);
        });
        addr
    }

    #[test]
    fn status_and_body_are_split() {
        assert_eq!(parse(b"HTTP/1.0 503 Busy\r\nA: b\r\n\r\nx\r\n\r\ny"), Some((503, "x\r\n\r\ny".to_owned())));
        assert_eq!(parse(b"HTTP/1.1 200\r\n\r\n"), Some((200, String::new())));
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n"), None);
    }

    #[test]
    fn a_port_nobody_listens_on_is_named_in_the_error() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = get_local(free, "/healthz", Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("get http://{free}/healthz: Connection refused")), "{error}");
        assert!(error.ends_with("is the program running, with its admin port there?"), "{error}");
    }

    #[test]
    fn a_peer_that_is_not_http_is_told_apart() {
        let error = get_local(peer(b"\x00", Duration::ZERO), "/", Duration::from_secs(5)).unwrap_err();
        assert!(matches!(error, FetchError::NotHttp { .. }), "{error}");
    }

    #[test]
    fn the_time_out_covers_a_peer_that_never_finishes() {
        let started = Instant::now();
        let slow = peer(b"HTTP/1.0 200 OK\r\n", Duration::from_secs(20));
        let error = get_local(slow, "/", Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("no complete answer in time"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
