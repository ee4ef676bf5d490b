//! The page's sections, in their order: what the report says, as tables and charts.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::cells::Cells;
use super::chart::Chart;
use super::latency::Latency;
use super::markup::{Column, Field, Table, each, escape, list};
use super::trials::{self, Dashboards};
use super::{Page, depth, factors, upper_first};
use crate::capacity::{CAPACITY, LEVELS};
use crate::expectation::Judgement;
use crate::format;
use crate::quantity::{Quantity, Unit, UnknownQuantity};
use crate::report::facts;
use crate::summary::Summary;

/// What is asked of the acceptors, in the table of cells after the quantities of the report.
pub(super) const ASKED: [&str; 5] = ["arrival-rate", "service-rate", "utilisation", "burst-size", "queue-capacity"];

/// Quantities of the table of trials, after the one that answers the question.
pub(super) const OF_TRIALS: [&str; 4] = ["confirm-latency.p99", "overflows", "phantoms", "queue-max"];

/// Columns of the table of findings that hold figures: medians, effect and p.
const FIGURES: std::ops::Range<usize> = 3..6;

/// Cells beyond which only the quantity that answers the question has charts of its factors.
const MANY_CELLS: usize = 64;

/// A part of the page with a heading of its own.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) html: String,
}

/// Makes the sections and gathers the data of their charts.
#[derive(Debug)]
pub(super) struct Sections<'a> {
    page: &'a Page<'a>,
    summary: &'a Summary,
    /// Those of the report, then [`ASKED`].
    quantities: &'a [&'static Quantity],
    /// How many are of the report.
    shown: usize,
    charts: Map<String, Value>,
}

impl<'a> Sections<'a> {
    /// Of these quantities the first `shown` are of the report, the others are [`ASKED`].
    pub(super) fn new(
        page: &'a Page<'a>,
        summary: &'a Summary,
        quantities: &'a [&'static Quantity],
        shown: usize,
    ) -> Self {
        Self { page, summary, quantities, shown, charts: Map::new() }
    }

    /// What a script needs of the charts, by their names.
    pub(super) fn into_charts(self) -> Map<String, Value> {
        self.charts
    }

    /// Every section that has something to say.
    pub(super) fn all(&mut self) -> Result<Vec<Section>, UnknownQuantity> {
        // What sums up the trials of a cell would mix the levels of a search.
        let searched = self.page.report.screen.summary.capacity.is_some();
        let (cells, latency, depth) =
            if searched { Default::default() } else { (self.cells(), self.latency(), self.depth()) };
        let mut sections = vec![
            Section { id: "capacity", title: "Capacity", html: self.capacity() },
            Section { id: "cells", title: "Cells", html: cells },
            Section { id: "findings", title: "Findings", html: self.findings()? },
            Section { id: "why", title: "Why", html: self.explanation() },
            Section { id: "latency", title: "Latency", html: latency },
            Section { id: "depth", title: "Accept queue over time", html: depth },
            Section { id: "expectations", title: "Expectations", html: self.expectations() },
            Section { id: "analysis", title: "What the author says", html: self.analysis() },
            Section { id: "ledger", title: "Ledger", html: self.ledger() },
            Section { id: "trials", title: "Trials", html: self.trials()? },
            Section { id: "warnings", title: "Warnings and notes", html: self.warnings() },
            Section { id: "sysctls", title: "Effective sysctls", html: self.sysctls() },
            Section { id: "environment", title: "Environment", html: self.environment() },
            Section { id: "again", title: "Run it again", html: self.again() },
        ];
        sections.retain(|section| !section.html.is_empty());
        Ok(sections)
    }

    fn draw(&mut self, chart: &Chart) -> String {
        self.charts.insert(chart.id.clone(), chart.data());
        chart.html()
    }

    fn of_grid(&self, grid: usize) -> Cells<'_> {
        let design = self.page.report.screen.design;
        let findings = self.page.report.screen.summary.findings.as_ref();
        Cells { design, summary: self.summary, grid, findings }
    }

    fn grids(&self) -> std::ops::Range<usize> {
        0..self.page.report.screen.design.grids.len()
    }

    /// A heading for a grid, where there are several.
    fn heading(&self, grid: usize) -> String {
        let grids = &self.page.report.screen.design.grids;
        if grids.len() < 2 {
            return String::new();
        }
        format!("<h3>{}</h3>\n", escape(&upper_first(grids[grid].name.as_deref().unwrap_or("main grid"))))
    }

    /// What a search came to, and the levels it rests on.
    fn capacity(&self) -> String {
        let Some(capacity) = &self.page.report.screen.summary.capacity else { return String::new() };
        let table = |caption: &str, columns: [&str; 5], rows: Vec<Vec<String>>| {
            let rows = rows.iter().map(|row| row.iter().map(|text| Field::text(text)).collect());
            let columns = columns.map(Column::plain).to_vec();
            Table { caption: caption.to_owned(), columns, rows: rows.collect(), class: "sortable" }.html()
        };
        let cells = table("The capacity of every cell", CAPACITY, capacity.rows());
        let levels = table("Every level that was tried, in trials", LEVELS, capacity.level_rows());
        format!("<p class=\"note\">{}</p>\n{cells}{levels}", escape(&capacity.method()))
    }

    /// What comparing the cells came to, contrast by contrast.
    fn findings(&self) -> Result<String, UnknownQuantity> {
        let screen = self.page.report.screen;
        let Some(findings) = &screen.summary.findings else { return Ok(String::new()) };
        let Some(sentence) = findings.sentence() else { return Ok(String::new()) };
        let mut html = format!("<p>{}.</p>\n", escape(&upper_first(&sentence)));
        if findings.tested().is_some() {
            let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(&findings.method()));
        }
        let contrasts = facts::contrasts(screen.design, findings)?;
        let field = |(column, text): (usize, &String)| {
            let field = Field::text(text);
            if FIGURES.contains(&column) { field.class("number") } else { field }
        };
        let rows = contrasts.iter().map(|row| row.iter().enumerate().map(field).collect());
        html.push_str(
            &Table {
                caption: "Every cell against its baseline, metric by metric".to_owned(),
                columns: facts::CONTRAST.map(Column::plain).to_vec(),
                rows: rows.collect(),
                class: "sortable",
            }
            .html(),
        );
        Ok(html)
    }

    /// What bound each cell, what cannot have mattered, and what theory says.
    fn explanation(&self) -> String {
        each(self.page.report.screen.summary.explanation.sections(), |part| {
            // What Markdown would show in italics.
            let field = |text: &String| Field::text(text.trim_matches('*'));
            let rows = part.rows.iter().map(|row| row.iter().map(field).collect());
            let table = Table {
                caption: part.note.to_owned(),
                columns: part.header.iter().map(|title| Column::plain(title)).collect(),
                rows: rows.collect(),
                class: "sortable",
            };
            format!("<h3>{}</h3>\n{}{}", escape(part.title), table.html(), list(&part.warnings))
        })
    }

    /// Tables and charts of one quantity, which is chosen on the page, then the table of all.
    fn cells(&mut self) -> String {
        let mut html = "<fieldset class=\"choices\"><legend>Show</legend>".to_owned();
        let shown = &self.quantities[..self.shown];
        for (index, quantity) in shown.iter().enumerate() {
            let checked = if index == 0 { " checked" } else { "" };
            let _ = write!(
                html,
                "<label title=\"{}\"><input type=\"radio\" name=\"metric\" id=\"metric-{index}\"{checked}><span>{}</span></label>",
                escape(quantity.help),
                escape(quantity.title)
            );
        }
        html.push_str("</fieldset>\n");
        for (index, quantity) in shown.iter().enumerate() {
            let _ =
                writeln!(html, "<div class=\"choice choice-{index}\"><p class=\"note\">{}.</p>", escape(quantity.help));
            for grid in self.grids() {
                let _ = writeln!(
                    html,
                    "{}<div class=\"pair\">{}{}</div>",
                    self.heading(grid),
                    self.of_grid(grid).matrix(quantity),
                    self.factors(grid, index, quantity)
                );
            }
            html.push_str("</div>\n");
        }
        html.push_str("<details open><summary>All figures of all cells</summary>\n");
        for grid in self.grids() {
            html.push_str(&self.of_grid(grid).table(self.quantities));
        }
        html.push_str(
            "<p class=\"note\">λ is attempts planned per second of the measured phase. µ is acceptors / mean service time: it has \
             no value without an accept-delay, since how fast a CPU accepts is not recorded. ρ = λ / µ.</p></details>\n",
        );
        html
    }

    fn factors(&mut self, grid: usize, index: usize, quantity: &Quantity) -> String {
        let design = self.page.report.screen.design;
        if index > 0 && design.cells_of(grid).count() > MANY_CELLS {
            return String::new();
        }
        let mut html = String::new();
        for factor in 0..design.grids[grid].factors.len() {
            let Some((legend, chart, left_out)) = factors::chart(&self.of_grid(grid), factor, quantity) else {
                continue;
            };
            let figure = self.draw(&chart);
            let _ = write!(html, "<div>{figure}{legend}{}</div>", more_in_the_table(left_out));
        }
        if html.is_empty() { html } else { format!("<div class=\"panels\">{html}</div>\n") }
    }

    fn latency(&mut self) -> String {
        let mut html = String::new();
        for grid in self.grids() {
            let report = &self.page.report;
            let Some(latency) = Latency::of(report, grid) else { continue };
            let (legend, charts, left_out) = latency.lines();
            let heat = latency.heat();
            html.push_str(&self.heading(grid));
            let figures: String = charts.iter().map(|chart| self.draw(chart)).collect();
            // A chart that is alone leaves room beside it.
            let beside = if charts.len() == 1 { " class=\"beside\"" } else { "" };
            let _ = writeln!(
                html,
                "<div{beside}><div class=\"lines\">{legend}<div class=\"panels\">{figures}</div></div>{heat}</div>{}",
                more_in_the_table(left_out)
            );
        }
        if html.is_empty() {
            return html;
        }
        format!(
            "<p class=\"note\">The share of planned attempts that had their first byte (without a confirmation: were connected) by each \
             time, counted from the planned instant; median and range of the trials. A line that ends below 100 % is attempts \
             that never had it. Dashed upright lines: the kernel sends an unanswered SYN again.</p>\n{html}"
        )
    }

    fn depth(&mut self) -> String {
        let Some(steps) = depth::steps(self.page.report.trials) else {
            return "<p class=\"note\">The records of these trials hold no depths over time.</p>\n".to_owned();
        };
        let mut html = format!(
            "<p class=\"note\">Connections in the accept queue since the start of the load: in each step of {} the deepest of the looks \
             taken every 5 ms; median and range of the trials. What came and went between two looks is not in it; the deepest that \
             any acceptor saw is in the table of trials.</p>\n",
            format::range(steps, Unit::Seconds).replace(' ', "\u{a0}")
        );
        for grid in self.grids() {
            let (charts, left_out) = depth::charts(&self.page.report, grid);
            html.push_str(&self.heading(grid));
            html.push_str("<div class=\"panels small\">");
            for chart in &charts {
                html.push_str(&self.draw(chart));
            }
            html.push_str("</div>\n");
            if left_out > 0 {
                let _ = writeln!(html, "<p class=\"note\">{} more are left out.</p>", format::plural(left_out, "cell"));
            }
        }
        html
    }

    fn expectations(&self) -> String {
        let rows = self.page.report.screen.expectations.iter().map(|outcome| {
            let judgement = match outcome.judgement {
                Judgement::Holds => Field::text("holds"),
                Judgement::Fails => Field::text("fails").class("bad"),
                Judgement::Untested => Field::text("untested").class("bad"),
            };
            vec![judgement, Field::text(&outcome.sentence().replace('`', ""))]
        });
        Table {
            caption: "What the experiment's author says every valid trial satisfies".to_owned(),
            columns: ["judgement", "expectation"].map(Column::plain).to_vec(),
            rows: rows.collect(),
            class: "prose",
        }
        .html()
    }

    fn analysis(&self) -> String {
        let Some(text) = self.page.analysis else { return String::new() };
        let paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
        each(paragraphs, |paragraph| format!("<p>{}</p>\n", escape(paragraph)))
    }

    fn ledger(&self) -> String {
        let server = if self.page.report.trials.iter().any(|trial| trial.target.is_some()) {
            "; what only the server could count is derived, or not evaluated"
        } else {
            " and what the server accepted"
        };
        format!(
            "<p class=\"note\">Equations between what the generator planned, what both kernels counted{server}. \
             A trial with a residual does not count.</p>\n{}",
            trials::ledger(&self.page.report)
        )
    }

    fn trials(&self) -> Result<String, UnknownQuantity> {
        let mut names = vec![self.page.report.screen.quantity.name];
        names.extend(OF_TRIALS.iter().filter(|name| **name != self.page.report.screen.quantity.name));
        let quantities = names.iter().map(|name| Quantity::named(name)).collect::<Result<Vec<_>, _>>()?;
        let dashboards = Dashboards { base: self.page.grafana, run: self.page.run };
        let table = trials::table(&self.page.report, &quantities, &dashboards);
        let hint = match self.page.grafana {
            Some(_) => String::new(),
            None => format!(
                "<p class=\"note\">In a Grafana that has this run's metrics, its time is at <code>{}</code>; \
                 <code>acceptbench report --grafana URL</code> links every trial.</p>\n",
                escape(&dashboards.path(self.page.report.trials.iter()))
            ),
        };
        Ok(format!("{table}{hint}"))
    }

    fn warnings(&self) -> String {
        list(&facts::warnings(self.page.report.trials, self.page.report.screen.notes))
    }

    /// Every effective sysctl; those that differ say where.
    fn sysctls(&self) -> String {
        let mut seen: Vec<_> = facts::sysctls(self.page.report.trials).into_iter().collect();
        // Those that differ first: they are what the run is about.
        seen.sort_by_key(|(_, values)| values.len() == 1);
        let rows = seen.iter().flat_map(|(name, values)| {
            values.iter().map(move |(value, cells)| {
                let place = if values.len() == 1 {
                    "all".to_owned()
                } else {
                    facts::cells_in_words(self.page.report.screen.design, cells)
                };
                vec![Field::text(name), Field::text(value).class("number"), Field::text(&place)]
            })
        });
        Table {
            caption: "Read back from the server's namespace after they were set; those that differ first".to_owned(),
            columns: ["sysctl", "value", "cells"].map(Column::plain).to_vec(),
            rows: rows.collect(),
            class: "",
        }
        .html()
    }

    fn environment(&self) -> String {
        let mut lines = self.page.report.environment.to_vec();
        lines.push(facts::caveat(self.page.report.screen.place));
        list(&lines)
    }

    fn again(&self) -> String {
        format!(
            "<pre><code>{}</code></pre>\n<p class=\"note\">Every number comes from <code>trials.jsonl</code>; \
             <code>trials.csv</code> has one row per trial.</p>\n",
            escape(self.page.report.command)
        )
    }
}

/// What a chart has no room for.
fn more_in_the_table(left_out: usize) -> String {
    if left_out == 0 {
        return String::new();
    }
    format!("<p class=\"note\">{} more in the table only.</p>\n", format::plural(left_out, "line"))
}
