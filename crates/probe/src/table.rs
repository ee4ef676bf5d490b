//! Measured claims as text for a terminal: by heading ([`table`]) or by note ([`notes`]), with a summary at the end.
//! Takes a [`Document`] and a width, touches nothing.

mod summary;

use std::fmt::Write;

use kernel::namespace::Privilege;

use crate::claim::{Group, Verdict};
use crate::document::{Document, Note};
use crate::facts;
use crate::run::Row;
use crate::scene::Counters;
use crate::text::{Look, Tone, plural};

/// Where a row's text begins, below its verdict.
const INDENT: usize = 4;
/// Where the text behind a row's labels begins.
const COLUMN: usize = INDENT + 13;
/// Before a claim that says less, or says more exactly, what the notes say.
const TESTED: &str = "tested as:";
/// Characters that `✗ not observed` needs.
const VERDICT: usize = 15;

/// Every claim below its heading, and the summary.
pub fn table(document: &Document, look: Look) -> String {
    let mut out = header(document, look);
    for group in Group::ALL {
        let mut rows = document.claims.iter().filter(|row| row.group == group).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let _ = writeln!(out, "\n{}", look.paint(Tone::Heading, &heading(group.name(), look.width)));
        for row in rows {
            entry(&mut out, row, look);
        }
    }
    out.push('\n');
    summary::write(&mut out, document, look);
    out
}

/// The notes in their order: what each says, what this kernel did, why, and what its counters did; and the summary.
pub fn notes(document: &Document, look: Look) -> String {
    let mut out = header(document, look);
    for note in &document.notes {
        out.push('\n');
        noted(&mut out, note, look);
        for row in document.rows_of(note.number) {
            measured(&mut out, row, note, look);
        }
    }
    out.push('\n');
    summary::write(&mut out, document, look);
    out
}

fn header(document: &Document, look: Look) -> String {
    let privilege = match document.privilege {
        Privilege::Root => "as root",
        Privilege::UserNamespace => "as an ordinary user, through a user namespace",
    };
    let mut out = String::new();
    let claims = plural(document.claims.len(), "claim");
    look.labelled(&mut out, 0, 0, "", &format!("Linux {}, {privilege}: {claims} about TCP sockets", document.kernel));
    out
}

/// A heading that fills the line.
fn heading(name: &str, width: usize) -> String {
    format!("{name} {}", "─".repeat(width.saturating_sub(name.chars().count() + 1)))
}

/// One row of the table by headings.
fn entry(out: &mut String, row: &Row, look: Look) {
    let notes = if row.notes.is_empty() { String::new() } else { format!("  note {}", row.notes.join(", ")) };
    let verdict = look.paint(tone(row.verdict), &format!("{:<VERDICT$}", verdict(row.verdict)));
    let _ = writeln!(out, "{verdict}{}{notes}", row.name);
    if row.verdict == Verdict::Differs {
        said(out, row, look);
        look.labelled(out, INDENT, COLUMN, "this kernel:", &row.did);
        look.labelled(out, INDENT, COLUMN, "measured:", &row.unmet.join("; "));
        look.labelled(out, INDENT, COLUMN, "because:", row.why);
    } else {
        look.labelled(out, INDENT, INDENT, "", row.says);
        look.labelled(out, INDENT, COLUMN, did(row), &row.did);
    }
}

/// What a claim that differs says: in the words of the notes, and as it was tested where that is narrower.
fn said(out: &mut String, row: &Row, look: Look) {
    let words: Vec<&str> = row.notes.iter().filter_map(|number| facts::says(number)).collect();
    for words in &words {
        look.labelled(out, INDENT, COLUMN, "the notes:", words);
    }
    if !words.contains(&row.says) {
        look.labelled(out, INDENT, COLUMN, if words.is_empty() { "the claim:" } else { TESTED }, row.says);
    }
}

/// The first lines of a note.
fn noted(out: &mut String, note: &Note, look: Look) {
    let title = format!("{:<VERDICT$}note {}", verdict(note.verdict), note.number);
    let _ = writeln!(out, "{}", look.paint(tone(note.verdict), &title));
    look.labelled(out, INDENT, COLUMN, "the notes:", note.says);
}

/// One row below its note. Of several, each says which part of the note it is.
fn measured(out: &mut String, row: &Row, note: &Note, look: Look) {
    let _ = writeln!(
        out,
        "  {}{}",
        look.paint(tone(row.verdict), &format!("{:<VERDICT$}", verdict(row.verdict))),
        row.name
    );
    if row.says != note.says {
        look.labelled(out, INDENT, COLUMN, TESTED, row.says);
    }
    look.labelled(out, INDENT, COLUMN, did(row), &row.did);
    if row.verdict == Verdict::Differs {
        look.labelled(out, INDENT, COLUMN, "measured:", &row.unmet.join("; "));
    }
    look.labelled(out, INDENT, COLUMN, "because:", row.why);
    let Some(observed) = &row.observed else { return };
    if observed.server == observed.client {
        moved(out, "both ends:", &observed.server, look);
    } else {
        moved(out, "server:", &observed.server, look);
        moved(out, "client:", &observed.client, look);
    }
}

/// What the kernel's counters did between before and after.
fn moved(out: &mut String, label: &str, counters: &Counters, look: Look) {
    if !counters.is_empty() {
        let moved: Vec<String> = counters.iter().map(|(name, growth)| format!("{name} +{growth}")).collect();
        look.labelled(out, INDENT, COLUMN, label, &moved.join(", "));
    }
}

fn did(row: &Row) -> &'static str {
    match row.verdict {
        Verdict::NotObserved if row.failed => "failed:",
        Verdict::NotObserved => "not here:",
        _ => "this kernel:",
    }
}

fn verdict(verdict: Verdict) -> String {
    let mark = match verdict {
        Verdict::Holds => '✓',
        Verdict::Differs => '✗',
        Verdict::NotObserved => '–',
    };
    format!("{mark} {}", verdict.name())
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Holds => Tone::Good,
        Verdict::Differs => Tone::Bad,
        Verdict::NotObserved => Tone::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Observed;
    use crate::text::Colours;

    const PLAIN: Look = Look { width: 80, colours: Colours::Off };

    fn row(name: &'static str, notes: &'static [&'static str], verdict: Verdict, known: Verdict) -> Row {
        let mut observed = Observed::new().number("after", 135).did("SYNs at 0, 1, 2, 3 s; ETIMEDOUT after 135 s");
        observed.client.insert("ActiveOpens".to_owned(), 1);
        let seen = verdict != Verdict::NotObserved;
        Row {
            name,
            group: Group::Connect,
            notes,
            facts: &[],
            says: "An unanswered SYN is sent again after 6 s, then 24 s; after 75 s in all connect gives ETIMEDOUT.",
            verdict,
            known,
            did: if seen { observed.did.clone() } else { "net.core.somaxconn is hidden".to_owned() },
            why: "tcp_syn_retries is 6 (tcp_write_timeout)",
            unmet: if verdict == Verdict::Differs { vec!["after: 135, not 75".to_owned()] } else { Vec::new() },
            observed: seen.then_some(observed),
            failed: false,
            seconds: 1.0,
        }
    }

    fn document() -> Document {
        use Verdict::{Differs, Holds, NotObserved};
        let rows = vec![
            row("connect.true", &[], Holds, Holds),
            row("connect.false-note", &["1.2"], Differs, Differs),
            row("connect.changed", &[], Differs, Holds),
            row("connect.hidden", &["1.3"], NotObserved, Holds),
        ];
        Document::new("6.18.44".to_owned(), Privilege::Root, false, rows)
    }

    #[test]
    fn the_table_sets_what_differs_against_what_was_said() {
        let text = table(&document(), PLAIN);
        let expected = "\
✗ differs      connect.false-note  note 1.2
    the notes:   An unanswered SYN is sent again after 6 s, then 24 s; after
                 75 s in all connect gives ETIMEDOUT.
    this kernel: SYNs at 0, 1, 2, 3 s; ETIMEDOUT after 135 s
    measured:    after: 135, not 75
    because:     tcp_syn_retries is 6 (tcp_write_timeout)
";
        assert!(text.contains(expected), "{text}");
        assert!(text.starts_with("Linux 6.18.44, as root: 4 claims about TCP sockets\n\nconnect ───"), "{text}");
        assert!(text.contains("– not observed connect.hidden  note 1.3\n"), "{text}");
        assert!(text.contains("    not here:    net.core.somaxconn is hidden\n"), "{text}");
    }

    #[test]
    fn the_summary_counts_and_names_what_is_new() {
        let text = table(&document(), PLAIN);
        let summary = text.rsplit("\n\n").next().expect("the end");
        let expected = "\
4 claims: 1 holds, 2 differ (in 1 of them the notes are wrong on this kernel:
1.2), 1 not observed
not observed: connect.hidden: net.core.somaxconn is hidden
other than on Linux 6.18: connect.changed differs (there it holds)
";
        assert_eq!(summary, expected);
    }

    #[test]
    fn notes_stand_in_their_order_with_reasons_and_counters() {
        let text = notes(&document(), PLAIN);
        assert!(!text.contains("connect.true"), "no note: {text}");
        let (first, second) = (text.find("note 1.2").expect("1.2"), text.find("note 1.3").expect("1.3"));
        assert!(first < second, "{text}");
        assert!(text.contains("    client:      ActiveOpens +1\n"), "{text}");
    }

    #[test]
    fn every_width_is_kept_and_colours_only_where_they_are_wanted() {
        for width in [60, 80, 120] {
            let text = table(&document(), Look { width, ..PLAIN }) + &notes(&document(), Look { width, ..PLAIN });
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert!(!text.contains('\x1b'), "{text}");
        }
        assert!(table(&document(), Look { colours: Colours::On, ..PLAIN }).contains("\x1b[1;31m✗ differs"));
    }
}
