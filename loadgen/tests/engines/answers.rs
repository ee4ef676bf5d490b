//! What confirms an attempt: the server's first bytes, in pieces or wrong, over IPv4 and IPv6, from many addresses.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::*;
use loadgen::Verdict;
use loadgen::opts::{Close, Confirm, Engine};

/// A piece of an answer that is taken for itself.
fn say(mut connection: &std::net::TcpStream, piece: &[u8]) {
    let _ = connection.write_all(piece);
    std::thread::sleep(Duration::from_millis(20));
}

with_both_engines! {
    fn a_greeting_serves(engine) {
        let server = serve(nobody(), |connection| {
            greet(&connection);
            assert!(drain(&connection).is_err(), "the client ends by a RST");
        });
        leaves_no_descriptor(|| {
            let books = run(opts(engine, nobody(), |_| ()));
            all(&books, Verdict::Served);
            let measured = &books.measured;
            assert_eq!((measured.issued, measured.before_syn, measured.established), (PLANNED, 0, PLANNED));
            assert_eq!((measured.abrupt, measured.reset_at_connect, measured.held_lost), (0, 0, 0));
            assert_eq!((measured.confirm_latency.count, measured.connect_latency.count), (PLANNED, PLANNED));
            assert_eq!(books.engine, engine);
            done(&server, PLANNED);
        });
        let kernel = counters();
        assert_eq!((kernel.passive_opens, kernel.resets_sent, kernel.established_resets), (PLANNED, PLANNED, 2 * PLANNED));
        assert_eq!(sockets("time_wait"), 0);
    }

    fn nothing_but_the_handshake(engine) {
        let _listener = listener(nobody(), 1024);
        let books = run(opts(engine, nobody(), |opts| opts.confirm = Confirm::None));
        all(&books, Verdict::Connected);
        assert_eq!((books.measured.established, counters().passive_opens), (PLANNED, PLANNED));
    }

    fn an_answer_comes_in_pieces(engine) {
        let server = serve(nobody(), |mut connection| {
            let mut asked = [0; 18];
            connection.read_exact(&mut asked).expect("a request");
            assert_eq!(&asked, b"GET / HTTP/1.1\r\n\r\n");
            for piece in [&b"HT"[..], b"TP/1.1 2", b"00 OK\r\n\r\n"] {
                say(&connection, piece);
            }
            let _ = drain(&connection);
        });
        let books = run(opts(engine, nobody(), |opts| {
            opts.confirm = Confirm::Reply;
            opts.send = "GET / HTTP/1.1\\r\\n\\r\\n".parse().expect("a message");
            opts.expect = "HTTP/1.1 200".parse().expect("a prefix");
        }));
        all(&books, Verdict::Served);
        assert_eq!((books.measured.established, books.measured.abrupt), (PLANNED, PLANNED), "the client speaks first");
        done(&server, PLANNED);
    }

    fn a_wrong_answer_is_unexpected(engine) {
        let server = serve(nobody(), |connection| {
            for piece in [&b"HTTP/1.1"[..], b" 503 Service Unavailable"] {
                say(&connection, piece);
            }
            let _ = drain(&connection);
        });
        let books = run(opts(engine, nobody(), |opts| opts.expect = "HTTP/1.1 200".parse().expect("a prefix")));
        all(&books, Verdict::Unexpected);
        assert_eq!((books.measured.established, books.measured.confirm_latency.count), (PLANNED, 0));
        done(&server, PLANNED);
    }

    fn half_an_answer_is_none(engine) {
        let server = serve(nobody(), |connection| say(&connection, b"HTTP/1.1"));
        let books = run(opts(engine, nobody(), |opts| opts.expect = "HTTP/1.1 200".parse().expect("a prefix")));
        all(&books, Verdict::Unserved);
        assert_eq!(books.measured.closed_without_byte, PLANNED);
        done(&server, PLANNED);
    }

    fn the_longest_message_arrives_whole(engine) {
        let message: String = (0..4096_u32).map(|i| char::from(b'a' + u8::try_from(i % 26).expect("a letter"))).collect();
        let expected = message.clone().into_bytes();
        let server = serve(nobody(), move |mut connection| {
            let mut asked = vec![0; expected.len()];
            connection.read_exact(&mut asked).expect("all of it");
            assert!(asked == expected);
            greet(&connection);
            let _ = drain(&connection);
        });
        let books = run(opts(engine, nobody(), |opts| {
            opts.confirm = Confirm::Reply;
            opts.send = message.parse().expect("a message");
        }));
        all(&books, Verdict::Served);
        done(&server, PLANNED);
    }

    fn ipv6_is_served(engine) {
        let target = SocketAddr::from((Ipv6Addr::LOCALHOST, 9700));
        let server = serve(target, |connection| {
            greet(&connection);
            let _ = drain(&connection);
        });
        let books = run(opts(engine, target, |_| ()));
        all(&books, Verdict::Served);
        done(&server, PLANNED);
        assert_eq!(counters().passive_opens, PLANNED);
    }

    fn sources_are_used_evenly(engine) {
        let load = opts(engine, nobody(), |opts| {
            opts.sources = "127.0.0.8/30,127.9.9.9,127.0.5.4/31".parse().ok();
            opts.close = Close::Fin;
        });
        if let Some(reason) = lacks(&load) {
            return skip(&reason);
        }
        let peers: Arc<Mutex<BTreeMap<IpAddr, u64>>> = Arc::default();
        let seen = Arc::clone(&peers);
        let server = serve(nobody(), move |connection| {
            let peer = connection.peer_addr().expect("an address");
            *seen.lock().expect("a lock").entry(peer.ip()).or_default() += 1;
            greet(&connection);
            let _ = drain(&connection);
        });
        let books = run(load);
        all(&books, Verdict::Served);
        done(&server, PLANNED);
        let addresses = ["127.0.0.9", "127.0.0.10", "127.9.9.9", "127.0.5.4", "127.0.5.5"];
        let even: BTreeMap<IpAddr, u64> = addresses.map(|ip| (ip.parse().expect("an address"), PLANNED / 5)).into();
        assert_eq!(*peers.lock().expect("a lock"), even);
    }
}
