//! Every kind of actor is named exactly, or the confidence says that it is not.
//!
//! One kind a line; each takes the route [`KEY`] away in a namespace of its own, under a guardian that only
//! observes, and is compared with what the test knows about it.

mod cgroups;
mod disguises;
mod families;
mod namespaces;
mod programs;
mod storm;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio, id},
};

use anyhow::{Context, Result, ensure};
use lab::{Event, Guardian, Lab};

/// The route that is taken away.
const KEY: &str = "10.244.2.0/24";
/// Its address, as `route-taker` wants it.
const ADDRESS: &str = "10.244.2.0";

/// What the test knows about an actor.
struct Truth {
    /// Its pid, where it is known.
    pid: Option<u32>,
    exe: PathBuf,
    argv: Vec<String>,
    uid: u64,
    confidence: &'static str,
}

impl Truth {
    fn new(exe: impl AsRef<Path>, argv: &[&str]) -> Self {
        Self {
            pid: None,
            exe: exe.as_ref().to_owned(),
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            uid: 0,
            confidence: "exact",
        }
    }

    /// `ip` with the words that take the route away.
    fn ip() -> Result<Self> {
        Ok(Self::new(program("ip")?, &["ip", "route", "del", KEY]))
    }

    fn pid(self, pid: u32) -> Self {
        Self { pid: Some(pid), ..self }
    }

    fn uid(self, uid: u64) -> Self {
        Self { uid, ..self }
    }

    /// Says the truth of it, or panics with the whole record.
    fn check(&self, event: &Event) {
        assert_eq!(event.text("/actor/confidence"), self.confidence, "{event}");
        assert_eq!(event.text("/actor/exe"), self.exe.to_string_lossy(), "{event}");
        assert_eq!(event.argv(), self.argv, "{event}");
        assert_eq!(event.number("/actor/uid"), Some(self.uid), "{event}");
        assert!(event.number("/actor/start_ns").is_some_and(|start| start > 0), "{event}");
        if let Some(pid) = self.pid {
            assert_eq!(event.number("/actor/pid"), Some(pid.into()), "{event}");
        }
        assert!(event.ancestors().contains(&id().into()), "this process, {}, is no ancestor: {event}", id());
        // Of those above this process, /proc may refuse to say what they execute.
        let own = |ancestor: &&serde_json::Value| ancestor["pid"] != id();
        for ancestor in event.list("/actor/ancestors").iter().take_while(own) {
            for field in ["exe", "argv", "uid", "start_ns"] {
                assert!(ancestor.get(field).is_some_and(|value| !value.is_null()), "{field} in {event}");
            }
        }
        assert_eq!(event.text("/verdict"), "foreign", "{event}");
        assert_ne!(event.text("/actor/class"), "kernel", "{event}");
    }
}

/// A program in PATH, without symbolic links.
fn program(name: &str) -> Result<PathBuf> {
    let folders = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    Ok(fs::canonicalize(found.with_context(|| format!("{name} is not installed"))?)?)
}

fn taker() -> PathBuf {
    env!("CARGO_BIN_EXE_route-taker").into()
}

/// A node under a guardian that touches nothing, and whose folder anybody may enter.
fn watched() -> Result<(Lab, Guardian)> {
    let lab = Lab::node()?;
    fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o755))?;
    let guardian = lab.guardian().args("--mode observe").start()?;
    Ok((lab, guardian))
}

fn lost(guardian: &Guardian) -> Result<Event> {
    let event = guardian.event(KEY, |event| event.key() == KEY)?;
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    Ok(event)
}

/// Runs a program to its end: its pid, and the first number that it prints.
fn run(command: &mut Command) -> Result<(u32, Option<u32>)> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().next().and_then(|line| line.trim().parse().ok());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() || said.is_some(), "{command:?}: {}: {errors}", output.status);
    Ok((pid, said))
}

/// Takes the route away by a shell command.
fn shell(lab: &Lab, text: &str) -> Result<(u32, Option<u32>)> {
    run(Command::new("sh").args(["-c", text]).env("DIR", lab.dir()).env("TAKER", taker()))
}

/// By `route-taker HOW`, whose arguments the record has to show; the actor is who it prints.
fn taken(how: &str) -> Result<(Truth, Event, u32)> {
    let (_lab, guardian) = watched()?;
    let (pid, said) = run(Command::new(taker()).args([how, ADDRESS]))?;
    let path = taker();
    let truth = Truth::new(&path, &[&path.to_string_lossy(), how, ADDRESS]);
    let truth = truth.pid(said.context("it printed no pid")?);
    let event = lost(&guardian)?;
    Ok((truth, event, pid))
}

/// Tests of shell commands, a line each: who does it is who the truth says.
macro_rules! by_shell {
    ($($(#[$doc:meta])* $name:ident: $text:expr => $truth:expr;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() -> anyhow::Result<()> {
            let (lab, guardian) = super::watched()?;
            super::shell(&lab, &$text)?;
            $truth.check(&super::lost(&guardian)?);
            Ok(())
        }
    )*};
}
use by_shell;
