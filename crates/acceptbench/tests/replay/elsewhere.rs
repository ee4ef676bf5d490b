//! A recording of a server in another network namespace.

use std::process::Command;

use recording::{Ending, Recording};
use rerun::{Own, in_namespaces};

use crate::scene::{Running, Scene, acceptbench, machine};

/// A network namespace and a server in it: somaxconn 5 is the smaller limit.
const SERVER: &str = r#"ip link set lo up && echo 5 >/proc/sys/net/core/somaxconn && exec "$0" server --admin off \
    --listen 127.0.0.1:9700 --backlog 7 --accept-delay 2ms"#;

/// What a TCP counter of `file` says in the network namespace of a process.
fn counter(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).expect("counters");
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        if let Some(at) = names.split(' ').position(|found| found == name) {
            return values.split(' ').nth(at).and_then(|value| value.parse().ok()).expect("a count");
        }
    }
    panic!("{file} has no {name}")
}

#[test]
fn another_namespace_is_recorded_from_here() {
    let _machine = machine();
    in_namespaces("elsewhere::another_namespace_is_recorded_from_here", Own::Network, || {
        let scene = Scene::new();
        let path = scene.path().join("elsewhere.rec");
        let mut server = Command::new("unshare");
        server.args(["--net", "sh", "-c", SERVER, env!("CARGO_BIN_EXE_acceptbench")]);
        let server = Running::start(server, "listening on ");
        let pid = server.pid();
        // Here the same port is somebody else's, and the limit another one.
        let _here = std::net::TcpListener::bind("127.0.0.1:9700").expect("a port");
        let netns = pid.to_string();
        let watch = ["watch", "--admin", "off", "--netns", &netns, "--port", "9700", "--record"];
        let watch = acceptbench(&[&watch[..], &[path.to_str().expect("UTF-8")]].concat());
        let watch = Running::start(watch, "recording 127.0.0.1:9700 ");

        let mut load = Command::new("nsenter");
        load.args(["--net", "--target", &netns, env!("CARGO_BIN_EXE_acceptbench"), "loadgen", "--admin", "off"]);
        load.args(["--arrivals", "burst:60/1s", "--duration", "1s", "--deadline", "500ms", "--workers", "1"]);
        let loaded = load.output().expect("nsenter, of util-linux");
        assert!(matches!(loaded.status.code(), Some(0 | 2)), "{loaded:?}");
        watch.ends_well();

        let recording = Recording::read(&path).expect("a recording");
        let (entered, drops) = (counter(pid, "snmp", "PassiveOpens"), counter(pid, "netstat", "ListenDrops"));
        let told: u64 = recording.samples.iter().map(|sample| sample.listen_drops).sum();
        assert_eq!((recording.entered(), told), (entered, drops));
        assert_eq!(entered + drops, 60, "every SYN that was sent, and no SYN is sent again before 1 s");
        assert!((1..=54).contains(&drops), "a queue of 6 has room for so many at once, not for all: {drops}");
        // A dropped last ACK is one of the namespace's and two of the listener's.
        assert!((drops..=2 * drops).contains(&recording.dropped()), "{} of {drops}", recording.dropped());
        assert!((1..=6).contains(&recording.deepest()), "{}", recording.deepest());
        assert_eq!((recording.header.limit, recording.sysctl("net.core.somaxconn")), (5, Some(5)));
        assert_eq!(recording.end.map(|end| end.end), Some(Ending::Stopped));
        server.ends_well();
    });
}
