//! Who is told what, and when: a line that replaces itself on a terminal, a line now and then in a journal, JSON lines for
//! programs. What they say is in [`live`], [`summary`] and [`json`](super::json).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use loadgen::{Observer, Plan, Snapshot};
use study::format;
use telemetry::Warning;
use telemetry::namespace::Detail;

use super::json::{End, Event, Progress, Start};
use super::live::{self, Recent};
use super::summary;
use crate::exit::End as Exit;
use crate::pages::shortened;
use crate::terminal::{self, note, say};

/// Columns of a line at most, however wide the terminal is.
const WIDTH: usize = 80;

/// How it is shown while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// One line on the terminal, in place.
    Live,
    /// A line now and then.
    Journal,
    /// A JSON document a line.
    Json,
}

impl How {
    /// How often, and how far each looks back.
    fn rhythm(self) -> (Duration, Duration) {
        let second = Duration::from_secs(1);
        match self {
            Self::Live => (Duration::from_millis(250), second),
            Self::Journal => (10 * second, 10 * second),
            Self::Json => (second, second),
        }
    }
}

/// Shows a load generator from its start to its end.
#[derive(Debug)]
pub(super) struct Show {
    how: How,
    recent: Recent,
    next: Option<Instant>,
    /// Warnings shown.
    warned: usize,
}

impl Show {
    /// For people on a terminal or with a journal, or for programs.
    pub(super) fn new(json: bool) -> Self {
        let how = match (json, terminal::error_columns()) {
            (true, _) => How::Json,
            (false, Some(_)) => How::Live,
            (false, None) => How::Journal,
        };
        Self { how, recent: Recent::new(how.rhythm().1), next: None, warned: 0 }
    }

    /// Words for people: among the results, unless those are for programs.
    fn words(&self, text: &str) {
        if self.how == How::Json { note(text) } else { say(text) }
    }

    /// The settings, before anything is started.
    pub(super) fn plan(&mut self, plan: &Plan) {
        let arguments: Vec<String> = plan.opts().to_args().iter().map(|argument| shortened(argument)).collect();
        self.words(format!("acceptbench loadgen {}", arguments.join(" ")).trim_end());
        self.warn(plan.warnings());
    }

    /// Shows what has not been shown of warnings that only ever become more.
    fn warn(&mut self, warnings: &[Warning]) {
        for warning in warnings.iter().skip(self.warned) {
            note(&format!("warning: {warning}"));
        }
        self.warned = warnings.len();
    }

    /// Everything stands ready.
    pub(super) fn start(&mut self, observer: &Observer, metrics: Option<SocketAddr>) {
        let books = observer.snapshot(Detail::Own);
        self.warn(&books.warnings);
        let workers = if books.workers == 1 { "1 worker".to_owned() } else { format!("{} workers", books.workers) };
        self.words(&format!("connecting to {}  {workers}, engine {}", books.target, books.engine));
        if let Some(address) = metrics {
            self.words(&format!("metrics on http://{address}/metrics"));
        }
        if self.how == How::Json {
            say(&Event::Start(Start::new(&books, metrics)).line());
        }
    }

    /// Says how it goes, if it is time to.
    pub(super) fn tick(&mut self, observer: &Observer) {
        let (every, _) = self.how.rhythm();
        let now = Instant::now();
        match self.next {
            // Nothing has happened yet: only remembered, so that the first line has something to look back to.
            None => {
                self.recent.add(observer.snapshot(Detail::Own));
                self.next = Some(now + every);
            }
            Some(next) if now >= next => {
                self.report(observer.snapshot(Detail::Own));
                // After a standstill the rhythm begins anew: nobody needs what was missed.
                self.next = Some((next + every).max(now + every / 2));
            }
            Some(_) => {}
        }
    }

    fn report(&mut self, books: Snapshot) {
        let (before, now) = self.recent.add(books);
        match self.how {
            How::Live => {
                let columns = terminal::error_columns().unwrap_or(WIDTH).min(WIDTH);
                // The last column stays free: some terminals begin a new line as soon as it is filled.
                terminal::progress(&live::line(before, now, columns.saturating_sub(1)));
            }
            // What is left of it says the summary, which follows within a deadline.
            How::Journal if live::is_over(now) => {}
            How::Journal => {
                let since = format!("{} ", format::time(summary::seconds(now).round()));
                note(&format!("{since:>7}{}", live::line(before, now, WIDTH - 7)));
            }
            How::Json => say(&Event::Progress(Progress::new(before, now)).line()),
        }
    }

    /// What came of it.
    pub(super) fn end(&self, books: &Snapshot, exit: Exit) {
        if self.how == How::Live {
            terminal::clear_progress();
        }
        for line in summary::lines(books) {
            self.words(&line);
        }
        for warning in summary::warnings(&books.limits) {
            note(&warning);
        }
        if self.how == How::Json {
            say(&Event::End(Box::new(End::new(books, exit))).line());
        }
    }
}
