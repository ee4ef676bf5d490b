//! A run that nobody scraped, put into the data of a Prometheus from its results.

use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use crate::children::{ACCEPTBENCH, Running};

/// Exit code of a run for which the machine lacks something.
pub(crate) const REQUIREMENT: i32 = 69;

/// Two cells, two trials each.
const EXPERIMENT: &str = r#"
[experiment]
name = "backfilled"
question = "do two runs compare?"
replicates = 2
retries = 0
warm-up = "0s"
measure = "300ms"
topology = "loopback"
[server]
accept-delay = "2ms"
[loadgen]
rate = 400
deadline = "200ms"
[[factor]]
set = "server.backlog"
to = [4, 512]
"#;

/// Runs it, its results in `directory`, and writes blocks of what a Prometheus would have scraped to `data` there. The
/// name of the run, or what it said when this machine lacks something for it.
pub(crate) fn a_run(directory: &Path) -> Result<String, String> {
    let file = directory.join("backfilled.toml");
    fs::write(&file, EXPERIMENT).expect("write an experiment");
    let results = directory.join("results");
    let (status, printed) = done(ACCEPTBENCH, &["run", utf8(&file), "--results", utf8(&results), "--admin", "off"]);
    if status.code() == Some(REQUIREMENT) {
        return Err(printed.join("\n"));
    }
    assert!(matches!(status.code(), Some(0 | 2)), "{status}: {printed:#?}");
    let run = results.join("latest").canonicalize().expect("a results directory");
    let (status, printed) = done(ACCEPTBENCH, &["report", utf8(&run), "--openmetrics"]);
    assert!(matches!(status.code(), Some(0 | 2)), "{status}: {printed:#?}");
    let metrics = run.join("openmetrics.txt");
    assert!(fs::read_to_string(&metrics).expect("the file").ends_with("\n# EOF\n"));
    let data = directory.join("data");
    let (status, printed) =
        done("promtool", &["tsdb", "create-blocks-from", "openmetrics", utf8(&metrics), utf8(&data)]);
    assert!(status.success(), "{status}: {printed:#?}");
    Ok(run.file_name().and_then(|name| name.to_str()).expect("a name").to_owned())
}

fn done(program: &str, arguments: &[&str]) -> (ExitStatus, Vec<String>) {
    Running::start(program, arguments).finish(Duration::from_mins(1))
}

pub(crate) fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
