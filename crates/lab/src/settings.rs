//! What a factor may set, by full name (`server.backlog`, `loadgen.rate`, `sysctl.net.core.somaxconn`,
//! `experiment.warm-up`), and how levels are laid over the file's own tables before they become options.

use std::collections::BTreeMap;

use kernel::sysctl;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use telemetry::units::Span;
use toml::{Table, Value};

use crate::experiment::{Family, Wiring};
use crate::sources;
use crate::target::{self, Target};

/// What settings are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Trials in namespaces of their own: everything can be set.
    #[default]
    Private,
    /// A running deployment: only its sysctls can.
    Attached,
}

/// The tables of an experiment file that levels can change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) scope: Scope,
    /// How the ends of a trial are joined, where that is known.
    pub(crate) wiring: Option<(Wiring, Family)>,
    pub(crate) server: Table,
    /// With it there is no server of ours.
    pub(crate) target: Option<Table>,
    pub(crate) loadgen: Table,
    pub(crate) half_open: Table,
    pub(crate) sysctl: BTreeMap<String, String>,
    pub(crate) warm_up: Option<Span>,
    pub(crate) measure: Option<Span>,
}

/// The `[half-open]` table: pressure on the SYN queue. No option of the load generator, so that it exists only in the
/// namespaces of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct HalfOpen {
    /// Sockets kept half open, from just before the warm-up to the end of the trial.
    pub(crate) count: u32,
}

/// Options of the two ends and of the namespaces, ready for a trial but for addresses and seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub(crate) scope: Scope,
    /// The server's options; those of a running deployment are its own, and with a target they mean nothing.
    pub server: server::Opts,
    /// The program in its place, if there is one.
    pub target: Option<Target>,
    /// The load generator's options; likewise.
    pub loadgen: loadgen::Opts,
    /// Sockets that the load generator keeps half open; 0 of a running deployment.
    pub half_open: u32,
    /// Sysctls of both namespaces.
    pub sysctl: BTreeMap<String, String>,
}

impl Resolved {
    /// Every setting by its full name, as text: what conditions on cells are matched against.
    pub(crate) fn effective(&self) -> BTreeMap<String, String> {
        let mut effective = match self.scope {
            Scope::Private => {
                let mut effective = match &self.target {
                    None => study::settings::of_options(&self.server, &self.loadgen),
                    Some(target) => study::settings::of_target(&target.settings(), &self.loadgen),
                };
                effective.insert(study::settings::HALF_OPEN.to_owned(), self.half_open.to_string());
                effective
            }
            Scope::Attached => BTreeMap::new(),
        };
        effective.extend(self.sysctl.iter().map(|(name, value)| (format!("sysctl.{name}"), value.clone())));
        effective
    }
}

/// Why a running deployment gets no half-open sockets.
pub(crate) const NOT_ON_A_DEPLOYMENT: &str = "cannot be set with topology = \"attached\": half-open sockets fill the SYN \
                                              queue of a service that others use, so they exist only in the namespaces of \
                                              a trial; use topology = \"veth\" or \"loopback\"";

/// Why a target leaves nothing of the server to set.
pub(crate) const NOT_BESIDE_A_TARGET: &str =
    "the program of [target] is the server, and its options are in its command and files (target.values.NAME)";

/// Keys the lab decides itself, with the reason.
const RESERVED: [(&str, &str); 7] = [
    ("loadgen.start-at", "the lab starts both ends"),
    ("server.listen", "the lab gives the server its address"),
    ("loadgen.target", "the lab points the load generator at the server"),
    ("loadgen.duration", "set experiment.measure"),
    ("loadgen.warm-up", "set experiment.warm-up"),
    ("loadgen.seed", "set experiment.seed"),
    ("server.seed", "set experiment.seed"),
];

/// The reason why a key of `[server]` or `[loadgen]` is not for experiment files.
pub(crate) fn reserved(name: &str) -> Option<String> {
    let (_, reason) = RESERVED.iter().find(|(key, _)| *key == name)?;
    Some(format!("{name} cannot be set in an experiment: {reason}"))
}

impl Settings {
    /// Lays one setting over. The value's type is checked when the options are made.
    pub(crate) fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        if self.scope == Scope::Attached && name.starts_with("half-open.") {
            return Err(format!("{name} {NOT_ON_A_DEPLOYMENT}"));
        }
        if self.scope == Scope::Attached && !name.starts_with("sysctl.") {
            return Err(format!(
                "{name} cannot be set with topology = \"attached\": server and load generators run already; vary \
                 sysctl.NAME"
            ));
        }
        if let Some(reason) = reserved(name) {
            return Err(reason);
        }
        match name.split_once('.') {
            Some(("server", _)) if self.target.is_some() => {
                return Err(format!("{name} cannot be set beside [target]: {NOT_BESIDE_A_TARGET}"));
            }
            Some(("target", key)) => target::set(self.target.as_mut(), name, key, value)?,
            Some(("server", key)) => drop(self.server.insert(key.to_owned(), value.clone())),
            Some(("loadgen", key)) => drop(self.loadgen.insert(key.to_owned(), value.clone())),
            Some(("half-open", key)) => drop(self.half_open.insert(key.to_owned(), value.clone())),
            Some(("sysctl", key)) => drop(self.sysctl.insert(self.checked_sysctl(key)?, sysctl_value(key, value)?)),
            Some(("experiment", "warm-up")) => self.warm_up = Some(span(name, value)?),
            Some(("experiment", "measure")) => self.measure = Some(span(name, value)?),
            _ => {
                return Err(format!(
                    "unknown setting `{name}`; write server.KEY, target.KEY, loadgen.KEY, half-open.count, sysctl.NAME, experiment.warm-up or experiment.measure"
                ));
            }
        }
        Ok(())
    }

    /// The options these tables come to, checked against each other.
    pub(crate) fn resolve(&self) -> Result<Resolved, String> {
        let server: server::Opts = options("server", &self.server)?;
        let target: Option<Target> = self.target.as_ref().map(|table| options("target", table)).transpose()?;
        if let Some(target) = &target {
            target.check()?;
        }
        let mut loadgen: loadgen::Opts = options("loadgen", &self.loadgen)?;
        if let Some(warm_up) = self.warm_up {
            loadgen.warm_up = warm_up;
        }
        if let Some(measure) = self.measure {
            loadgen.duration = loadgen::opts::RunTime::For(measure);
        }
        server::Plan::try_from(server.clone()).map_err(|error| format!("server: {error}"))?;
        loadgen::check(&loadgen).map_err(|error| format!("loadgen: {error}"))?;
        if target.is_none() {
            check_pair(&server, &loadgen)?;
        }
        let half_open = options::<HalfOpen>("half-open", &self.half_open)?.count;
        check_ports(half_open, self.sysctl.get(PORT_RANGE).map(String::as_str))?;
        if let (Some(sources), Some((wiring, family))) = (&loadgen.sources, self.wiring) {
            sources::check(sources, wiring, family)?;
        }
        Ok(Resolved { scope: self.scope, server, target, loadgen, half_open, sysctl: self.sysctl.clone() })
    }

    /// A sysctl that may be set. Which of them a running deployment has, its own tree tells.
    fn checked_sysctl(&self, name: &str) -> Result<String, String> {
        sysctl::classify(name).map_err(|error| error.to_string())?;
        let known = || sysctl::exists(name) || sysctl::path_of(name).is_ok_and(|path| hidden_without_root(&path));
        if self.scope == Scope::Private && !known() {
            return Err(format!("sysctl {name} does not exist on this kernel; check its spelling"));
        }
        Ok(name.to_owned())
    }
}

/// Options from a table; the text of an error names the table, and the key where toml knows it.
fn options<T: DeserializeOwned>(table: &str, values: &Table) -> Result<T, String> {
    Value::Table(values.clone()).try_into().map_err(|error: toml::de::Error| {
        let message = plain(error.message());
        // Without a text to point into, the second line is "in `key`".
        match error.to_string().lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`').map(str::to_owned))
        {
            Some(key) => format!("{table}.{key}: {message}"),
            None => format!("{table}: {message}"),
        }
    })
}

/// Types as people call them.
pub(crate) fn plain(message: &str) -> String {
    const TYPES: [(&str, &str); 4] = [
        ("expected a nonzero u32", "expected a whole number of 1 or more"),
        ("expected u32", "expected a whole number of 0 or more"),
        ("expected u64", "expected a whole number of 0 or more"),
        ("expected usize", "expected a whole number of 0 or more"),
    ];
    let found = TYPES.iter().find_map(|(is, should)| Some(format!("{}{should}", message.strip_suffix(is)?)));
    found.unwrap_or_else(|| message.to_owned())
}

/// A pair of ends that can never confirm an attempt measures nothing.
fn check_pair(server: &server::Opts, loadgen: &loadgen::Opts) -> Result<(), String> {
    use loadgen::opts::Confirm;
    use server::opts::OnAccept;
    match (server.on_accept, loadgen.confirm) {
        (OnAccept::Close | OnAccept::Reset | OnAccept::Hold, Confirm::Greeting | Confirm::Reply) => Err(format!(
            "server.on-accept = \"{}\" never sends a byte, so loadgen.confirm = \"{}\" can never succeed; \
             use on-accept = \"greet\" or confirm = \"none\"",
            server.on_accept, loadgen.confirm
        )),
        (OnAccept::Reply | OnAccept::Echo, Confirm::Greeting) => Err(format!(
            "server.on-accept = \"{}\" waits for the client's first byte, so loadgen.confirm = \"greeting\" can never \
             succeed; use confirm = \"reply\" or on-accept = \"greet\"",
            server.on_accept
        )),
        _ => check_expectation(server, loadgen),
    }
}

/// An answer that can never begin as expected confirms nothing either.
fn check_expectation(server: &server::Opts, loadgen: &loadgen::Opts) -> Result<(), String> {
    use server::opts::OnAccept;
    let (answer, what) = match server.on_accept {
        OnAccept::Greet | OnAccept::Reply => (server::ANSWER, "sends the one byte `a`"),
        OnAccept::Echo => (loadgen.send.bytes(), "sends back what loadgen.send says"),
        OnAccept::Close | OnAccept::Reset | OnAccept::Hold => return Ok(()),
    };
    if answer.starts_with(loadgen.expect.bytes()) {
        return Ok(());
    }
    Err(format!(
        "server.on-accept = \"{}\" {what}, so loadgen.expect = \"{}\" can never come; leave loadgen.expect out",
        server.on_accept, loadgen.expect
    ))
}

/// Local ports of a namespace, and what a new one has (`inet_init_net`).
const PORT_RANGE: &str = "net.ipv4.ip_local_port_range";
const NEW_PORT_RANGE: &str = "32768 60999";

/// Each half-open socket keeps a local port of its own.
fn check_ports(half_open: u32, range: Option<&str>) -> Result<(), String> {
    let range = range.unwrap_or(NEW_PORT_RANGE);
    let mut ends = range.split_whitespace().map(str::parse::<u32>);
    // What is no range, the kernel refuses.
    let (Some(Ok(low)), Some(Ok(high))) = (ends.next(), ends.next()) else { return Ok(()) };
    let ports = (high + 1).saturating_sub(low);
    if half_open > ports {
        return Err(format!(
            "half-open.count {half_open} needs as many local ports, but {PORT_RANGE} {low}-{high} has {ports}; lower it, or \
             widen sysctl.{PORT_RANGE}"
        ));
    }
    Ok(())
}

/// `/proc/sys/net` of some namespaces hides what a trial's may show; only what no namespace here has is missing
/// for certain.
fn hidden_without_root(path: &std::path::Path) -> bool {
    path.ends_with("net/core/somaxconn")
}

/// A sysctl's value as text: an integer, or a string.
pub(crate) fn sysctl_value(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::Integer(number) => Ok(number.to_string()),
        Value::String(text) if !text.contains('\n') && !text.trim().is_empty() => Ok(text.trim().to_owned()),
        _ => Err(format!("sysctl {name}: a value is a whole number or a one-line string")),
    }
}

fn span(name: &str, value: &Value) -> Result<Span, String> {
    match value {
        Value::String(text) => text.parse().map_err(|error| format!("{name}: {error}")),
        _ => Err(format!("{name}: write a time with its unit, e.g. \"200ms\"")),
    }
}

/// A value as it is shown and compared.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a setting is called in tables: its last part.
pub(crate) fn short_name(name: &str) -> &str {
    // Alone, the last part of this one says nothing.
    if name == study::settings::HALF_OPEN {
        return "half-open";
    }
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_lies_over_the_file() {
        let mut settings = Settings::default();
        settings.server.insert("backlog".to_owned(), Value::Integer(16));
        settings.set("server.backlog", &Value::Integer(1024)).expect("a known setting");
        settings.set("sysctl.net.core.somaxconn", &Value::Integer(128)).expect("a sysctl");
        let resolved = settings.resolve().expect("valid");
        assert_eq!(resolved.server.backlog, 1024);
        assert_eq!(resolved.sysctl["net.core.somaxconn"], "128");
    }

    #[test]
    fn what_cannot_be_set_is_refused_with_the_reason() {
        let mut settings = Settings::default();
        let mut refused = |name: &str, value: Value| settings.set(name, &value).expect_err(name);
        assert!(refused("sysctl.net.core.netdev_max_backlog", Value::Integer(1)).contains("netdev_max_backlog"));
        assert!(refused("sysctl.net.ipv4.tcp_sincookies", Value::Integer(1)).contains("does not exist"));
        assert!(refused("loadgen.target", Value::String("x:1".to_owned())).contains("the lab points"));
        assert!(refused("sever.backlog", Value::Integer(1)).contains("unknown setting `sever.backlog`"));
    }

    #[test]
    fn half_open_sockets_are_a_table_of_their_own() {
        let with = |key: &str, value: i64| {
            let mut settings = Settings::default();
            settings.set(key, &Value::Integer(value)).expect("checked when the options are made");
            settings.resolve()
        };
        let resolved = with("half-open.count", 400).expect("valid");
        assert_eq!((resolved.half_open, resolved.effective()["half-open.count"].as_str()), (400, "400"));
        assert_eq!(Settings::default().resolve().expect("valid").half_open, 0);
        let refused = |key: &str, value| with(key, value).expect_err("no number of sockets");
        assert!(refused("half-open.count", -1).contains("half-open.count: "), "{}", refused("half-open.count", -1));
        assert!(refused("half-open.cuont", 1).contains("unknown field `cuont`"));
        assert!(refused("half-open.count", 28_233).contains("32768-60999 has 28232"));
        assert!(refused("loadgen.half-open", 1).contains("unknown field `half-open`"), "never an option");
        assert_eq!(short_name("half-open.count"), "half-open");
    }

    #[test]
    fn a_pair_that_cannot_confirm_is_refused() {
        let mut settings = Settings::default();
        settings.set("server.on-accept", &Value::String("close".to_owned())).expect("known");
        assert!(settings.resolve().expect_err("never a byte").contains("never sends a byte"));
        settings.set("loadgen.confirm", &Value::String("none".to_owned())).expect("known");
        assert!(settings.resolve().is_ok());
    }

    #[test]
    fn an_answer_that_can_never_come_is_not_waited_for() {
        let with = |pairs: &[(&str, &str)]| {
            let mut settings = Settings::default();
            for (name, value) in pairs {
                settings.set(name, &Value::String((*value).to_owned())).expect("known");
            }
            settings.resolve().map(drop)
        };
        let (expect, echo) = ("loadgen.expect", ("server.on-accept", "echo"));
        assert_eq!(with(&[(expect, "a")]), Ok(()));
        for wrong in ["b", "aa", "HTTP/1.1 200"] {
            assert!(with(&[(expect, wrong)]).expect_err(wrong).contains("sends the one byte `a`"), "{wrong}");
        }
        let echoed = [("loadgen.confirm", "reply"), ("loadgen.send", "PING\\r\\n"), echo];
        assert_eq!(with(&[&echoed[..], &[(expect, "PING")]].concat()), Ok(()));
        assert!(
            with(&[&echoed[..], &[(expect, "PONG")]].concat()).expect_err("never").contains("leave loadgen.expect out")
        );
    }

    #[test]
    fn what_only_ends_otherwise_than_asked_is_allowed() {
        let mut settings = Settings::default();
        // A server that closes first ends what the client would hold: held-lost counts it, and it was confirmed.
        for (name, value) in [("loadgen.hold", "1s"), ("server.close", "close"), ("loadgen.close", "shutdown")] {
            settings.set(name, &Value::String(value.to_owned())).expect("known");
        }
        assert!(settings.resolve().is_ok());
    }
}
