use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use kernel::shared::Shared;

use super::*;
use crate::opts::Opts;

#[test]
fn a_stall_covers_exactly_its_window() {
    let stall: Stall = "1s+2s".parse().unwrap();
    let s = 1_000_000_000;
    assert_eq!(stalled_until(stall, 10 * s, 11 * s - 1), None);
    assert_eq!(stalled_until(stall, 10 * s, 11 * s), Some(13 * s));
    assert_eq!(stalled_until(stall, 10 * s, 13 * s - 1), Some(13 * s));
    assert_eq!(stalled_until(stall, 10 * s, 13 * s), None);
    assert_eq!(stalled_until("0s+forever".parse().unwrap(), 1, 1), Some(u64::MAX));
}

/// Between a look at the queue and accept4 another acceptor of the listener may be faster.
#[test]
fn who_slept_in_accept4_was_idle_though_somebody_had_waited() {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let accept_delay = "1ms".parse().unwrap();
    let opts = Opts { listen: listen.into(), engine: Engine::Blocking, accept_delay, ..Opts::default() };
    let listener = Arc::new(Listener::open(listen, &opts, None).unwrap());
    let (stop, _other) = UnixStream::pair().unwrap();
    let desk = DeskOf::new(&Arc::new(Shared::new("desks", 1).unwrap()), 0);
    let address = listener.address;
    let mut acceptor = Acceptor::new(&opts, 0, vec![listener], desk, stop.into(), None);

    let served = |acceptor: &mut Acceptor| {
        let before = acceptor.tally().service.get();
        assert!(matches!(acceptor.accept(0, true), Accepted::Closed | Accepted::Open(_)));
        Duration::from_nanos(acceptor.tally().service.get() - before)
    };
    let _first = TcpStream::connect(address).unwrap();
    served(&mut acceptor);
    let idle = Duration::from_millis(400);
    let late = std::thread::spawn(move || {
        std::thread::sleep(idle);
        TcpStream::connect(address).unwrap()
    });
    let service = served(&mut acceptor);
    assert!(service >= Duration::from_millis(1) && service < idle / 2, "nobody was there: {service:?}");
    let _second = late.join().unwrap();

    std::thread::sleep(idle);
    let _third = TcpStream::connect(address).unwrap();
    let service = served(&mut acceptor);
    assert!(
        service >= idle,
        "accept4 did not sleep, so all the time since the last service was this one's: {service:?}"
    );
}
