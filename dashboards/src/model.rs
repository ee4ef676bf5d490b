//! The part of Grafana's classic dashboard JSON that these boards use, with the choices that never differ made once.
//!
//! A board is rows of panels; [`Dashboard::new`] places them on the grid of 24 columns and numbers them, so no panel
//! can lie on another. Field order is the order in the file. `schemaVersion` 41 is the classic schema of Grafana 11 and
//! 12; `id` is null because a file has none, and there is no `version`, which Grafana counts itself.

mod frame;
mod options;
mod panel;

use serde::Serialize;

pub use frame::{Annotation, KEEPS, Link, PanelLink, Variable};
pub use options::{FieldConfig, Override, Threshold};
pub use panel::{Kind, Panel, Target, Transformation, Unit};

use frame::{Annotations, Templating, TimeRange};

/// The version of the JSON that is written.
pub const SCHEMA_VERSION: u32 = 41;

/// What every board is tagged with; the links between boards go by it.
pub const TAG: &str = "acceptbench";

/// Begins the uid of every board.
pub const UID_PREFIX: &str = "acceptbench-";

/// The data source a user picked in the variable of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Datasource {
    r#type: &'static str,
    uid: &'static str,
}

/// The only one.
pub const DATASOURCE: Datasource = Datasource { r#type: "prometheus", uid: "${datasource}" };

/// A board.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dashboard {
    uid: String,
    id: Option<u32>,
    title: String,
    description: String,
    tags: Vec<&'static str>,
    schema_version: u32,
    editable: bool,
    graph_tooltip: u8,
    refresh: &'static str,
    time: TimeRange,
    timezone: &'static str,
    links: Vec<Link>,
    templating: Templating,
    annotations: Annotations,
    panels: Vec<Panel>,
}

impl Dashboard {
    /// A board with the variables, links and annotations all have. `name` is its file's name without `.json`,
    /// kebab-case; `description` says what it answers.
    pub fn new(name: &str, title: &str, description: &str, rows: Vec<Row>) -> Self {
        Self {
            uid: format!("{UID_PREFIX}{name}"),
            id: None,
            title: title.to_owned(),
            description: description.to_owned(),
            tags: vec![TAG],
            schema_version: SCHEMA_VERSION,
            editable: false,
            // A cross hair on every panel at the time under the pointer: a drop here and a sysctl there.
            graph_tooltip: 1,
            refresh: "5s",
            time: TimeRange { from: "now-5m", to: "now" },
            timezone: "browser",
            links: frame::links(),
            templating: Templating { list: frame::variables() },
            annotations: Annotations { list: frame::annotations("") },
            panels: place(rows),
        }
        .without_links_to_itself()
    }

    /// A board about runs of experiments: also with the variables `run`, several at once, and `quantity`.
    #[must_use]
    pub fn of_runs(mut self) -> Self {
        self.templating.list.extend(frame::run_variables());
        self.annotations.list = frame::annotations(crate::query::RUN);
        self
    }

    /// Panels that boards share lead to where there is more, which is not where they are.
    fn without_links_to_itself(mut self) -> Self {
        for panel in &mut self.panels {
            panel.forget(&self.uid);
        }
        self
    }

    /// The file's name without `.json`.
    pub fn name(&self) -> &str {
        self.uid.trim_start_matches(UID_PREFIX)
    }
}

/// Panels under one heading.
#[derive(Debug, Clone)]
pub struct Row {
    title: &'static str,
    height: u32,
    panels: Vec<(u32, Panel)>,
}

impl Row {
    /// A heading over panels that are `height` grid units (30 pixels each) high.
    pub fn new(title: &'static str, height: u32) -> Self {
        Self { title, height, panels: Vec::new() }
    }

    /// Adds a panel `width` of 24 columns wide, beside the one before while there is room.
    #[must_use]
    pub fn panel(mut self, width: u32, panel: Panel) -> Self {
        self.panels.push((width, panel));
        self
    }
}

/// Where a panel lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GridPos {
    h: u32,
    w: u32,
    x: u32,
    y: u32,
}

/// Columns of the grid.
pub const COLUMNS: u32 = 24;

/// Places and numbers the panels, row by row.
fn place(rows: Vec<Row>) -> Vec<Panel> {
    let mut panels = Vec::new();
    let mut y = 0;
    for row in rows {
        panels.push(Panel::heading(row.title).at(GridPos { h: 1, w: COLUMNS, x: 0, y }));
        y += 1;
        let mut x = 0;
        for (width, panel) in row.panels {
            if x + width > COLUMNS {
                (x, y) = (0, y + row.height);
            }
            panels.push(panel.at(GridPos { h: row.height, w: width, x, y }));
            x += width;
        }
        y += row.height;
    }
    for (id, panel) in (1..).zip(&mut panels) {
        panel.number(id);
    }
    panels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_fill_a_line_before_they_begin_the_next() {
        let panel = || Panel::stat("A panel", Unit::Short, "Text.");
        let rows = vec![
            Row::new("First", 4).panel(12, panel()).panel(12, panel()).panel(8, panel()),
            Row::new("Second", 8).panel(24, panel()),
        ];
        let places: Vec<(u32, u32, u32, u32)> =
            place(rows).iter().map(Panel::grid).map(|GridPos { x, y, w, h }| (x, y, w, h)).collect();
        assert_eq!(places, [(0, 0, 24, 1), (0, 1, 12, 4), (12, 1, 12, 4), (0, 5, 8, 4), (0, 9, 24, 1), (0, 10, 24, 8)]);
    }
}
