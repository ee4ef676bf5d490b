//! report.html: the report as one page that explains itself, opened from a disk. A function of what is stored, with the same
//! figures as report.md and trials.csv.
//!
//! Everything is in the file: no address is fetched, and a content security policy forbids it. Text, tables and charts are
//! there without a script; the script adds the figures under a pointer, sorting and the choice of light and dark. What comes
//! from data is escaped, wherever it stands. Of a trial only what is shown goes in, never its histograms, so that a thousand
//! trials stay some megabytes.

mod axis;
mod cells;
mod chart;
mod depth;
mod factors;
mod latency;
mod markup;
mod panels;
mod sections;
mod trials;

use std::fmt::Write;

use serde_json::json;

use crate::expectation::Judgement;
use crate::html::markup::{each, escape, script_json};
use crate::html::sections::{ASKED, Section, Sections};
use crate::quantity::{Quantity, UnknownQuantity};
use crate::report::Report;
use crate::summary::Summary;

pub use trials::BOARD;

/// What the page is made of.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The report in its other form.
    pub report: Report<'a>,
    /// The run's name: that of its results directory.
    pub run: &'a str,
    /// What the experiment's author says about its question.
    pub analysis: Option<&'a str>,
    /// Address of a Grafana that has the run's metrics.
    pub grafana: Option<&'a str>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A quantity does not exist.
    #[error(transparent)]
    Quantity(#[from] UnknownQuantity),
    /// The page's data.
    #[error("cannot write the page's data: {0}")]
    Data(#[from] serde_json::Error),
}

impl Page<'_> {
    /// The page.
    ///
    /// # Errors
    /// [`PageError`] never happens with the quantities there are; tests keep it so.
    pub fn html(&self) -> Result<String, PageError> {
        let shown = self.report.shown();
        let names: Vec<&str> = shown.iter().chain(&ASKED).copied().collect();
        let quantities = names.iter().map(|name| Quantity::named(name)).collect::<Result<Vec<_>, _>>()?;
        let summary = Summary::of(self.report.screen.design, self.report.trials, &names)?;
        let mut maker = Sections::new(self, &summary, &quantities, shown.len());
        let sections = maker.all()?;
        let contents = each(&sections, |Section { id, title, .. }| format!("<li><a href=\"#{id}\">{title}</a></li>"));
        let body = each(&sections, |Section { id, title, html }| {
            format!(
                "<section id=\"{id}\" aria-labelledby=\"{id}-title\"><h2 id=\"{id}-title\">{title}</h2>\n{html}</section>\n"
            )
        });
        let data = json!({ "charts": maker.into_charts() });
        // The template alone is searched for places: nothing in data is taken for one.
        let mut html = String::new();
        let parts = [
            ("title", escape(&format!("{}: {}", self.report.screen.name, self.report.screen.question))),
            ("style", format!("{}{}", include_str!("html/report.css"), self.choices())),
            ("run", escape(self.run)),
            ("opening", self.opening()),
            ("contents", contents),
            ("body", body),
            ("data", script_json(&data)?),
            ("script", include_str!("html/report.js").to_owned()),
        ];
        let mut rest = include_str!("html/report.html");
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").unwrap_or((after, ""));
            html.push_str(before);
            html.extend(parts.iter().find(|(part, _)| *part == name).map(|(_, text)| text.as_str()));
            rest = after;
        }
        html.push_str(rest);
        Ok(html)
    }

    /// Question, answer and what they rest on.
    fn opening(&self) -> String {
        let screen = self.report.screen;
        let summary = screen.summary;
        let held = screen.expectations.iter().filter(|outcome| outcome.judgement == Judgement::Holds).count();
        let mut facts = vec![
            (format!("{}/{}", summary.valid, summary.trials), "trials count"),
            (format!("{}/{}", summary.balanced, summary.trials), "ledgers balance"),
        ];
        if !screen.expectations.is_empty() {
            facts.push((format!("{held}/{}", screen.expectations.len()), "expectations hold"));
        }
        facts.push((screen.design.cells.len().to_string(), "cells"));
        let facts = each(&facts, |(figure, name)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escape(figure)));
        let began = self.report.trials.iter().map(|trial| trial.started).min();
        let began = began.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M UTC · ").to_string());
        format!(
            "<p class=\"kind\">{began}{}</p>\n<h1>{}</h1>\n<p class=\"question\">{}</p>\n\
             <div class=\"answer\"><h2>Answer</h2><p>{}</p></div>\n<dl class=\"facts\">{facts}</dl>\n<p class=\"note\">{}</p>\n",
            screen.place.trace(),
            escape(screen.name),
            escape(&upper_first(screen.question)),
            escape(&upper_first(&screen.answer())),
            escape(&screen.place.caveat()),
        )
    }

    /// The rules by which choices on the page show and hide: they need no script.
    fn choices(&self) -> String {
        let mut css = "@supports selector(:has(a)) {\n.choice { display: none }\n".to_owned();
        for index in 0..self.report.shown().len() {
            // Writing to a String cannot fail.
            let _ = writeln!(css, "main:has(#metric-{index}:checked) .choice-{index} {{ display: block }}");
        }
        for index in 0..panels::LINES {
            let _ = writeln!(css, ".lines:has([data-line=\"{index}\"]:not(:checked)) .l{index} {{ display: none }}");
        }
        css.push_str("}\n");
        css
    }
}

/// A text that begins a line begins in upper case, unless its first word is the name of something.
fn upper_first(text: &str) -> String {
    let word = text.split([' ', ':', ',']).next().unwrap_or("");
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if word.chars().all(char::is_alphabetic) => {
            first.to_uppercase().collect::<String>() + chars.as_str()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
