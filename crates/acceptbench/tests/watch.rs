//! `acceptbench watch` beside the kernel itself: every listener of a private network namespace, what `ss` says of it, and
//! what becomes of it when it comes, goes, overflows or shares its address.
//!
//! Each test has a network namespace of its own, as root or, for an ordinary user, below a user namespace. One needs `ss`
//! (Debian package iproute2); without it, it says so and passes, unless `ACCEPTBENCH_REQUIRE_NETNS=1`.

#[path = "watch/input.rs"]
mod input;
#[path = "watch/lookout.rs"]
mod lookout;
#[path = "watch/namespace.rs"]
mod namespace;
#[path = "watch/sockets.rs"]
mod sockets;
#[path = "watch/ss.rs"]
mod ss;
#[path = "watch/terminal.rs"]
mod terminal;

use std::os::fd::OwnedFd;

use lookout::Lookout;
use namespace::{eventually, private_network};
use sockets::{Shared, connect, listen};

#[test]
fn a_listener_that_comes_back_leaves_no_stale_series_and_starts_anew() {
    private_network("a_listener_that_comes_back_leaves_no_stale_series_and_starts_anew", || {
        let watch = Lookout::start(&["--rate", "50"]);
        let address = "127.0.0.1:8080";
        assert!(!watch.page().text().contains(address));

        let listener = listen(address, 1, Shared::No);
        let clients: Vec<OwnedFd> = (0..5).map(|_| connect(address)).collect();
        let full = format!("acceptbench_listener_full_seconds_total{{listener=\"{address}\"}}");
        eventually("three SYNs are dropped and the queue is seen full", || {
            let page = watch.page();
            page.listener("drops_total", address) == Some(3.0) && page.value(&full).is_some_and(|s| s > 0.05)
        });
        let page = watch.page();
        assert_eq!(page.listener("accept_queue_depth", address), Some(2.0));
        assert_eq!(page.listener("accept_queue_limit", address), Some(1.0));
        assert_eq!(page.listener("accept_queue_max", address), Some(2.0));
        assert_eq!(page.listener("accept_queue_max_fill_ratio", address), Some(1.0));
        // The dropped SYNs come again after a second, unless nobody wants to connect any more.
        drop(clients);
        drop(listener);
        assert!(!watch.page().text().contains(address), "{}", watch.page().text());

        let _listener = listen(address, 7, Shared::No);
        let page = watch.page();
        assert_eq!(page.listener("accept_queue_limit", address), Some(7.0));
        for zero in ["accept_queue_depth", "accept_queue_max", "full_seconds_total", "drops_total"] {
            assert_eq!(page.listener(zero, address), Some(0.0), "{zero}");
        }
        watch.ends_well();
    });
}

#[test]
fn the_deepest_queue_is_remembered_until_it_was_scraped() {
    private_network("the_deepest_queue_is_remembered_until_it_was_scraped", || {
        let watch = Lookout::start(&["--rate", "100", "--port", "8080"]);
        let address = "[::1]:8080";
        let listener = listen(address, 7, Shared::No);
        let clients: Vec<OwnedFd> = (0..4).map(|_| connect(address)).collect();
        // Ten looks find it. The snapshot is no scrape.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let snapshot = watch.snapshot();
        assert_eq!(snapshot["listeners"][0]["deepest"], 4, "{snapshot}");
        for _ in 0..4 {
            rustix::net::accept(&listener).expect("a connection");
        }
        drop(clients);
        let page = watch.page();
        assert_eq!(page.listener("accept_queue_depth", address), Some(0.0));
        assert_eq!(page.listener("accept_queue_max", address), Some(4.0));
        assert_eq!(page.listener("accept_queue_max_fill_ratio", address), Some(0.5));
        assert_eq!(watch.page().listener("accept_queue_max", address), Some(0.0));
    });
}

#[test]
fn sockets_that_share_an_address_have_labels_of_their_own() {
    private_network("sockets_that_share_an_address_have_labels_of_their_own", || {
        let address = "0.0.0.0:8080";
        let first = listen(address, 3, Shared::Reuseport);
        let second = listen(address, 5, Shared::Reuseport);
        let watch = Lookout::start(&["--rate", "50", "--port", "8080"]);
        let limits = |watch: &Lookout| {
            let page = watch.page();
            ["", "#2", "#3"].map(|mark| page.listener("accept_queue_limit", &format!("{address}{mark}")))
        };
        assert_eq!(limits(&watch), [Some(3.0), Some(5.0), None], "in order of inode, which is that of making");
        let third = listen(address, 7, Shared::Reuseport);
        assert_eq!(limits(&watch), [Some(3.0), Some(5.0), Some(7.0)]);
        drop(first);
        assert_eq!(limits(&watch), [None, Some(5.0), Some(7.0)], "those that stay keep their labels");
        drop(third);
        let _fourth = listen(address, 9, Shared::Reuseport);
        eventually("the newcomer takes the lowest free number", || limits(&watch) == [Some(9.0), Some(5.0), None]);
        drop(second);
    });
}

#[test]
fn no_more_listeners_are_shown_than_allowed() {
    private_network("no_more_listeners_are_shown_than_allowed", || {
        let ports = [8009, 8001, 8005, 8003, 8007, 8002, 8010, 8004, 8008, 8006];
        let mut listeners: Vec<_> =
            ports.iter().map(|port| (*port, listen(&format!("127.0.0.1:{port}"), 5, Shared::No))).collect();
        let watch = Lookout::start(&["--max-listeners", "3", "--rate", "50", "--port", "8001-8010"]);
        let shown = || {
            let page = watch.page();
            (page.labels("accept_queue_depth"), page.value("acceptbench_watch_listeners_omitted"))
        };
        let expected =
            |ports: [u16; 3], omitted: f64| (ports.map(|port| format!("127.0.0.1:{port}")).to_vec(), Some(omitted));
        assert_eq!(shown(), expected([8001, 8002, 8003], 7.0));
        let page = watch.page();
        assert_eq!(page.value("acceptbench_watch_listeners"), Some(3.0));
        let info = page.text().lines().filter(|line| line.starts_with("acceptbench_listener_info{")).count();
        assert_eq!(info, 3);
        listeners.retain(|(port, _)| *port != 8002);
        // Within a few looks: one that misses it may be an accident.
        eventually("the next one has its place", || shown() == expected([8001, 8003, 8004], 6.0));
    });
}

#[test]
fn filters_must_all_fit() {
    private_network("filters_must_all_fit", || {
        let addresses = ["127.0.0.1:8001", "127.0.0.2:8001", "127.0.0.1:8002", "[::1]:8001"];
        let _listeners = addresses.map(|address| listen(address, 5, Shared::No));
        let server = Lookout::server("127.0.0.1:8003");
        let shown = |args: &[&str]| {
            let watch = Lookout::start(&[args, &["--rate", "50"]].concat());
            // The search for names takes a moment.
            std::thread::sleep(std::time::Duration::from_millis(300));
            watch.page().labels("accept_queue_limit")
        };
        assert_eq!(shown(&["--port", "8001"]), ["127.0.0.1:8001", "127.0.0.2:8001", "[::1]:8001"]);
        assert_eq!(shown(&["--port", "8001,8002", "--address", "127.0.0.1"]), ["127.0.0.1:8001", "127.0.0.1:8002"]);
        assert_eq!(shown(&["--address", "127.0.0.0/31", "--port", "8000-8002"]), ["127.0.0.1:8001", "127.0.0.1:8002"]);
        assert_eq!(shown(&["--command", "acceptbench", "--port", "8000-8003"]), ["127.0.0.1:8003"]);
        assert_eq!(shown(&["--command", "nobody"]), [""; 0]);
        drop(server);
    });
}
