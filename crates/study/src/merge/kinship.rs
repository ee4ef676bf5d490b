//! Do these snapshots belong together?

use std::collections::{BTreeMap, BTreeSet};

use loadgen::opts::Shard;
use loadgen::{Opts, Snapshot};
use serde_json::Value;

use super::{Clash, MergeError, Part};
use crate::settings::{self, fields};

/// Options of the machine that a shard runs on, which may differ: what is planned does not depend on them.
pub(super) const OWN: [&str; 9] =
    ["shard", "target", "workers", "cpus", "scheduling", "spin", "max-in-flight", "sources", "source-ports"];

/// Missing shards that are named; more are counted.
const NAMED: usize = 4;

/// Number of the part, from 0, and how many there are.
pub(super) fn place(books: &Snapshot) -> (usize, usize) {
    books.opts.shard.map_or((0, 1), Shard::place)
}

/// The place as people write it.
fn shown(books: &Snapshot) -> String {
    let (index, of) = place(books);
    format!("{}/{of}", index + 1)
}

/// A setting as it was written.
pub(super) fn text(value: Option<&Value>) -> String {
    value.and_then(settings::text).unwrap_or_else(|| "not set".to_owned())
}

/// The options of a shard's own machine that are not the defaults.
pub(super) fn own(opts: &Opts) -> BTreeMap<String, Value> {
    let defaults = fields(&Opts::default());
    let mut own = fields(opts);
    own.retain(|key, value| key != "shard" && OWN.contains(&key.as_str()) && defaults.get(key) != Some(value));
    own
}

/// Parts, in the order of their shards.
pub(super) struct Kin<'a>(pub(super) &'a [Part]);

impl Kin<'_> {
    /// Every part is one of the same load, and every part is there once.
    pub(super) fn check(&self) -> Result<(), MergeError> {
        let Some((first, rest)) = self.0.split_first() else { return Err(MergeError::Nothing) };
        rest.iter().try_for_each(|other| of_one_load(first, other))?;
        self.each_once()?;
        self.all_there()
    }

    fn each_once(&self) -> Result<(), MergeError> {
        match self.0.windows(2).find(|pair| place(&pair[0].books) == place(&pair[1].books)) {
            None => Ok(()),
            Some(pair) => Err(MergeError::Twice(Box::new(clash(&pair[0], &pair[1], |part| shown(&part.books))))),
        }
    }

    fn all_there(&self) -> Result<(), MergeError> {
        let there: BTreeSet<usize> = self.0.iter().map(|part| place(&part.books).0).collect();
        let of = self.0.first().map_or(1, |part| place(&part.books).1);
        let missing = of.saturating_sub(there.len());
        if missing == 0 {
            return Ok(());
        }
        let mut named: Vec<String> = (0..of)
            .filter(|index| !there.contains(index))
            .take(NAMED)
            .map(|index| format!("{}/{of}", index + 1))
            .collect();
        if missing > NAMED {
            named.push(format!("and {} more", missing - NAMED));
        }
        let named = named.join(", ");
        Err(MergeError::Missing(if missing == 1 {
            format!("shard {named} is missing; give its snapshot too")
        } else {
            format!("shards {named} are missing; give their snapshots too")
        }))
    }
}

fn of_one_load(one: &Part, other: &Part) -> Result<(), MergeError> {
    if one.build != other.build {
        return Err(MergeError::Builds(Box::new(clash(one, other, |part| part.build.to_string()))));
    }
    if place(&one.books).1 != place(&other.books).1 {
        return Err(MergeError::Divisions(Box::new(clash(one, other, |part| shown(&part.books)))));
    }
    let (mine, theirs) = (planned(&one.books), planned(&other.books));
    let keys: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
    match keys.into_iter().find(|key| mine.get(*key) != theirs.get(*key)) {
        None => Ok(()),
        Some(key) => {
            let value = |part: &Part| text(planned(&part.books).get(key));
            Err(MergeError::Plans(key.clone(), Box::new(clash(one, other, value))))
        }
    }
}

fn clash(one: &Part, other: &Part, value: impl Fn(&Part) -> String) -> Clash {
    let (value, other_value) = (value(one), value(other));
    Clash { one: one.name.clone(), value, other: other.name.clone(), other_value }
}

/// What makes a load what it is: its options without those of a machine, and what really drives its sockets.
fn planned(books: &Snapshot) -> BTreeMap<String, Value> {
    let mut fields = fields(&books.opts);
    fields.retain(|key, _| !OWN.contains(&key.as_str()));
    fields.insert("engine".to_owned(), Value::String(books.engine.to_string()));
    fields
}
