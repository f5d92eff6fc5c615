//! Prometheus and Alertmanager in a lab, as somebody installs them with what is in `deploy/prometheus`, but in a hurry:
//! everything each second.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, Tethered, http, tethered, wait_for};
use serde_json::{Value, json};

use super::{file, text, yaml};

/// The lab's loopback is its own: the usual ports are free.
const PROMETHEUS: &str = "127.0.0.1:9090";
/// As scrape.yaml says.
const ALERTMANAGER: &str = "127.0.0.1:9093";
/// The guardian's, in every lab.
const GUARDIAN: &str = "127.0.0.1:10953";

/// How long they may take to be ready, on a slow and busy machine. Prometheus itself takes five seconds to look at what
/// it has discovered.
const READY: Duration = Duration::from_secs(60);

/// Both, running.
#[derive(Debug)]
pub struct Monitoring {
    prometheus: Program,
    alertmanager: Program,
    webhook: TcpListener,
}

impl Monitoring {
    /// Starts them, and waits until a guardian's metrics have been read twice and the rules have been evaluated.
    pub fn start(lab: &Lab) -> Result<Self> {
        let webhook = TcpListener::bind("127.0.0.1:0").context("no port for the webhook")?;
        webhook.set_nonblocking(true)?;
        let dir = lab.dir().join("monitoring");
        fs::create_dir(&dir)?;
        let alerting = json!({
            "route": {
                "receiver": "test",
                "group_by": ["..."],
                "group_wait": "0s",
                "group_interval": "1s",
            },
            "receivers": [{
                "name": "test",
                "webhook_configs": [{ "url": format!("http://{}/", webhook.local_addr()?) }],
            }],
        });
        let alertmanager = Program::start(
            &dir,
            "prometheus-alertmanager",
            &alerting,
            &[
                &format!("--web.listen-address={ALERTMANAGER}"),
                &format!("--storage.path={}", dir.join("alertmanager").display()),
                // It looks for no others like it.
                "--cluster.listen-address=",
            ],
        )?;
        fs::copy(file("rules.yaml"), dir.join("rules.yaml"))?;
        let prometheus = Program::start(
            &dir,
            "prometheus",
            &in_a_hurry()?,
            &[
                &format!("--web.listen-address={PROMETHEUS}"),
                &format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
            ],
        )?;
        let mut monitoring = Self { prometheus, alertmanager, webhook };
        monitoring.ready()?;
        Ok(monitoring)
    }

    fn ready(&mut self) -> Result<()> {
        let ready = wait_for("Prometheus and Alertmanager to be at work", READY, || {
            std::thread::sleep(Duration::from_millis(50));
            for program in [&mut self.prometheus, &mut self.alertmanager] {
                if let Some(status) = program.process.ended()? {
                    bail!("{} ended: {status}", program.name);
                }
            }
            let found = |answer: Result<Value>, pointer: &str| {
                answer.ok().and_then(|answer| Some(!answer.pointer(pointer)?.as_array()?.is_empty()))
            };
            let alertmanager = matches!(http::get(ALERTMANAGER, "/-/ready"), Ok((200, _)))
                && found(api("alertmanagers"), "/activeAlertmanagers") == Some(true);
            let evaluated = "instance_object_family:route_guardian_deletions:increase10m == 0";
            Ok(alertmanager && found(query(evaluated), "/result") == Some(true))
        });
        ready.with_context(|| self.logs())
    }

    /// Waits until the webhook is told of an alert like this; the alert.
    pub fn told(&self, what: &str, limit: Duration, like: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut found = None;
        let told = wait_for(what, limit, || {
            if let Some(notification) = self.notification()? {
                let alerts = notification["alerts"].as_array().context("no alerts in the notification")?;
                found = alerts.iter().find(|alert| like(alert)).cloned();
            }
            Ok(found.is_some())
        });
        told.with_context(|| self.logs())?;
        found.context("no such alert")
    }

    /// What the webhook is told next, if there is anything.
    fn notification(&self) -> Result<Option<Value>> {
        let mut stream = match self.webhook.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(&stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse()?;
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        serde_json::from_slice(&body).context("the notification is not JSON").map(Some)
    }

    /// What both have logged.
    pub fn logs(&self) -> String {
        [&self.prometheus, &self.alertmanager].into_iter().fold(String::new(), |mut logs, program| {
            let log = fs::read_to_string(&program.log).unwrap_or_default();
            let _ = writeln!(logs, "--- {} ---\n{log}--- end of its log ---", program.name);
            logs
        })
    }
}

/// The result of an instant query: its type, and what was found.
pub fn query(expr: &str) -> Result<Value> {
    let encoded = expr.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02x}");
        text
    });
    api(&format!("query?query={encoded}"))
}

/// The data of an answer of Prometheus' API.
fn api(path: &str) -> Result<Value> {
    let (status, body) = http::get(PROMETHEUS, &format!("/api/v1/{path}"))?;
    ensure!(status == 200, "/api/v1/{path}: {status}: {body}");
    let mut answer: Value = serde_json::from_str(&body)?;
    Ok(answer["data"].take())
}

/// scrape.yaml, with the lab's guardian for its targets.
fn in_a_hurry() -> Result<Value> {
    let mut config = yaml("scrape.yaml")?;
    for key in ["scrape_interval", "evaluation_interval"] {
        text(&config["global"], key)?;
        config["global"][key] = json!("1s");
    }
    let targets = config.pointer_mut("/scrape_configs/0/static_configs/0/targets").context("no targets")?;
    *targets = json!([GUARDIAN]);
    Ok(config)
}

#[derive(Debug)]
struct Program {
    name: &'static str,
    process: Tethered,
    log: PathBuf,
}

impl Program {
    fn start(dir: &Path, name: &'static str, config: &Value, args: &[&str]) -> Result<Self> {
        let (path, log) = (dir.join(format!("{name}.yml")), dir.join(format!("{name}.log")));
        fs::write(&path, config.to_string())?;
        let out = File::create(&log)?;
        let mut command = Command::new(lab::program(name)?);
        command.arg(format!("--config.file={}", path.display())).args(args).current_dir(dir);
        let process = tethered(command.stdout(out.try_clone()?).stderr(out))
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, process, log })
    }
}
