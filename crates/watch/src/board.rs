//! The listeners shown, and what was seen of each since it came. Pure: what a look found and the time are arguments.
//!
//! A listener is its address and inode. A dump is not one instant, and while listeners come and go it may miss one that
//! stays (`net/ipv4/inet_diag.c` walks a table that others change), so a missing one is hidden at once but forgotten only
//! after a few looks, or when a newcomer takes its address.

use std::collections::HashMap;
use std::net::SocketAddr;

use kernel::sock_diag::ListenerEntry;
use telemetry::listeners::Widened;

use crate::commands::Commands;
use crate::filter::Filter;
use crate::numbers::{Numbers, label};
use crate::snapshot::Listener;

/// Looks that may miss a listener before it is forgotten.
const MISSES: u64 = 3;

/// Who asks: each has a window of its own, which begins when it asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Prometheus.
    Scrape,
    /// The table on the terminal.
    Table,
}

/// Address and inode.
type Identity = (SocketAddr, u32);

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    deepest: u32,
    /// Drops counted before it began.
    drops: u64,
}

/// One listener.
#[derive(Debug)]
struct Slot {
    number: u32,
    label: String,
    uid: u32,
    depth: u32,
    limit: u32,
    full_ns: u64,
    drops: Option<Widened>,
    windows: [Window; 2],
    /// The last look that saw it.
    seen: u64,
}

impl Slot {
    fn new(entry: &ListenerEntry, number: u32, look: u64) -> Self {
        let mut slot = Self {
            number,
            label: label(entry.local, number),
            uid: entry.uid,
            depth: 0,
            limit: 0,
            full_ns: 0,
            drops: None,
            windows: [Window::default(); 2],
            seen: look,
        };
        // How long it has been full already nobody knows.
        slot.update(entry, 0);
        for asker in [Asker::Scrape, Asker::Table] {
            slot.begin_window(asker);
        }
        slot
    }

    fn update(&mut self, entry: &ListenerEntry, elapsed_ns: u64) {
        (self.depth, self.limit) = (entry.depth, entry.limit);
        if entry.depth > entry.limit {
            self.full_ns += elapsed_ns;
        }
        if let Some(raw) = entry.drops {
            self.drops.get_or_insert_default().update(raw);
        }
        for window in &mut self.windows {
            window.deepest = window.deepest.max(entry.depth);
        }
    }

    fn dropped(&self) -> u64 {
        self.drops.map_or(0, |drops| drops.total())
    }

    fn begin_window(&mut self, asker: Asker) {
        self.windows[asker as usize] = Window { deepest: self.depth, drops: self.dropped() };
    }

    fn show(&self, (address, inode): Identity, asker: Asker, command: &str) -> Listener {
        let window = self.windows[asker as usize];
        Listener {
            listener: self.label.clone(),
            address,
            inode,
            uid: self.uid,
            command: command.to_owned(),
            depth: self.depth,
            limit: self.limit,
            deepest: window.deepest,
            full_ns: self.full_ns,
            drops: self.drops.map(|drops| drops.total()),
            dropped_in_window: self.dropped().saturating_sub(window.drops),
        }
    }
}

/// All listeners shown.
#[derive(Debug)]
pub(crate) struct Board {
    slots: HashMap<Identity, Slot>,
    numbers: Numbers,
    filter: Filter,
    most: usize,
    looks: u64,
    last_look_ns: u64,
    omitted: usize,
    /// Entries of this look that pass the filters and are not shown; kept for its memory.
    newcomers: Vec<usize>,
}

impl Board {
    pub(crate) fn new(filter: Filter, most: usize) -> Self {
        Self {
            slots: HashMap::new(),
            numbers: Numbers::default(),
            filter,
            most,
            looks: 0,
            last_look_ns: 0,
            omitted: 0,
            newcomers: Vec::new(),
        }
    }

    /// Looks taken so far.
    pub(crate) fn looks(&self) -> u64 {
        self.looks
    }

    /// Listeners that pass the filters and are not shown.
    pub(crate) fn omitted(&self) -> u64 {
        self.omitted as u64
    }

    /// Takes in what a look found.
    pub(crate) fn look(&mut self, entries: &[ListenerEntry], now_ns: u64, commands: &Commands) {
        self.looks += 1;
        let elapsed = if self.looks == 1 { 0 } else { now_ns.saturating_sub(self.last_look_ns) };
        self.last_look_ns = now_ns;
        self.newcomers.clear();
        let mut seen = 0;
        for (index, entry) in entries.iter().enumerate() {
            if self.filter.wants_command() && !self.filter.passes_command(commands.of(entry.inode)) {
                continue;
            }
            match self.slots.get_mut(&(entry.local, entry.inode)) {
                // Seen twice by one dump.
                Some(slot) if slot.seen == self.looks => {}
                Some(slot) => {
                    slot.update(entry, elapsed);
                    slot.seen = self.looks;
                    seen += 1;
                }
                None if self.filter.passes_address(entry.local) => self.newcomers.push(index),
                None => {}
            }
        }
        if seen < self.slots.len() {
            self.forget_the_missing(entries);
        }
        self.admit(entries);
    }

    /// Forgets listeners that were missed too often, or whose address a newcomer has.
    fn forget_the_missing(&mut self, entries: &[ListenerEntry]) {
        let (looks, newcomers, numbers) = (self.looks, &self.newcomers, &mut self.numbers);
        let replaced = |address| newcomers.iter().any(|index| entries[*index].local == address);
        let wants_command = self.filter.wants_command();
        self.slots.retain(|(address, _), slot| {
            let missed = looks - slot.seen;
            let stays = missed == 0 || (missed < MISSES && !wants_command && !replaced(*address));
            if !stays {
                numbers.give_back(*address, slot.number);
            }
            stays
        });
    }

    /// Shows as many newcomers as there is room for, lower addresses, ports and inodes first.
    fn admit(&mut self, entries: &[ListenerEntry]) {
        let room = self.most.saturating_sub(self.slots.len());
        if room > 0 && !self.newcomers.is_empty() {
            let identity = |index: &usize| (entries[*index].local, entries[*index].inode);
            self.newcomers.sort_unstable_by_key(identity);
            self.newcomers.dedup_by_key(|index| identity(index));
        }
        self.omitted = self.newcomers.len().saturating_sub(room);
        for index in self.newcomers.drain(..).take(room) {
            let entry = &entries[index];
            let number = self.numbers.take(entry.local);
            self.slots.insert((entry.local, entry.inode), Slot::new(entry, number, self.looks));
        }
    }

    /// The inodes whose holders are to be known: of the listeners shown, or, when the name decides, of all that could be.
    pub(crate) fn inodes<'a>(&'a self, entries: &'a [ListenerEntry]) -> Box<dyn Iterator<Item = u32> + 'a> {
        if self.filter.wants_command() {
            let candidates = entries.iter().filter(|entry| self.filter.passes_address(entry.local));
            Box::new(candidates.map(|entry| entry.inode))
        } else {
            Box::new(self.slots.keys().map(|(_, inode)| *inode))
        }
    }

    /// The listeners that the last look saw, by address and number.
    pub(crate) fn listeners(&self, asker: Asker, commands: &Commands) -> Vec<Listener> {
        let mut seen: Vec<_> = self.slots.iter().filter(|(_, slot)| slot.seen == self.looks).collect();
        seen.sort_unstable_by_key(|((address, _), slot)| (*address, slot.number));
        seen.into_iter().map(|(identity, slot)| slot.show(*identity, asker, commands.of(identity.1))).collect()
    }

    /// Begins a new window of `asker`, with what is in the queues now.
    pub(crate) fn begin_window(&mut self, asker: Asker) {
        for slot in self.slots.values_mut() {
            slot.begin_window(asker);
        }
    }
}

#[cfg(test)]
mod tests;
