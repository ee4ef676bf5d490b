//! `acceptbench probe`: the claims of the notes, and what was measured since, against this kernel.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kernel::namespace;
use probe::document::Document;
use probe::run::Row;
use probe::text::{Colours, Look};
use probe::{Claim, Group, Takes, facts, table};
use telemetry::Stop;

use crate::cli::ProbeArgs;
use crate::exit::{End, Failure};
use crate::interrupt;
use crate::terminal::{clear_progress, note, progress, say};

/// The program that measures: this one.
const PROGRAM: &str = "/proc/self/exe";
/// How often the progress line is written anew, and an interrupt noticed.
const TICK: Duration = Duration::from_millis(100);
/// Characters per line where nobody says.
const WIDTH: usize = 80;
/// Lines that are longer are hard to read, and shorter ones hold no sentence.
const WIDTHS: std::ops::RangeInclusive<usize> = 60..=120;

/// Measures the claims asked for and prints what became of them.
pub(crate) fn probe(args: &ProbeArgs) -> Result<End, Failure> {
    let (claims, left_out) = chosen(args)?;
    let stop = interrupt::watch()?;
    probe::run::ready(Path::new(PROGRAM)).map_err(Failure::requirement)?;
    let Some(rows) = measure(claims, &stop)? else {
        note("interrupted; the measuring processes end with this one, nothing is left");
        return Ok(End::Interrupted);
    };
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let document = Document::new(kernel, namespace::privilege(), args.full, rows);
    if args.json {
        say(&document.json().map_err(Failure::requirement)?);
    } else {
        let text = if args.notes { table::notes(&document, look()) } else { table::table(&document, look()) };
        say(text.trim_end());
        if left_out > 0 {
            say(&format!("left out: {left_out} that wait out the kernel's default time-outs (--full)"));
        }
    }
    Ok(if document.any_failed() { End::Invalid } else { End::Success })
}

/// The rows of the claims; `None` when it was told to stop.
fn measure(claims: Vec<Claim>, stop: &Stop) -> Result<Option<Vec<Row>>, Failure> {
    let (planned, began) = (claims.len(), Instant::now());
    let done = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&done);
    let work = move || probe::run::run(Path::new(PROGRAM), &claims, &|done| counter.store(done, Ordering::Relaxed));
    let worker = std::thread::Builder::new().name("probe".to_owned()).spawn(work).map_err(Failure::requirement)?;
    while !worker.is_finished() {
        let done = done.load(Ordering::Relaxed);
        progress(&format!("{done} of {planned} claims measured, {} s", began.elapsed().as_secs()));
        if stop.wait_timeout(TICK) {
            clear_progress();
            return Ok(None);
        }
    }
    clear_progress();
    match worker.join() {
        Ok(rows) => Ok(Some(rows)),
        Err(_) => Err(Failure::Requirement("the thread that measures ended early".to_owned())),
    }
}

/// The claims that the arguments ask for, in the order of the headings, and how many more --full would add.
fn chosen(args: &ProbeArgs) -> Result<(Vec<Claim>, usize), Failure> {
    for word in &args.only {
        if !probe::claims().any(|claim| is_meant(claim, word)) {
            return Err(Failure::Usage(unknown(word)));
        }
    }
    let asked = |claim: &Claim| args.only.is_empty() || args.only.iter().any(|word| is_meant(claim, word));
    let by_name = |claim: &Claim| args.only.iter().any(|word| word == claim.name);
    let in_time = |claim: &Claim| args.full || !matches!(claim.takes, Takes::Full(_)) || by_name(claim);
    let claims = probe::claims().filter(|claim| asked(claim) && (!args.notes || !claim.notes.is_empty()));
    let claims: Vec<Claim> = claims.copied().collect();
    if claims.is_empty() {
        return Err(Failure::flag("notes: none of the claims that --only asks for is about a note"));
    }
    let asked_for = claims.len();
    let now: Vec<Claim> = claims.into_iter().filter(in_time).collect();
    if now.is_empty() {
        return Err(Failure::flag("only: what it asks for waits out the kernel's default time-outs; add --full"));
    }
    let left_out = asked_for - now.len();
    Ok((now, left_out))
}

/// Is a claim meant by a group's name, its own name, or the number of a note?
fn is_meant(claim: &Claim, word: &str) -> bool {
    claim.name == word || claim.group.name() == word || claim.notes.contains(&word)
}

/// What there is instead: the claims of the group that the word begins with, or the groups and notes.
fn unknown(word: &str) -> String {
    let group = word.split_once('.').and_then(|(group, _)| Group::ALL.into_iter().find(|other| other.name() == group));
    if let Some(group) = group {
        let claims = probe::claims().filter(|claim| claim.group == group).map(|claim| claim.name);
        return format!("--only: no claim is called `{word}`; {} has {}", group.name(), join(claims));
    }
    if let Some((_, reason)) = facts::NOT_HERE.iter().find(|(id, _)| *id == word) {
        return format!("--only: {word} is not measured: {reason}");
    }
    let groups = join(Group::ALL.into_iter().map(Group::name));
    let notes = join(facts::NOTES.iter().map(|(number, _)| *number));
    format!(
        "--only: no group, claim or note is called `{word}`; groups are {groups}; notes are {notes}; --only GROUP.x lists \
         a group's claims"
    )
}

fn join(words: impl Iterator<Item = &'static str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

/// How stdout is written to: a terminal's width, and colours unless `NO_COLOR` (no-color.org) says no.
fn look() -> Look {
    let stdout = std::io::stdout();
    let columns = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
    let width = columns.filter(|columns| *columns > 0).unwrap_or(WIDTH).clamp(*WIDTHS.start(), *WIDTHS.end());
    let forbidden = |name, is: fn(&std::ffi::OsStr) -> bool| std::env::var_os(name).is_some_and(|value| is(&value));
    let plain = forbidden("NO_COLOR", |value| !value.is_empty()) || forbidden("TERM", |value| value == "dumb");
    Look { width, colours: if stdout.is_terminal() && !plain { Colours::On } else { Colours::Off } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(only: &[&str], notes: bool, full: bool) -> ProbeArgs {
        ProbeArgs { only: only.iter().map(|word| (*word).to_owned()).collect(), notes, full, json: false }
    }

    #[test]
    fn the_default_is_everything_that_does_not_wait_out_defaults() {
        let (now, left_out) = chosen(&args(&[], false, false)).expect("claims");
        assert!(now.iter().all(|claim| !matches!(claim.takes, Takes::Full(_))));
        let (full, none) = chosen(&args(&[], false, true)).expect("claims");
        assert_eq!((full.len(), none), (probe::claims().count(), 0));
        assert_eq!(now.len() + left_out, full.len());
    }

    #[test]
    fn only_takes_groups_claims_and_notes_together() {
        let words = ["bind", "1.4", "connect.refused-when-bound-only"];
        let (chosen, _) = chosen(&args(&words, false, false)).expect("claims");
        let named = |claim: &Claim| words.iter().any(|word| is_meant(claim, word));
        assert!(chosen.iter().all(named));
        assert!(chosen.iter().any(|claim| claim.notes.contains(&"1.4")));
        assert!(chosen.iter().any(|claim| claim.name == "connect.refused-when-bound-only"));
    }

    #[test]
    fn notes_are_the_claims_with_a_number() {
        let (chosen, _) = chosen(&args(&["connect"], true, false)).expect("claims");
        assert!(!chosen.is_empty() && chosen.iter().all(|claim| !claim.notes.is_empty()));
    }

    #[test]
    fn an_unknown_word_lists_what_there_is() {
        let Err(Failure::Usage(text)) = chosen(&args(&["conect"], false, false)) else { panic!("accepted") };
        assert!(text.contains("connect, bind, listen") && text.contains("1.1, 1.2"), "{text}");
        let Err(Failure::Usage(text)) = chosen(&args(&["connect.x"], false, false)) else { panic!("accepted") };
        assert!(text.contains("connect.refused-without-listener"), "{text}");
    }
}
