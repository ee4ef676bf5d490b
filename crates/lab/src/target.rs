//! The `[target]` table: a program that is not ours in the server's place, started anew in every trial.
//!
//! Owns what may be asked of it and what is refused before anything runs. It knows nothing of the program but its command,
//! its port and the files it wants: what it does with them is its own affair, and so is what it counts.

pub(crate) mod keeper;
mod listeners;
pub(crate) mod program;
mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::process::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use server::opts::Stall;
use telemetry::units::{ParseUnitError, Span};
use toml::{Table, Value};

use self::template::Filling;
use crate::experiment::schema;

/// Longest time that a target may take until it listens: a trial waits for it.
const LONGEST_READY: Span = Span::from_secs(60);

/// What stands for the trial's directory where there is no trial.
const HERE: &str = "{dir}";

/// Bytes of a file's template at most: it is kept in every trial's record.
const FILE_BYTES: usize = 64 * 1024;

/// A program in the server's place.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Target")]
pub struct Target {
    /// The program and its arguments, without a shell. It stays in the foreground: nginx needs `daemon off;`. Placeholders:
    /// {dir} (a directory of this trial alone, where it runs), {address}, {port}, and {NAME} of target.values.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// The port it listens at, in the trial's own namespace.
    #[serde(default = "default_port")]
    pub port: NonZeroU16,
    /// Files written into {dir} before it starts: name and text, with the same placeholders.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// What placeholders of one's own stand for: numbers, texts, true or false.
    #[serde(default)]
    #[schemars(schema_with = "schema::target_values")]
    pub values: BTreeMap<String, Value>,
    /// How long it may take until it listens at the port.
    #[serde(default = "default_ready")]
    pub ready: Span,
    /// What asks it to end: HUP, INT, QUIT, KILL, TERM, USR1 or USR2. It has five seconds.
    #[serde(default)]
    pub stop_signal: StopSignal,
    /// Stop all its processes (SIGSTOP) at a time after the start of the trial, for a time: AT+FOR (0s+2s, 1s+forever).
    #[serde(default)]
    pub pause: Option<Stall>,
}

fn default_port() -> NonZeroU16 {
    const PORT: NonZeroU16 = match NonZeroU16::new(9700) {
        Some(port) => port,
        None => NonZeroU16::MIN,
    };
    PORT
}

fn default_ready() -> Span {
    Span::from_secs(5)
}

/// A signal that asks a program to end. signal(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal(Signal);

/// Names and numbers of those that end programs.
const STOP_SIGNALS: [(&str, Signal); 7] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("KILL", Signal::KILL),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

impl StopSignal {
    /// The signal.
    pub(crate) fn signal(self) -> Signal {
        self.0
    }
}

impl Default for StopSignal {
    fn default() -> Self {
        Self(Signal::TERM)
    }
}

impl FromStr for StopSignal {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.strip_prefix("SIG").unwrap_or(text);
        let found = STOP_SIGNALS.iter().find(|(name, _)| *name == plain);
        found.map(|(_, signal)| Self(*signal)).ok_or_else(|| {
            let names = STOP_SIGNALS.map(|(name, _)| name).join(", ");
            ParseUnitError::new(format!("`{text}` is no signal that ends a program; write one of {names}"))
        })
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = STOP_SIGNALS.iter().find(|(_, signal)| *signal == self.0).map_or("TERM", |(name, _)| *name);
        f.write_str(name)
    }
}
telemetry::string_serde!(StopSignal);
telemetry::text_schema!(StopSignal, "(SIG)?(HUP|INT|QUIT|KILL|TERM|USR1|USR2)");

/// What a trial's keeper of the target is to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Order {
    /// The program, then its arguments.
    pub(crate) command: Vec<String>,
    /// Where programs are looked for, in the way of PATH: all that is in its environment.
    pub(crate) path: String,
    /// Where clients connect to.
    pub(crate) address: IpAddr,
    /// The trial's own directory, not there yet.
    pub(crate) directory: PathBuf,
    /// Name and text of each file in it.
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) port: NonZeroU16,
    pub(crate) ready: Span,
    pub(crate) stop_signal: StopSignal,
    pub(crate) pause: Option<Stall>,
    /// Where it and everything it starts write what they say.
    pub(crate) log: PathBuf,
}

/// Where a trial's target runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    /// Of the server's end.
    pub(crate) address: IpAddr,
    /// Absolute.
    pub(crate) directory: &'a Path,
    pub(crate) log: &'a Path,
}

impl Target {
    /// Refuses what could never run: templates with placeholders that name nothing, names that are no file's.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.command.first().is_none_or(|program| program.trim().is_empty()) {
            return Err("target.command names no program; write [\"PROGRAM\", \"ARGUMENT\", ...]".to_owned());
        }
        if self.ready.is_zero() || self.ready > LONGEST_READY {
            return Err(format!("target.ready {} must be above 0 and {LONGEST_READY} or less", self.ready));
        }
        for (name, value) in &self.values {
            if !template::is_name(name) {
                return Err(format!("target.values.{name}: a name has small letters, digits and `-`, a letter first"));
            }
            if template::GIVEN.contains(&name.as_str()) {
                return Err(format!("target.values.{name}: {{{name}}} is given by the trial; choose another name"));
            }
            if matches!(value, Value::Array(_) | Value::Table(_) | Value::Datetime(_)) {
                return Err(format!("target.values.{name}: a value is a number, a text, true or false"));
            }
        }
        for (name, text) in &self.files {
            if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
                return Err(format!("target.files.{name}: a file's name has no `/`; it is made in {{dir}}"));
            }
            if text.len() > FILE_BYTES {
                return Err(format!("target.files.{name} has {} bytes, {FILE_BYTES} at most", text.len()));
            }
        }
        // Whatever the trial gives: only names can be wrong.
        let nowhere = Site { address: IpAddr::from([0, 0, 0, 0]), directory: Path::new("/"), log: Path::new("/") };
        self.order(nowhere).map(drop)
    }

    /// The target of one trial, every placeholder filled in.
    ///
    /// # Errors
    /// A placeholder that names nothing, with the key it stands in.
    pub(crate) fn order(&self, site: Site<'_>) -> Result<Order, String> {
        let filling = Filling::new(&self.values, self.port, site);
        let command =
            self.command.iter().map(|word| filling.fill("target.command", word)).collect::<Result<Vec<_>, _>>()?;
        let file = |(name, text): (&String, &String)| {
            Ok::<_, String>((name.clone(), filling.fill(&format!("target.files.{name}"), text)?))
        };
        Ok(Order {
            command,
            path: program::search_path().to_string_lossy().into_owned(),
            address: site.address,
            directory: site.directory.to_owned(),
            files: self.files.iter().map(file).collect::<Result<_, _>>()?,
            port: self.port,
            ready: self.ready,
            stop_signal: self.stop_signal,
            pause: self.pause,
            log: site.log.to_owned(),
        })
    }

    /// The program of its command, values filled in; `None` where it is one of the trial's own files, which is not there yet.
    ///
    /// # Errors
    /// A placeholder that names nothing, which a checked experiment has not.
    pub fn program(&self) -> Result<Option<String>, String> {
        let nowhere = Site { address: IpAddr::from([0, 0, 0, 0]), directory: Path::new(HERE), log: Path::new("/") };
        let program = self.order(nowhere)?.command.into_iter().next();
        Ok(program.filter(|program| !program.starts_with(HERE)))
    }

    /// Its settings by their full names, as text.
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::from([
            ("target.command".to_owned(), in_words(&self.command)),
            ("target.port".to_owned(), self.port.to_string()),
            ("target.ready".to_owned(), self.ready.to_string()),
            ("target.stop-signal".to_owned(), self.stop_signal.to_string()),
        ]);
        settings.extend(self.pause.map(|pause| ("target.pause".to_owned(), pause.to_string())));
        let text = crate::settings::text_of;
        settings.extend(self.values.iter().map(|(name, value)| (format!("target.values.{name}"), text(value))));
        settings.extend(self.files.iter().map(|(name, text)| (format!("target.files.{name}"), text.clone())));
        settings
    }
}

/// Sets a key of `[target]`, or an entry of its tables: `target.values.backlog`, `target.files.nginx.conf`.
///
/// # Errors
/// A setting that is none, or of a file without such a table.
pub(crate) fn set(table: Option<&mut Table>, name: &str, key: &str, value: &Value) -> Result<(), String> {
    let Some(target) = table else {
        return Err(format!("{name} needs a [target] table, with a command at least"));
    };
    let (inner, entry) = match key.split_once('.') {
        None => {
            target.insert(key.to_owned(), value.clone());
            return Ok(());
        }
        Some((inner @ ("values" | "files"), entry)) => (inner, entry),
        Some(_) => {
            return Err(format!("unknown setting `{name}`; write target.KEY, target.values.NAME or target.files.NAME"));
        }
    };
    match target.entry(inner).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(entries) => drop(entries.insert(entry.to_owned(), value.clone())),
        _ => return Err(format!("target.{inner} is a table; write [target.{inner}]")),
    }
    Ok(())
}

/// A command as people write it: words apart, those with blanks in quotes.
pub(crate) fn in_words(command: &[String]) -> String {
    let word = |word: &String| {
        let plain = !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "'\"\\$;&|<>(){}*?".contains(c));
        if plain { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''").replace('\n', " ")) }
    };
    command.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        toml::from_str(text).expect("a target")
    }

    #[test]
    fn placeholders_are_filled_in_command_and_files() {
        let target = target(
            "command = [\"nginx\", \"-c\", \"{dir}/n.conf\"]\nport = 8080\n[values]\nbacklog = 511\nmore = \"reuseport\"\n\
             [files]\n\"n.conf\" = \"listen {address}:{port} backlog={backlog} {more}; events {} ${host} {{dir}}\"\n",
        );
        assert_eq!(target.check(), Ok(()));
        let site = Site {
            address: IpAddr::from([198, 18, 0, 1]),
            directory: Path::new("/run/t"),
            log: Path::new("/run/t.log"),
        };
        let order = target.order(site).expect("filled");
        assert_eq!(order.command, ["nginx", "-c", "/run/t/n.conf"]);
        assert_eq!(order.files["n.conf"], "listen 198.18.0.1:8080 backlog=511 reuseport; events {} ${host} {dir}");
        assert_eq!(target.settings()["target.values.backlog"], "511");
    }

    #[test]
    fn what_could_never_run_is_refused_with_its_key() {
        let refused = |text: &str| target(text).check().expect_err(text);
        let nothing = refused("command = [\"nginx\", \"{conf}\"]\n");
        assert!(nothing.starts_with("target.command: the placeholder {conf} names nothing"), "{nothing}");
        assert!(refused("command = []\n").contains("names no program"));
        assert!(refused("command = [\"x\"]\nready = \"61s\"\n").contains("target.ready 61s"));
        assert!(refused("command = [\"x\"]\n[values]\ndir = 1\n").contains("given by the trial"));
        assert!(refused("command = [\"x\"]\n[values]\nBack_log = 1\n").contains("small letters"));
        assert!(refused("command = [\"x\"]\n[values]\nb = [1]\n").contains("a number, a text"));
        assert!(refused("command = [\"x\"]\n[files]\n\"../n\" = \"\"\n").contains("no `/`"));
        let file = refused("command = [\"x\"]\n[files]\n\"n.conf\" = \"listen {prot};\"\n");
        assert!(file.starts_with("target.files.n.conf: the placeholder {prot}") && file.contains("{port}"), "{file}");
    }

    #[test]
    fn a_signal_is_one_that_ends_programs() {
        assert_eq!("SIGQUIT".parse::<StopSignal>().map(|signal| signal.to_string()).as_deref(), Ok("QUIT"));
        assert!("STOP".parse::<StopSignal>().is_err());
        assert_eq!(StopSignal::default().to_string(), "TERM");
    }

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        assert_eq!(in_words(&["sh", "-c", "exit 3"].map(str::to_owned)), "sh -c 'exit 3'");
    }
}
