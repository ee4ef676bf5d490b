use super::*;

fn cell(name: &str, recorded: bool, served: u64) -> Cell {
    Cell { name: name.to_owned(), recorded, planned: 400, served, entered: served }
}

#[test]
fn the_answer_names_what_was_recorded_first() {
    let cells = [cell("backlog 128", true, 232), cell("backlog 4096", false, 400), cell("backlog 256", false, 399)];
    assert_eq!(
        sentence(&cells),
        "Replay    as recorded 42.0 % of the arrivals were not served, with backlog 4096\n          none, with backlog 256 0.3 %"
    );
    assert_eq!(sentence(&[]), "Replay    no trial counts");
}

#[test]
fn clauses_are_wrapped_below_their_name() {
    let lines = part("recorded", &["a ".repeat(50).trim_end().to_owned(), "b".to_owned()]);
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
    assert!(lines[1].starts_with("          a ") && lines[1].ends_with("a; b"), "{lines:?}");
}
