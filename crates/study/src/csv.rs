//! trials.csv: one row per trial with everything that has a number, for spreadsheets and notebooks. RFC 4180, every
//! digit kept, an empty field where a quantity has no value.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::quantity::Quantity;
use crate::results::Trial;

/// The columns that every trial has.
const FIXED: [&str; 12] = [
    "trial",
    "retry",
    "block",
    "cell",
    "name",
    "started",
    "topology",
    "valid",
    "invalid",
    "set-up-ms",
    "load-ms",
    "drain-ms",
];

/// All trials, in the order given. Columns: the fixed ones, each setting that any cell makes, each quantity in its
/// catalogue's unit, and the residual of each line of the ledger.
pub fn trials(trials: &[Trial]) -> String {
    let settings: BTreeSet<&str> = trials.iter().flat_map(|trial| trial.settings.keys()).map(String::as_str).collect();
    let lines: BTreeSet<u8> = trials.iter().flat_map(|trial| &trial.ledger.lines).map(|line| line.number).collect();
    let header = FIXED
        .iter()
        .chain(&settings)
        .map(|name| (*name).to_owned())
        .chain(Quantity::all().map(|quantity| quantity.name.to_owned()))
        .chain(lines.iter().map(|number| format!("residual-{number}")));
    let mut text = String::new();
    push_row(&mut text, header);
    for trial in trials {
        let made = settings.iter().map(|name| trial.settings.get(*name).cloned().unwrap_or_default());
        let quantities =
            Quantity::all().map(|quantity| quantity.of(trial).map_or_else(String::new, |value| value.to_string()));
        let residuals = lines
            .iter()
            .map(|number| trial.ledger.residual(*number).map_or_else(String::new, |residual| residual.to_string()));
        push_row(&mut text, fixed(trial).into_iter().chain(made).chain(quantities).chain(residuals));
    }
    text
}

fn fixed(trial: &Trial) -> [String; FIXED.len()] {
    [
        trial.trial.to_string(),
        trial.retry.to_string(),
        trial.block.to_string(),
        trial.cell.to_string(),
        trial.name.clone(),
        trial.started.to_string(),
        trial.topology.name().to_owned(),
        trial.is_valid().to_string(),
        trial.invalid.join("; "),
        trial.timings.set_up_ms.to_string(),
        trial.timings.load_ms.to_string(),
        trial.timings.drain_ms.to_string(),
    ]
}

fn push_row(text: &mut String, fields: impl Iterator<Item = String>) {
    for (index, field) in fields.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = if field.contains([',', '"', '\n', '\r']) {
            write!(text, "{comma}\"{}\"", field.replace('"', "\"\""))
        } else {
            write!(text, "{comma}{field}")
        };
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// The field called `name` of the row (no field before it may hold a comma).
    fn field<'a>(text: &'a str, row: usize, name: &str) -> &'a str {
        let column = text.lines().next().unwrap().split(',').position(|column| column == name);
        text.lines().nth(row).unwrap().split(',').nth(column.unwrap_or_else(|| panic!("no column {name}"))).unwrap()
    }

    #[test]
    fn each_trial_is_a_row_with_settings_quantities_and_residuals() {
        let design = testing::design(&[
            (None, vec![testing::factor("server.backlog", &["16", "128"])]),
            (Some("engines"), vec![testing::factor("server.engine", &["epoll"])]),
        ]);
        let mut list = testing::trials(&design, &[&[(172, 3)], &[(1000, 1)], &[(500, 2)]]);
        list[1].ledger.lines[4].residual = -2;
        list[1].invalid.push("line 5 is off by −2".to_owned());
        let text = trials(&list);
        assert_eq!(text.lines().count(), 4);
        assert_eq!((field(&text, 1, "server.backlog"), field(&text, 3, "server.backlog")), ("16", ""));
        assert_eq!(field(&text, 3, "server.engine"), "epoll");
        assert_eq!((field(&text, 1, "served-ratio"), field(&text, 1, "confirm-latency.max")), ("0.172", "0.003"));
        assert_eq!(field(&text, 1, "confirm-service.p99"), "", "nothing recorded, no value");
        assert_eq!((field(&text, 1, "residual-5"), field(&text, 2, "residual-5")), ("0", "-2"));
        assert_eq!((field(&text, 1, "valid"), field(&text, 2, "valid")), ("true", "false"));
        let columns: BTreeSet<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns.len(), 1, "rows of different lengths");
    }

    #[test]
    fn fields_with_commas_and_quotes_are_quoted() {
        let mut text = String::new();
        push_row(&mut text, ["a,b", "say \"hi\"", "two\nlines", "plain"].map(str::to_owned).into_iter());
        assert_eq!(text, "\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\",plain\n");
    }
}
