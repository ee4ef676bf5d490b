use std::collections::BTreeSet;

use serde_json::Value;
use telemetry::Warning;

use super::sections::OF_TRIALS;
use super::*;
use crate::design::Design;
use crate::expectation::{Expectation, Outcome};
use crate::results::Trial;
use crate::screen::Screen;
use crate::testing;

const EVIL: &str = "</script><img src=x onerror=alert(1)>\"'&{{body}}";

/// A page and its report.md, of these trials.
fn both(design: &Design, trials: &[Trial], grafana: Option<&str>) -> (String, String) {
    let summary = Summary::of(design, trials, &["served-ratio", "confirm-latency.p99"]).unwrap();
    let mut summary = summary.explained(design, trials, 0.05);
    testing::compare(design, trials, &mut summary, &["served-ratio"]);
    let expectation = Expectation { that: "overflows > 0".parse().unwrap(), cells: None };
    let expectations = [Outcome::of(&expectation, design, trials).unwrap()];
    let screen = Screen {
        question: "when does raising somaxconn help?",
        baseline: Some(0),
        expectations: &expectations,
        ..testing::screen(design, &summary)
    };
    let environment = ["kernel release: 6.18".to_owned()];
    let report = Report { screen: &screen, trials, environment: &environment, command: "acceptbench run backlog" };
    let page = Page { report, run: "backlog-20260102T030405Z", analysis: Some("First.\n\nSecond."), grafana };
    (page.html().unwrap(), report.markdown().unwrap())
}

fn two_grids() -> (Design, Vec<Trial>) {
    let design = testing::design(&[
        (
            None,
            vec![
                testing::factor("sysctl.net.core.somaxconn", &["16", "1024"]),
                testing::factor("server.backlog", &["16", "1024"]),
            ],
        ),
        (Some("sustained overload"), vec![testing::factor("server.backlog", &["16"])]),
    ]);
    let low: &[(u64, u64)] = &[(170, 800), (172, 800), (174, 800)];
    let high: &[(u64, u64)] = &[(1000, 2), (998, 3), (1000, 2)];
    let mut trials = testing::trials(&design, &[low, low, low, high, low]);
    for trial in &mut trials {
        trial.server.opts.accept_delay = "500us".parse().unwrap();
        trial.loadgen.opts.duration = "1s".parse().unwrap();
        trial.server.depths =
            vec![server::Depths { step_ns: 10_000_000, deepest: vec![Some(17), Some(9), None, Some(0)] }];
    }
    (design, trials)
}

fn page() -> String {
    let (design, trials) = two_grids();
    both(&design, &trials, None).0
}

/// What a reader sees of a page.
fn text(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html.split_once("<main>").unwrap().1.split_once("</main>").unwrap().0;
    while let Some((before, after)) = rest.split_once('<') {
        text.push_str(before);
        text.push(' ');
        rest = after.split_once('>').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    text.replace("&amp;", "&").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn data(html: &str) -> Value {
    let json = html.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    serde_json::from_str(json).unwrap()
}

#[test]
fn every_quantity_of_the_page_exists() {
    for name in ASKED.iter().chain(&OF_TRIALS) {
        assert_eq!(Quantity::named(name).map(|quantity| quantity.name), Ok(*name));
    }
}

#[test]
fn it_opens_with_question_and_answer() {
    let text = text(&page());
    let opening = "When does raising somaxconn help? Answer Raising one alone changed nothing; both to 1024: 17.2 → 100 %, \
                   p99 800 → 2.00 ms; sustained overload: served of planned 17.2 %";
    assert!(text.contains(opening), "{text}");
    assert!(text.contains("trials count 15/15 ledgers balance 15/15 expectations hold 0/1 cells 5"), "{text}");
    assert!(text.contains("First. Second."), "{text}");
    assert!(text.contains("acceptbench run backlog Every number comes from"), "{text}");
}

#[test]
fn its_figures_are_those_of_the_markdown() {
    let (design, trials) = two_grids();
    let (html, markdown) = both(&design, &trials, None);
    let html = text(&html);
    let rows: Vec<&str> = markdown.lines().filter(|line| line.starts_with("| ") && line.contains(" % ")).collect();
    assert!(rows.len() > 5 && rows.iter().any(|row| row.contains("points")), "{markdown}");
    for row in rows {
        let fields = row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ");
        assert!(html.contains(&fields), "{fields} is not in {html}");
    }
    for line in markdown.lines().filter(|line| line.starts_with("| ") && line.contains("trial 0: ")) {
        let equation = line.trim_matches('|').split('|').next_back().unwrap().trim();
        assert!(html.contains(equation), "{equation}");
    }
}

#[test]
fn its_trials_are_those_of_the_csv() {
    let (design, mut trials) = two_grids();
    trials[1].invalid = vec!["line 5 is off by 3".to_owned()];
    trials[2].retry = 1;
    trials[1].ledger.lines[4].residual = 3;
    let html = text(&both(&design, &trials, None).0);
    assert!(html.contains("1 somaxconn 16, backlog 16 1 no: line 5 is off by 3 17.2 % 800 ms"), "{html}");
    assert!(html.contains("2, retry 1 somaxconn 16, backlog 16 2 yes"), "{html}");
    assert!(html.contains("14 sustained overload: backlog 16 2 yes 17.4 % 800 ms"), "{html}");
    assert!(html.contains("trial 1 (somaxconn 16, backlog 16), line 5 request-sockets: phantoms 10"), "{html}");
    assert!(html.contains("1 somaxconn 16, backlog 16 0 0 0 0 3 0 0"), "residuals line by line: {html}");
    assert!(html.contains("trials count 14/15 ledgers balance 14/15"), "{html}");
}

#[test]
fn what_bound_the_cells_is_told_as_in_the_markdown() {
    let (design, trials) = two_grids();
    let (html, markdown) = both(&design, &trials, None);
    let html = text(&html);
    let (_, bound) = markdown.split_once("## What bound each cell").unwrap();
    let rows: Vec<&str> = bound.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| ")).collect();
    assert_eq!(rows.len(), 6, "a heading and five cells: {bound}");
    for row in rows {
        let fields = row.trim_matches('|').replace('*', "");
        let fields = fields.split('|').map(str::trim).collect::<Vec<_>>().join(" ");
        assert!(html.contains(&fields), "{fields} is not in {html}");
    }
}

#[test]
fn what_was_asked_of_the_acceptors_stands_beside_what_they_did() {
    let html = text(&page());
    assert!(html.contains("arrival rate λ service rate µ utilisation ρ queue capacity"), "{html}");
    assert!(html.contains("1000/s 2000/s 50.0 % 129"), "{html}");
    let (design, mut trials) = two_grids();
    for trial in &mut trials {
        trial.server.opts.accept_delay = "0s".parse().unwrap();
    }
    let html = text(&both(&design, &trials, None).0);
    assert!(html.contains("arrival rate λ queue capacity"), "no µ where no delay was asked for: {html}");
}

#[test]
fn nothing_on_the_page_leaves_it() {
    let html = page();
    for way_out in ["http:", "https:", "src=", "url(", "@import", "<iframe", "<object", "fetch(", "XMLHttp", "import("]
    {
        assert!(!html.contains(way_out), "{way_out}");
    }
    let hrefs: BTreeSet<&str> = html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(hrefs.iter().all(|href| href.starts_with('#') || *href == "data:,"), "{hrefs:?}");
    for href in hrefs.iter().filter_map(|href| href.strip_prefix('#')) {
        assert!(html.contains(&format!("<section id=\"{href}\"")), "{href}");
    }
}

#[test]
fn data_is_never_markup() {
    let (mut design, mut trials) = two_grids();
    design.grids[0].factors[0].label = EVIL.to_owned();
    design.grids[0].factors[1].levels[0].label = EVIL.to_owned();
    design.grids[1].name = Some(EVIL.to_owned());
    for trial in &mut trials {
        trial.name = design.describe(&design.cells[trial.cell]);
        trial.sysctls.insert(EVIL.to_owned(), EVIL.to_owned());
        trial.warnings = vec![Warning::new("evil", EVIL, EVIL)];
        trial.ledger.lines[0].equation = EVIL.to_owned();
    }
    trials[0].invalid = vec![EVIL.to_owned()];
    let html = both(&design, &trials, Some("http://localhost:3000")).0;
    assert!(!html.contains("<img"), "an element out of data");
    assert_eq!(html.matches("</script>").count(), 2, "data ended a script");
    assert_eq!(html.matches("<section").count(), html.matches("</section>").count());
    assert_eq!(html.matches("<main>").count(), 1, "data was taken for a place of the template");
    assert!(text(&html).contains(&format!("no: {EVIL}")));
    let place = &data(&html)["charts"]["factor-0-0-served-ratio"]["at"][0][1];
    assert_eq!(*place, format!("{EVIL} 16"));
}

#[test]
fn every_chart_has_axes_a_description_and_its_figures() {
    let html = page();
    let data = data(&html);
    let charts: Vec<&str> = html.split("data-chart=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let names: BTreeSet<&str> = charts.iter().copied().collect();
    assert_eq!(charts.len(), names.len(), "two charts of one name");
    assert_eq!(names.len(), data["charts"].as_object().unwrap().len());
    for (name, svg) in html.split("<svg class=\"chart\"").skip(1).zip(&charts).map(|(svg, name)| (name, svg)) {
        let svg = svg.split("</svg>").next().unwrap();
        assert!(svg.matches("class=\"axis\"").count() == 2 && svg.contains("class=\"tick\""), "{name}");
        assert!(svg.contains("aria-label=\"") && svg.contains("role=\"img\""), "{name}");
        let of = &data["charts"][name];
        for line in of["lines"].as_array().unwrap() {
            assert_eq!(line["points"].as_array().unwrap().len(), of["at"].as_array().unwrap().len(), "{name}");
        }
    }
    assert!(names.contains("depth-4") && names.contains("latency-0-1") && names.contains("factor-0-1-served-ratio"));
    assert!(html.contains(
        "by backlog. served of planned: somaxconn 16: 16 17.2 %, 1024 17.2 %; somaxconn 1024: 16 17.2 %, 1024 100 %."
    ));
}

#[test]
fn lines_of_latency_end_at_what_was_served() {
    let data = data(&page());
    let lines = data["charts"]["latency-0-1"]["lines"].as_array().unwrap();
    let end = |line: &Value| line["points"].as_array().unwrap().last().unwrap()[1].as_str().unwrap().to_owned();
    // Ten values of a thousand planned are recorded by the test's trials.
    assert_eq!(lines.iter().map(end).collect::<Vec<_>>(), ["1.0 %", "1.0 %"]);
}

#[test]
fn retries_are_marked_where_the_kernel_makes_them() {
    let (design, mut trials) = two_grids();
    for trial in &mut trials {
        trial.loadgen.kernel.sysctls.insert("net.ipv4.tcp_syn_linear_timeouts".to_owned(), "0".to_owned());
        trial.loadgen.measured.confirm_latency.record(3_050_000_000);
    }
    let html = both(&design, &trials, None).0;
    assert!(html.contains("the kernel sends it after 1, 3 s"), "no retry at 2 s without linear timeouts");
    assert!(html.contains("title=\"3 s to 4 s\">↻ 3 s</th>"), "{}", text(&html));
    assert!(!html.contains("↻ 2 s"));
    assert!(!html.contains("title=\"2 s to 3 s\">↻"), "who is in it came before the retry: {}", text(&html));
}

#[test]
fn links_to_a_dashboard_need_its_address() {
    let (design, trials) = two_grids();
    let hint = page();
    assert!(
        hint.contains("/d/acceptbench-overview?var-run=backlog-20260102T030405Z&amp;from=-2000&amp;to=3000"),
        "{hint}"
    );
    let html = both(&design, &trials, Some("http://localhost:3000/")).0;
    assert_eq!(html.matches("<a href=\"http://localhost:3000/d/acceptbench-overview?var-run=").count(), trials.len());
}

#[test]
fn a_thousand_trials_stay_some_megabytes() {
    let levels = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];
    let design = testing::design(&[(
        None,
        vec![testing::factor("server.acceptors", &levels), testing::factor("server.backlog", &levels)],
    )]);
    let cell: &[(u64, u64)] = &[(500, 3); 10];
    let mut trials = testing::trials(&design, &[cell; 100]);
    for trial in &mut trials {
        trial.server.depths = vec![server::Depths { step_ns: 5_000_000, deepest: vec![Some(1000); 200] }];
    }
    assert_eq!(trials.len(), 1000);
    let html = both(&design, &trials, Some("http://localhost:3000")).0;
    assert!(html.len() < 4_000_000, "{} bytes", html.len());
    assert!(html.contains("52 cells more are left out"));
}
