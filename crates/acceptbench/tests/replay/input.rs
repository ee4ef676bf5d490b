//! What cannot be recorded or replayed: one line that names the flag or the file's line, the right exit code, and the fix.

use std::net::TcpListener;
use std::process::Command;

use rerun::{Own, in_namespaces};

use crate::scene::{Running, Scene, acceptbench, machine, text};

#[track_caller]
fn refused(mut command: Command, words: &[&str]) {
    let output = command.output().expect("the program starts");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(64), "{command:?}: {said}");
    assert!(said.starts_with("acceptbench: ") && said.lines().count() == 1, "{command:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{command:?}: `{word}` is not in `{said}`");
    }
}

#[test]
fn one_listener_is_recorded_into_a_new_file_or_nothing_is() {
    let _machine = machine();
    in_namespaces("input::one_listener_is_recorded_into_a_new_file_or_nothing_is", Own::Network, || {
        let scene = Scene::new();
        let path = scene.path().join("a.rec");
        let path = path.to_str().expect("UTF-8");
        let record = |args: &[&str]| acceptbench(&[&["watch", "--admin", "off", "--record", path], args].concat());
        refused(record(&[]), &["--record", "no TCP listener passes --port", "watch --once"]);
        let listeners: Vec<TcpListener> =
            ["127.0.0.1:8001", "127.0.0.1:8002"].map(|address| TcpListener::bind(address).expect("a port")).into();
        refused(record(&["--port", "8000-8002"]), &["--record", "127.0.0.1:8001, 127.0.0.1:8002", "by --port"]);
        refused(record(&["--port", "8001", "--once"]), &["--record", "--once"]);
        refused(record(&["--port", "8001", "--command", "x"]), &["--record", "--command"]);
        refused(record(&["--port", "8001", "--record-interval", "1us"]), &["--record-interval", "100us to 1s"]);
        refused(record(&["--port", "8001", "--record-limit", "5"]), &["--record-limit", "64MB"]);
        refused(acceptbench(&["watch", "--record-for", "5s"]), &["--record <FILE>"]);
        assert!(!std::path::Path::new(path).exists(), "nothing was begun");

        let watch = Running::start(record(&["--port", "8001", "--record-for", "1h"]), "recording 127.0.0.1:8001 ");
        refused(record(&["--port", "8001"]), &["--record", "a.rec", "exists", "name a new file"]);
        watch.ends_well();
        refused(acceptbench(&["replay", path]), &["a.rec: nothing arrived", "record again"]);
        refused(acceptbench(&["replay", path, "--from", "1h"]), &["--from 1h", "a.rec lasts"]);

        // It ends by itself, and says why.
        std::fs::remove_file(path).expect("our file");
        let bounded = record(&["--port", "8002", "--record-for", "300ms"]).output().expect("the program starts");
        let said = text(&bounded);
        assert!(bounded.status.success() && said.contains("its time is over (--record-for)"), "{said}");
        drop(listeners);
    });
}

#[test]
fn what_is_no_recording_is_refused_with_its_line() {
    let _machine = machine();
    let scene = Scene::new();
    let replay = |args: &[&str]| {
        let mut command = acceptbench(&[&["replay"], args].concat());
        command.current_dir(scene.path());
        command
    };
    refused(replay(&["none.rec"]), &["none.rec: cannot read the recording", "watch --record"]);
    std::fs::write(scene.path().join("a.rec"), "[experiment]\n").expect("written");
    refused(replay(&["a.rec"]), &["a.rec:1: no header of a recording"]);
    refused(replay(&["a.rec", "--set", "server.backlog"]), &["--set", "KEY=VALUE"]);
    refused(replay(&["a.rec", "--deadline", "0s"]), &["--deadline", "above 0"]);
    refused(replay(&["a.rec", "--replicates", "0"]), &["--replicates"]);
    refused(replay(&["a.rec", "--measure-gap", "1s"]), &["--measure-gap 1s", "give 5s (--deadline) or more"]);
    refused(replay(&[]), &["<FILE>", "--help"]);
}
