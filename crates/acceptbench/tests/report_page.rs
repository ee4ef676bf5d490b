//! report.html in a browser: it shows without an error on a wide and a narrow screen, light and dark, asks for nothing beyond
//! itself, and does what its script promises.
//!
//! Needs chromium (the Debian package); without it the tests of the browser say so and pass, unless
//! `ACCEPTBENCH_REQUIRE_CHROMIUM=1`.

#[path = "report_page/browser.rs"]
mod browser;

use std::path::Path;
use std::process::Command;
use std::{fs, str};

use serde_json::json;
use study::results::Trial;

use crate::browser::{Browser, Screen};

/// Markup as the name of a factor: were it not escaped, the browser would ask for an image and run a script.
const EXPERIMENT: &str = r#"
[experiment]
name = "page"
question = "does the page show?"
analysis = "</main></script><img src=http://192.0.2.1/analysis.png>"
replicates = 4
retries = 0
seed = 7
warm-up = "50ms"
measure = "300ms"
topology = "veth"
[server]
accept-delay = "2ms"
[loadgen]
rate = 800
deadline = "400ms"
[sysctl]
"net.ipv4.tcp_syncookies" = 0
[[factor]]
name = "</script><img src=x onerror=alert(1)>"
set = "server.backlog"
to = [4, 512]
[[factor]]
set = "server.acceptors"
to = [1, 2]
[compare]
metrics = ["served-ratio"]
smallest-effect = 0.05
"#;

/// Trials of the experiment.
const TRIALS: usize = 16;

fn acceptbench(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acceptbench"));
    let output = command.env_clear().current_dir(directory).args(arguments).output().expect("the built program starts");
    let (said, complained) = (str::from_utf8(&output.stdout), str::from_utf8(&output.stderr));
    assert!(output.status.success(), "{said:?} {complained:?}");
    said.expect("UTF-8").to_owned()
}

#[test]
fn the_page_of_a_run_shows_in_a_browser() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("page.toml"), EXPERIMENT).expect("write an experiment");
    let said = acceptbench(directory.path(), &["run", "page.toml", "--admin", "off"]);
    assert!(said.contains("Report  results/latest/report.html"), "{said}");
    let file =
        fs::canonicalize(directory.path().join("results/latest")).expect("the run's directory").join("report.html");
    let written = fs::read_to_string(&file).expect("report.html");
    assert_eq!(written.matches("data-chart=\"depth-").count(), 4, "the queue over time, cell by cell");
    assert!(!written.contains("href=\"http"), "no link to a Grafana that nobody named");

    let records = fs::read_to_string(file.with_file_name("trials.jsonl")).expect("trials.jsonl");
    for trial in records.lines().map(|line| serde_json::from_str::<Trial>(line).expect("a trial")) {
        let [depths] = trial.server.depths.as_slice() else { panic!("one listener: {:?}", trial.server.depths) };
        let deepest = depths.deepest.iter().flatten().max().copied().map_or(0, u64::from);
        let seen = trial.server.listeners[0].deepest;
        // One acceptor takes 500 of the 800 that come each second; two keep up, and their queue may never be seen filled.
        let least = if trial.settings["server.acceptors"] == "1" { 3 } else { 0 };
        assert!((least..=seen).contains(&deepest), "trial {}: {deepest} of {seen}", trial.trial);
        // From the start of the load to the last look at the server, 350 ms of arrivals and what came after.
        let spanned_ms = depths.step_ns / 1_000_000 * depths.deepest.len() as u64;
        assert!(
            (350..20_000).contains(&spanned_ms) && depths.deepest.len() <= 200,
            "trial {}: {spanned_ms} ms",
            trial.trial
        );
    }

    let said = acceptbench(directory.path(), &["report", "--grafana", "http://127.0.0.1:3000/g"]);
    assert!(said.contains("Report  results/latest/report.html"), "{said}");
    let linked = fs::read_to_string(&file).expect("report.html");
    let run = file.parent().and_then(Path::file_name).expect("the run's name").to_string_lossy().into_owned();
    let link = format!("<a href=\"http://127.0.0.1:3000/g/d/{}?var-run={run}&amp;from=", study::html::BOARD);
    assert_eq!(linked.matches(&link).count(), TRIALS, "{run}");

    if browser::is_missing() {
        return;
    }
    let mut browser = Browser::start(directory.path());
    for screen in [
        Screen { width: 1280, height: 900, scheme: "light" },
        Screen { width: 1280, height: 900, scheme: "dark" },
        Screen { width: 400, height: 800, scheme: "light" },
        Screen { width: 400, height: 800, scheme: "dark" },
    ] {
        shows(&mut browser, &file, screen);
    }
}

/// Opens the page and looks at it.
fn shows(browser: &mut Browser, file: &Path, screen: Screen) {
    let place = format!("{screen:?}");
    let mut page = browser.open(file, screen);
    assert_eq!(page.ask("document.querySelectorAll('h1').length"), json!(1), "{place}");
    assert_eq!(page.ask("innerWidth"), json!(screen.width), "{place}");
    let beyond = page.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(beyond, json!(0), "{place}: wider than the screen");
    let paper = page.ask("getComputedStyle(document.body).backgroundColor");
    assert_eq!(paper, json!(if screen.scheme == "dark" { "rgb(18, 23, 29)" } else { "rgb(255, 255, 255)" }), "{place}");
    assert_eq!(page.ask(OVERLAPS), json!([]), "{place}: labels of a chart lie on each other");
    assert_eq!(page.ask(PALE), json!([]), "{place}: text that is hard to read");

    // The other theme, and back to what the system says.
    page.ask("document.getElementById('theme').click()");
    assert_eq!(page.ask("document.documentElement.dataset.theme"), json!("light"), "{place}");
    page.ask("theme.click(); theme.click()");
    assert_eq!(page.ask("document.documentElement.dataset.theme ?? null"), json!(null), "{place}");

    // The choice of a quantity, and of lines.
    assert_eq!(page.ask(SHOWN), json!(["choice choice-0"]), "{place}");
    page.ask("document.getElementById('metric-3').click()");
    assert_eq!(page.ask(SHOWN), json!(["choice choice-3"]), "{place}");
    page.ask("document.querySelector('#latency [data-line=\"1\"]').click()");
    let hidden = page.ask("getComputedStyle(document.querySelector('#latency .chart .l1')).display");
    assert_eq!(hidden, json!("none"), "{place}");

    // Figures by key, and sorting.
    let tip = page.run(
        "const chart = document.querySelector('[data-chart=\"latency-0-0\"]'); chart.focus();\
         chart.dispatchEvent(new KeyboardEvent('keydown', { key: 'End' })); return document.getElementById('tip').innerText;",
    );
    assert!(tip.as_str().is_some_and(|tip| tip.starts_with("by ") && tip.contains('%')), "{place}: {tip}");
    assert!(!tip.as_str().unwrap_or_default().contains("acceptors 2"), "{place}: the line is switched off: {tip}");
    let sorted = page.run(
        "const table = document.querySelector('#trials table'); table.tHead.rows[0].cells[4].firstChild.click();\
         return [...table.tBodies[0].rows].map((row) => Number(row.cells[4].dataset.key));",
    );
    let sorted: Vec<f64> = serde_json::from_value(sorted).expect("numbers");
    assert_eq!(sorted.len(), TRIALS, "{place}");
    assert!(sorted.is_sorted(), "{place}: {sorted:?}");

    assert_eq!(page.complaints(), [""; 0], "{place}");
    let asked = page.requests();
    assert!(asked.iter().all(|url| url == "data:," || *url == page.address), "{place}: {asked:?}");
}

/// The panels of the chosen quantity.
const SHOWN: &str = "[...document.querySelectorAll('.choice')].filter((panel) => panel.offsetHeight > 0).map((panel) => panel.className)";

/// Pairs of labels of a chart that cover each other by more than a pixel.
const OVERLAPS: &str = "[...document.querySelectorAll('svg.chart')].filter((svg) => svg.getBoundingClientRect().width > 0).flatMap((svg) => {\
    const labels = [...svg.querySelectorAll('text')].map((label) => [label.textContent, label.getBoundingClientRect()]);\
    return labels.flatMap(([text, a], index) => labels.slice(index + 1)\
        .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)\
        .map(([other]) => `${svg.dataset.chart}: ${text} / ${other}`));\
})";

/// Texts whose contrast with what is behind them is below 4.5 (WCAG 2.1, 1.4.3), by their class or element.
const PALE: &str = "(() => {\
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);\
    const over = ([r, g, b, a = 1], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));\
    const light = (colour) => colour.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)\
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);\
    const behind = (element) => element === null ? [255, 255, 255]\
        : over(channels(getComputedStyle(element).backgroundColor), behind(element.parentElement));\
    const contrast = (element) => {\
        const style = getComputedStyle(element), back = behind(element);\
        const ink = channels(element instanceof SVGElement ? style.fill : style.color);\
        ink[3] = (ink[3] ?? 1) * Number(style.opacity);\
        const [a, b] = [light(over(ink, back)), light(back)];\
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);\
    };\
    const texts = [...document.querySelectorAll('body *:not(script)')]\
        .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== ''));\
    return [...new Set(texts.filter((element) => contrast(element) < 4.5)\
        .map((element) => `${element.tagName}.${element.getAttribute('class')} ${contrast(element).toFixed(2)}`))];\
})()";

/// The board that the page links to is one that there is.
#[test]
fn the_linked_dashboard_exists() {
    let boards = dashboards::json().expect("the boards");
    assert!(boards.iter().any(|board| board["uid"] == study::html::BOARD), "{}", study::html::BOARD);
}

#[test]
fn an_address_that_links_cannot_begin_with_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_acceptbench"))
        .args(["report", "--grafana", "grafana:3000"])
        .output()
        .expect("the built program starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{error}");
    assert!(
        error.lines().count() == 1 && error.contains("--grafana") && error.contains("http://localhost:3000"),
        "{error}"
    );
}
