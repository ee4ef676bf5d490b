//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends the program at once.

use kernel::process::Signals;
use rustix::process::Signal;
use telemetry::Stop;

use crate::exit::Failure;
use crate::terminal;

/// Takes over both signals. Call it before any other thread is started: they inherit the blocked mask.
pub(crate) fn watch() -> Result<Stop, Failure> {
    let signals = Signals::block_and_watch(&[Signal::INT, Signal::TERM]).map_err(Failure::requirement)?;
    let stop = Stop::new();
    let requested = stop.clone();
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.wait().is_ok() {
            requested.request();
        }
        if signals.wait().is_ok() {
            terminal::leave_screen();
            std::process::exit(130);
        }
    });
    thread.map_err(Failure::requirement)?;
    Ok(stop)
}
