//! What a recording comes to as arrivals and a server, and what had to be assumed for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use loadgen::opts::{Step, Trace};
use recording::arrivals::{Batch, Clients};
use recording::quiet::Cut;
use recording::{Arrivals, Ending, Recording, Service};
use study::format;
use telemetry::units::Span;

use crate::cli::ReplayArgs;
use crate::exit::Failure;

/// Sysctls of the recording that decide what becomes of a connection before it is accepted.
const ACCEPT_PATH: [&str; 7] = [
    SOMAXCONN,
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syn_retries",
    LINEAR_TIMEOUTS,
];
const SOMAXCONN: &str = "net.core.somaxconn";
const LINEAR_TIMEOUTS: &str = "net.ipv4.tcp_syn_linear_timeouts";

/// Unit of the instants of a recording.
const TICK: Duration = Duration::from_micros(1);

/// Looks are said to have been late from this share on.
const LATE: f64 = 0.05;

/// What is replayed.
#[derive(Debug)]
pub(super) struct Model<'a> {
    pub(super) file: &'a Path,
    pub(super) recording: &'a Recording,
    pub(super) arrivals: Arrivals,
    pub(super) service: Service,
    /// The instants of the arrivals, the first at 0.
    pub(super) trace: Trace,
    /// How long attempts are planned.
    pub(super) measure: Span,
    /// How long they wait.
    pub(super) deadline: Span,
    /// What the acceptor takes for each.
    pub(super) accept_delay: Span,
    /// When it stands still, as `server.stall` is written.
    pub(super) stall: Option<String>,
    /// What both namespaces are given.
    pub(super) sysctls: BTreeMap<String, String>,
    /// What the recording cannot know and is taken to be so, a clause each.
    pub(super) assumed: Vec<String>,
}

impl<'a> Model<'a> {
    /// The model of a recording.
    pub(super) fn of(recording: &'a Recording, args: &'a ReplayArgs) -> Result<Self, Failure> {
        let file = args.recording.as_path();
        let clients = Clients {
            patience_us: args.deadline.as_ns() / 1000,
            linear_timeouts: recording.sysctl(LINEAR_TIMEOUTS).unwrap_or(0),
        };
        let arrivals = Arrivals::of(recording, clients);
        let service = Service::of(recording);
        let cut = Cut::new(recording, args.measure_gap.map_or(u64::MAX, |gap| gap.as_ns() / 1000));
        let Some(first) = arrivals.first() else {
            return Err(Failure::Usage(format!(
                "{}: nothing arrived {}; record again while the listener is in use",
                file.display(),
                if args.from.is_zero() && args.length.is_none() {
                    "while it was recorded"
                } else {
                    "then (--from, --for)"
                }
            )));
        };
        let at = |instant: u64| cut.shorten(instant) - cut.shorten(first);
        let steps = steps(arrivals.batches.iter().map(|batch| Batch {
            began: at(batch.began),
            ended: at(batch.ended),
            ..*batch
        }));
        let trace = Trace::new(TICK.into(), steps).map_err(|error| {
            // What else is advised is for who writes a trace.
            let error = error.to_string();
            let bound = error.split(';').next().unwrap_or_default();
            Failure::Usage(format!("{}: {bound}; replay a part of it by --from and --for", file.display()))
        })?;
        // Long enough for the last one to be planned, in whole ms.
        let measure = Span::from_millis(trace.last_ns() / 1_000_000 + 1);
        let accept_delay = match (args.service_time, service.mean_us) {
            (Some(given), _) => given,
            // To a tenth of a µs.
            (None, Some(mean)) => Span::from(Duration::from_nanos(rounded(mean * 10.0) * 100)),
            (None, None) => Span::ZERO,
        };
        let stall = service.stall.map(|(from, to)| {
            let from = from.max(first);
            let us = |us: u64| Span::from(Duration::from_micros(us));
            format!("{}+{}", us(at(from)), us(at(to.max(from)) - at(from)))
        });
        let (sysctls, missing) = sysctls(recording);
        let mut model = Self {
            file,
            recording,
            arrivals,
            service,
            trace,
            measure,
            deadline: args.deadline,
            accept_delay,
            stall,
            sysctls,
            assumed: Vec::new(),
        };
        model.assumed = model.assumptions(args, &missing, cut.left_out());
        Ok(model)
    }

    /// The limit that is replayed as recorded.
    pub(super) fn limit(&self) -> u32 {
        self.recording.header.limit
    }

    /// The share of arrivals that never entered the queue.
    pub(super) fn lost_ratio(&self) -> f64 {
        self.arrivals.lost as f64 / self.arrivals.attempts as f64
    }

    fn assumptions(&self, args: &ReplayArgs, missing: &[&str], left_out: u64) -> Vec<String> {
        let Self { recording, arrivals, service, .. } = self;
        let header = &recording.header;
        let mut all = vec![format!(
            "a client waits for the server's first byte and gives up after {} (--deadline): {} of the packets were earlier \
             clients trying again",
            args.deadline, arrivals.retries
        )];
        all.push(match (args.service_time, service.mean_us) {
            (Some(given), _) => format!("one acceptor, {given} for each connection, as you say"),
            (None, Some(_)) => format!(
                "one acceptor, {} for each connection whatever the knobs are: what {} accepts took on average while others \
                 waited",
                self.accept_delay, service.accepts
            ),
            (None, None) => "one acceptor that takes no time: it was never seen to accept while others waited \
                             (--service-time says otherwise)"
                .to_owned(),
        });
        if let Some((from, to)) = service.stall {
            let (at, lasts) = (seconds(from), seconds(to - from));
            all.push(format!(
                "the {lasts} from {at} on in which nobody accepted would have come whatever the knobs are"
            ));
        }
        let set = |key: &str| args.set.iter().any(|set| set.key == key);
        all.push(format!(
            "the listener's own backlog argument is its limit, {}: a greater one cannot be seen behind somaxconn{}",
            header.limit,
            if set("sysctl.net.core.somaxconn") && !set("server.backlog") {
                ", so somaxconn alone changes nothing here unless it is less (--set server.backlog says what it is)"
            } else {
                ""
            }
        ));
        match header.other_listeners {
            0 => {}
            n => all.push(format!(
                "all that entered a queue of the namespace entered this one, and what it dropped is told from what others \
                 dropped by the instant alone; {} there beside it",
                if n == 1 { "another listener is".to_owned() } else { format!("{n} other listeners are") }
            )),
        }
        all.push(
            "arrivals are even between two looks; no delay but this machine's own lies between the ends".to_owned(),
        );
        if left_out > 0 {
            all.push(format!(
                "{} in which nothing came and nobody waited are left out (--measure-gap)",
                seconds(left_out)
            ));
        }
        let cookies: u64 = recording.samples.iter().map(|sample| sample.cookies).sum();
        if cookies > 0 {
            all.push(format!(
                "{cookies} SYNs were answered with cookies: of these clients one that speaks first may be counted more than \
                 once"
            ));
        }
        all.extend(self.again(args));
        if let Some((at, limit)) = recording.limits.first() {
            all.push(format!("the limit stayed {}, though it became {limit} after {}", header.limit, seconds(*at)));
        }
        for name in missing {
            all.push(format!("{name} is this kernel's, for it has none to be set"));
        }
        all.extend(self.endings());
        all
    }

    /// What may have been counted twice, or is not known of who would have tried again.
    fn again(&self, args: &ReplayArgs) -> Vec<String> {
        let Arrivals { last_acks, undecided, .. } = self.arrivals;
        let mut all = Vec::new();
        if last_acks > 0 {
            all.push(format!(
                "{last_acks} last ACKs were dropped: of these clients one that speaks first may be counted more than once, by \
                 its data"
            ));
        }
        if undecided > 0 {
            all.push(format!("{undecided} of the lost had not tried again when the recording ended"));
        }
        if !args.from.is_zero() {
            all.push("who was dropped before --from and tried again after it is taken for new".to_owned());
        }
        all
    }

    /// What is to be said of how the recording ended and how evenly it looked.
    fn endings(&self) -> Vec<String> {
        let mut all = Vec::new();
        match self.recording.end {
            None => all.push("the recording was cut off; what was written until then is all there was".to_owned()),
            Some(end) => {
                if end.end == Ending::Size {
                    all.push("nothing came after the recording had its size (--record-limit)".to_owned());
                }
                if end.late as f64 > LATE * end.looks as f64 {
                    all.push(format!(
                        "{} of {} looks were late: the machine was busy, and arrivals are known less closely",
                        end.late, end.looks
                    ));
                }
            }
        }
        all
    }
}

/// The recorded sysctls that a trial can be given, and those it cannot.
fn sysctls(recording: &Recording) -> (BTreeMap<String, String>, Vec<&'static str>) {
    let mut sysctls = BTreeMap::new();
    let mut missing = Vec::new();
    for name in ACCEPT_PATH {
        let Some(value) = recording.header.sysctls.get(name) else { continue };
        // Some namespaces hide this one though a trial's may show it.
        if name == SOMAXCONN || kernel::sysctl::exists(name) {
            sysctls.insert(name.to_owned(), value.clone());
        } else {
            missing.push(name);
        }
    }
    // The limit is as of listen(2); what was set later is not to cap it.
    let limit = u64::from(recording.header.limit);
    if recording.sysctl(SOMAXCONN).is_none_or(|somaxconn| somaxconn < limit) {
        sysctls.insert(SOMAXCONN.to_owned(), limit.to_string());
    }
    (sysctls, missing)
}

/// The attempts of each batch, evenly over its interval.
fn steps(batches: impl Iterator<Item = Batch>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut last = 0;
    for Batch { began, ended, count } in batches {
        let instants = count.min((ended - began).max(1));
        let (gap, each, more) = ((ended - began) / instants, count / instants, count % instants);
        let mut push = |gap: u64, count: u64, times: u64| {
            let (count, times) = (u32::try_from(count).unwrap_or(u32::MAX), u32::try_from(times).unwrap_or(u32::MAX));
            if count > 0 && times > 0 {
                steps.push(Step { gap, count, times });
            }
        };
        push(began - last, each + more, 1);
        push(gap, each, instants - 1);
        last = began + gap * (instants - 1);
    }
    steps
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of a recording, not negative")]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}

/// µs as people read them.
pub(super) fn seconds(us: u64) -> String {
    format::time(us as f64 / 1e6)
}

#[cfg(test)]
mod tests;
