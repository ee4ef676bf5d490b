use super::*;
use std::net::{TcpListener, TcpStream};

fn entry(local: &str, inode: u32) -> ListenerEntry {
    ListenerEntry {
        local: local.parse().unwrap(),
        depth: 0,
        limit: 1,
        drops: None,
        interface: 0,
        v6only: false,
        inode,
        uid: 0,
    }
}

#[test]
fn one_listener_is_chosen_or_the_reason_is_said() {
    let listeners = [entry("127.0.0.1:80", 1), entry("[::]:80", 2), entry("0.0.0.0:81", 3), entry("0.0.0.0:81", 4)];
    let of = |port: &str, address: Option<&str>| {
        let address = address.map(|address| address.parse().unwrap());
        let opts = Opts { port: vec![port.parse().unwrap()], address, ..Opts::default() };
        choose(&listeners, &opts).map(|chosen| chosen.inode).map_err(|error| error.to_string())
    };
    assert_eq!(of("80", Some("127.0.0.1")), Ok(1));
    assert!(of("80", None).unwrap_err().contains("2 pass the filters (127.0.0.1:80, [::]:80)"));
    assert!(of("81", None).unwrap_err().contains("2 sockets share 0.0.0.0:81 (SO_REUSEPORT)"));
    assert!(of("82", None).unwrap_err().contains("no TCP listener passes --port"));
    let twice = [entry("127.0.0.1:80", 1), entry("127.0.0.1:80", 1)];
    assert_eq!(choose(&twice, &Opts::default()).unwrap().inode, 1, "seen twice by one dump");
}

/// What is recorded of this test's own listener; other tests of this namespace may connect elsewhere meanwhile.
#[test]
fn a_queue_that_fills_and_overflows_is_recorded_until_its_listener_closes() {
    let directory = std::env::temp_dir().join(format!("recorder-{}-{}", std::process::id(), monotonic_ns()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("a.rec");
    let ours = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = ours.local_addr().unwrap();
    let opts = Opts { port: vec![local.port().to_string().parse().unwrap()], ..Opts::default() };
    let stop = Stop::new();
    let start = || Recorder::start(&opts, &RecordOpts::default(), path.clone(), &stop);
    let recorder = start().unwrap();
    assert_eq!(recorder.listener(), local);
    assert!(matches!(start(), Err(RecordError::Create { .. })), "it is not written over");
    let stop = Stop::new();
    let recorder = {
        recorder.finish().unwrap();
        std::fs::remove_file(&path).unwrap();
        Recorder::start(&opts, &RecordOpts::default(), path.clone(), &stop).unwrap()
    };
    let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(local).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(30));
    drop((ours, clients));
    let written = recorder.finish().unwrap();
    assert_eq!(written.end, Ending::ListenerClosed);
    assert!(stop.is_requested(), "whoever watches is to end, too");
    let read = recording::Recording::read(&path).unwrap();
    assert_eq!((read.header.listener, read.deepest()), (local, 3));
    assert!(read.entered() >= 3 && read.header.interval_us == 1000, "{read:?}");
    assert_eq!(read.end.unwrap().end, Ending::ListenerClosed);
    std::fs::remove_dir_all(&directory).unwrap();
}
