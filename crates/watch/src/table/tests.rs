use super::*;

fn listener(label: &str, command: &str, [depth, limit, deepest]: [u32; 3], drops: [u64; 2]) -> Listener {
    Listener {
        listener: label.to_owned(),
        command: command.to_owned(),
        depth,
        limit,
        deepest,
        drops: Some(drops[0]),
        dropped_in_window: drops[1],
        ..Listener::default()
    }
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot {
        window_ns: 2_000_000_000,
        listeners: vec![
            listener("0.0.0.0:22", "sshd", [0, 128, 0], [0, 0]),
            listener("127.0.0.1:5432", "postgres", [3, 200, 190], [7, 0]),
            listener("127.0.0.1:65535#12", "fifteen-bytes-x", [4, 3, 4], [1_234_567, 12]),
            listener("[2001:db8:1234:5678:9abc:def0:1234:5678]:65535#2", "", [0, 65535, 65536], [8, 8]),
            listener("[::]:80", "ng\u{1b}inx\u{202e}", [0, 4096, 20], [3, 3]),
        ],
        ..Snapshot::default()
    };
    snapshot.kernel.net.listen_overflows = 1234;
    snapshot.kernel.net.listen_drops = 1240;
    snapshot.in_window.listen_overflows = 12;
    snapshot.in_window.listen_drops = 150_000;
    snapshot.kernel.tcp_sockets.insert("syn_recv".to_owned(), 3);
    snapshot.kernel.sysctls.insert("net.core.somaxconn".to_owned(), "4096".to_owned());
    snapshot
}

const SCREEN: Screen<'_> =
    Screen { columns: Some(80), rows: Some(24), sort: Sort::Fill, metrics: Some("127.0.0.1:9713") };

fn text(snapshot: &Snapshot, screen: &Screen<'_>) -> String {
    render(snapshot, screen).join("\n")
}

#[test]
fn eighty_columns_hold_everything() {
    let expected = "\
5 TCP listeners of this network namespace  metrics on 127.0.0.1:9713
ListenOverflows 1234 (+6.0/s)  ListenDrops 1240 (+75000/s)  syn_recv 3
somaxconn 4096  tcp_max_syn_backlog -  tcp_syncookies -

LISTENER               COMMAND         DEPTH LIMIT   MAX FILL DROPS DROPS/s
127.0.0.1:65535#12     fifteen-bytes-x     4     3     4 100%  1.2M     6.0 FULL
[2001:db8:12…]:65535#2 -                   0 65535 65536 100%     8     4.0 peak
127.0.0.1:5432         postgres            3   200   190  94%     7       0
[::]:80                ng?inx?             0  4096    20   0%     3     1.5 drop
0.0.0.0:22             sshd                0   128     0   0%     0       0";
    let lines = text(&snapshot(), &SCREEN);
    assert_eq!(lines, expected, "\n{lines}");
    assert!(lines.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn the_order_is_the_one_asked_for() {
    let first = |sort| {
        let lines = render(&snapshot(), &Screen { sort, ..SCREEN });
        lines[5..].iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(first(Sort::Address)[0], "0.0.0.0:22");
    assert_eq!(
        first(Sort::Drops)[..4],
        first(Sort::Fill)[..2]
            .iter()
            .cloned()
            .chain(["[::]:80".to_owned(), "127.0.0.1:5432".to_owned()])
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_small_screen_says_how_many_more_there_are() {
    for rows in 0..12 {
        let lines = render(&snapshot(), &Screen { rows: Some(rows), ..SCREEN });
        assert!(lines.len() <= rows, "{rows}: {lines:#?}");
    }
    let eight = render(&snapshot(), &Screen { rows: Some(8), ..SCREEN });
    assert_eq!(eight.len(), 8);
    assert_eq!(eight[7], "… 3 more: a taller window, or --port, --address, --command");
    let ten = render(&snapshot(), &Screen { rows: Some(10), ..SCREEN });
    assert!(ten[9].starts_with("0.0.0.0:22"), "all of them fit: {ten:#?}");
    let narrow = render(&snapshot(), &Screen { columns: Some(40), ..SCREEN });
    assert!(narrow.iter().all(|line| line.chars().count() <= 40), "{narrow:#?}");
}

#[test]
fn without_a_screen_nothing_is_cut() {
    let lines = text(&snapshot(), &Screen { columns: None, rows: None, metrics: None, ..SCREEN });
    assert!(lines.contains("\n[2001:db8:1234:5678:9abc:def0:1234:5678]:65535#2 - "), "{lines}");
    assert!(lines.starts_with("5 TCP listeners of this network namespace\n"), "{lines}");
}

#[test]
fn what_is_wrong_with_the_watching_is_said() {
    let mut snapshot = Snapshot { omitted: 3, netns: Some("/run/netns/a\u{1b}".to_owned()), ..snapshot() };
    let source = |name: &str| telemetry::namespace::SourceReading { name: name.to_owned(), up: false, seconds: 0.0 };
    snapshot.kernel.sources.push(source("listeners"));
    let lines = text(&snapshot, &SCREEN);
    assert!(lines.starts_with("5 TCP listeners of network namespace /run/netns/a?  metrics"), "{lines}");
    assert!(lines.contains("\ncannot be read: listeners\n"), "{lines}");
    assert!(lines.ends_with("\n… 3 left out by --max-listeners"), "{lines}");
    snapshot.kernel.sources.push(source("netns"));
    assert!(text(&snapshot, &SCREEN).contains("\nthe process or file that named this network namespace is gone\n"));
}

#[test]
fn numbers_stay_within_five_characters() {
    let cases =
        [(0, "0"), (99_999, "99999"), (100_000, "100k"), (999_999, "999k"), (1_299_999, "1.2M"), (u64::MAX, "18E")];
    for (number, shown) in cases {
        assert_eq!(compact(number), shown);
    }
    assert_eq!([(0, 1.0), (1, 0.0), (1, 3.0), (30, 2.0)].map(|(n, s)| per_second(n, s)), ["0", "0.0", "0.3", "15"]);
}
