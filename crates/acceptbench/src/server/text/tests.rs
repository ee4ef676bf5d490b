use server::AcceptorCounts;

use super::*;

fn listener(address: &str) -> ListenerCounts {
    ListenerCounts {
        address: address.parse().unwrap(),
        backlog_requested: Some(4096),
        limit: 128,
        depth: 0,
        deepest: 0,
        deepest_since_scrape: 0,
        full_ns: 0,
        drops: 0,
        left: 0,
        destroyed: 0,
        retired: false,
        relistens: 0,
        options: ListenerOptions { reuseaddr: true, ..ListenerOptions::default() },
    }
}

fn said(lines: &[String]) -> String {
    assert!(lines.iter().skip(1).all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
    lines.join("\n")
}

#[test]
fn a_plain_server_says_what_the_kernel_made_of_it() {
    let books = Snapshot {
        listeners: vec![listener("127.0.0.1:9700")],
        acceptors: vec![AcceptorCounts { accepts: 3, greetings: 3, closed_by_server: 3, ..Default::default() }],
        ..Snapshot::default()
    };
    assert_eq!(
        said(&start(&books, &Machine::default())),
        "\
acceptbench server
listening on 127.0.0.1:9700  backlog 4096, queue limit 128 (holds 129)
1 acceptor: thread, engine epoll"
    );
    assert_eq!(
        said(&end(&books)),
        "\
accepted 3  greeted 3  closed by server 3
deepest queue 0 of 129  this namespace since it began: overflows 0, drops 0"
    );
}

#[test]
fn listeners_alike_are_one_line_and_what_the_kernel_changed_is_said() {
    let mut opts = Opts { engine: server::opts::Engine::EpollEdge, ..Opts::default() };
    opts.acceptors = 4.try_into().unwrap();
    opts.workers = Workers::Processes;
    opts.reuseport = Reuseport::IncomingCpu;
    (opts.cpus, opts.scheduling) = (Cpus::Auto, Scheduling::Batch);
    opts.handler = Handler::Fork;
    (opts.defer_accept, opts.fastopen) = ("10s".parse().unwrap(), 16);
    let mut listeners = Vec::new();
    for cpu in [0, 1, 2, 3] {
        for address in ["[::1]:9700", "[::1]:9701", "127.0.0.1:9800"] {
            let mut listener = listener(address);
            listener.options.reuseport = true;
            listener.options.v6only = address.starts_with('[');
            listener.options.incoming_cpu = Some(cpu);
            (listener.options.defer_accept_seconds, listener.options.fastopen) = (15, 16);
            listeners.push(listener);
        }
    }
    let acceptors = (1..=4).map(|n| AcceptorCounts { pid: 1230 + n, ..AcceptorCounts::default() }).collect();
    let books = Snapshot { opts, listeners, acceptors, ..Snapshot::default() };
    let lines = start(&books, &Machine { allowed: vec![0, 1, 2, 3], fastopen: Some(1) });
    assert_eq!(
        said(&lines[1..]),
        "\
listening on [::1]:9700-9701  backlog 4096, queue limit 128 (holds 129),
  reuseport incoming-cpu: 4 sockets, SO_INCOMING_CPU 0-3,
  defer-accept 15 s (asked for 10 s), fastopen 16,
  without effect: tcp_fastopen 1 lacks 0x2, v6only
listening on 127.0.0.1:9800  backlog 4096, queue limit 128 (holds 129),
  reuseport incoming-cpu: 4 sockets, SO_INCOMING_CPU 0-3,
  defer-accept 15 s (asked for 10 s), fastopen 16,
  without effect: tcp_fastopen 1 lacks 0x2
4 acceptors: processes 1231 1232 1233 1234, engine epoll-edge, CPUs 0-3,
  SCHED_BATCH, a child per connection (at most 64 each)"
    );
}

#[test]
fn a_server_in_trouble_says_which() {
    let mut books = Snapshot { listeners: vec![listener("127.0.0.1:9700")], ..Snapshot::default() };
    let mut acceptor = AcceptorCounts { accepts: 900, greetings: 500, replies: 300, ..AcceptorCounts::default() };
    (acceptor.closed_by_server, acceptor.closed_by_peer, acceptor.closed_on_error) = (600, 200, 40);
    (acceptor.closed_by_kill, acceptor.dead_on_accept, acceptor.late_handshakes) = (2, 40, 7);
    (acceptor.deaths, acceptor.restarts, acceptor.lost_at_most, acceptor.pauses) = (1, 1, 1, 12);
    acceptor.errors = [("EMFILE".to_owned(), 12), ("other".to_owned(), 1)].into();
    books.acceptors = vec![acceptor.clone(), AcceptorCounts { accepts: 100, ..AcceptorCounts::default() }];
    (books.listeners[0].deepest, books.listeners[0].left) = (129, 4);
    (books.kernel.net.listen_overflows, books.kernel.net.listen_drops) = (31, 44);
    books.kernel.net.syncookies_sent = 9;
    assert_eq!(
        said(&end(&books)),
        "\
accepted 1000  greeted 500  replied 300
  closed by server 600, client 200, error 40, kill 2  dead on accept 40
  late handshakes 7  accept errors EMFILE 12, other 1  pauses 12
  acceptors died 1, replaced 1  lost with them at most 1  left in the queue 4
deepest queue 129 of 129
  this namespace since it began: overflows 31, drops 44, cookies sent 9"
    );
}

#[test]
fn more_listeners_and_processes_than_a_screen_holds_are_counted() {
    let listeners = (0..20).map(|n| listener(&format!("127.0.0.1:{}", 9700 + 2 * n))).collect();
    let acceptors = (1..=20).map(|pid| AcceptorCounts { pid, ..AcceptorCounts::default() }).collect();
    let opts = Opts { workers: Workers::Processes, ..Opts::default() };
    let lines = start(&Snapshot { opts, listeners, acceptors, ..Snapshot::default() }, &Machine::default());
    assert_eq!(lines.len(), 1 + SHOWN + 2);
    assert_eq!(lines[1 + SHOWN], "and on 12 more");
    assert_eq!(lines[2 + SHOWN], "20 acceptors: processes 1 2 3 4 5 6 7 8 and 12 more, engine epoll");
}
