//! The experiment file as TOML has it, with the place of whatever an error may have to point at.

use std::collections::BTreeMap;

use serde::Deserialize;
use study::finding::Claim;
use study::results::Topology;
use telemetry::units::Span;
use toml::{Spanned, Table, Value};

use super::{Attach, Family};
use crate::schedule::Order;
use crate::settings::HalfOpen;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Wire {
    pub(super) experiment: Header,
    // These are parsed twice: here for their errors, in [`Tables`] as keys and values for the factors.
    #[serde(default)]
    #[expect(dead_code, reason = "read for its errors")]
    pub(super) server: server::Opts,
    #[serde(default)]
    #[expect(dead_code, reason = "read for its errors")]
    pub(super) loadgen: loadgen::Opts,
    #[serde(default)]
    #[expect(dead_code, reason = "read for its errors")]
    pub(super) half_open: HalfOpen,
    #[serde(default)]
    pub(super) sysctl: BTreeMap<Spanned<String>, Value>,
    #[serde(default)]
    pub(super) factor: Vec<Spanned<WireFactor>>,
    #[serde(default)]
    pub(super) also: Vec<WireAlso>,
    #[serde(default)]
    pub(super) expect: Vec<WireExpect>,
    pub(super) compare: Option<Spanned<WireCompare>>,
    pub(super) attach: Option<Spanned<Attach>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Header {
    pub(super) name: Spanned<String>,
    pub(super) question: String,
    pub(super) analysis: Option<String>,
    pub(super) next: Option<String>,
    #[serde(default = "three")]
    pub(super) replicates: Spanned<usize>,
    #[serde(default = "two")]
    pub(super) retries: Spanned<usize>,
    #[serde(default = "one")]
    pub(super) seed: u64,
    #[serde(default)]
    pub(super) order: Order,
    pub(super) warm_up: Option<Spanned<Span>>,
    pub(super) measure: Option<Spanned<Span>>,
    pub(super) topology: Option<Spanned<Topology>>,
    pub(super) family: Option<Spanned<Family>>,
}

pub(super) fn three() -> Spanned<usize> {
    Spanned::new(0..0, 3)
}

pub(super) fn two() -> Spanned<usize> {
    Spanned::new(0..0, 2)
}

pub(super) fn one() -> u64 {
    1
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct WireFactor {
    pub(super) set: Option<String>,
    pub(super) to: Option<Vec<Spanned<Value>>>,
    pub(super) name: Option<String>,
    pub(super) levels: Option<Vec<Spanned<Table>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct WireAlso {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) set: BTreeMap<Spanned<String>, Value>,
    #[serde(default)]
    pub(super) factor: Vec<Spanned<WireFactor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct WireExpect {
    pub(super) that: Spanned<String>,
    pub(super) r#where: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct WireCompare {
    pub(super) metrics: Vec<Spanned<String>>,
    pub(super) baseline: Option<Spanned<String>>,
    pub(super) smallest_effect: Option<Spanned<f64>>,
    pub(super) by: Option<Spanned<Claim>>,
}

/// Keys with their places, and values.
pub(super) type Entries = BTreeMap<Spanned<String>, Value>;

/// The tables that factors are laid over, as they stand in the file.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Tables {
    pub(super) server: Entries,
    pub(super) loadgen: Entries,
    pub(super) half_open: Entries,
}
