//! What a server says of itself at its start and at its end: effective values, as the kernel has them, in 80 columns.
//! Listeners that differ in nothing but their port are one line; counts that are usually 0 are left out while they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use server::opts::{Cpus, Handler, Opts, Reuseport, Scheduling, Workers};
use server::{ListenerCounts, ListenerOptions, Snapshot};

/// Columns of a line.
const WIDTH: usize = 80;

/// Process ids, and lines of listeners, shown at most.
const SHOWN: usize = 8;

/// Listening sockets of one address, or of adjacent ports, that are alike.
#[derive(Debug)]
struct Group<'a> {
    first: SocketAddr,
    last: u16,
    /// Sockets on each port.
    sockets: usize,
    cpus: Vec<usize>,
    like: &'a ListenerCounts,
}

/// What the lines of the start need to know beside the books.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// CPUs that this process may run on.
    pub(super) allowed: Vec<usize>,
    /// `net.ipv4.tcp_fastopen`, where it can be read.
    pub(super) fastopen: Option<u32>,
}

impl Machine {
    /// This one, in this thread's network namespace.
    pub(super) fn here() -> Self {
        let fastopen = kernel::sysctl::read("net.ipv4.tcp_fastopen").ok().and_then(|text| text.trim().parse().ok());
        Self { allowed: kernel::process::allowed_cpus().unwrap_or_default(), fastopen }
    }
}

/// The lines of the start.
pub(super) fn start(books: &Snapshot, machine: &Machine) -> Vec<String> {
    let opts = &books.opts;
    let mut lines = vec![format!("acceptbench server {}", opts.to_args().join(" ")).trim_end().to_owned()];
    let groups = groups(&books.listeners);
    for group in groups.iter().take(SHOWN) {
        let range = if group.last == group.first.port() { String::new() } else { format!("-{}", group.last) };
        let first = format!("listening on {}{range}", group.first);
        lines.extend(flow(&[first, facts(group, opts, machine.fastopen).join(", ")]));
    }
    if groups.len() > SHOWN {
        lines.push(format!("and on {} more", groups.len() - SHOWN));
    }
    lines.extend(flow(&[acceptors(books, &machine.allowed)]));
    lines
}

/// The lines of the end.
pub(super) fn end(books: &Snapshot) -> Vec<String> {
    let total = |count: fn(&server::AcceptorCounts) -> u64| books.total(count);
    let mut first = vec![format!("accepted {}", books.accepted()), format!("greeted {}", total(|a| a.greetings))];
    first.extend(named("replied", total(|a| a.replies)));
    let closed = [
        named("server", total(|a| a.closed_by_server)),
        named("client", total(|a| a.closed_by_peer)),
        named("reset", total(|a| a.closed_by_reset)),
        named("error", total(|a| a.closed_on_error)),
        named("kill", total(|a| a.closed_by_kill)),
    ];
    first.extend(listed("closed by", closed.into_iter().flatten()));
    first.extend(named("dead on accept", total(|a| a.dead_on_accept)));
    first.extend(named("late handshakes", total(|a| a.late_handshakes)));
    let mut errors = BTreeMap::<&str, u64>::new();
    for (errno, count) in books.acceptors.iter().flat_map(|acceptor| &acceptor.errors) {
        *errors.entry(errno).or_default() += count;
    }
    first.extend(listed("accept errors", errors.into_iter().filter_map(|(errno, count)| named(errno, count))));
    first.extend(named("pauses", total(|a| a.pauses)));
    first.extend(named("children forked", total(|a| a.forks)));
    let died = total(|a| a.deaths);
    first.extend((died > 0).then(|| format!("acceptors died {died}, replaced {}", total(|a| a.restarts))));
    first.extend(named("lost with them at most", total(|a| a.lost_at_most)));
    first.extend(named("left in the queue", books.left()));
    first.extend(named("destroyed in the queue", books.destroyed()));
    let deepest = books.listeners.iter().max_by_key(|listener| listener.deepest);
    let deepest = deepest.map(|l| format!("deepest queue {} of {}", l.deepest, u64::from(l.limit) + 1));
    let net = &books.kernel.net;
    let counted = [
        Some(format!("overflows {}", net.listen_overflows)),
        Some(format!("drops {}", net.listen_drops)),
        named("cookies sent", net.syncookies_sent),
    ];
    let namespace = listed("this namespace since it began:", counted.into_iter().flatten());
    let second: Vec<String> = deepest.into_iter().chain(namespace).collect();
    [flow(&first), flow(&second)].concat()
}

/// A count with its name, unless it is 0.
fn named(name: &str, count: u64) -> Option<String> {
    (count > 0).then(|| format!("{name} {count}"))
}

/// A heading and what stands under it, unless that is nothing.
fn listed(heading: &str, items: impl Iterator<Item = String>) -> Option<String> {
    let items: Vec<String> = items.collect();
    (!items.is_empty()).then(|| format!("{heading} {}", items.join(", ")))
}

/// Items two blanks apart; what does not fit goes on, indented, in the next line. A long item is broken behind a comma, or
/// between words if it must be.
fn flow(items: &[String]) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut put = |text: &str, gap: &str| {
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(text);
        } else if line.chars().count() + gap.len() + text.chars().count() <= WIDTH {
            line.push_str(gap);
            line.push_str(text);
        } else {
            lines.push(format!("  {text}"));
        }
    };
    for item in items {
        let fits = |text: &str| text.chars().count() + 2 <= WIDTH;
        let pieces: Vec<&str> = if fits(item) { vec![item] } else { item.split_inclusive(", ").collect() };
        let mut gap = "  ";
        for piece in pieces.into_iter().map(str::trim_end) {
            let words: Vec<&str> = if fits(piece) { vec![piece] } else { piece.split(' ').collect() };
            for word in words {
                put(word, gap);
                gap = " ";
            }
        }
    }
    lines
}

/// Equal listeners together, in the order of their first.
fn groups(listeners: &[ListenerCounts]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for listener in listeners {
        let cpu = listener.options.incoming_cpu.map(|cpu| cpu as usize);
        match groups.iter_mut().find(|group| group.first == listener.address && alike(group.like, listener)) {
            Some(group) => {
                group.sockets += 1;
                group.cpus.extend(cpu);
            }
            None => groups.push(Group {
                first: listener.address,
                last: listener.address.port(),
                sockets: 1,
                cpus: cpu.into_iter().collect(),
                like: listener,
            }),
        }
    }
    groups.into_iter().fold(Vec::new(), |mut merged: Vec<Group<'_>>, group| {
        match merged.last_mut() {
            Some(last)
                if last.first.ip() == group.first.ip()
                    && last.last.checked_add(1) == Some(group.first.port())
                    && (last.sockets, &last.cpus) == (group.sockets, &group.cpus)
                    && alike(last.like, group.like) =>
            {
                last.last = group.last;
            }
            _ => merged.push(group),
        }
        merged
    })
}

/// Do they differ in nothing but their address and CPU?
fn alike(one: &ListenerCounts, other: &ListenerCounts) -> bool {
    let options = |listener: &ListenerCounts| ListenerOptions { incoming_cpu: None, ..listener.options.clone() };
    (one.backlog_requested, one.limit) == (other.backlog_requested, other.limit) && options(one) == options(other)
}

/// What the kernel made of a listener. `fastopen` is the sysctl, where it can be read.
fn facts(group: &Group<'_>, opts: &Opts, fastopen: Option<u32>) -> Vec<String> {
    let ListenerCounts { backlog_requested: backlog, limit, options, .. } = group.like;
    let mut facts: Vec<String> = backlog.map(|backlog| format!("backlog {backlog}")).into_iter().collect();
    facts.push(format!("queue limit {limit} (holds {})", u64::from(*limit) + 1));
    if options.reuseport {
        facts.push(format!("reuseport {}: {}", opts.reuseport, plural(group.sockets, "socket")));
    }
    if opts.reuseport == Reuseport::IncomingCpu && !group.cpus.is_empty() {
        facts.push(format!("SO_INCOMING_CPU {}", set(&group.cpus)));
    }
    let asked = opts.defer_accept.as_ns() / 1_000_000_000;
    if options.defer_accept_seconds > 0 || asked > 0 {
        let seconds = u64::from(options.defer_accept_seconds);
        facts.push(format!("defer-accept {seconds} s{}", unlike(seconds, asked, " s")));
    }
    if options.fastopen > 0 || opts.fastopen > 0 {
        let (is, asked) = (u64::from(options.fastopen), u64::from(opts.fastopen));
        facts.push(format!("fastopen {is}{}", unlike(is, asked, "")));
        if let Some(bits) = fastopen.filter(|bits| bits & 2 == 0) {
            facts.push(format!("without effect: tcp_fastopen {bits} lacks 0x2"));
        }
    }
    if options.v6only {
        facts.push("v6only".to_owned());
    }
    if !options.reuseaddr {
        facts.push("no reuseaddr".to_owned());
    }
    facts
}

/// Says what was asked for where the kernel made something else of it.
fn unlike(is: u64, asked: u64, unit: &str) -> String {
    if is == asked { String::new() } else { format!(" (asked for {asked}{unit})") }
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Who accepts, how, and where.
fn acceptors(books: &Snapshot, allowed: &[usize]) -> String {
    let opts = &books.opts;
    let count = books.acceptors.len();
    let what = match (opts.workers, count) {
        (Workers::Threads, 1) => "thread".to_owned(),
        (Workers::Threads, _) => "threads".to_owned(),
        (Workers::Processes, 1) => format!("process{}", pids(books)),
        (Workers::Processes, _) => format!("processes{}", pids(books)),
    };
    let mut facts = vec![format!("{}: {what}", plural(count, "acceptor")), format!("engine {}", opts.engine)];
    let cpus = match &opts.cpus {
        Cpus::Off => None,
        Cpus::Auto => Some(allowed),
        Cpus::List(list) => Some(list.as_slice()),
    };
    // The first acceptors take the first of them.
    facts.extend(cpus.map(|cpus| format!("CPUs {}", set(&cpus[..cpus.len().min(count)]))));
    if opts.scheduling == Scheduling::Batch {
        facts.push("SCHED_BATCH".to_owned());
    }
    if opts.handler == Handler::Fork {
        facts.push(format!("a child per connection (at most {} each)", opts.max_children));
    }
    facts.join(", ")
}

/// The process ids of acceptors, with a leading blank, as far as they are known.
fn pids(books: &Snapshot) -> String {
    let pids: Vec<String> =
        books.acceptors.iter().filter(|a| a.pid > 0).map(|acceptor| format!(" {}", acceptor.pid)).collect();
    match pids.get(..SHOWN) {
        Some(shown) if pids.len() > SHOWN => format!("{} and {} more", shown.concat(), pids.len() - SHOWN),
        _ => pids.concat(),
    }
}

/// CPUs in order, none twice, neighbours as a range: `0-3,6`.
fn set(cpus: &[usize]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in sorted {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let text = |(first, last): &(usize, usize)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
