//! A page per board without a Grafana: the same queries, asked of a Prometheus once and drawn as they were answered.
//!
//! Owns the layout ([`page`]) and hands each panel to `panel`. The pages are for looking at, in a browser or a
//! document: no script, no refresh, nothing loaded. Every variable picks all, except `quantity`.

mod chart;
mod panel;
mod text;

use std::fmt::Write;

use serde_json::Value;

use crate::client::{Client, Range};
use crate::queries::{list, text as field};

use text::escape;

/// Pixels of a grid unit's height, as in Grafana.
const UNIT: u64 = 30;

const STYLE: &str = "
body { margin: 16px; background: #f4f5f5; color: #24292e; font: 12px/1.35 system-ui, sans-serif; }
h1 { font-size: 20px; margin: 0 0 4px; } p { margin: 0 0 8px; } a { color: #1f62e0; }
main { display: grid; grid-template-columns: repeat(24, minmax(0, 1fr)); gap: 6px; }
section { background: #fff; border: 1px solid #d8d9da; border-radius: 3px; padding: 6px 8px; overflow: hidden; }
h2 { font-size: 14px; margin: 8px 0 0; align-self: end; } h3 { font-size: 12px; margin: 0 0 4px; }
svg { display: block; width: 100%; } svg text { font-size: 9px; fill: #52575c; }
.tiles { display: flex; flex-wrap: wrap; gap: 2px 14px; } .tile b { font-size: 20px; display: block; }
.legend { color: #52575c; } .legend span { white-space: nowrap; } .legend i { display: inline-block; width: 9px; height: 3px; margin: 0 3px 2px 8px; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: 1px 6px; border-bottom: 1px solid #e6e7e8; }
.none { color: #7b8087; }
";

/// A board as a page of HTML, drawn from what Prometheus knows of `range`.
///
/// # Errors
/// Prometheus is not reached or refuses a query of the board.
pub fn page(board: &Value, client: Client, range: Range) -> Result<String, String> {
    let title = escape(field(board, "title"));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>{}</p>\n<main>\n",
        escape(field(board, "description"))
    );
    let trials = trials(board, client, range)?;
    for one in list(board, "/panels") {
        let at = |key: &str| one["gridPos"][key].as_u64().unwrap_or_default();
        let place = format!("grid-column: {} / span {}", at("x") + 1, at("w"));
        let heading = escape(field(one, "title"));
        if one["type"] == "row" {
            let _ = writeln!(out, "<h2 style=\"{place}\">{heading}</h2>");
            continue;
        }
        let height = at("h") * UNIT;
        let drawn = panel::drawn(one, client, range, &trials)?;
        let _ = writeln!(
            out,
            "<section style=\"{place}; height: {height}px\" title=\"{}\"><h3>{heading}</h3>{drawn}</section>",
            escape(field(one, "description"))
        );
    }
    out.push_str("</main>\n</body></html>\n");
    Ok(out)
}

/// When trials were under way: the regions of the board's first annotation.
fn trials(board: &Value, client: Client, range: Range) -> Result<Vec<f64>, String> {
    let Some(annotation) = list(board, "/annotations/list").first() else { return Ok(Vec::new()) };
    let series = client.range(field(annotation, "expr"), range)?;
    let active = series.iter().flat_map(|series| &series.points).filter(|(_, value)| *value > 0.0);
    Ok(active.map(|(time, _)| *time).collect())
}
