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
            let worst = self.grids.first().map_or_else(String::new, super::Compared::reach);
            return Some(format!("not tested: {worst}; judged by range"));
        };
        let kinds = [
            (Judgement::Better, "better"),
            (Judgement::Worse, "worse"),
            (Judgement::Changed, "changed"),
            (Judgement::Inconclusive, "inconclusive"),
        ];
        let count = |kind| self.contrasts.iter().filter(|c| c.p.is_some() && c.judgement == kind).count();
        let counts: Vec<String> = kinds
            .into_iter()
            .filter_map(|(kind, name)| Some(format!("{} {name}", Some(count(kind)).filter(|n| *n > 0)?)))
            .collect();
        let counts = if counts.is_empty() { "no difference".to_owned() } else { counts.join(", ") };
        let comparisons = format::plural(tested, "comparison");
        let untested = self.grids.iter().filter(|grid| !grid.tested);
        let untested = untested.map(|grid| format!("{}: by range, {}", grid.name, grid.reach()));
        let said = [format!("{counts} of {comparisons}, adjusted p ≤ {SIGNIFICANCE}")].into_iter().chain(untested);
        Some(said.collect::<Vec<_>>().join("; "))
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
    /// What it can come to.
    fn reach(&self) -> String {
        format!(
            "{} in {} reach p {} only",
            format::plural(self.cells, "cell"),
            format::plural(self.blocks, "block"),
            format::p_value(self.reachable)
        )
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
