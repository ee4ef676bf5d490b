//! A claim, what was observed, and whether the two agree. Nothing here touches a socket.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a reader looks for a claim: the headings of the notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// connect(2).
    Connect,
    /// bind(2).
    Bind,
    /// listen(2), the two queues, overflow.
    Listen,
    /// accept(2).
    Accept,
    /// fork(2), execve(2), shared descriptors, concurrent servers.
    Fork,
    /// close(2) and shutdown(2).
    Close,
}

impl Group {
    /// Every group, in the order of the notes.
    pub const ALL: [Self; 6] = [Self::Connect, Self::Bind, Self::Listen, Self::Accept, Self::Fork, Self::Close];

    /// Its name in commands and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Bind => "bind",
            Self::Listen => "listen",
            Self::Accept => "accept",
            Self::Fork => "fork",
            Self::Close => "close",
        }
    }
}

/// How client and server are joined while a claim is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// One network namespace, over its loopback: both ends share the kernel's counters.
    Loopback,
    /// Two network namespaces joined by a veth pair: each end has counters of its own.
    Veth,
}

/// What measuring a claim takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Under a second, most of it work.
    Moment,
    /// About so many seconds, nearly all of it waiting: many run at once.
    Seconds(u32),
    /// Under a few seconds, of which the CPU time matters: runs when nothing else does.
    Alone,
    /// About so many seconds of the kernel's default time-outs: measured only on request (`--full`).
    Full(u32),
}

/// One sentence that a kernel makes true or false.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// `group.what-it-is-about`, in kebab-case.
    pub name: &'static str,
    /// Where it stands.
    pub group: Group,
    /// Numbers of the notes that say so; empty when the claim is this project's own.
    pub notes: &'static [&'static str],
    /// Rows of the measured facts it covers (see `facts`).
    pub facts: &'static [&'static str],
    /// The claim, one sentence.
    pub says: &'static str,
    /// Why the kernel does what it does: the mechanism, with function or document.
    pub why: &'static str,
    /// How the ends are joined.
    pub ends: Ends,
    /// What it takes.
    pub takes: Takes,
    /// The figures that make the sentence true.
    pub expects: &'static [Expect],
    /// What Linux 6.18 makes of it: tests assert it, and a reader of another kernel sees what changed.
    pub known: Verdict,
    /// Measures.
    pub measure: fn(&mut crate::scene::Scene) -> Result<Observed, ProbeError>,
}

/// One figure and what it must be.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// Name of a figure of [`Observed`], or `server.ListenOverflows`, `client.ActiveOpens`: a kernel counter's growth
    /// while the claim was measured (over loopback both ends are one).
    pub figure: &'static str,
    /// What it must be.
    pub is: Is,
}

/// What a figure must be.
#[derive(Clone, Copy, Debug)]
pub enum Is {
    /// This number.
    Exactly(f64),
    /// From the first to the second.
    Between(f64, f64),
    /// This text.
    Text(&'static str),
}

impl fmt::Display for Is {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(number) => write!(f, "{number}"),
            Self::Between(low, high) => write!(f, "{low} to {high}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Figure {
    /// A count or a time in seconds.
    Number(f64),
    /// An errno name, a state, a list.
    Text(String),
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{}", (number * 1e3).round() / 1e3),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// What one measurement came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Observed {
    /// What this kernel did, one sentence. The same in every run: times rounded to what the kernel promises.
    pub did: String,
    /// Figures by name.
    pub figures: BTreeMap<String, Figure>,
    /// Growth of the kernel's counters at the server's end, by the kernel's name; only what moved.
    pub server: BTreeMap<String, u64>,
    /// The same at the client's end; over loopback the same counters.
    pub client: BTreeMap<String, u64>,
}

impl Observed {
    /// An observation without figures yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a count, or a time in seconds.
    #[must_use]
    pub fn number(mut self, name: &str, value: impl Into<f64>) -> Self {
        self.figures.insert(name.to_owned(), Figure::Number(value.into()));
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, name: &str, value: impl Into<String>) -> Self {
        self.figures.insert(name.to_owned(), Figure::Text(value.into()));
        self
    }

    /// Says what the kernel did.
    #[must_use]
    pub fn did(mut self, sentence: impl Into<String>) -> Self {
        self.did = sentence.into();
        self
    }

    /// A figure or a counter by the name an [`Expect`] gives it. A counter that did not move is 0.
    pub fn figure(&self, name: &str) -> Option<Figure> {
        let counter = |counters: &BTreeMap<String, u64>, name: &str| {
            Some(Figure::Number(counters.get(name).copied().unwrap_or(0) as f64))
        };
        match name.split_once('.') {
            Some(("server", name)) => counter(&self.server, name),
            Some(("client", name)) => counter(&self.client, name),
            _ => self.figures.get(name).cloned(),
        }
    }
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// This kernel does what the claim says.
    Holds,
    /// It does something else.
    Differs,
    /// It could not be observed here.
    NotObserved,
}

impl Verdict {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Differs => "differs",
            Self::NotObserved => "not observed",
        }
    }
}

/// An expectation that was not met, in words.
pub fn unmet(expect: &Expect, observed: &Observed) -> Option<String> {
    let figure = observed.figure(expect.figure);
    let met = match (expect.is, &figure) {
        (Is::Exactly(wanted), Some(Figure::Number(number))) => (wanted - number).abs() < 1e-9,
        (Is::Between(low, high), Some(Figure::Number(number))) => (low..=high).contains(number),
        (Is::Text(wanted), Some(Figure::Text(text))) => wanted == text,
        _ => false,
    };
    let was = figure.map_or_else(|| "absent".to_owned(), |figure| figure.to_string());
    (!met).then(|| format!("{}: {was}, not {}", expect.figure, expect.is))
}

/// Holds when every figure is what it must be.
pub fn judge(expects: &[Expect], observed: &Observed) -> Verdict {
    if expects.iter().all(|expect| unmet(expect, observed).is_none()) { Verdict::Holds } else { Verdict::Differs }
}

/// Why a claim was not measured.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// This machine or user cannot show it. Not an error of anybody.
    #[error("{0}")]
    CannotHere(String),
    /// A step failed that the claim is not about.
    #[error("{doing}: {source}")]
    Io {
        /// The step.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something else went wrong.
    #[error("{0}")]
    Failed(String),
}

/// Names the step that an I/O error broke.
pub trait Doing<T> {
    /// `doing` begins with a verb: "listen on port 80".
    ///
    /// # Errors
    /// The same error, with the step.
    fn doing(self, doing: &str) -> Result<T, ProbeError>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &str) -> Result<T, ProbeError> {
        self.map_err(|source| ProbeError::Io { doing: doing.to_owned(), source: source.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observed {
        let mut observed = Observed::new().number("queued", 129).text("error", "ECONNREFUSED");
        observed.server.insert("ListenOverflows".to_owned(), 3);
        observed
    }

    #[test]
    fn a_claim_holds_when_every_figure_does() {
        let right = [
            Expect { figure: "queued", is: Is::Exactly(129.0) },
            Expect { figure: "error", is: Is::Text("ECONNREFUSED") },
            Expect { figure: "server.ListenOverflows", is: Is::Between(1.0, 3.0) },
            Expect { figure: "server.ListenDrops", is: Is::Exactly(0.0) },
        ];
        assert_eq!(judge(&right, &observed()), Verdict::Holds);
    }

    #[test]
    fn one_wrong_or_missing_figure_makes_it_differ() {
        for wrong in [
            Expect { figure: "queued", is: Is::Exactly(128.0) },
            Expect { figure: "queued", is: Is::Text("129") },
            Expect { figure: "error", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "server.ListenOverflows", is: Is::Between(4.0, 9.0) },
            Expect { figure: "absent", is: Is::Exactly(0.0) },
        ] {
            assert_eq!(judge(&[wrong], &observed()), Verdict::Differs, "{wrong:?}");
        }
        let wrong = Expect { figure: "queued", is: Is::Exactly(128.0) };
        assert_eq!(unmet(&wrong, &observed()).as_deref(), Some("queued: 129, not 128"));
    }
}
