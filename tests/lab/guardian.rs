//! The guardian under test: `target/release/route-guardian`, started in a lab and asked by its own command
//! line.

use std::{
    collections::BTreeMap,
    fmt::Write as FmtWrite,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{Event, Lab, Tethered, http, tethered, wait_for};

/// Every lab has a loopback of its own, so that the port is free.
const LISTEN: &str = "127.0.0.1:10953";
/// How long it may take to be ready, on a slow and busy machine.
const READY: Duration = Duration::from_secs(20);

/// The guardian's binary: `$ROUTE_GUARDIAN`, or what `cargo xtask build` leaves.
pub fn binary() -> PathBuf {
    std::env::var_os("ROUTE_GUARDIAN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target/release/route-guardian"),
        PathBuf::from,
    )
}

/// The guardian's binary with what talks to Kubernetes: `$ROUTE_GUARDIAN_IN_POD`, or what cargo leaves when it builds
/// the tests with `--features route-guardian/kubernetes`, as `cargo xtask test` does. Not optimised: that would take as
/// long again as the release build.
pub fn binary_in_pod() -> PathBuf {
    std::env::var_os("ROUTE_GUARDIAN_IN_POD").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target/debug/route-guardian"),
        PathBuf::from,
    )
}

/// How a guardian is to be started.
#[derive(Clone, Debug)]
pub struct Launch<'lab> {
    lab: &'lab Lab,
    program: PathBuf,
    name: String,
    listen: String,
    config: BTreeMap<String, String>,
    verbatim: Option<String>,
    args: Vec<String>,
    wrapper: Vec<String>,
}

impl<'lab> Launch<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        let launch = Self {
            lab,
            program: binary(),
            name: "guardian".into(),
            listen: LISTEN.into(),
            config: BTreeMap::new(),
            verbatim: None,
            args: Vec::new(),
            wrapper: Vec::new(),
        };
        launch.owner(&[&lab.dir().join("kube-router")]).placed()
    }

    /// Another than the first in this lab: a folder and a port of its own.
    #[must_use]
    pub fn named(mut self, name: &str, port: u16) -> Self {
        name.clone_into(&mut self.name);
        self.listen = format!("127.0.0.1:{port}");
        self.placed()
    }

    fn placed(self) -> Self {
        let dir = self.dir();
        let listen = format!("{:?}", self.listen);
        self.set("control.socket", &toml_string(&dir.join("control.sock")))
            .set("state.dir", &toml_string(&dir.join("state")))
            .set("http.listen", &listen)
    }

    /// Sets a configuration key, such as `restore.settle`, to a TOML value, such as `"1s"` with its quotes.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// Says by executable who owns the scope.
    #[must_use]
    pub fn owner(self, exe: &[&Path]) -> Self {
        self.set("owner.exe", &format!("{exe:?}"))
    }

    /// Uses this text as the whole configuration.
    #[must_use]
    pub fn configuration(mut self, text: &str) -> Self {
        self.verbatim = Some(text.into());
        self
    }

    /// Adds arguments to `run`, split at spaces.
    #[must_use]
    pub fn args(mut self, words: &str) -> Self {
        self.args.extend(words.split_whitespace().map(Into::into));
        self
    }

    /// Takes another binary than [`binary`].
    #[must_use]
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// Starts it through another program, such as `setpriv --bounding-set=-all`.
    #[must_use]
    pub fn through(mut self, words: &str) -> Self {
        self.wrapper = words.split_whitespace().map(Into::into).collect();
        self
    }

    /// Goes through these words after those of [`Self::through`].
    #[must_use]
    pub fn through_also(mut self, words: &str) -> Self {
        self.wrapper.extend(words.split_whitespace().map(Into::into));
        self
    }

    /// The folder with its files.
    pub fn dir(&self) -> PathBuf {
        self.lab.dir().join(&self.name)
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir().join("config.toml")
    }

    fn text(&self) -> String {
        self.verbatim.clone().unwrap_or_else(|| {
            self.config.iter().fold(String::new(), |mut text, (key, value)| {
                let _ = writeln!(text, "{key} = {value}");
                text
            })
        })
    }

    fn command(&self) -> Result<Command> {
        let binary = &self.program;
        ensure!(binary.is_file(), "{} is not built; `cargo xtask test` builds it", binary.display());
        fs::create_dir_all(self.dir())?;
        fs::write(self.config_file(), self.text())?;
        let mut words = self.wrapper.iter();
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        command.arg("run").arg("--config").arg(self.config_file()).args(&self.args).stdin(Stdio::null());
        Ok(command)
    }

    /// Starts it, and waits until it says that it is ready.
    pub fn start(self) -> Result<Guardian> {
        let mut command = self.command()?;
        let log = self.dir().join("log");
        let out = File::create(&log)?;
        let process = tethered(command.stdout(out.try_clone()?).stderr(out))
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut guardian = Guardian {
            process,
            listen: self.listen.clone(),
            socket: self.dir().join("control.sock"),
            config: self.config_file(),
            state: self.dir().join("state"),
            log,
        };
        guardian.ready()?;
        Ok(guardian)
    }

    /// Starts it where it has to refuse: its exit status and words. An error if it is still there after
    /// ten seconds.
    pub fn refused(self) -> Result<Output> {
        let out = self.dir().join("refused");
        let mut command = self.command()?;
        let file = File::create(&out)?;
        let mut process = tethered(command.stdout(Stdio::null()).stderr(file))?;
        let status = process.wait(Duration::from_secs(10))?;
        let stderr = fs::read(&out)?;
        ensure!(
            !Tethered::was_killed(status),
            "it runs, where it should have refused; it said:\n{}",
            String::from_utf8_lossy(&stderr)
        );
        Ok(Output { status, stdout: Vec::new(), stderr })
    }
}

/// A running guardian. Dropped, it is stopped; if the thread is panicking, its log is shown.
#[derive(Debug)]
pub struct Guardian {
    process: Tethered,
    listen: String,
    socket: PathBuf,
    config: PathBuf,
    state: PathBuf,
    log: PathBuf,
}

impl Guardian {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its configuration file, to be changed before a SIGHUP.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The folder with its journal.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The path of its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn ready(&mut self) -> Result<()> {
        let mut last = String::from("no answer");
        let (listen, process) = (&self.listen, &mut self.process);
        let ready = wait_for("the guardian's /readyz", READY, || {
            if let Some(status) = process.ended()? {
                bail!("the guardian ended: {status}");
            }
            match http::get(listen, "/readyz") {
                Ok((200, _)) => return Ok(true),
                Ok((status, body)) => last = format!("{status}: {}", body.trim()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => last = error.to_string(),
            }
            Ok(false)
        });
        ready.map_err(|error| anyhow!("{error}; /readyz said {last}; its log:\n{}", self.log()))
    }

    /// Runs a command of its command line that talks to it, such as `status -o json`.
    pub fn ask(&self, words: &str) -> Result<Output> {
        let mut words = words.split_whitespace();
        // Were it to hang, the test has to fail.
        Command::new("timeout")
            .args(["--kill-after=1", "30"])
            .arg(binary())
            .args(words.next())
            .arg("--config")
            .arg(&self.config)
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("cannot run the guardian's command line")
    }

    /// The same where it has to succeed: what it printed.
    pub fn answer(&self, words: &str) -> Result<String> {
        let output = self.ask(words)?;
        ensure!(
            output.status.success(),
            "`{words}` failed: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How it is, from its control socket, whatever its configuration file says by now: `status -o json`.
    pub fn status(&self) -> Result<serde_json::Value> {
        let mut status = Command::new(binary());
        status
            .args(["status", "-o", "json", "--socket"])
            .arg(&self.socket)
            .arg("--state-dir")
            .arg(&self.state);
        let output =
            status.stdin(Stdio::null()).output().context("cannot run the guardian's command line")?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Waits until `diff` finds nothing to tell of; an error with what it says, and the records, after two seconds.
    pub fn no_diff(&self) -> Result<()> {
        let mut said = String::new();
        let same = wait_for("`diff` to find nothing", Duration::from_secs(2), || {
            let output = self.ask("diff")?;
            said = [output.stdout, output.stderr].iter().map(|s| String::from_utf8_lossy(s)).collect();
            Ok(output.status.success())
        });
        same.with_context(|| {
            let records: Vec<_> = self.events().unwrap_or_default().iter().map(ToString::to_string).collect();
            format!("it says:\n{said}\nthe records are:\n{}\nits log:\n{}", records.join("\n"), self.log())
        })
    }

    /// Its event records, oldest first, each in its last state.
    pub fn events(&self) -> Result<Vec<Event>> {
        let mut events: Vec<Event> = Vec::new();
        for line in self.answer("events -o json")?.lines().filter(|line| !line.trim().is_empty()) {
            let event = Event(serde_json::from_str(line).with_context(|| format!("not a record: {line}"))?);
            match events.iter_mut().find(|known| known.id() == event.id()) {
                Some(known) => *known = event,
                None => events.push(event),
            }
        }
        Ok(events)
    }

    /// Waits for an event record like this, and returns the last such one.
    pub fn event(&self, what: &str, like: impl Fn(&Event) -> bool) -> Result<Event> {
        let mut found = None;
        wait_for(what, Duration::from_secs(5), || {
            found = self.events()?.into_iter().rfind(&like);
            thread::sleep(Duration::from_millis(if found.is_some() { 0 } else { 20 }));
            Ok(found.is_some())
        })
        .with_context(|| {
            let all = self.events().unwrap_or_default();
            let lines: Vec<_> = all.iter().map(ToString::to_string).collect();
            format!("the records are:\n{}\nits log:\n{}", lines.join("\n"), self.log())
        })?;
        found.context("no such record")
    }

    /// Its metrics, with what has happened until now: records are made a moment after a restore, or when somebody
    /// asks.
    pub fn metrics(&self) -> Result<Metrics> {
        let mut control = UnixStream::connect(&self.socket)?;
        control.set_read_timeout(Some(READY))?;
        control.write_all(b"{\"request\":\"heartbeat\"}\n")?;
        control.read_to_end(&mut Vec::new())?;
        let (status, body) = http::get(&self.listen, "/metrics")?;
        ensure!(status == 200, "/metrics said {status}: {body}");
        Ok(Metrics(body))
    }

    /// An HTTP path: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        Ok(http::get(&self.listen, path)?)
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        Ok(self.process.signal(signal)?)
    }

    /// Stops it by SIGTERM; how it ended.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let status = self.process.stop()?;
        ensure!(!Tethered::was_killed(status), "it did not end after SIGTERM; its log:\n{}", self.log());
        Ok(status)
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        field(&status, "VmRSS:").context("no VmRSS")
    }

    /// How often its threads have been scheduled: voluntary and involuntary context switches in all.
    pub fn switches(&self) -> Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            sum += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            sum += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(sum)
    }

    /// It does not wake up while nothing changes: one of three spans has to be without a context switch. Who stops and
    /// continues the whole machine wakes everybody; what the guardian does by itself shows in each.
    pub fn sleeps_for(&self, span: Duration) -> Result<()> {
        let mut woken = Vec::new();
        while woken.len() < 3 && !woken.contains(&0) {
            let before = self.switches()?;
            thread::sleep(span);
            woken.push(self.switches()? - before);
        }
        ensure!(woken.contains(&0), "context switches while nothing changed, in {span:?} each: {woken:?}");
        Ok(())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the guardian's log ---\n{}--- end of its log ---", self.log());
        }
    }
}

/// A path as a TOML basic string.
pub(crate) fn toml_string(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}

fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// What `/metrics` said.
#[derive(Clone, Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of the samples of this name (without the prefix `route_guardian_`) whose labels contain each of
    /// `labels`, such as `outcome="restored"`; `None` where there is no such sample.
    pub fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let values: Vec<f64> = self
            .0
            .lines()
            .filter_map(|line| line.strip_prefix("route_guardian_")?.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter(|rest| labels.iter().all(|label| rest.contains(label)))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
            .collect();
        if values.is_empty() { None } else { Some(values.iter().sum()) }
    }
}
