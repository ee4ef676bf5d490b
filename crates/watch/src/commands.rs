//! Command names of the programs that hold listeners.
//!
//! Owns when to look: a search goes through the descriptors of every process, so it begins at most once a second, only for
//! sockets whose holder is unknown, takes a bounded number of steps per tick, and is repeated ever more rarely for those it
//! does not find (another user's, to an ordinary user). Known holders are looked at again in turn, a bounded number a
//! second, and searched anew once they are gone.

use std::collections::{HashMap, HashSet, VecDeque};

use kernel::socket_owners::{Holder, Search};

const SECOND: u64 = 1_000_000_000;
/// Descriptors looked at per second: 1 % of a core at 2 µs each. The first search, for which somebody waits, may take more.
const DESCRIPTORS_PER_SECOND: u32 = 5_000;
const DESCRIPTORS_PER_SECOND_AT_FIRST: u32 = 100_000;
/// Known holders looked at again per second, at 10 µs each.
const CHECKS_PER_SECOND: usize = 64;
/// Pause before a fruitless search is repeated; doubles up to the longest.
const PAUSE: u64 = 4 * SECOND;
const LONGEST_PAUSE: u64 = 256 * SECOND;

/// What is known of one socket.
#[derive(Debug, Default)]
struct Known {
    holder: Option<Holder>,
    /// Shown until a search says otherwise.
    command: String,
    /// Not searched before then; 0 is at once.
    search_at: u64,
    pause: u64,
}

/// The names, by inode of the socket.
#[derive(Debug)]
pub(crate) struct Commands {
    known: HashMap<u32, Known>,
    search: Option<(Search, Vec<u32>)>,
    /// Inodes with a holder, the one looked at longest ago first.
    checks: VecDeque<u32>,
    reviewed_at: Option<u64>,
    searched_once: bool,
    ticks_per_second: u32,
}

impl Commands {
    pub(crate) fn new(ticks_per_second: u32) -> Self {
        Self {
            known: HashMap::new(),
            search: None,
            checks: VecDeque::new(),
            reviewed_at: None,
            searched_once: false,
            ticks_per_second,
        }
    }

    /// The command name of a socket's holder, or empty.
    pub(crate) fn of(&self, inode: u32) -> &str {
        self.known.get(&inode).map_or("", |known| &known.command)
    }

    /// One tick's share of the work. `wanted` are the sockets there are; it is asked for once a second.
    pub(crate) fn tick<I: Iterator<Item = u32>>(&mut self, now: u64, wanted: impl FnOnce() -> I) {
        if self.reviewed_at.is_none_or(|before| now.saturating_sub(before) >= SECOND) {
            self.reviewed_at = Some(now);
            self.take_stock(wanted());
            self.check_holders();
            self.begin_search(now);
        }
        let budget = if self.searched_once { DESCRIPTORS_PER_SECOND } else { DESCRIPTORS_PER_SECOND_AT_FIRST };
        self.step(now, (budget / self.ticks_per_second).max(1) as usize);
    }

    /// Forgets the sockets that are gone and adds the new ones.
    fn take_stock(&mut self, wanted: impl Iterator<Item = u32>) {
        let wanted: HashSet<u32> = wanted.collect();
        self.known.retain(|inode, _| wanted.contains(inode));
        for inode in wanted {
            self.known.entry(inode).or_default();
        }
    }

    fn check_holders(&mut self) {
        for _ in 0..CHECKS_PER_SECOND.min(self.checks.len()) {
            let Some(inode) = self.checks.pop_front() else { return };
            let Some(known) = self.known.get_mut(&inode) else { continue };
            match known.holder.as_ref().filter(|holder| holder.still_holds(inode)) {
                Some(holder) => {
                    if let Some(command) = holder.command_now() {
                        known.command = command;
                    }
                    self.checks.push_back(inode);
                }
                None => *known = Known { command: std::mem::take(&mut known.command), ..Known::default() },
            }
        }
    }

    fn begin_search(&mut self, now: u64) {
        let due = |known: &Known| known.holder.is_none() && known.search_at <= now;
        let due: Vec<u32> = self.known.iter().filter(|(_, known)| due(known)).map(|(inode, _)| *inode).collect();
        if self.search.is_some() || due.is_empty() {
            return;
        }
        match Search::begin(due.iter().copied().collect()) {
            Ok(search) => self.search = Some((search, due)),
            Err(error) => {
                tracing::debug!(%error, "read /proc: no command names");
                self.give_up(now, &due);
            }
        }
    }

    fn step(&mut self, now: u64, most: usize) {
        let Some((search, _)) = &mut self.search else { return };
        let over = search.step(most, |inode, holder| {
            // Gone meanwhile: then nobody asks for its name.
            if let Some(known) = self.known.get_mut(&inode) {
                known.command.clone_from(&holder.command);
                known.holder = Some(holder);
                self.checks.push_back(inode);
            }
        });
        if over && let Some((_, searched)) = self.search.take() {
            self.searched_once = true;
            self.give_up(now, &searched);
        }
    }

    /// Those among `searched` without a holder have none to be seen.
    fn give_up(&mut self, now: u64, searched: &[u32]) {
        for inode in searched {
            if let Some(known) = self.known.get_mut(inode).filter(|known| known.holder.is_none()) {
                known.command.clear();
                known.pause = (known.pause * 2).clamp(PAUSE, LONGEST_PAUSE);
                known.search_at = now + known.pause;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    fn inode(listener: &TcpListener) -> u32 {
        u32::try_from(rustix_inode(listener)).unwrap()
    }

    fn rustix_inode(listener: &TcpListener) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let clone = listener.as_fd().try_clone_to_owned().unwrap();
        std::fs::File::from(clone).metadata().unwrap().ino()
    }

    fn our_name() -> String {
        std::fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned()
    }

    /// Ticks within the second that begins at `second` until the search is over.
    fn search(commands: &mut Commands, second: u64, wanted: &[u32]) {
        commands.tick(second * SECOND, || wanted.iter().copied());
        while commands.search.is_some() {
            commands.tick(second * SECOND + 1, || -> std::vec::IntoIter<u32> { panic!("asked for once a second") });
        }
    }

    #[test]
    fn a_name_is_found_and_searched_anew_once_its_holder_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = [inode(&listener)];
        let mut commands = Commands::new(10);
        search(&mut commands, 1, &wanted);
        assert_eq!(commands.of(wanted[0]), our_name());
        commands.tick(2 * SECOND, || wanted.into_iter());
        assert!(commands.search.is_none(), "a known holder is not searched again");

        // As far as the watcher knows the socket is there, but its descriptor is closed.
        drop(listener);
        search(&mut commands, 3, &wanted);
        assert_eq!(commands.of(wanted[0]), "");
        // The search ends in the first tick of the second or in a later one.
        let again = commands.known[&wanted[0]].search_at - PAUSE;
        assert!((3 * SECOND..=3 * SECOND + 1).contains(&again), "{again}");
    }

    #[test]
    fn a_fruitless_search_is_repeated_ever_more_rarely() {
        let mut commands = Commands::new(10);
        let (mut searches, mut pauses) = (0, Vec::new());
        for second in 1..=2000 {
            let before = commands.known.get(&u32::MAX).map_or(0, |known| known.search_at);
            search(&mut commands, second, &[u32::MAX]);
            let known = &commands.known[&u32::MAX];
            if known.search_at != before {
                searches += 1;
                pauses.push(known.pause / SECOND);
            }
        }
        assert_eq!(pauses[..8], [4, 8, 16, 32, 64, 128, 256, 256]);
        assert!(searches < 16, "{searches}");
    }

    #[test]
    fn what_is_not_wanted_any_more_is_forgotten() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut commands = Commands::new(10);
        search(&mut commands, 1, &[inode(&listener), 1]);
        search(&mut commands, 2, &[]);
        assert!(commands.known.is_empty());
        search(&mut commands, 3, &[]);
        assert!(commands.checks.is_empty());
    }
}
