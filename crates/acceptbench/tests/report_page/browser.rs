//! A chromium without a window, spoken to over its [protocol for developers' tools][protocol] through a pair of pipes: no
//! port, no library.
//!
//! [protocol]: https://chromedevtools.github.io/devtools-protocol/

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

const PROGRAM: &str = "chromium";

/// Seconds after which a browser that hangs is ended.
const LIMIT: &str = "120";

/// Says so when there is no chromium.
pub(crate) fn is_missing() -> bool {
    if Command::new(PROGRAM).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return false;
    }
    let required = std::env::var_os("ACCEPTBENCH_REQUIRE_CHROMIUM").is_some_and(|value| value == "1");
    assert!(!required, "{PROGRAM} required and not found");
    eprintln!("skipped: {PROGRAM} not found; install the Debian package chromium");
    true
}

/// What a page is shown on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// What the system prefers: `light` or `dark`.
    pub(crate) scheme: &'static str,
}

/// A running browser. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Browser {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    asked: u64,
    /// What it told unasked.
    events: Vec<Value>,
}

/// A page that is open in it.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    browser: &'a mut Browser,
    session: String,
    pub(crate) address: String,
}

impl Browser {
    /// Starts one that keeps what it writes in `directory`.
    pub(crate) fn start(directory: &Path) -> Self {
        // The protocol is on descriptors 3 and 4. Without the sandbox: it refuses root, and the page is our own.
        let script = format!(
            "exec timeout {LIMIT} {PROGRAM} --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --disable-background-networking --disable-component-update --user-data-dir=chromium --remote-debugging-pipe \
             about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1"
        );
        let mut process = Command::new("sh")
            .args(["-c", &script])
            .current_dir(directory)
            .env("HOME", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let to = process.stdin.take().expect("a pipe");
        let from = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { process, to, from, asked: 0, events: Vec::new() }
    }

    /// Opens a file on a screen of its own.
    pub(crate) fn open(&mut self, file: &Path, screen: Screen) -> Page<'_> {
        self.events.clear();
        let target = self.call(None, "Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = self.call(None, "Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        let session = attached["sessionId"].as_str().expect("a session").to_owned();
        let address = format!("file://{}", file.display());
        let mut page = Page { browser: self, session, address: address.clone() };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), &json!({}));
        }
        let Screen { width, height, scheme } = screen;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        page.call("Emulation.setDeviceMetricsOverride", &size);
        let preferred = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        page.call("Emulation.setEmulatedMedia", &json!({ "features": preferred }));
        page.call("Page.navigate", &json!({ "url": address }));
        page.wait_for("Page.loadEventFired");
        page
    }

    fn call(&mut self, session: Option<&str>, method: &str, parameters: &Value) -> Value {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut line = message.to_string().into_bytes();
        line.push(0);
        self.to.write_all(&line).expect("the browser listens");
        loop {
            let answer = self.read();
            if answer["id"] == json!(self.asked) {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn read(&mut self) -> Value {
        let mut message = Vec::new();
        self.from.read_until(0, &mut message).expect("the browser speaks");
        assert_eq!(message.pop(), Some(0), "the browser has ended");
        serde_json::from_slice(&message).expect("JSON")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let close = json!({ "id": self.asked + 1, "method": "Browser.close" }).to_string() + "\0";
        if self.to.write_all(close.as_bytes()).is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

impl Page<'_> {
    /// What an expression comes to in the page.
    pub(crate) fn ask(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// What statements that end with a `return` come to in the page. Their names are their own.
    pub(crate) fn run(&mut self, statements: &str) -> Value {
        self.ask(&format!("(() => {{ {statements} }})()"))
    }

    /// Errors and warnings, of the console and of the browser.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let of = |event: &Value| match event["method"].as_str() {
            Some(
                "Runtime.exceptionThrown"
                | "Runtime.consoleAPICalled"
                | "Log.entryAdded"
                | "Page.javascriptDialogOpening",
            ) => Some(event.to_string()),
            _ => None,
        };
        self.browser.events.iter().filter_map(of).collect()
    }

    /// Every address that was asked for.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        let sent = self.browser.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| Some(event["params"]["request"]["url"].as_str()?.to_owned())).collect()
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.browser.call(Some(&self.session), method, parameters)
    }

    fn wait_for(&mut self, method: &str) {
        while !self.browser.events.iter().any(|event| event["method"] == method) {
            let event = self.browser.read();
            self.browser.events.push(event);
        }
    }
}
