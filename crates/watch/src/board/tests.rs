use super::*;
use crate::opts::Opts;

fn entry(address: &str, inode: u32) -> ListenerEntry {
    ListenerEntry {
        local: address.parse().unwrap(),
        depth: 0,
        limit: 4,
        drops: Some(0),
        interface: 0,
        v6only: false,
        inode,
        uid: 0,
    }
}

fn board(most: usize) -> Board {
    Board::new(Filter::default(), most)
}

fn look(board: &mut Board, entries: &[ListenerEntry]) {
    let now = board.last_look_ns + 100;
    board.look(entries, now, &Commands::new(10));
}

fn shown(board: &Board) -> Vec<Listener> {
    board.listeners(Asker::Scrape, &Commands::new(10))
}

fn labels(board: &Board) -> Vec<(String, u32)> {
    shown(board).into_iter().map(|listener| (listener.listener, listener.inode)).collect()
}

fn named(labels: &[(&str, u32)]) -> Vec<(String, u32)> {
    labels.iter().map(|(label, inode)| ((*label).to_owned(), *inode)).collect()
}

#[test]
fn sockets_on_one_address_are_numbered_by_inode_and_keep_their_numbers() {
    let mut board = board(9);
    look(&mut board, &[entry("0.0.0.0:80", 7), entry("0.0.0.0:80", 5), entry("0.0.0.0:80", 6)]);
    assert_eq!(labels(&board), named(&[("0.0.0.0:80", 5), ("0.0.0.0:80#2", 6), ("0.0.0.0:80#3", 7)]));
    // The first leaves and a newcomer with a lower inode takes its number: the others keep theirs.
    look(&mut board, &[entry("0.0.0.0:80", 7), entry("0.0.0.0:80", 3), entry("0.0.0.0:80", 6)]);
    assert_eq!(labels(&board), named(&[("0.0.0.0:80", 3), ("0.0.0.0:80#2", 6), ("0.0.0.0:80#3", 7)]));
}

#[test]
fn depth_limit_maximum_full_time_and_drops_follow_the_looks() {
    let mut board = board(9);
    let at = |depth, drops| [ListenerEntry { depth, drops: Some(drops), ..entry("[::]:80", 1) }];
    for (depth, drops) in [(5, u32::MAX), (2, 1), (4, 1), (5, 3)] {
        look(&mut board, &at(depth, drops));
    }
    let listener = &shown(&board)[0];
    assert_eq!((listener.depth, listener.limit, listener.deepest), (5, 4, 5));
    assert!(listener.is_full());
    assert_eq!(listener.full_ns, 100, "the first look does not know for how long; 4 of 5 is not full");
    assert_eq!(listener.drops, Some(u64::from(u32::MAX) + 4), "over the wrap");
    assert_eq!(listener.dropped_in_window, 4);
}

#[test]
fn scrapes_and_tables_have_windows_of_their_own() {
    let mut board = board(9);
    let at = |depth, drops| [ListenerEntry { depth, drops: Some(drops), ..entry("[::]:80", 1) }];
    look(&mut board, &at(3, 10));
    board.begin_window(Asker::Table);
    look(&mut board, &at(1, 12));
    board.begin_window(Asker::Scrape);
    look(&mut board, &at(2, 15));
    let window = |asker| {
        let listener = board.listeners(asker, &Commands::new(10)).remove(0);
        (listener.deepest, listener.dropped_in_window)
    };
    assert_eq!(window(Asker::Scrape), (2, 3));
    assert_eq!(window(Asker::Table), (3, 5), "a window begins with what is in the queue");
}

#[test]
fn a_listener_that_comes_back_starts_anew() {
    let mut board = board(9);
    let full = [ListenerEntry { depth: 5, drops: Some(9), ..entry("127.0.0.1:80", 1) }];
    look(&mut board, &full);
    look(&mut board, &full);
    assert_eq!((shown(&board)[0].full_ns, shown(&board)[0].drops), (100, Some(9)));
    look(&mut board, &[]);
    assert!(shown(&board).is_empty(), "gone from the next page");
    look(&mut board, &[entry("127.0.0.1:80", 2)]);
    let again = &shown(&board)[0];
    assert_eq!((again.listener.as_str(), again.full_ns, again.drops), ("127.0.0.1:80", 0, Some(0)));
}

#[test]
fn a_listener_missed_by_one_look_is_hidden_and_not_forgotten() {
    let mut board = board(9);
    let full = [ListenerEntry { depth: 5, ..entry("127.0.0.1:80", 1) }];
    look(&mut board, &full);
    look(&mut board, &full);
    look(&mut board, &[]);
    look(&mut board, &full);
    assert_eq!(shown(&board)[0].full_ns, 200);
    for _ in 0..MISSES {
        look(&mut board, &[]);
    }
    assert!(board.slots.is_empty() && labels(&board).is_empty());
    look(&mut board, &full);
    assert_eq!(shown(&board)[0].full_ns, 0);
}

#[test]
fn one_dump_that_shows_a_listener_twice_counts_it_once() {
    let mut board = board(9);
    let twice = [(); 2].map(|()| ListenerEntry { depth: 5, ..entry("127.0.0.1:80", 1) });
    look(&mut board, &twice);
    look(&mut board, &twice);
    assert_eq!(labels(&board), named(&[("127.0.0.1:80", 1)]));
    assert_eq!((shown(&board)[0].full_ns, board.omitted()), (100, 0));
}

#[test]
fn those_shown_stay_and_lower_addresses_come_first() {
    let mut board = board(2);
    let all = ["10.0.0.2:80", "[::]:1", "10.0.0.1:81", "10.0.0.1:80", "9.0.0.0:9"];
    let all: Vec<ListenerEntry> = all.iter().zip(1..).map(|(address, inode)| entry(address, inode)).collect();
    look(&mut board, &all[..4]);
    assert_eq!(labels(&board), named(&[("10.0.0.1:80", 4), ("10.0.0.1:81", 3)]));
    assert_eq!(board.omitted(), 2);
    look(&mut board, &all);
    assert_eq!(labels(&board), named(&[("10.0.0.1:80", 4), ("10.0.0.1:81", 3)]), "a lower newcomer waits");
    assert_eq!(board.omitted(), 3);
    let without: Vec<ListenerEntry> = all.iter().filter(|entry| entry.inode != 3).cloned().collect();
    for _ in 0..MISSES {
        look(&mut board, &without);
    }
    assert_eq!(labels(&board), named(&[("9.0.0.0:9", 5), ("10.0.0.1:80", 4)]));
    assert_eq!(board.omitted(), 2);
}

#[test]
fn filters_decide_what_is_shown_and_what_is_omitted() {
    let opts = Opts { port: vec!["80-89".parse().unwrap()], ..Opts::default() };
    let mut board = Board::new(Filter::new(&opts), 1);
    look(&mut board, &[entry("[::]:443", 1), entry("[::]:81", 2), entry("[::]:80", 3)]);
    assert_eq!(labels(&board), named(&[("[::]:80", 3)]));
    assert_eq!(board.omitted(), 1);

    let opts = Opts { command: Some("nobody".to_owned()), ..Opts::default() };
    let mut board = Board::new(Filter::new(&opts), 1);
    let entries = [entry("[::]:443", 1)];
    look(&mut board, &entries);
    assert_eq!((labels(&board), board.omitted()), (Vec::new(), 0), "an unknown name does not fit");
    assert_eq!(board.inodes(&entries).collect::<Vec<_>>(), [1], "but it is to be found out");
}
