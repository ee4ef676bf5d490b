//! The experiment file as TOML has it, with the place of whatever an error may have to point at. The comments of its
//! fields are what an editor shows: they go into the schema.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Deserialize;
use study::finding::Claim;
use study::results::Topology;
use telemetry::units::Span;
use toml::{Spanned, Table, Value};

use super::schema;
use super::{Attach, Family};
use crate::schedule::Order;
use crate::settings::HalfOpen;
use crate::target::Target;

/// An experiment of acceptbench: what is asked, what both ends do, what is varied, what must hold.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "acceptbench experiment")]
pub(super) struct Wire {
    pub(super) experiment: Header,
    // These are parsed twice: here for their errors, in [`Tables`] as keys and values for the factors.
    /// Options of the server, as flags of `acceptbench server`.
    #[serde(default)]
    #[expect(dead_code, reason = "read for its errors")]
    pub(super) server: server::Opts,
    /// A program that is not ours in the server's place.
    #[schemars(with = "Option<Target>")]
    pub(super) target: Option<Spanned<Target>>,
    /// Options of the load generator, as flags of `acceptbench loadgen`.
    #[serde(default)]
    #[expect(dead_code, reason = "read for its errors")]
    pub(super) loadgen: loadgen::Opts,
    /// Sockets that ignore their SYN-ACKs and so fill the SYN queue.
    #[serde(default)]
    #[expect(dead_code, reason = "read for its errors")]
    pub(super) half_open: HalfOpen,
    /// Kernel parameters of both namespaces of every trial, by their full names.
    #[serde(default)]
    #[schemars(schema_with = "schema::sysctls")]
    pub(super) sysctl: BTreeMap<Spanned<String>, Value>,
    /// What is varied. Cells are the full cross of all factors.
    #[serde(default)]
    #[schemars(with = "Vec<WireFactor>")]
    pub(super) factor: Vec<Spanned<WireFactor>>,
    /// Grids beside the main one.
    #[serde(default)]
    pub(super) also: Vec<WireAlso>,
    /// What must hold in every valid trial; otherwise the run ends with exit code 1.
    #[serde(default)]
    pub(super) expect: Vec<WireExpect>,
    #[schemars(with = "Option<WireCompare>")]
    pub(super) compare: Option<Spanned<WireCompare>>,
    #[schemars(with = "Option<WireSearch>")]
    pub(super) search: Option<Spanned<WireSearch>>,
    #[schemars(with = "Option<Attach>")]
    pub(super) attach: Option<Spanned<Attach>>,
}

/// What it is called, what it asks, and how its trials are run.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Experiment")]
pub(super) struct Header {
    /// Names the results directory.
    #[schemars(with = "String", regex(pattern = "^[a-z0-9-]+$"))]
    pub(super) name: Spanned<String>,
    /// The question it answers.
    pub(super) question: String,
    /// Prose for the reader of its report.
    pub(super) analysis: Option<String>,
    /// The experiment that the first screen suggests next.
    pub(super) next: Option<String>,
    /// How often every cell is run.
    #[serde(default = "three")]
    #[schemars(with = "NonZeroUsize")]
    pub(super) replicates: Spanned<usize>,
    /// How often a trial that does not count is repeated; 2 without it.
    #[serde(default = "two")]
    #[schemars(with = "usize", range(max = 100))]
    pub(super) retries: Spanned<usize>,
    /// Decides the order of trials, arrivals and service times.
    #[serde(default = "one")]
    pub(super) seed: u64,
    /// The order of trials within each block.
    #[serde(default)]
    pub(super) order: Order,
    /// Attempts planned in it are counted apart; 200ms without it.
    #[schemars(with = "Option<Span>")]
    pub(super) warm_up: Option<Spanned<Span>>,
    /// Attempts planned in it are the cohort: ratios and latencies are theirs. 1s without it.
    #[schemars(with = "Option<Span>")]
    pub(super) measure: Option<Spanned<Span>>,
    /// How server and load generator are joined; veth without it.
    #[schemars(with = "Option<Topology>")]
    pub(super) topology: Option<Spanned<Topology>>,
    /// The address family of trials; ipv4 without it.
    #[schemars(with = "Option<Family>")]
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

/// One thing that is varied: a setting (`set`) and its values (`to`), or levels that set several things together.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Factor", transform = schema::either_way)]
pub(super) struct WireFactor {
    /// The setting, by its full name.
    #[serde(default)]
    #[schemars(schema_with = "schema::setting_name")]
    pub(super) set: Option<String>,
    /// Its values.
    #[serde(default)]
    #[schemars(schema_with = "schema::values")]
    pub(super) to: Option<Vec<Spanned<Value>>>,
    /// How tables call the factor, instead of its settings' names.
    pub(super) name: Option<String>,
    /// Settings that go together, by their full names; every level sets the same ones.
    #[serde(default)]
    #[schemars(schema_with = "schema::levels")]
    pub(super) levels: Option<Vec<Spanned<Table>>>,
}

/// A grid beside the main one: a further row of its table, or a table of its own.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Also")]
pub(super) struct WireAlso {
    /// What the grid is called.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// What is set in all its cells, by full names.
    #[serde(default)]
    #[schemars(schema_with = "schema::settings")]
    pub(super) set: BTreeMap<Spanned<String>, Value>,
    /// What is varied in it.
    #[serde(default)]
    #[schemars(with = "Vec<WireFactor>")]
    pub(super) factor: Vec<Spanned<WireFactor>>,
}

/// What must hold.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Expect")]
pub(super) struct WireExpect {
    /// QUANTITY OP VALUE, joined by `and`.
    #[schemars(schema_with = "schema::condition")]
    pub(super) that: Spanned<String>,
    /// SETTING OP VALUE, joined by `and`; all cells without it.
    #[serde(default)]
    #[schemars(schema_with = "schema::condition")]
    pub(super) r#where: Option<Spanned<String>>,
}

/// What the answer is about.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Compare")]
pub(super) struct WireCompare {
    /// Quantities of a trial; the first is the table's.
    #[schemars(schema_with = "schema::quantities")]
    pub(super) metrics: Vec<Spanned<String>>,
    /// The cell that others are held against: a condition that one cell of the main grid fulfils.
    #[serde(default)]
    #[schemars(schema_with = "schema::condition")]
    pub(super) baseline: Option<Spanned<String>>,
    /// Differences below it do not matter. Of ratios a difference, of everything else a share of the baseline; 0.05
    /// without it.
    #[schemars(with = "Option<f64>", range(min = 0.0))]
    pub(super) smallest_effect: Option<Spanned<f64>>,
    /// What a difference is claimed by: findings (tested; the default of random orders) or ranges.
    #[schemars(with = "Option<Claim>")]
    pub(super) by: Option<Spanned<Claim>>,
}

/// A setting whose highest level that still meets a condition is looked for in every cell, by bisection.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Search")]
pub(super) struct WireSearch {
    /// The setting, by its full name: one whose values are numbers, and harder to bear the greater they are.
    #[schemars(schema_with = "schema::setting_name")]
    pub(super) find: Spanned<String>,
    /// The least and the greatest level: whole numbers.
    #[schemars(with = "[std::num::NonZeroU64; 2]")]
    pub(super) between: Spanned<[u64; 2]>,
    /// What must hold in a trial: QUANTITY OP VALUE, joined by `and`.
    #[schemars(schema_with = "schema::condition")]
    pub(super) r#while: Spanned<String>,
    /// How far neighbouring levels are apart at most, as a share of the lower one; 0.05 without it.
    #[schemars(with = "Option<f64>", range(min = 0.001, max = 1.0))]
    pub(super) within: Option<Spanned<f64>>,
}

/// Keys with their places, and values.
pub(super) type Entries = BTreeMap<Spanned<String>, Value>;

/// The tables that factors are laid over, as they stand in the file.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Tables {
    pub(super) server: Entries,
    pub(super) target: Entries,
    pub(super) loadgen: Entries,
    pub(super) half_open: Entries,
}
