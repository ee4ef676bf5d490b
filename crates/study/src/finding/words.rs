//! Findings in words.

use super::{Claim, Contrast, Findings, Judgement};
use crate::format;
use crate::quantity::Unit;
use crate::reach::SIGNIFICANCE;

impl Findings {
    /// What was found, in one sentence; nothing where nothing was compared.
    pub fn sentence(&self) -> Option<String> {
        if self.grids.is_empty() {
            return None;
        }
        if self.claim == Claim::Ranges {
            return Some("not asked for; judged by range".to_owned());
        }
        let Some(tested) = self.tested() else {
            return Some(format!("not tested: {}; judged by range", self.why_untested()));
        };
        let kinds = [Judgement::Better, Judgement::Worse, Judgement::Changed, Judgement::Inconclusive];
        let count = |kind| self.contrasts.iter().filter(|c| c.p.is_some() && c.judgement == kind).count();
        let counts: Vec<String> = kinds
            .into_iter()
            .filter_map(|kind| Some(format!("{} {}", Some(count(kind)).filter(|n| *n > 0)?, kind.name())))
            .collect();
        let counts = if counts.is_empty() { "no difference".to_owned() } else { counts.join(", ") };
        let comparisons = format::plural(tested, "comparison");
        let untested = self.grids.iter().filter(|grid| !grid.tested);
        let untested = untested.map(|grid| format!("{}: by range, {}", grid.name, grid.why_untested()));
        let said = [format!("{counts} of {comparisons}, adjusted p ≤ {SIGNIFICANCE}")].into_iter().chain(untested);
        Some(said.collect::<Vec<_>>().join("; "))
    }

    /// Why nothing at all was tested: the reason of each grid, said once where all have the same.
    fn why_untested(&self) -> String {
        let mut reasons: Vec<(&str, String)> =
            self.grids.iter().map(|grid| (grid.name.as_str(), grid.why_untested())).collect();
        if reasons.iter().all(|(_, reason)| *reason == reasons[0].1) {
            reasons.truncate(1);
        }
        match reasons.as_slice() {
            [(_, only)] => only.clone(),
            several => several.iter().map(|(grid, why)| format!("{grid}: {why}")).collect::<Vec<_>>().join(", "),
        }
    }

    /// Contrasts that were tested; nothing where none was.
    pub fn tested(&self) -> Option<usize> {
        Some(self.contrasts.iter().filter(|contrast| contrast.p.is_some()).count()).filter(|tested| *tested > 0)
    }

    /// How the test was made.
    pub fn method(&self) -> String {
        let looked_at = if self.exact {
            format!("all {} relabellings", self.relabellings)
        } else {
            format!("{} random relabellings (seed {})", self.relabellings, self.seed)
        };
        let percent = self.smallest_effect * 100.0;
        format!(
            "A finding is a difference of {percent} points (ratios) or {percent} % of the baseline or more with p ≤ {SIGNIFICANCE}, \
             adjusted for all comparisons by {looked_at} of cells within blocks, that its own blocks bear out."
        )
    }
}

impl super::Compared {
    /// Why it was not tested, or why nothing came of it.
    fn why_untested(&self) -> String {
        let reachable = format::p_value(self.reachable);
        if self.tested {
            "too few blocks in which a cell and its baseline have a value".to_owned()
        } else if self.reachable > SIGNIFICANCE {
            let (cells, blocks) = (format::plural(self.cells, "cell"), format::plural(self.blocks, "block"));
            format!("{cells} in {blocks} reach p {reachable} only")
        } else {
            format!("its p {reachable} and those of the grids before it add up to more than {SIGNIFICANCE}")
        }
    }
}

impl Contrast {
    /// The effect with its sign: `+38.5 points`, `−12.3 %`.
    pub fn effect_in_words(&self, unit: Unit) -> String {
        match self.effect {
            Some(effect) => format::effect(effect, unit),
            None => "from 0".to_owned(),
        }
    }

    /// The effect and, where it reads differently, its interval: `+20.1 % (95.0 % CI +18.0 to +22.4 %)`.
    pub fn effect_and_interval(&self, unit: Unit) -> String {
        let effect = self.effect_in_words(unit);
        let Some(interval) = self.interval else { return effect };
        let (low, high) = (format::effect(interval.low, unit), format::effect(interval.high, unit));
        if low == high {
            return effect;
        }
        let low = low.split_once(' ').map_or(low.as_str(), |(number, _)| number);
        format!("{effect} ({} CI {low} to {high})", format::percent(interval.coverage))
    }

    /// The judgement, and why it is no finding where it is none.
    pub fn judgement_in_words(&self) -> String {
        match (self.judgement, self.p, self.own_p) {
            (Judgement::Better, ..) => "better".to_owned(),
            (Judgement::Worse, ..) => "worse".to_owned(),
            (Judgement::Changed, ..) => "changed".to_owned(),
            (Judgement::NoDifference, ..) => "no difference: below the smallest effect".to_owned(),
            (Judgement::Inconclusive, None, _) => "not tested".to_owned(),
            (Judgement::Inconclusive, Some(p), _) if p > SIGNIFICANCE => {
                format!("inconclusive: p {}", format::p_value(p))
            }
            (Judgement::Inconclusive, _, Some(own)) if own > SIGNIFICANCE => {
                format!("inconclusive: its own blocks alone have p {}", format::p_value(own))
            }
            (Judgement::Inconclusive, ..) => "inconclusive: means and medians disagree".to_owned(),
        }
    }
}
