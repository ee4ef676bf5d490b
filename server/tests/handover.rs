//! Two servers share their listeners, and one leaves: whoever connects at that very moment is greeted, by one of them and
//! without waiting for the next to come. Checked in a network namespace of its own, for which the test runs itself again
//! under unshare(1).

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use kernel::link::Links;
use kernel::process::monotonic_ns;
use rerun::{Own, in_namespaces};
use server::opts::{Engine, Reuseport};
use server::{Opts, Origin, Plan, Server};
use telemetry::namespace::Detail;

const NAME: &str = "whoever_connects_while_a_server_leaves_is_greeted_by_one_of_the_two";

/// Handovers per kind of server, each with another distance between the connection and the stop.
const ROUNDS: u32 = 60;

#[test]
fn whoever_connects_while_a_server_leaves_is_greeted_by_one_of_the_two() {
    in_namespaces(NAME, Own::Network, inside);
}

fn inside() {
    Links::open().and_then(|mut links| links.set_up("lo")).expect("a loopback");
    for engine in [
        Engine::Epoll,
        Engine::EpollEdge,
        Engine::EpollExclusive,
        Engine::Blocking,
        Engine::IoUring,
        Engine::IoUringMultishot,
        Engine::Tokio,
        Engine::TokioLocal,
    ] {
        for reuseport in [Reuseport::Off, Reuseport::Hash] {
            let opts = Opts {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
                acceptors: 2.try_into().expect("above 0"),
                engine,
                reuseport,
                ..Opts::default()
            };
            let plan = Plan::try_from(opts).expect("valid");
            (0..ROUNDS).for_each(|round| hand_over(&plan, round));
        }
    }
}

fn hand_over(plan: &Plan, round: u32) {
    let old = Server::start(plan, Origin::default()).expect("listens");
    old.begin(monotonic_ns());
    let inherited = old.listeners().expect("descriptors");
    let new = Server::start(plan, Origin { inherited, ..Origin::default() }).expect("inherits");
    new.begin(monotonic_ns());
    let address = new.observer().addresses()[0];
    assert_eq!(old.observer().addresses()[0], address);
    // Everyone waits in the kernel.
    std::thread::sleep(Duration::from_millis(2));

    let together = Barrier::new(2);
    let greeting = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            together.wait();
            let mut stream = TcpStream::connect(address).expect("connected");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
            stream.read(&mut [0; 2])
        });
        together.wait();
        let stop = Instant::now() + Duration::from_micros(5) * round;
        while Instant::now() < stop {
            std::hint::spin_loop();
        }
        old.hand_over();
        client.join().expect("a client")
    });
    assert_eq!(greeting.as_ref().ok(), Some(&1), "{greeting:?}: {:?}, round {round}", plan.opts());
    let (old, new) = (old.finish(Detail::Books), new.finish(Detail::Books));
    assert_eq!(old.accepted() + new.accepted(), 1, "{:?}", plan.opts());
}
