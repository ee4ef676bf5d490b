//! How the cells of a grid become charts and lines: small charts side by side, each with few lines, the same line style for
//! the same levels everywhere.

use std::collections::BTreeMap;

use crate::design::{Cell, Design, levels_of};

/// Lines of a chart at most: more cannot be told apart.
pub(super) const LINES: usize = 24;

/// One chart: its title, and its lines with style and name.
#[derive(Debug)]
pub(super) struct Panel<'a> {
    pub(super) title: String,
    pub(super) lines: Vec<(usize, String, &'a Cell)>,
}

/// A chart for each level of the first factor, with a line for each combination of the others; a grid with one factor has
/// one chart with a line for each level. And the lines' names, each once, and how many lines are left out.
pub(super) fn panels<'a>(design: &'a Design, grid: usize) -> (Vec<Panel<'a>>, Vec<(usize, String)>, usize) {
    let factors = &design.grids[grid].factors;
    let split = usize::from(factors.len() > 1);
    let mut names: Vec<(usize, String)> = Vec::new();
    let mut styles = BTreeMap::<&[usize], usize>::new();
    let mut panels: Vec<Panel<'a>> = Vec::new();
    for cell in design.cells_of(grid) {
        let (first, rest) = cell.levels.split_at(split);
        let title = match first {
            [level] => factors[0].at(*level),
            _ => factors.first().map_or_else(|| design.describe(cell), |factor| format!("by {}", factor.label)),
        };
        let next = styles.len();
        let style = *styles.entry(rest).or_insert(next);
        if style >= LINES {
            continue;
        }
        let name = levels_of(factors[split..].iter().zip(rest.iter().copied()));
        if style == names.len() {
            names.push((style, name.clone()));
        }
        match panels.last_mut().filter(|panel| panel.title == title) {
            Some(panel) => panel.lines.push((style, name, cell)),
            None => panels.push(Panel { title, lines: vec![(style, name, cell)] }),
        }
    }
    (panels, names, styles.len().saturating_sub(LINES))
}

/// A line along a factor: its name by the levels of the other factors, and its cell at each level.
#[derive(Debug)]
pub(super) struct Along<'a> {
    pub(super) name: String,
    pub(super) cells: Vec<Option<&'a Cell>>,
}

/// The lines along one factor of a grid, one for each combination of the others, and how many are left out.
pub(super) fn along<'a>(design: &'a Design, grid: usize, factor: usize) -> (Vec<Along<'a>>, usize) {
    let of = &design.grids[grid];
    let mut lines: Vec<(Vec<usize>, Along<'a>)> = Vec::new();
    for cell in design.cells_of(grid) {
        let mut others = cell.levels.clone();
        let level = others.remove(factor);
        let index = lines.iter().position(|(key, _)| *key == others).unwrap_or_else(|| {
            let factors = of.factors.iter().zip(cell.levels.iter().copied());
            let name = levels_of(factors.enumerate().filter(|(index, _)| *index != factor).map(|(_, other)| other));
            lines.push((others, Along { name, cells: vec![None; of.factors[factor].levels.len()] }));
            lines.len() - 1
        });
        lines[index].1.cells[level] = Some(cell);
    }
    let left_out = lines.len().saturating_sub(LINES);
    (lines.into_iter().take(LINES).map(|(_, line)| line).collect(), left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn two_factors_make_a_chart_per_level_of_the_first() {
        let design = testing::backlog_design();
        let (panels, names, left_out) = panels(&design, 0);
        assert_eq!(left_out, 0);
        let titles: Vec<&str> = panels.iter().map(|panel| panel.title.as_str()).collect();
        assert_eq!(titles, ["somaxconn 16", "somaxconn 128", "somaxconn 1024"]);
        let names: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["backlog 16", "backlog 128", "backlog 1024"]);
        let of_second: Vec<(usize, usize)> =
            panels[1].lines.iter().map(|(style, _, cell)| (*style, cell.index)).collect();
        assert_eq!(of_second, [(0, 3), (1, 4), (2, 5)], "the same style for the same level");
    }

    #[test]
    fn one_factor_makes_one_chart_and_none_one_line() {
        let design = testing::design(&[
            (None, vec![testing::factor("server.backlog", &["16", "128"])]),
            (Some("alone"), vec![]),
        ]);
        assert_eq!(panels(&design, 0).0.len(), 1);
        assert_eq!(panels(&design, 0).1.len(), 2);
        let (alone, names, _) = panels(&design, 1);
        assert_eq!((alone[0].title.as_str(), names[0].1.as_str()), ("alone", ""));
    }

    #[test]
    fn lines_run_along_a_factor() {
        let design = testing::backlog_design();
        let (lines, _) = along(&design, 0, 0);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].name, "backlog 128");
        let cells: Vec<usize> = lines[1].cells.iter().flatten().map(|cell| cell.index).collect();
        assert_eq!(cells, [1, 4, 7]);
    }

    #[test]
    fn more_lines_than_can_be_told_apart_are_left_out() {
        let many: Vec<String> = (0..30).map(|level| level.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let design = testing::design(&[(
            None,
            vec![testing::factor("server.acceptors", &["1", "2"]), testing::factor("server.backlog", &many)],
        )]);
        let (panels, names, left_out) = panels(&design, 0);
        assert_eq!((panels.len(), names.len(), panels[1].lines.len()), (2, LINES, LINES));
        let (lines, left) = along(&design, 0, 0);
        assert_eq!((lines.len(), left, left_out), (LINES, 30 - LINES, 30 - LINES));
    }
}
