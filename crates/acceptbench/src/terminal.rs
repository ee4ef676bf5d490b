//! The two streams: results go to stdout, everything about them to stderr. A reader that went away is no error.

use std::io::{self, IsTerminal, Write};

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
    let _ = writeln!(io::stderr().lock(), "acceptbench: {line}");
}

/// A line that replaces itself on a terminal, and is not shown elsewhere.
pub(crate) fn progress(text: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[2K{text}").and_then(|()| err.flush());
    }
}

/// Removes the progress line.
pub(crate) fn clear_progress() {
    progress("");
}
