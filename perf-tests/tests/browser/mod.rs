//! Headless Chromium, driven over the W3C WebDriver protocol by chromedriver.
//!
//! As much of the protocol as a test of one page needs: <https://www.w3.org/TR/webdriver2/>.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

/// How long a browser may take to start on a machine under load.
const START_WITHIN: Duration = Duration::from_secs(60);

/// How often a condition on the page is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The longest answer of the driver: a picture, as text.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// The key under which the protocol hands out an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Nothing that a browser does of its own accord: no first-run page, no update, no call home.
const FLAGS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
];

/// A browser with one window. Dropping it ends the browser and its driver.
pub(crate) struct Browser {
    session: String,
    driver: Driver,
    // Removed when nobody writes to it any more: the fields before it are dropped first.
    profile: TempDir,
}

struct Driver {
    process: Child,
    agent: Agent,
    at: String,
}

impl Browser {
    /// A browser, or why there is none.
    ///
    /// # Errors
    /// What is missing or does not start.
    pub(crate) fn open() -> Result<Self, String> {
        let profile =
            TempDir::with_prefix("push-browser-").map_err(|error| format!("no folder for a profile: {error}"))?;
        let mut browser = Self { session: String::new(), driver: Driver::start()?, profile };
        let mut arguments = FLAGS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", browser.profile.path().display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let created = browser.driver.post("/session", &wanted)?;
        browser.session = created["sessionId"].as_str().ok_or("the driver named no session")?.to_owned();
        Ok(browser)
    }

    /// Opens a page and waits for it to load.
    pub(crate) fn go(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Makes the page see a screen of this size, a phone's when `mobile`.
    pub(crate) fn resize(&self, width: u32, height: u32, mobile: bool) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.post("/goog/cdp/execute", &json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics }));
    }

    /// Presses the keys of `text` in the field with this test id.
    pub(crate) fn press(&self, test_id: &str, text: &str) {
        self.post(&format!("/element/{}/value", self.find(test_id)), &json!({ "text": text }));
    }

    /// Clicks what has this test id.
    pub(crate) fn click(&self, test_id: &str) {
        self.post(&format!("/element/{}/click", self.find(test_id)), &json!({}));
    }

    /// The text of everything with this test id, in order.
    pub(crate) fn texts(&self, test_id: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)";
        let texts = self.post("/execute/sync", &json!({ "script": script, "args": [by_test_id(test_id)] }));
        serde_json::from_value(texts).expect("the script gives strings")
    }

    /// Waits until `condition` holds for what [`Browser::texts`] gives.
    ///
    /// # Panics
    /// When it does not in time.
    pub(crate) fn wait_for(&self, test_id: &str, within: Duration, condition: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + within;
        loop {
            let texts = self.texts(test_id);
            if condition(&texts) {
                return;
            }
            let (state, reason) = (self.texts("state"), self.texts("reason"));
            assert!(Instant::now() < deadline, "{test_id} stays {texts:?}; the page says {state:?}, {reason:?}");
            thread::sleep(LOOK_EVERY);
        }
    }

    /// What is wider than the screen, by its tag and id. What an ancestor hides or scrolls does not count.
    pub(crate) fn sticks_out(&self) -> Vec<String> {
        let script = "
            const screen = document.documentElement.clientWidth;
            const isClipped = (element) => {
                for (let at = element.parentElement; at && at !== document.body; at = at.parentElement) {
                    if (getComputedStyle(at).overflowX !== 'visible') return true;
                }
                return false;
            };
            return [...document.querySelectorAll('body, body *')]
                .filter((element) => element.getBoundingClientRect().right > screen + 1 && !isClipped(element))
                .map((element) => `${element.tagName} ${element.id}`);";
        let found = self.post("/execute/sync", &json!({ "script": script, "args": [] }));
        serde_json::from_value(found).expect("the script gives strings")
    }

    /// Warnings and errors on the page's console, with uncaught exceptions and requests that failed.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }));
        let is_bad = |entry: &&Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        let words = |entry: &Value| format!("{}: {}", entry["level"], entry["message"]);
        entries.as_array().into_iter().flatten().filter(is_bad).map(words).collect()
    }

    /// What the window shows, as a PNG.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        let picture = self.driver.get(&format!("/session/{}/screenshot", self.session));
        let picture = picture.unwrap_or_else(|error| panic!("{error}"));
        STANDARD.decode(picture.as_str().expect("a picture comes as text")).expect("the protocol says base64")
    }

    fn find(&self, test_id: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": by_test_id(test_id) }));
        found[ELEMENT].as_str().expect("an element has an id").to_owned()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.driver.post(&format!("/session/{}{path}", self.session), body);
        answer.unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; its driver follows.
        let _ = self.driver.agent.delete(format!("{}/session/{}", self.driver.at, self.session)).call();
    }
}

impl Driver {
    fn start() -> Result<Self, String> {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(START_WITHIN)).proxy(None).build();
        let mut process = Command::new("chromedriver")
            .args(["--port=0", "--log-level=SEVERE"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("chromedriver does not start: {error} (cargo xtask setup)"))?;
        let output = process.stdout.take().expect("it is a pipe");
        let mut driver = Self { process, agent: config.new_agent(), at: String::new() };
        let (found, port) = channel();
        thread::spawn(move || {
            // Read to the end, or the driver would block on a full pipe.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let last_word = line.trim_end_matches('.').rsplit(' ').next().unwrap_or_default();
                if let (true, Ok(port)) = (line.contains("started successfully"), last_word.parse::<u16>()) {
                    let _ = found.send(port);
                }
            }
        });
        let port = port.recv_timeout(START_WITHIN).map_err(|_| "chromedriver does not say its port".to_owned())?;
        driver.at = format!("http://127.0.0.1:{port}");
        Ok(driver)
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        read(path, self.agent.get(format!("{}{path}", self.at)).call())
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        read(path, self.agent.post(format!("{}{path}", self.at)).send_json(body))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The protocol wraps what it answers, and what went wrong, in a `value`.
fn read(path: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, String> {
    let failed = |error: ureq::Error| format!("the driver does not answer to {path}: {error}");
    let mut body = answer.map_err(failed)?.into_body();
    let mut answer: Value = body.with_config().limit(MAX_ANSWER_BYTES).read_json().map_err(failed)?;
    let value = answer["value"].take();
    match value["error"].as_str() {
        Some(error) => Err(format!("{path}: {error}: {}", value["message"])),
        None => Ok(value),
    }
}

fn by_test_id(test_id: &str) -> String {
    format!("[data-testid={test_id}]")
}
