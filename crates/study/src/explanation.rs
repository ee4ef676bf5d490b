//! Beside the figures, why they are so: what bound each cell, which swept knobs cannot have mattered, and what theory says.
//! A part of summary.json, and sections of the report.

use serde::{Deserialize, Serialize};

use crate::binding::{self, Binding, Knob};
use crate::design::Design;
use crate::format;
use crate::inert::{self, Inert};
use crate::queueing::{self, CellTheory, Queueing};
use crate::results::Trial;
use crate::summary::Summary;

/// Why a run went as it did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Explanation {
    /// What bound each cell that was run.
    pub binding: Vec<Binding>,
    /// Swept knobs that cannot have mattered.
    pub inert: Inert,
    /// M/M/1/K where it applies.
    #[serde(skip_serializing_if = "Queueing::is_empty")]
    pub queueing: Queueing,
}

impl Explanation {
    /// Of a run; `smallest_effect` as in [`Evidence`](crate::answer::Evidence).
    pub fn of(design: &Design, trials: &[Trial], summary: &Summary, smallest_effect: f64) -> Self {
        Self {
            binding: binding::of(design, trials),
            inert: inert::of(design, trials, summary, smallest_effect),
            queueing: queueing::of(design, trials),
        }
    }

    /// Is there nothing to show, because nothing was run or nobody asked?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The lines of the first screen: name and text. What could not matter takes one line of `limit` characters.
    pub(crate) fn on_screen(&self, limit: usize) -> Vec<(&'static str, String)> {
        let inert = self.inert.in_words(limit).map(|text| ("Inert", text));
        let theory = self.queueing.in_words().map(|text| ("Theory", text));
        let bound = binding::in_words(&self.binding).map(|text| ("Bound", format!("by {text}")));
        let warnings = self.inert.warnings.iter().map(|warning| ("Warning", warning.clone()));
        bound.into_iter().chain(inert).chain(theory).chain(warnings).collect()
    }

    /// Sections of the report: title, a note, and a table (header, then rows) if there is one.
    pub(crate) fn sections(&self) -> Vec<Section> {
        [self.bound(), self.cannot_matter(), self.theory()].into_iter().flatten().collect()
    }

    fn bound(&self) -> Option<Section> {
        let row = |binding: &Binding| {
            let trials: usize = binding.trials.values().sum();
            let knob = if binding.knob == Knob::Undetermined { "*not determined*" } else { binding.knob.name() };
            vec![binding.name.clone(), knob.to_owned(), trials.to_string(), binding.evidence.clone()]
        };
        Section::new(
            "What bound each cell",
            "From effective values and the counters of the valid trials; the figures are those of one trial, the one in the \
             middle by attempts lost.",
            ["cell", "bound by", "valid trials", "evidence"],
            self.binding.iter().map(row).collect(),
        )
    }

    fn cannot_matter(&self) -> Option<Section> {
        let row =
            |mark: &inert::Mark| vec![mark.subject(), mark.levels.join(", "), mark.reason.clone(), mark.source.clone()];
        let mut section = Section::new(
            "Cannot matter here",
            "INERT: swept knobs of which the kernel made the same, or which it never asked for. Not a finding: these levels \
             would come to the same however often they were run.",
            ["knob", "levels alike", "why", "source"],
            self.inert.marks.iter().map(row).collect(),
        );
        if !self.inert.warnings.is_empty() {
            let section = section.get_or_insert_with(|| Section { title: "Cannot matter here", ..Section::default() });
            section.warnings.clone_from(&self.inert.warnings);
        }
        section
    }

    fn theory(&self) -> Option<Section> {
        let loss = |value: f64| format!("{value:.4}");
        let other = |cell: &CellTheory, offset: i64| {
            cell.prediction(offset).map_or_else(
                || "–".to_owned(),
                |other| {
                    let judged = match other.rejected {
                        Some(true) => " (rejected)",
                        Some(false) => "",
                        None => " (not judged)",
                    };
                    format!("{}{judged}", loss(other.loss))
                },
            )
        };
        let measured = |cell: &CellTheory| match cell.agrees() {
            Some(_) => format!("{} ({}–{})", loss(cell.loss), loss(cell.interval[0]), loss(cell.interval[1])),
            None => format!("{} ({})", loss(cell.loss), queueing::TOO_FEW),
        };
        let row = |cell: &CellTheory| {
            vec![
                cell.name.clone(),
                cell.k.to_string(),
                format!("{:.3}", cell.rho),
                format!("{:.0}/s", cell.arrival_rate),
                format::time(cell.service_seconds),
                measured(cell),
                other(cell, 0),
                other(cell, -1),
                other(cell, 1),
                format!("{:.2}", cell.mean_number),
                format::time(cell.time_in_system),
                cell.measured_time.map_or_else(|| "–".to_owned(), format::time),
            ]
        };
        let mut section = Section::new(
            "Queueing theory",
            "M/M/1/K at the measured arrival rate and service time, K = queue limit + 2. Loss with its interval (Student's t \
             over trials; all cells together 95 %); a prediction outside it is rejected. None is judged where fewer than 20 \
             losses a trial are expected and measured. The measured time has the handshake and the way of the first byte in \
             it.",
            [
                "cell",
                "K",
                "ρ",
                "arrivals",
                "service",
                "loss measured",
                "theory",
                "K − 1",
                "K + 1",
                "mean number",
                "time in system",
                "measured time",
            ],
            self.queueing.cells.iter().map(row).collect(),
        )?;
        let apart = self.queueing.inapplicable.iter();
        section.warnings = apart.map(|cell| format!("does not apply to {}: {}", cell.name, cell.reason)).collect();
        Some(section)
    }
}

/// A section of the report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) note: &'static str,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    /// Shown below the table, a sentence each.
    pub(crate) warnings: Vec<String>,
}

impl Section {
    /// `None` without rows.
    fn new<const N: usize>(
        title: &'static str,
        note: &'static str,
        header: [&str; N],
        rows: Vec<Vec<String>>,
    ) -> Option<Self> {
        let header = header.map(str::to_owned).to_vec();
        (!rows.is_empty()).then_some(Self { title, note, header, rows, warnings: Vec::new() })
    }
}
