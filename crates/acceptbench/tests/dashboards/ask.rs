//! A Prometheus of the test's own, and what it answers.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dashboards::client::{Client, Range, Series};
use serde_json::Value;

use crate::children::Running;

/// Where it listens: the namespace is the test's own, so the port is free.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// A Prometheus of the test's own, which can be asked.
#[derive(Debug)]
pub(crate) struct Prometheus {
    client: Client,
    /// Killed when dropped.
    _program: Running,
}

impl Deref for Prometheus {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Prometheus {
    /// Starts one that scrapes these jobs (name, address, path) every second, and takes the rules (`*.rules.yml`) that
    /// are in `directory`; its data is there, too.
    pub(crate) fn start(directory: &Path, jobs: &[(&str, &str, &str)]) -> Self {
        let mut config = "global:\n  scrape_interval: 1s\nrule_files: [\"*.rules.yml\"]\nscrape_configs:\n".to_owned();
        for (job, targets, path) in jobs {
            let _ = write!(
                config,
                "  - job_name: {job}\n    metrics_path: {path}\n    static_configs:\n      - targets: [{targets}]\n"
            );
        }
        let file = directory.join("prometheus.yml");
        fs::write(&file, config).expect("write a configuration");
        let program = Running::start(
            "prometheus",
            [
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={}", directory.join("data").display()),
                format!("--web.listen-address={ADDRESS}"),
            ],
        );
        Self { client: Client::new(ADDRESS), _program: program }
    }

    /// The series of an expression at an instant.
    pub(crate) fn at(&self, expression: &str, at: f64) -> Result<Vec<Series>, String> {
        self.instant(expression, Range { from: at - 60.0, to: at })
    }

    /// Every alert that is pending or firing, as Prometheus describes it.
    pub(crate) fn alerts(&self) -> Result<Vec<Value>, String> {
        let data = self.get("/api/v1/alerts")?;
        Ok(data["alerts"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until an expression has as many series.
    pub(crate) fn wait_for(&self, expression: &str, series: usize) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match self.at(expression, now()) {
                Ok(found) if found.len() == series => return,
                last if Instant::now() > end => panic!("waited in vain for {series} of {expression}: {last:?}"),
                _ => thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}
