//! Every way in which the kernel lets go of a route, link, address, rule or nexthop object: undone, and named.
//!
//! Each scenario runs twice: without a guardian, where the loss has to happen, and with one, where all has to be
//! whole again. The numbers are those of the table in the kernel's own terms: what asked, and what fell.

mod addresses;
mod kernel_made;
mod links;
mod ports;
mod requests;
mod rules_and_nexthops;

use std::{
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Event, Guardian, Lab, Node};

/// How long it may take until all is whole.
const SOON: Duration = Duration::from_secs(2);
/// The same for what asks again and again until nothing is left: it has to give up first.
const AFTER_A_FIGHT: Duration = Duration::from_secs(20);

/// What is lost: kind, key, change and cause of its record.
type Loss<'a> = (&'a str, &'a str, &'a str, &'a str);

/// A path by which something is lost.
struct Path<'a> {
    /// Lines for `ip -batch` that prepare for it, before the guardian starts.
    prepare: &'a str,
    /// The program that does it, and its arguments.
    argv: Vec<&'a str>,
    /// Labels of objects (see [`lab::State::labels`]) that are different without a guardian.
    falls: &'a [&'a str],
    /// What is recorded.
    losses: &'a [Loss<'a>],
    /// How long it may take until all is whole.
    within: Duration,
}

/// A path of words that are split at spaces.
fn path(words: &str) -> Path<'_> {
    Path { prepare: "", argv: words.split_whitespace().collect(), falls: &[], losses: &[], within: SOON }
}

/// A path of a shell script with a writable `/sys` of the namespace and a `/run` of its own; the shell itself
/// is the actor where it uses nothing but itself.
fn script(text: &str) -> Path<'_> {
    Path { argv: vec!["unshare", "--mount", "sh", "-c", text], ..path("") }
}

impl<'a> Path<'a> {
    fn after(self, prepare: &'a str) -> Self {
        Self { prepare, ..self }
    }

    fn falls(self, falls: &'a [&'a str]) -> Self {
        Self { falls, ..self }
    }

    fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    fn node(&self) -> Result<Node> {
        let node = Lab::guarded()?;
        node.lab.batch(self.prepare)?;
        node.lab.settle()?;
        Ok(node)
    }

    /// Does it: the pid of who did. What it says of it is not asked: a flush fails at what it finds restored.
    fn run(&self) -> Result<u32> {
        self.run_to_the_end().map(|(pid, _)| pid)
    }

    fn run_to_the_end(&self) -> Result<(u32, ExitStatus)> {
        let (program, args) = self.argv.split_first().context("no program")?;
        let mut child = Command::new(program).args(args).spawn().with_context(|| {
            format!("{program}; `cargo xtask setup --tests` installs what the tests need")
        })?;
        let pid = child.id();
        Ok((pid, child.wait()?))
    }

    /// The arguments that the actor has in the end: `unshare` becomes the shell.
    fn last_argv(&self) -> &[&'a str] {
        if self.argv.first() == Some(&"unshare") { &self.argv[2..] } else { &self.argv }
    }

    /// Without a guardian, these objects are not as they were.
    fn happens(&self) -> Result<()> {
        let node = self.node()?;
        let before = node.lab.state()?;
        let (_, status) = self.run_to_the_end()?;
        ensure!(status.success(), "{:?}: {status}", self.argv);
        let now = node.lab.state()?;
        for &label in self.falls {
            assert!(
                before.get(label).is_some(),
                "there is no {label}: {:?}",
                before.labels().collect::<Vec<_>>()
            );
            let same = before.only(|l| l == label) == now.only(|l| l == label);
            assert!(!same, "nothing happened to {label} by {:?}", self.argv);
        }
        assert!(!self.falls.is_empty(), "what falls? {}", before.diff(&now));
        Ok(())
    }

    /// All comes back, and the records say by whom, how and why it went.
    fn undone(self, losses: &'a [Loss<'a>]) -> Result<()> {
        let path = Self { losses, ..self };
        path.happens()?;
        let node = path.node()?;
        let before = node.lab.state()?;
        let guardian = patient(&node.lab)?;
        let pid = path.run()?;
        node.lab.whole_within(&before, path.within)?;
        path.told(&guardian, pid, "restored")?;
        nothing_lost(&guardian)?;
        let metrics = guardian.metrics()?;
        assert_eq!(metrics.sum("missing_objects", &[]), Some(0.0), "{}", metrics.0);
        node.lab.assert_whole(&before)
    }

    /// The records name the actor exactly.
    fn told(&self, guardian: &Guardian, pid: u32, outcome: &str) -> Result<()> {
        for &(kind, key, change, cause) in self.losses {
            // There may be others, for what somebody else has done before or after, and each has its own actor.
            let like = |e: &Event| {
                e.text("/object/kind") == kind
                    && e.key() == key
                    && e.text("/change") == change
                    && e.outcome() == outcome
            };
            let event = first(guardian, &format!("a record of {kind} {key}, {change}, {outcome}"), like)?;
            assert_eq!(event.text("/cause"), cause, "{event}");
            named(&event, pid, self.last_argv());
        }
        Ok(())
    }
}

/// The first record about this object with this outcome (any that is not empty, where it is `""`).
fn told(guardian: &Guardian, kind: &str, key: &str, outcome: &str) -> Result<Event> {
    let like = |e: &Event| {
        e.text("/object/kind") == kind && e.key() == key && (outcome.is_empty() || e.outcome() == outcome)
    };
    first(guardian, &format!("a record of {kind} {key}, {outcome}"), like)
}

/// The first record like this.
fn first(guardian: &Guardian, what: &str, like: impl Fn(&Event) -> bool) -> Result<Event> {
    guardian.event(what, &like)?;
    guardian.events()?.into_iter().find(like).context("no such record")
}

/// A record names its actor completely.
fn named(event: &Event, pid: u32, argv: &[&str]) {
    assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
    assert_eq!(event.number("/actor/pid"), Some(pid.into()), "{event}");
    assert_eq!(event.argv(), argv, "{event}");
    assert_eq!(event.text("/verdict"), "foreign", "{event}");
}

/// A guardian that does not hold back for long from who asks again and again.
fn patient(lab: &Lab) -> Result<Guardian> {
    lab.guardian().set("damping.initial", "\"1s\"").start()
}

/// Nothing was lost on the way.
fn nothing_lost(guardian: &Guardian) -> Result<()> {
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}

/// What cannot come back, or need not, is told and then left alone: no restore that fails again and again.
fn calm(guardian: &Guardian) -> Result<()> {
    let counts = || -> Result<(usize, Option<f64>)> {
        Ok((guardian.events()?.len(), guardian.metrics()?.sum("restores_total", &[])))
    };
    // Whatever it tries at once, it has tried by then; a loop goes on.
    std::thread::sleep(Duration::from_millis(700));
    let before = counts()?;
    std::thread::sleep(Duration::from_millis(700));
    let after = counts()?;
    let tried = after.1.unwrap_or(0.0) - before.1.unwrap_or(0.0);
    assert!(after.0 - before.0 <= 2 && tried <= 2.0, "it keeps trying: {before:?}, {after:?}");
    Ok(())
}
