//! Every board as a page, drawn from the answers and looked at in a browser.

use std::fs;
use std::path::Path;

use dashboards::client::Range;
use dashboards::preview;

use crate::ask::Prometheus;
use crate::browser::{Browser, Screen, is_missing};

/// What the pages are shown on.
const SCREEN: Screen = Screen { width: 1320, height: 900, scheme: "light" };

/// Names a directory in which the pages are kept.
const KEEP: &str = "DASHBOARDS_PREVIEW";

/// Draws each board and opens it: no error in the console, nothing loaded, every panel drawn, none without data.
pub(crate) fn at_every_board(prometheus: &Prometheus, range: Range, directory: &Path) {
    let keep = std::env::var_os(KEEP);
    let directory = keep.as_deref().map_or(directory, Path::new);
    if is_missing() {
        return;
    }
    let profile = tempfile::tempdir().expect("a temporary directory");
    let mut browser = Browser::start(profile.path());
    for board in dashboards::json().expect("boards become JSON") {
        let title = board["title"].as_str().expect("a title");
        let page = preview::page(&board, **prometheus, range).expect("a page");
        let file = directory.join(format!("{}.html", board["uid"].as_str().expect("a uid")));
        fs::write(&file, page).expect("write a page");
        let mut page = browser.open(&file, SCREEN);
        let panels = board["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row").count();
        assert_eq!(page.ask("document.querySelectorAll('section').length"), panels, "{title}");
        let empty = page.run(
            "return [...document.querySelectorAll('section')].filter((section) => section.querySelector('.none') !== null)\
             .map((section) => section.querySelector('h3').textContent)",
        );
        assert_eq!(empty, serde_json::json!([]), "{title}: panels without data");
        let marks = page.ask("document.querySelectorAll('path, rect, td, .tile').length");
        println!("{title}: {panels} panels, {marks} marks");
        assert_eq!(page.complaints(), [""; 0], "{title}");
        let asked = page.requests();
        assert!(asked.iter().all(|url| url == "data:," || *url == page.address), "{title}: {asked:?}");
    }
}
