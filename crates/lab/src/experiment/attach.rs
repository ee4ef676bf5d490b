//! Where an experiment's trials take place: in private namespaces, or on a deployment that runs already
//! (`topology = "attached"`), and what may be asked of each.

use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;
use study::results::{Attached, Topology};
use telemetry::units::{ParseUnitError, Span};
use toml::Spanned;

use super::wire::{Tables, Wire};
use super::{ExperimentError, Family, Source};
use crate::settings::NOT_ON_A_DEPLOYMENT;

/// Where trials take place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In namespaces made for each trial.
    Private {
        /// How the two ends are joined.
        wiring: Wiring,
        /// IPv4 or IPv6.
        family: Family,
    },
    /// On a running deployment.
    Attached(Attach),
}

/// How the two ends of a trial are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wiring {
    /// Two network namespaces and a veth pair.
    Veth,
    /// One network namespace and its loopback.
    Loopback,
}

/// The `[attach]` table: a running deployment, and how its sysctls are reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Attach {
    /// Admin address of the server.
    pub server: AdminAddress,
    /// Admin addresses of the load generators. Every address that a name resolves to is one.
    #[schemars(length(min = 1))]
    pub loadgens: Vec<AdminAddress>,
    /// A tree like `/proc/sys/net` that belongs to the server's network namespace.
    #[serde(default = "own_sysctls")]
    pub sysctl_path: PathBuf,
    /// From a change of sysctls to the window that is measured.
    #[serde(default = "default_settle")]
    pub settle: Span,
}

impl Attach {
    /// Attaches to what a run was attached to, whatever the file says.
    pub(crate) fn stand_in(&mut self, attached: &Attached) -> Result<(), ParseUnitError> {
        self.server = attached.server.parse()?;
        self.loadgens = attached.loadgens.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
        self.sysctl_path.clone_from(&attached.sysctl_path);
        Ok(())
    }
}

fn own_sysctls() -> PathBuf {
    PathBuf::from("/proc/sys/net")
}

fn default_settle() -> Span {
    Span::from_secs(3)
}

/// HOST:PORT of an admin port, resolved when it is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdminAddress(String);

impl AdminAddress {
    /// The text, fit for `ToSocketAddrs`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AdminAddress {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<NonZeroU16>().is_ok() => Ok(Self(text.to_owned())),
            _ => Err(ParseUnitError::new(format!(
                "`{text}` is no admin address; write HOST:PORT, e.g. 127.0.0.1:9710 or loadgen:9711"
            ))),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
telemetry::string_serde!(AdminAddress);
telemetry::text_schema!(AdminAddress, ".+:[0-9]+");

impl Place {
    /// Its name in results.
    pub fn topology(&self) -> Topology {
        match self {
            Self::Private { wiring: Wiring::Veth, .. } => Topology::Veth,
            Self::Private { wiring: Wiring::Loopback, .. } => Topology::Loopback,
            Self::Attached(_) => Topology::Attached,
        }
    }

    /// The deployment it is attached to, if it is.
    pub fn attach(&self) -> Option<&Attach> {
        match self {
            Self::Private { .. } => None,
            Self::Attached(attach) => Some(attach),
        }
    }
}

/// The place a file names, with everything refused that makes no sense there.
pub(super) fn place(source: &Source<'_>, wire: &Wire, tables: &Tables) -> Result<Place, ExperimentError> {
    let header = &wire.experiment;
    let topology = header.topology.as_ref().map_or(Topology::default(), |topology| *topology.get_ref());
    let private = |wiring| Place::Private {
        wiring,
        family: header.family.as_ref().map_or_else(Family::default, |f| *f.get_ref()),
    };
    match (topology, &wire.attach) {
        (Topology::Attached, Some(attach)) => attached(source, wire, tables, attach),
        (Topology::Attached, None) => {
            let span = header.topology.as_ref().map_or(0..0, Spanned::span);
            Err(source.error(
                &span,
                "topology = \"attached\" needs an [attach] table that says to what: server, loadgens and sysctl-path",
            ))
        }
        (_, Some(attach)) => Err(source.error(
            &attach.span(),
            "[attach] is for topology = \"attached\" only; set experiment.topology, or leave the table out",
        )),
        (Topology::Veth, None) => Ok(private(Wiring::Veth)),
        (Topology::Loopback, None) => Ok(private(Wiring::Loopback)),
    }
}

fn attached(
    source: &Source<'_>,
    wire: &Wire,
    tables: &Tables,
    attach: &Spanned<Attach>,
) -> Result<Place, ExperimentError> {
    let header = &wire.experiment;
    for (table, entries) in [("server", &tables.server), ("loadgen", &tables.loadgen)] {
        if let Some(key) = entries.keys().min_by_key(|key| key.span().start) {
            let message = format!(
                "{table}.{} cannot be set with topology = \"attached\": server and load generators run already; start \
                 them with the options you want",
                key.get_ref()
            );
            return Err(source.error(&key.span(), message));
        }
    }
    if let Some(key) = tables.half_open.keys().min_by_key(|key| key.span().start) {
        let message = format!("half-open.{} {NOT_ON_A_DEPLOYMENT}", key.get_ref());
        return Err(source.error(&key.span(), message));
    }
    if let Some(warm_up) = &header.warm_up {
        let message = "experiment.warm-up is not used with topology = \"attached\"; attach.settle is the time between a \
                       change and the window measured";
        return Err(source.error(&warm_up.span(), message));
    }
    if let Some(family) = &header.family {
        let message =
            "experiment.family cannot be set with topology = \"attached\": the load generators connect already";
        return Err(source.error(&family.span(), message));
    }
    if header.measure.is_none() {
        let span = header.topology.as_ref().map_or(0..0, Spanned::span);
        return Err(source.error(&span, "topology = \"attached\" needs experiment.measure, e.g. measure = \"10s\""));
    }
    if attach.get_ref().loadgens.is_empty() {
        return Err(source.error(&attach.span(), "attach.loadgens must name one load generator or more"));
    }
    Ok(Place::Attached(attach.get_ref().clone()))
}
