//! The two streams: results go to stdout, everything about them to stderr. A reader that went away is no error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Is the terminal showing a screen of ours instead of what was there?
static SCREEN: AtomicBool = AtomicBool::new(false);

/// Does the cursor stand behind a line that replaces itself?
static PROGRESS: AtomicBool = AtomicBool::new(false);

/// A line (or several) of results.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A line about what goes on.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// What went wrong, on one line.
pub(crate) fn complain(message: &str) {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // What is quoted may be anything, and a terminal obeys control characters.
    let line = line.replace(char::is_control, "?");
    let _ = writeln!(io::stderr().lock(), "acceptbench: {line}");
}

/// A line that replaces itself on a terminal, and is not shown elsewhere.
pub(crate) fn progress(text: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        PROGRESS.store(!text.is_empty(), Ordering::Relaxed);
        let _ = write!(err, "\r\x1b[2K{text}").and_then(|()| err.flush());
    }
}

/// Removes the progress line.
pub(crate) fn clear_progress() {
    progress("");
}

/// Columns of the terminal that the progress line goes to; `None` when it is not shown.
pub(crate) fn error_columns() -> Option<usize> {
    let err = io::stderr();
    if !err.is_terminal() {
        return None;
    }
    let known = rustix::termios::tcgetwinsize(&err).ok().filter(|size| size.ws_col > 0);
    Some(known.map_or(80, |size| size.ws_col.into()))
}

/// Columns and rows of the terminal that results go to; `None` when they go elsewhere.
pub(crate) fn size() -> Option<(usize, usize)> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    // A terminal that does not know its size (a serial line) has the usual one.
    let known = rustix::termios::tcgetwinsize(&out).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    Some(known.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into())))
}

/// Shows these lines in place of everything on the terminal, which [`leave_screen`] brings back. Whether it could.
pub(crate) fn draw(lines: &[String]) -> bool {
    let mut text = String::new();
    if !SCREEN.swap(true, Ordering::Relaxed) {
        // The alternate screen, without a cursor.
        text.push_str("\x1b[?1049h\x1b[?25l");
    }
    text.push_str("\x1b[H");
    for (index, line) in lines.iter().enumerate() {
        // No line end after the last line: it would scroll a full screen.
        let _ = write!(text, "{}{line}\x1b[K", if index == 0 { "" } else { "\r\n" });
    }
    text.push_str("\x1b[J");
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Gives the terminal back as it was, a progress line left behind. Does nothing if nothing was drawn.
pub(crate) fn leave_screen() {
    if PROGRESS.swap(false, Ordering::Relaxed) {
        let _ = writeln!(io::stderr().lock());
    }
    if SCREEN.swap(false, Ordering::Relaxed) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}
