//! The ledger of a run.

use super::EXPERIMENT;
use crate::model::{Panel, Unit};
use crate::query::metric::runner;
use crate::query::{rate, sel};

/// Whether the books of the last trial balance.
pub(in crate::boards) fn residuals() -> Panel {
    Panel::time_series(
        "Residual of each line",
        Unit::Short,
        "While acceptbench run is scraped: what does not balance in each line of the last trial's \
         ledger; such a trial does not count. Somebody miscounted, or another program was in the \
         namespace. With tcp_syncookies 0 line 5 counts phantoms a second time; once a cookie was \
         sent it cannot. Bad: anything but 0.",
    )
    .target(sel(&runner::RESIDUAL, ""), "line {{line}} · {{instance}}")
    .leads_to(EXPERIMENT)
}

/// Connections that only the ledger knows.
pub(in crate::boards) fn terms() -> Panel {
    Panel::time_series(
        "Named terms of the ledger",
        Unit::PerSecond,
        "Connections of finished trials that only the ledger knows. phantoms: connected for the \
         client, never in the accept queue (backlog, somaxconn, tcp_syncookies). raced: counted by \
         the kernel and discarded (confirm none or reply). lost: accepted by a process that was \
         killed before it counted them (workers processes), at most one per kill but for io-uring. \
         ghosts: accepted again from stray data with a valid cookie (tcp_syncookies). Bad: phantoms \
         where you expected none; any lost without a kill.",
    )
    .target(rate(&runner::PHANTOMS, ""), "phantoms · {{instance}}")
    .target(rate(&runner::RACED, ""), "raced · {{instance}}")
    .target(rate(&runner::LOST, ""), "lost · {{instance}}")
    .target(rate(&runner::GHOSTS, ""), "ghosts · {{instance}}")
    .leads_to(EXPERIMENT)
}
