//! docs/accept-path.md and its Chinese version say only what is measured: every paragraph, bullet and row ends with a link
//! to a claim of `acceptbench probe` or to a shipped experiment, every link leads somewhere, both languages rest on the
//! same evidence, and no note is left out.

use std::collections::BTreeSet;
use std::path::Path;

use probe::facts::NOTES;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const ENGLISH: &str = "docs/accept-path.md";
const CHINESE: &str = "docs/accept-path.zh.md";
const README: &str = "README.zh.md";

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The targets of a text's links, in order.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

/// The claim that a link names.
fn claim(link: &str) -> Option<&str> {
    link.strip_prefix("probe.md#")
}

/// The file of the shipped experiment that a link names.
fn experiment(link: &str) -> Option<&str> {
    link.strip_prefix("../experiments/")
}

fn claims_linked(text: &str) -> BTreeSet<&str> {
    links(text).into_iter().filter_map(claim).collect()
}

fn experiments_linked(text: &str) -> BTreeSet<&str> {
    links(text).into_iter().filter_map(experiment).collect()
}

/// A link to what was measured: a claim, or a shipped experiment.
fn is_evidence(link: &str) -> bool {
    claim(link).is_some() || experiment(link).is_some()
}

/// Every paragraph, bullet and table row behind the introduction, headings, code and bare labels (`**So.**`) left out.
fn blocks(text: &str) -> Vec<String> {
    let (_, body) = text.split_once("\n## ").expect("a heading behind the introduction");
    let mut blocks = Vec::new();
    let mut block = String::new();
    let mut code = false;
    let lines: Vec<&str> = body.lines().skip(1).collect();
    for (at, line) in lines.iter().enumerate() {
        let fence = line.starts_with("```");
        let row = line.starts_with('|');
        let ends = code || fence || row || line.is_empty() || line.starts_with('#') || line.starts_with("- ");
        if ends && !block.is_empty() {
            blocks.push(std::mem::take(&mut block));
        }
        let rule = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("|--") || line.starts_with("| --"));
        let frame = rule(at) || rule(at + 1);
        if !(code || fence || line.is_empty() || line.starts_with('#') || row && frame) {
            block.push_str(line);
            block.push(' ');
        }
        code ^= fence;
    }
    blocks.push(block);
    let label = |block: &str| block.starts_with("**") && block.ends_with("**") && block.matches("**").count() == 2;
    blocks.into_iter().map(|block| block.trim().to_owned()).filter(|block| !block.is_empty() && !label(block)).collect()
}

/// Blocks that do not end with evidence.
fn unfounded(text: &str) -> Vec<String> {
    let founded = |block: &String| {
        let block = block.trim_end_matches(['|', ' ', '.', '。']);
        block.ends_with(')') && block.rfind("](").is_some_and(|at| is_evidence(&block[at + 2..block.len() - 1]))
    };
    blocks(text).into_iter().filter(|block| !founded(block)).collect()
}

/// Links that name a claim which does not exist, or has no anchor in `page`.
fn unknown_claims<'text>(text: &'text str, page: &str) -> Vec<&'text str> {
    let known = |name: &str| probe::find(name).is_some() && page.contains(&format!("<a id=\"{name}\"></a>"));
    claims_linked(text).into_iter().filter(|name| !known(name)).collect()
}

/// Relative links of a page to what does not exist in this repository.
fn dead_links<'text>(page: &str, text: &'text str) -> Vec<&'text str> {
    let home = Path::new(page).parent().expect("a page in a directory");
    let exists = |link: &str| {
        let path = link.split('#').next().unwrap_or_default();
        path.is_empty() || Path::new(ROOT).join(home).join(path).exists()
    };
    links(text).into_iter().filter(|link| !link.contains("://") && !exists(link)).collect()
}

/// Numbers of the notes that no linked claim takes its sentence from.
fn notes_left_out(text: &str) -> Vec<&'static str> {
    let covered: BTreeSet<&str> =
        claims_linked(text).into_iter().filter_map(probe::find).flat_map(|claim| claim.notes).copied().collect();
    NOTES.iter().map(|(number, _)| *number).filter(|number| !covered.contains(number)).collect()
}

/// Everything between code fences.
fn code(text: &str) -> Vec<&str> {
    text.split("\n```").skip(1).step_by(2).collect()
}

#[test]
fn every_block_ends_with_what_measures_it() {
    for page in [ENGLISH, CHINESE] {
        let text = read(page);
        assert!(blocks(&text).len() > 100, "{page}: only {} blocks", blocks(&text).len());
        let unfounded = unfounded(&text);
        assert!(unfounded.is_empty(), "{page}: {unfounded:#?}");
    }
}

#[test]
fn every_claim_named_exists_and_has_an_anchor() {
    let probe = read("docs/probe.md");
    for page in [ENGLISH, CHINESE] {
        let text = read(page);
        let unknown = unknown_claims(&text, &probe);
        assert!(unknown.is_empty(), "{page}: {unknown:#?}");
        // The name that is shown is the name that is linked.
        for name in claims_linked(&text) {
            assert!(text.contains(&format!("[{name}](probe.md#{name})")), "{page}: {name} is shown as another");
        }
    }
}

#[test]
fn every_relative_link_leads_to_a_file() {
    for page in [ENGLISH, CHINESE, README] {
        let text = read(page);
        assert!(!links(&text).is_empty(), "{page} links nothing");
        let dead = dead_links(page, &text);
        assert!(dead.is_empty(), "{page}: {dead:#?}");
    }
}

#[test]
fn the_two_languages_rest_on_the_same_evidence_and_link_each_other() {
    let (english, chinese) = (read(ENGLISH), read(CHINESE));
    assert_eq!(claims_linked(&english), claims_linked(&chinese));
    assert_eq!(experiments_linked(&english), experiments_linked(&chinese));
    let evidence = |text: &str| -> Vec<Vec<String>> {
        let names = |block: &String| links(block).into_iter().map(str::to_owned).collect();
        blocks(text).iter().map(names).collect()
    };
    assert_eq!(evidence(&english), evidence(&chinese), "block by block");
    assert!(links(&english).contains(&"accept-path.zh.md") && links(&chinese).contains(&"accept-path.md"));
}

#[test]
fn every_note_is_covered_by_a_linked_claim() {
    for page in [ENGLISH, CHINESE] {
        let left_out = notes_left_out(&read(page));
        assert!(left_out.is_empty(), "{page}: notes {left_out:?}");
    }
}

/// What the notes have wrong is said plainly, beside the claim that shows it.
#[test]
fn every_wrong_note_is_called_wrong() {
    for (page, notes, wrong) in [(ENGLISH, "**Notes ", "wrong"), (CHINESE, "**笔记 ", "有误")] {
        let blocks = blocks(&read(page));
        for claim in probe::claims().filter(|claim| claim.known == probe::Verdict::Differs) {
            let link = format!("(probe.md#{})", claim.name);
            let block = blocks.iter().find(|block| block.contains(&link));
            let plainly = block.is_some_and(|block| {
                let says = block.split_once(notes).and_then(|(_, rest)| Some(rest.split_once("**")?.0));
                says.is_some_and(|says| says.contains(wrong) && claim.notes.iter().all(|note| says.contains(note)))
            });
            assert!(plainly, "{page}: {} differs from notes {:?}", claim.name, claim.notes);
        }
    }
}

/// Commands and output are the same in both READMEs.
#[test]
fn the_chinese_readme_has_the_commands_and_output_of_the_english_one() {
    assert_eq!(code(&read("README.md")), code(&read(README)));
    assert!(links(&read(README)).contains(&"README.md"));
}

#[test]
fn what_is_wrong_is_noticed() {
    let text = "# Page\n\nIntroduction.\n\n## One\n\n**Label.**\n\n\
                - Founded. [listen.capacity](probe.md#listen.capacity)\n- Bare.\n\n\
                | a | b |\n|---|---|\n| row | [backlog](../experiments/backlog.toml) |\n| bare | row |\n\n\
                ```\n- code\n```\n\n\
                A paragraph of\ntwo lines, [link](probe.md#listen.nothing) not at its end.\n\n\
                Another. [gone](gone.md)\n";
    assert_eq!(
        unfounded(text),
        [
            "- Bare.",
            "| bare | row |",
            "A paragraph of two lines, [link](probe.md#listen.nothing) not at its end.",
            "Another. [gone](gone.md)"
        ]
    );
    let anchors = "<a id=\"listen.capacity\"></a><a id=\"listen.nothing\"></a>";
    assert_eq!(unknown_claims(text, anchors), ["listen.nothing"]);
    assert_eq!(unknown_claims(text, ""), ["listen.capacity", "listen.nothing"]);
    assert_eq!(dead_links("docs/page.md", text), ["gone.md"]);
    assert_eq!(
        dead_links("page.md", "[a](docs/probe.md#x) [b](../Cargo.toml.no) [c](https://example.org)"),
        ["../Cargo.toml.no"]
    );
    assert!(notes_left_out(text).contains(&"7.3"));
    assert_eq!(notes_left_out("[x](probe.md#close.needs-shutdown)").len(), NOTES.len() - 1);
}
