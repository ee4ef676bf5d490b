//! The admin port over real loopback sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::*;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Far beyond what any step here takes: reaching it is a failure, not a slow machine.
const PATIENCE: Duration = Duration::from_secs(10);

struct Fixed;

impl Pages for Fixed {
    fn get(&self, path: &str) -> Option<Page> {
        match path {
            "/metrics" => Some(Page::metrics("up 1\n".to_owned())),
            "/snapshot" => Some(Page::json("{}".to_owned())),
            "/readyz" => Some(Page::text(503, "not yet\n".to_owned())),
            "/big" => Some(Page::metrics("x".repeat(4 << 20))),
            "/odd" => Some(Page::text(42, String::new())),
            "/slow" => {
                std::thread::sleep(Duration::from_secs(3));
                None
            }
            _ => None,
        }
    }
}

fn admin() -> Admin {
    Admin::start(LOOPBACK, Arc::new(Fixed)).unwrap()
}

fn connect(admin: &Admin) -> TcpStream {
    let stream = TcpStream::connect(admin.local_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `request` on a connection of its own and returns everything that comes back until the connection ends.
fn exchange(admin: &Admin, request: &str) -> String {
    let mut stream = connect(admin);
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// Reads one response with a `Content-Length` body off a connection that stays open.
fn read_response(stream: &mut TcpStream, body: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).ends_with(&format!("\r\n\r\n{body}")) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
}

/// How long it takes until the peer closes the connection.
fn closed_after(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    match stream.read(&mut [0; 64]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the connection should have been closed: {other:?}"),
    }
    started.elapsed()
}

#[test]
fn get_answers_with_status_type_and_body() {
    let admin = admin();
    let get = |path| get_local(admin.local_addr(), path, PATIENCE).unwrap();
    assert_eq!(get("/metrics"), (200, "up 1\n".to_owned()));
    assert_eq!(get("/metrics?name=x"), (200, "up 1\n".to_owned()));
    assert_eq!(get("/readyz"), (503, "not yet\n".to_owned()));
    assert_eq!(get("/nowhere"), (404, "no page /nowhere\n".to_owned()));
    assert_eq!(get("/odd").0, 500);
    let raw = exchange(&admin, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(raw.starts_with("HTTP/1.1 200 OK\r\n"), "{raw}");
    assert!(raw.contains("content-type: text/plain; version=0.0.4\r\n"), "{raw}");
    admin.stop();
}

#[test]
fn head_has_the_length_but_no_body_and_is_no_scrape() {
    let admin = admin();
    let raw = exchange(&admin, "HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(raw.starts_with("HTTP/1.1 200 OK\r\n") && raw.contains("content-length: 5\r\n"), "{raw}");
    assert!(raw.ends_with("\r\n\r\n"), "{raw}");
    assert_eq!((admin.scrapes(), admin.last_scrape()), (0, None));
}

#[test]
fn other_methods_are_refused_with_the_allowed_ones() {
    let admin = admin();
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request =
            format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
        let raw = exchange(&admin, &request);
        assert!(raw.starts_with("HTTP/1.1 405 ") && raw.contains("allow: GET, HEAD\r\n"), "{raw}");
    }
}

#[test]
fn only_pages_for_prometheus_count_as_scrapes() {
    let admin = admin();
    let before = Instant::now();
    for path in ["/snapshot", "/readyz", "/nowhere", "/metrics", "/metrics"] {
        get_local(admin.local_addr(), path, PATIENCE).unwrap();
    }
    assert_eq!(admin.scrapes(), 2);
    assert!(admin.last_scrape().unwrap() >= before);
}

#[test]
fn one_connection_serves_many_requests() {
    let admin = admin();
    let mut stream = connect(&admin);
    for _ in 0..3 {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        read_response(&mut stream, "up 1\n");
    }
    assert_eq!(admin.scrapes(), 3);
}

#[test]
fn a_slow_header_and_an_idle_connection_are_closed_after_their_own_time_outs() {
    let timeouts = Timeouts { header: Duration::from_millis(300), idle: Duration::from_millis(1200) };
    let admin = Admin::start_with(LOOPBACK, Arc::new(Fixed), timeouts).unwrap();

    let mut silent = connect(&admin);
    assert!(closed_after(&mut silent) < timeouts.idle, "a connection that says nothing is closed like a slow header");

    let mut slow = connect(&admin);
    slow.write_all(b"GET /metr").unwrap();
    let waited = closed_after(&mut slow);
    assert!(waited >= timeouts.header / 2 && waited < timeouts.idle, "{waited:?}");

    let mut idle = connect(&admin);
    idle.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_response(&mut idle, "up 1\n");
    let waited = closed_after(&mut idle);
    assert!(waited > timeouts.header * 2, "an idle connection was closed like a slow header: {waited:?}");

    let mut late = connect(&admin);
    late.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_response(&mut late, "up 1\n");
    late.write_all(b"GET").unwrap();
    let waited = closed_after(&mut late);
    assert!(waited < timeouts.idle, "a second header that stalls has the time of a header: {waited:?}");
}

#[test]
fn the_sixty_fifth_connection_gets_503_and_a_place_freed_is_taken() {
    let admin = admin();
    let mut served: Vec<TcpStream> = (0..MAX_CONNECTIONS).map(|_| connect(&admin)).collect();
    let mut refused = String::new();
    connect(&admin).read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{refused}");
    assert!(refused.ends_with("\r\n\r\n"), "{refused}");

    let last = served.last_mut().unwrap();
    last.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_response(last, "up 1\n");

    drop(served);
    let started = Instant::now();
    while get_local(admin.local_addr(), "/metrics", PATIENCE).map_or(0, |(status, _)| status) != 200 {
        assert!(started.elapsed() < PATIENCE, "no place was given back");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_port_in_use_is_an_error_or_replaced_by_a_free_one() {
    let first = admin();
    let taken = first.local_addr();
    let error = Admin::start(taken, Arc::new(Fixed)).unwrap_err();
    assert!(matches!(error, AdminError::Bind { addr, .. } if addr == taken));
    assert!(error.to_string().ends_with("choose another address with --admin ADDR, or --admin off"), "{error}");

    let (second, replaced) = Admin::start_or_free_port(taken, Arc::new(Fixed)).unwrap();
    assert!(replaced);
    assert_ne!(second.local_addr().port(), taken.port());
    assert_eq!(get_local(second.local_addr(), "/metrics", PATIENCE).unwrap().0, 200);

    let (third, replaced) = Admin::start_or_free_port(LOOPBACK, Arc::new(Fixed)).unwrap();
    assert!(!replaced);
    assert_ne!(third.local_addr().port(), 0);
}

#[test]
fn stop_ends_idle_connections_frees_the_port_and_is_quick() {
    let admin = admin();
    let addr = admin.local_addr();
    let mut idle = connect(&admin);
    idle.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_response(&mut idle, "up 1\n");
    let started = Instant::now();
    admin.stop();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    closed_after(&mut idle);
    Admin::start(addr, Arc::new(Fixed)).expect("the port is free in spite of TIME_WAIT");
}

#[test]
fn a_response_under_way_is_finished_before_the_port_closes() {
    let admin = admin();
    let addr = admin.local_addr();
    let reader = std::thread::spawn(move || get_local(addr, "/big", PATIENCE).unwrap());
    while admin.scrapes() == 0 {
        std::thread::yield_now();
    }
    admin.stop();
    assert_eq!(reader.join().unwrap().1.len(), 4 << 20);
}

#[test]
fn stop_returns_even_while_a_page_blocks() {
    let admin = admin();
    let mut stream = connect(&admin);
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    admin.stop();
    let took = started.elapsed();
    assert!(took >= JOIN && took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_dropped_admin_closes_its_port() {
    let admin = admin();
    let addr = admin.local_addr();
    drop(admin);
    let started = Instant::now();
    while TcpStream::connect(addr).is_ok() {
        assert!(started.elapsed() < PATIENCE, "the port is still open");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_address_to_listen_on_is_off_or_an_address() {
    assert_eq!("off".parse(), Ok(Listen::Off));
    for text in ["127.0.0.1:9710", "[::1]:9710", "off"] {
        assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
    }
    let error = "localhost:9710".parse::<Listen>().unwrap_err().to_string();
    assert!(error.contains("\"localhost:9710\"") && error.contains("write e.g. 127.0.0.1:9710"), "{error}");
}

#[test]
fn a_port_is_taken_over_without_refusing_anybody() {
    let first = admin();
    let addr = first.local_addr();
    // Connected to the first, and in no hurry to ask.
    let mut early = connect(&first);
    std::thread::sleep(Duration::from_millis(20));
    let second = Admin::start_on(first.listener().unwrap(), Arc::new(Fixed)).unwrap();
    assert_eq!(second.local_addr(), addr);
    let stopping = std::thread::spawn(move || first.stop());
    std::thread::sleep(Duration::from_millis(10));
    early.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("up 1\n"), "{answer:?}");
    for _ in 0..20 {
        assert_eq!(get_local(addr, "/metrics", PATIENCE).unwrap(), (200, "up 1\n".to_owned()));
    }
    stopping.join().unwrap();
    assert_eq!(get_local(addr, "/metrics", PATIENCE).unwrap(), (200, "up 1\n".to_owned()));
    second.stop();
    assert!(get_local(addr, "/metrics", PATIENCE).is_err(), "nobody has it any more");
}
