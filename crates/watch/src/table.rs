//! The table on the terminal, as text: fits a screen, or is as long and wide as it needs to be. Pure.

use std::cmp::{Ordering, Reverse};
use std::fmt::Write;

use crate::opts::Sort;
use crate::snapshot::{Listener, Snapshot};

/// A terminal's usual width; no table is narrower by itself.
const COLUMNS: usize = 80;
/// What every row has besides the listener and the command: a blank, 3 numbers of 5, the fill, drops, rate and state.
const NUMBERS: usize = 43;
/// The longest command name there is.
const COMMAND: usize = kernel::socket_owners::COMMAND_BYTES;

/// Where the table goes.
#[derive(Debug, Clone, Copy)]
pub struct Screen<'a> {
    /// Characters per line; `None` for as many as it takes.
    pub columns: Option<usize>,
    /// Lines; `None` for as many as it takes.
    pub rows: Option<usize>,
    /// Order of the listeners.
    pub sort: Sort,
    /// Where metrics are, if anywhere.
    pub metrics: Option<&'a str>,
}

/// The lines of the table. Every number of "the interval" is one of the snapshot's window.
pub fn render(snapshot: &Snapshot, screen: &Screen<'_>) -> Vec<String> {
    let mut listeners: Vec<&Listener> = snapshot.listeners.iter().collect();
    listeners.sort_by(|a, b| order(screen.sort, a, b));
    let mut lines = head(snapshot, screen.metrics);
    let foot = foot(snapshot);
    let room = screen.rows.map_or(usize::MAX, |rows| rows.saturating_sub(lines.len() + 1 + foot.len()));
    // The line that says how many more there are takes the place of one.
    let shown = if listeners.len() <= room { listeners.len() } else { room.saturating_sub(1) };
    let widths = Widths::of(&listeners[..shown], screen.columns);
    lines.push(widths.heading());
    lines.extend(listeners[..shown].iter().map(|listener| widths.row(listener, snapshot.window_seconds())));
    if shown < listeners.len() {
        lines.push(format!("… {} more: a taller window, or --port, --address, --command", listeners.len() - shown));
    }
    lines.extend(foot);
    if let Some(rows) = screen.rows {
        lines.truncate(rows);
    }
    let columns = screen.columns.unwrap_or(usize::MAX);
    lines.into_iter().map(|line| line.trim_end().chars().take(columns).collect()).collect()
}

/// Text that a terminal shows and does not obey: control characters and what may look like something else become `?`.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' || c == '…' { c } else { '?' }).collect()
}

/// The namespace: who it is, its counters and its settings.
fn head(snapshot: &Snapshot, metrics: Option<&str>) -> Vec<String> {
    let namespace = match &snapshot.netns {
        Some(name) => format!("network namespace {}", printable(name)),
        None => "this network namespace".to_owned(),
    };
    let count = snapshot.listeners.len();
    let mut first = format!("{count} TCP listener{} of {namespace}", if count == 1 { "" } else { "s" });
    if let Some(metrics) = metrics {
        let _ = write!(first, "  metrics on {metrics}");
    }
    let seconds = snapshot.window_seconds();
    let (net, new) = (&snapshot.kernel.net, &snapshot.in_window);
    let sockets = snapshot.kernel.tcp_sockets.get("syn_recv");
    let counters = format!(
        "ListenOverflows {} (+{}/s)  ListenDrops {} (+{}/s)  syn_recv {}",
        net.listen_overflows,
        per_second(new.listen_overflows, seconds),
        net.listen_drops,
        per_second(new.listen_drops, seconds),
        sockets.map_or_else(|| "-".to_owned(), ToString::to_string),
    );
    let setting = |name: &str| snapshot.kernel.sysctls.get(name).map_or("-", String::as_str);
    let settings = format!(
        "somaxconn {}  tcp_max_syn_backlog {}  tcp_syncookies {}",
        setting("net.core.somaxconn"),
        setting("net.ipv4.tcp_max_syn_backlog"),
        setting("net.ipv4.tcp_syncookies"),
    );
    let mut lines = vec![first, counters, settings];
    let down = snapshot.sources_down();
    if down.contains(&"netns") {
        lines.push("the process or file that named this network namespace is gone".to_owned());
    } else if !down.is_empty() {
        lines.push(format!("cannot be read: {}", down.join(", ")));
    }
    lines.push(String::new());
    lines
}

fn foot(snapshot: &Snapshot) -> Vec<String> {
    match snapshot.omitted {
        0 => Vec::new(),
        omitted => vec![format!("… {omitted} left out by --max-listeners")],
    }
}

fn order(sort: Sort, a: &Listener, b: &Listener) -> Ordering {
    // a / (limit a + 1) against b / (limit b + 1), without rounding.
    let share = |one: &Listener, other: &Listener| u64::from(one.deepest) * (u64::from(other.limit) + 1);
    let fullest = || share(b, a).cmp(&share(a, b));
    let most_drops = || Reverse((a.dropped_in_window, a.drops)).cmp(&Reverse((b.dropped_in_window, b.drops)));
    match sort {
        // Sorting is stable, and a snapshot is in the order of addresses.
        Sort::Address => Ordering::Equal,
        Sort::Fill => fullest().then_with(most_drops),
        Sort::Drops => most_drops().then_with(fullest),
    }
}

/// Widths of the two columns of text.
#[derive(Debug)]
struct Widths {
    listener: usize,
    command: usize,
}

impl Widths {
    fn of(listeners: &[&Listener], columns: Option<usize>) -> Self {
        let longest = |text: fn(&Listener) -> &str| listeners.iter().map(|l| text(l).chars().count()).max();
        let command = longest(|listener| &listener.command).unwrap_or(0).clamp("COMMAND".len(), COMMAND);
        let label = longest(|listener| &listener.listener).unwrap_or(0);
        let columns = columns.unwrap_or_else(|| COLUMNS.max(label + command + NUMBERS));
        // On a wide screen the numbers stay near the names; on a narrow one, names of listeners stay legible.
        let listener = columns.saturating_sub(command + NUMBERS).min(label.max(COLUMNS - COMMAND - NUMBERS)).max(14);
        Self { listener, command }
    }

    fn heading(&self) -> String {
        self.cells("LISTENER", "COMMAND", ["DEPTH", "LIMIT", "MAX", "FILL", "DROPS", "DROPS/s"], "")
    }

    fn row(&self, listener: &Listener, seconds: f64) -> String {
        let numbers = [
            compact(listener.depth.into()),
            compact(listener.limit.into()),
            compact(listener.deepest.into()),
            fill(listener),
            listener.drops.map_or_else(|| "-".to_owned(), compact),
            per_second(listener.dropped_in_window, seconds),
        ];
        let command = if listener.command.is_empty() { "-" } else { &listener.command };
        let label = shorten(&listener.listener, self.listener);
        self.cells(&label, &printable(command), numbers.each_ref().map(String::as_str), state(listener))
    }

    /// Besides the listener and the command: [`NUMBERS`], a blank before every cell but the first.
    fn cells(&self, listener: &str, command: &str, numbers: [&str; 6], state: &str) -> String {
        let [depth, limit, deepest, fill, drops, rate] = numbers;
        format!(
            "{listener:<listener_width$} {command:<command_width$.command_width$} {depth:>5} {limit:>5} {deepest:>5} \
             {fill:>4} {drops:>5} {rate:>7} {state}",
            listener_width = self.listener,
            command_width = self.command,
        )
    }
}

/// `FULL` is now, `peak` within the interval, `drop` a drop without either.
fn state(listener: &Listener) -> &'static str {
    if listener.is_full() {
        "FULL"
    } else if listener.deepest > listener.limit {
        "peak"
    } else if listener.dropped_in_window > 0 {
        "drop"
    } else {
        ""
    }
}

/// The deepest of the interval in whole percent of what the queue holds, rounded down: 100 % is full.
fn fill(listener: &Listener) -> String {
    format!("{}%", u64::from(listener.deepest) * 100 / (u64::from(listener.limit) + 1))
}

/// A label in so many characters: what is cut out of an address, its port stays.
fn shorten(label: &str, width: usize) -> String {
    if label.len() <= width {
        return label.to_owned();
    }
    let (address, port) = label.split_at(label.find(']').or_else(|| label.rfind(':')).unwrap_or(label.len()));
    let kept = width.saturating_sub(port.len() + 1).min(address.len());
    format!("{}…{port}", &address[..kept])
}

/// At most five characters.
fn compact(number: u64) -> String {
    if number < 100_000 { number.to_string() } else { scaled(number as f64) }
}

/// 1000 or more as thousands, millions, …; rounded down, so that 999999 does not become 1000k.
fn scaled(mut value: f64) -> String {
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if value < 10.0 {
        format!("{:.1}{unit}", (value * 10.0).floor() / 10.0)
    } else {
        format!("{:.0}{unit}", value.floor())
    }
}

/// A rate, with one decimal where it is small.
fn per_second(count: u64, seconds: f64) -> String {
    let rate = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    if count == 0 {
        "0".to_owned()
    } else if rate < 9.95 {
        format!("{rate:.1}")
    } else if rate < 99_999.5 {
        format!("{rate:.0}")
    } else {
        scaled(rate)
    }
}

#[cfg(test)]
mod tests;
