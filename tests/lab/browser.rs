//! A real browser that is told what to do, by its debugging protocol over a pair of pipes (`--remote-debugging-pipe`).

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Lab, Tethered, tethered};

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    _process: Tethered,
    to: File,
    from: BufReader<File>,
    sent: u64,
    session: Option<String>,
}

impl Browser {
    /// Starts it in this namespace; it ends with this, and after two minutes by itself.
    pub fn start(lab: &Lab) -> Result<Self> {
        let at = |name: &str| lab.dir().join(name);
        let (commands, answers) = (at("browser.in"), at("browser.out"));
        let status = Command::new("mkfifo").args([&commands, &answers]).status()?;
        ensure!(status.success(), "mkfifo: {status}");
        let script = "exec timeout --kill-after=1 120 chromium --headless --no-sandbox --disable-gpu \
                      --disable-dev-shm-usage --no-first-run --disable-background-networking \
                      --disable-component-update --disable-sync --remote-debugging-pipe \
                      --user-data-dir=\"$0/profile\" about:blank 3<\"$0/browser.in\" 4>\"$0/browser.out\"";
        let process = tethered(
            Command::new("sh").args(["-c", script]).arg(lab.dir()).stderr(File::create(at("browser.log"))?),
        )?;
        let to = OpenOptions::new().write(true).open(commands)?;
        let from = BufReader::new(File::open(answers)?);
        let mut browser = Self { _process: process, to, from, sent: 0, session: None };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        Ok(browser)
    }

    /// Calls a method of the protocol; what it answers.
    fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes())?;
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes)?;
            ensure!(bytes.pop() == Some(0), "the browser ended");
            let answer: Value = serde_json::from_slice(&bytes)?;
            if answer["id"] == self.sent {
                ensure!(answer.get("error").is_none(), "{method}: {answer}");
                return Ok(answer["result"].clone());
            }
        }
    }

    /// Whether pages may run scripts from the next one on.
    pub fn scripts(&mut self, may_run: bool) -> Result<()> {
        self.call("Emulation.setScriptExecutionDisabled", &json!({ "value": !may_run })).map(drop)
    }

    /// Goes to an address, and waits until it is there.
    pub fn go(&mut self, url: &str) -> Result<()> {
        self.call("Page.navigate", &json!({ "url": url }))?;
        crate::wait_for(url, std::time::Duration::from_secs(20), || {
            // While one page gives way to the next there is nothing to evaluate in.
            let Ok(there) = self.value("document.readyState + ' ' + location.href") else { return Ok(false) };
            Ok(there.as_str().is_some_and(|text| text == format!("complete {url}")))
        })
    }

    /// What an expression comes to, in the page.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let params = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", &params)?;
        ensure!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        Ok(answer["result"]["value"].clone())
    }

    /// The same of one that comes to a number.
    pub fn number(&mut self, expression: &str) -> Result<i64> {
        let value = self.value(expression)?;
        value.as_i64().with_context(|| format!("{expression} is {value}"))
    }
}
