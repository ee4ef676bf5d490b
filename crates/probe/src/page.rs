//! The lists in docs/probe.md are made from the claims; this test keeps them true.

use std::fmt::Write;
use std::path::Path;

use crate::claim::{Group, Takes, Verdict};
use crate::facts::{self, NOT_HERE};

/// What stands before it is written by hand.
const MARK: &str = "## Every claim\n";

/// Everything from the mark on.
fn lists() -> String {
    let mut text = format!(
        "{MARK}\nMade from the claims: `ACCEPTBENCH_BLESS=1 cargo test -p probe page` writes the rest of this page anew, and the\n\
         same test fails when it is out of date. ✗ marks what is wrong on Linux 6.18, `full` what only `--full` measures.\n"
    );
    for group in Group::ALL {
        let _ = write!(text, "\n### {}\n\n| claim | note | |\n|---|---|---|\n", group.name());
        for claim in crate::claims().filter(|claim| claim.group == group) {
            let wrong = if claim.known == Verdict::Differs { "✗ " } else { "" };
            let full = if matches!(claim.takes, Takes::Full(_)) { " (`full`)" } else { "" };
            let (name, notes, says) = (claim.name, claim.notes.join(", "), claim.says.replace('|', "\\|"));
            let _ = writeln!(text, "| <a id=\"{name}\"></a>`{name}` | {notes} | {wrong}{says}{full} |");
        }
    }
    text.push_str("\n## What is not measured here\n\n| | why |\n|---|---|\n");
    for (id, reason) in NOT_HERE {
        let _ = writeln!(text, "| {} | {reason} |", facts::says(id).unwrap_or(id));
    }
    text
}

#[test]
fn the_page_of_claims_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/probe.md");
    let stored = std::fs::read_to_string(&path).expect("docs/probe.md");
    let by_hand = stored.split(MARK).next().unwrap_or_default();
    let page = format!("{by_hand}{}", lists());
    if std::env::var_os("ACCEPTBENCH_BLESS").is_some() {
        std::fs::write(&path, &page).expect("docs/probe.md written");
    } else {
        assert!(stored == page, "docs/probe.md is out of date: ACCEPTBENCH_BLESS=1 cargo test -p probe page");
    }
}
