//! Beside `ss`, with 500 listeners; in another namespace; and as an ordinary user.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use rustix::process::Signal;

use crate::lookout::{ACCEPTBENCH, Lookout, Page};
use crate::namespace::{eventually, private_network, skip};
use crate::sockets::{Shared, connect, listen};

/// Depth, limit and drops.
type Row = (u64, u64, u64);

/// What `ss` says of every listener of the calling thread's namespace.
fn ss() -> BTreeMap<String, Row> {
    let output = Command::new("ss").arg("-ltnmH").output().expect("ss starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let mut rows = BTreeMap::new();
    for listener in text.split("LISTEN").skip(1) {
        let words: Vec<&str> = listener.split_whitespace().collect();
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{text:?} in {words:?}"));
        let drops = words.iter().find_map(|word| word.strip_prefix("skmem:(")?.strip_suffix(')')?.rsplit_once(",d"));
        let (_, drops) = drops.unwrap_or_else(|| panic!("no drops in {words:?}"));
        let row = (number(words[0]), number(words[1]), number(drops));
        assert_eq!(rows.insert(words[2].to_owned(), row), None, "{words:?}");
    }
    rows
}

/// What a page says of every listener.
fn rows(page: &Page) -> BTreeMap<String, Row> {
    let count = |metric: &str, label: &str| {
        let value = page.listener(metric, label).unwrap_or_else(|| panic!("no {metric} of {label}"));
        value.to_string().parse::<u64>().expect("a count")
    };
    let row = |label: String| {
        let row =
            (count("accept_queue_depth", &label), count("accept_queue_limit", &label), count("drops_total", &label));
        (label, row)
    };
    page.labels("accept_queue_limit").into_iter().map(row).collect()
}

/// 500 listeners of both families with all kinds of backlogs, and connections that wait in some of them.
fn many_listeners() -> (Vec<OwnedFd>, Vec<OwnedFd>) {
    let hosts = ["127.0.0.1", "0.0.0.0", "[::1]", "[::]", "127.8.9.10"];
    let addresses: Vec<String> = (0..500).map(|n| format!("{}:{}", hosts[n % 5], 10_000 + n)).collect();
    let backlog = |n: usize| [0, 1, 128, 4096, 17][(n / 5) % 5];
    let listeners = addresses.iter().enumerate().map(|(n, address)| listen(address, backlog(n), Shared::No)).collect();
    let reachable = |address: &String| address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]");
    // Backlog 17 and up: nothing is dropped.
    let waiting = addresses.iter().enumerate().filter(|(n, _)| backlog(*n) > 16);
    let clients = waiting.flat_map(|(n, address)| (0..n % 4).map(move |_| connect(&reachable(address)))).collect();
    (listeners, clients)
}

#[test]
fn five_hundred_listeners_are_what_ss_says() {
    if Command::new("ss").arg("-V").output().is_err() {
        return skip("ss not found; install the Debian package iproute2");
    }
    kernel::process::raise_nofile().expect("descriptors");
    private_network("ss::five_hundred_listeners_are_what_ss_says", || {
        let (_listeners, _clients) = many_listeners();
        let full = "127.0.0.1:9000";
        let _overflowing = listen(full, 3, Shared::No);
        let clients: Vec<OwnedFd> = (0..20).map(|_| connect(full)).collect();
        let watch = Lookout::start(&[]);
        eventually("what does not fit is dropped", || {
            watch.page().listener("drops_total", full).is_some_and(|n| n >= 16.0)
        });
        // Those that wait to be let in would try again and be dropped again, forever between two readings.
        drop(clients);
        let (said, page) = (ss(), watch.page());
        assert_eq!(said.len(), 502, "500, the overflowing one and the page itself");
        assert_eq!(rows(&page), said);
        let (depth, limit, drops) = said[full];
        assert_eq!((depth, limit), (4, 3));
        // 20 - 4, and those that tried again while a busy machine made us wait.
        assert!((16..=48).contains(&drops), "{drops}");
        assert_eq!(page.listener("accept_queue_max_fill_ratio", full), Some(1.0));
        assert!(said.values().filter(|(depth, ..)| *depth > 0).count() > 200, "many queues are in use");
        assert_eq!(page.value("acceptbench_watch_listeners"), Some(502.0));
        assert_eq!(page.value("acceptbench_netstat_listen_overflows_total"), Some(drops as f64));
    });
}

/// Inodes of the network namespaces that the threads of a process are in.
fn namespaces(pid: u32) -> Vec<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads").filter_map(Result::ok);
    let mut inodes: Vec<u64> =
        tasks.filter_map(|task| Some(fs::metadata(task.path().join("ns/net")).ok()?.ino())).collect();
    inodes.sort_unstable();
    inodes.dedup();
    inodes
}

#[test]
fn another_namespace_is_watched_from_here() {
    private_network("ss::another_namespace_is_watched_from_here", || {
        let _here = listen("127.0.0.1:8080", 5, Shared::No);
        // Its loopback is down, and 0.0.0.0 is there without one.
        let server = ["unshare", "-n", ACCEPTBENCH, "server", "--admin", "off", "--listen", "0.0.0.0:9999"];
        let there = Lookout::program(&[&server[..], &["--backlog", "33"]].concat(), "listening on ");
        let pid = there.pid().to_string();
        for target in [pid.clone(), format!("/proc/{pid}/ns/net")] {
            let watch = Lookout::start(&["--netns", &target]);
            let page = watch.page();
            assert_eq!(rows(&page), BTreeMap::from([("0.0.0.0:9999".to_owned(), (0, 33, 0))]), "{target}");
            assert_eq!(page.value("acceptbench_tcp_sockets{state=\"listen\"}"), Some(1.0), "counters are its too");
            assert_eq!(page.value("acceptbench_source_up{source=\"netns\"}"), Some(1.0));
            assert_eq!(namespaces(watch.pid()).len(), 2, "one thread is there, the page is here");
            watch.ends_well();
        }

        let watch = Lookout::start(&["--netns", &pid]);
        assert_eq!(rows(&watch.page()).len(), 1);
        there.signal(Signal::KILL);
        drop(there);
        eventually("the server's end is seen", || {
            let page = watch.page();
            page.value("acceptbench_source_up{source=\"netns\"}") == Some(0.0) && rows(&page).is_empty()
        });
        eventually("its namespace is let go", || namespaces(watch.pid()).len() == 1);
        let page = watch.page();
        assert_eq!(page.value("acceptbench_source_up{source=\"listeners\"}"), Some(0.0), "{}", page.text());
        assert_eq!(page.value("acceptbench_watch_listeners"), Some(0.0));
        assert!(page.value("process_cpu_seconds_total").is_some_and(|seconds| seconds > 0.0));
        watch.ends_well();
    });
}

#[test]
fn an_ordinary_user_sees_all_queues_and_the_names_of_its_own_programs() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: there is nobody else to become");
        return;
    }
    private_network("ss::an_ordinary_user_sees_all_queues_and_the_names_of_its_own_programs", || {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let open = |path: &std::path::Path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
        };
        open(directory.path());
        // The build directory may be closed to others.
        let program = directory.path().join("acceptbench");
        fs::copy(ACCEPTBENCH, &program).expect("a copy of the program");
        open(&program);
        let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--pdeathsig", "KILL"];
        let as_nobody = |args: &[&str], ready: &str| {
            let program = [program.to_str().expect("text")];
            Lookout::program(&[&nobody[..], &program, args].concat(), ready)
        };
        let theirs = "127.0.0.1:8080";
        let _root = listen(theirs, 1, Shared::No);
        let clients: Vec<OwnedFd> = (0..6).map(|_| connect(theirs)).collect();
        let server = ["server", "--admin", "off", "--listen", "127.0.0.1:9999", "--backlog", "33"];
        let _own = as_nobody(&server, "listening on ");
        let watch = as_nobody(&["watch", "--admin", "127.0.0.1:0", "--rate", "50"], "metrics on http://");
        eventually("its own server is named", || {
            watch.page().holders().get("127.0.0.1:9999").is_some_and(|(command, _)| command == "acceptbench")
        });
        drop(clients);
        let page = watch.page();
        assert_eq!(page.holders()["127.0.0.1:9999"].1, "65534");
        assert_eq!(page.holders()[theirs], (String::new(), "0".to_owned()));
        let rows = rows(&page);
        assert_eq!(rows["127.0.0.1:9999"], (0, 33, 0));
        let (depth, limit, drops) = rows[theirs];
        assert_eq!((depth, limit), (2, 1));
        assert!(drops >= 4, "{drops}");
        // Root sees both names.
        let watch = Lookout::start(&["--rate", "50"]);
        let comm = fs::read_to_string("/proc/self/comm").expect("a name");
        eventually("every holder is named", || {
            watch.page().holders().get(theirs).is_some_and(|(command, _)| *command == comm.trim_end())
        });
    });
}
