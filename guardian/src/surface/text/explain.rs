//! One event told like the first page of a post-mortem: what, when, who, why, the fix, what next.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    Colour, Style, WIDTH_MAX, actor_name, change_words, clean, elide, events::run, history, is_open, lost,
    micros, process_name, remedy, short_id, wrap,
};
use crate::{
    model::{
        ActorClass, Confidence,
        record::{Change, EventRecord, ObjectKind, Outcome, Verdict},
    },
    surface::incidents::Incident,
};

/// What is said beyond the event itself; what `explain -o json` adds to the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Why it happened.
    pub why: String,
    /// What stops it.
    pub fix: Vec<String>,
    /// How far the fix goes.
    pub note: Option<String>,
    /// What to look at next.
    pub next: String,
}

impl Explanation {
    /// What is known of an event like this one.
    pub fn of(event: &EventRecord) -> Self {
        let path = remedy::path(event.object.kind, event.change, event.cause);
        let next = next(event);
        let remedy = remedy::find(event.actor.class);
        let (why, fix, note) = match (event.verdict, event.actor.class, remedy) {
            (Verdict::Owner, ..) => (
                "The owner of the scope did this itself: the guardian obeys.".to_owned(),
                vec!["Nothing to fix.".to_owned()],
                None,
            ),
            (_, ActorClass::Kernel, _) | (Verdict::Kernel, ..) => (
                path.clone(),
                vec!["Look for what happened to the link at that time: `dmesg -T`, the switch, the driver.".into()],
                None,
            ),
            (_, ActorClass::Unknown, _) => (
                format!("{path} Who caused it is not known."),
                vec![
                    "Nothing can be advised without an actor. `route-guardian status` says which sensors are attached."
                        .into(),
                ],
                None,
            ),
            (_, _, Some(remedy)) => {
                let mut fix = vec![remedy.how.to_owned()];
                for file in remedy.files {
                    fix.push(format!("  {}", file.file));
                    fix.extend(file.lines.iter().map(|line| format!("      {line}")));
                }
                let note = (!remedy.note.is_empty()).then(|| remedy.note.to_owned());
                let why = if remedy.class == ActorClass::Iproute2 { command(event) } else { remedy.why.to_owned() };
                (format!("{path} {why}"), fix, note)
            }
            (_, _, None) => (
                format!("{path} Why this program does so is not known to the guardian."),
                vec![
                    "Not known for this program. The tree above says what started it; change it there, or tell it to \
                     leave what is guarded alone."
                        .into(),
                ],
                None,
            ),
        };
        Self { why, fix, note, next }
    }
}

/// What was run, and what started it.
fn command(event: &EventRecord) -> String {
    let actor = &event.actor;
    let mut why = format!("Somebody ran `{}`", run(&actor.argv, actor.argv_cut, &clean(&actor.comm)));
    if let Some(parent) = actor.ancestors.first() {
        let name = format!("{}[{}]", process_name(parent.exe.as_deref(), &parent.comm), parent.pid);
        let _ = write!(why, ", started by {name}");
        if parent.argv.len() > 1 {
            let _ = write!(why, " (`{}`)", run(&parent.argv, false, ""));
        }
    }
    why + "."
}

fn next(event: &EventRecord) -> String {
    let key = match event.object.kind {
        // A number alone is in many a text.
        ObjectKind::Nexthop => format!("'id {} '", clean(&event.object.key)),
        ObjectKind::Rule => format!("{}:", clean(&event.object.key)),
        ObjectKind::Link | ObjectKind::Address | ObjectKind::Route => clean(&event.object.key),
    };
    match event.outcome {
        Outcome::Held => {
            "route-guardian status    # when it is tried again\nroute-guardian restore   # puts it back now"
                .into()
        }
        Outcome::Failed => "route-guardian diff\nroute-guardian restore --dry-run".into(),
        Outcome::Observed => {
            format!("{}\n# run with --mode restore, it would have been put back", of_key(&key))
        }
        _ => of_key(&key),
    }
}

fn of_key(key: &str) -> String {
    format!("route-guardian events --object {key}")
}

/// Tells an event.
pub fn explain(style: &Style, event: &EventRecord, incident: Option<&Incident>) -> String {
    let mut page = Page::new(style);
    page.what(event);
    page.when(event);
    page.who(event);
    if let Some(incident) = incident {
        page.text("", &history(incident));
    }
    let explanation = Explanation::of(event);
    page.why(&explanation);
    page.cost(event, incident);
    page.fix(&explanation);
    for (n, line) in explanation.next.lines().enumerate() {
        // Commands are to be copied: they are not broken.
        page.line(if n == 0 { "NEXT" } else { "" }, line);
    }
    page.out
}

const LABEL: usize = 6;

pub(super) struct Page<'s> {
    style: &'s Style,
    pub(super) out: String,
}

impl<'s> Page<'s> {
    pub(super) const fn new(style: &'s Style) -> Self {
        Self { style, out: String::new() }
    }

    pub(super) fn why(&mut self, explanation: &Explanation) {
        self.text("WHY", &explanation.why);
    }

    pub(super) fn fix(&mut self, explanation: &Explanation) {
        for (n, line) in explanation.fix.iter().enumerate() {
            let label = if n == 0 { "FIX" } else { "" };
            // Lines of files are to be copied: they are not broken.
            if line.starts_with(' ') { self.line(label, line) } else { self.text(label, line) }
        }
        if let Some(note) = &explanation.note {
            self.text("", note);
        }
    }

    /// A line that is cut to the width.
    pub(super) fn elided(&mut self, text: &str) {
        let text = elide(text, self.room());
        self.line("", &text);
    }

    /// What it cost, and what else belongs to it.
    fn cost(&mut self, event: &EventRecord, incident: Option<&Incident>) {
        let text = match event.outage_us {
            Some(us) => format!("It was missing for {}.", micros(us)),
            None if is_open(event.outcome) => {
                "It was not back when last recorded: the outage is open-ended.".into()
            }
            None => "No outage that anybody waits to see ended.".into(),
        };
        self.text("COST", &text);
        let Some(incident) = incident else { return };
        if let Some(lookups) = incident.failed_lookups {
            self.text("", &format!("{lookups} route lookups failed during its incident."));
        }
        if incident.changes > 1 {
            let others = format!(
                "One of {} changes of incident {} ({}; {} followed from another).",
                incident.changes,
                short_id(&incident.id),
                lost(incident),
                incident.consequences
            );
            self.text("", &others);
        }
    }

    /// A line as it is.
    pub(super) fn line(&mut self, label: &str, text: &str) {
        let label = self.style.paint(Colour::Strong, &format!("{label:LABEL$}"));
        let _ = writeln!(self.out, "{label}{text}");
    }

    /// Text that is broken to the width.
    pub(super) fn text(&mut self, label: &str, text: &str) {
        for (n, line) in wrap(text, self.room()).iter().enumerate() {
            self.line(if n == 0 { label } else { "" }, line);
        }
    }

    fn room(&self) -> usize {
        self.style.width.min(WIDTH_MAX).saturating_sub(LABEL).max(20)
    }

    fn what(&mut self, event: &EventRecord) {
        self.text("WHAT", &clean(&event.object.text));
        let family = event.object.family.map(|family| format!("{family} ")).unwrap_or_default();
        let change = match event.change {
            Change::Replaced => "replaced by another",
            other => change_words(other),
        };
        let kind = match event.object.kind {
            ObjectKind::Nexthop => "nexthop object",
            other => other.as_str(),
        };
        let done = match event.outcome {
            Outcome::Restored => "restored and verified",
            Outcome::AlreadyPresent => "somebody else had put it back first",
            Outcome::Observed => "observed only: the guardian touches nothing in this mode",
            Outcome::Allowed if event.verdict == Verdict::Owner => "obeyed",
            Outcome::Allowed => "let go: nobody but who made it can make it again",
            Outcome::Held => "held back",
            Outcome::Failed => "could not be put back",
        };
        let error = event.error.as_ref().map(|error| format!(" ({})", clean(error))).unwrap_or_default();
        self.text("", &format!("{family}{kind}, {change}; {done}{error}"));
        if let Some(detail) = &event.detail {
            self.text("", &format!("what changed: {}", clean(detail)));
        }
    }

    fn when(&mut self, event: &EventRecord) {
        let stamp = self.style.time(&event.time, "%Y-%m-%d %H:%M:%S%.6f %Z");
        let seen = event.detection_us.map(|us| format!(", seen {} later", micros(us))).unwrap_or_default();
        self.text("WHEN", &format!("{stamp} {}{seen}", change_words(event.change)));
        let end = match event.outage_us {
            Some(us) => {
                let back = event.time.parse::<Timestamp>().ok().and_then(|time| {
                    time.checked_add(SignedDuration::from_micros(i64::try_from(us).ok()?)).ok()
                });
                let back = back.map(|back| self.style.time(&back.to_string(), "%Y-%m-%d %H:%M:%S%.6f %Z"));
                format!("{} back: an outage of {}", back.unwrap_or_default(), micros(us))
            }
            None if is_open(event.outcome) => {
                "not back as far as this record goes: the outage is open-ended".to_owned()
            }
            None => return,
        };
        self.text("", &end);
    }

    pub(super) fn who(&mut self, event: &EventRecord) {
        let actor = &event.actor;
        let sure = match (actor.confidence, actor.class) {
            (_, ActorClass::Kernel) => "the kernel itself, not on behalf of a program",
            (Confidence::Exact, _) => "exact: taken in the task that made the change",
            (Confidence::Partial, _) => "partial: the process is certain, but not all about it is known",
            (Confidence::None, _) => "none: attribution was lost or is not available",
        };
        self.text("WHO", &format!("{} ({sure})", actor_name(actor)));
        if actor.pid.is_none() {
            return;
        }
        let room = self.room();
        let mut facts = vec![("executable", actor.exe.clone()), ("unit", actor.unit.clone())];
        facts.push(("pod", actor.pod.clone()));
        facts.push(("container", actor.container.clone()));
        facts.push(("cgroup", actor.cgroup.clone()));
        let login = actor.login_uid.map(|uid| format!(", logged in as {uid}")).unwrap_or_default();
        facts.push(("uid", actor.uid.map(|uid| format!("{uid}{login}"))));
        for (name, value) in facts {
            if let Some(value) = value {
                self.line("", &elide(&format!("{name:11} {}", clean(&value)), room));
            }
        }
        let mut depth = 0;
        for ancestor in actor.ancestors.iter().rev() {
            let name = format!("{}[{}]", process_name(ancestor.exe.as_deref(), &ancestor.comm), ancestor.pid);
            self.branch(depth, &name, &run(&ancestor.argv, false, ""));
            depth += 1;
        }
        self.branch(depth, &actor_name(actor), &run(&actor.argv, actor.argv_cut, ""));
    }

    fn branch(&mut self, depth: usize, name: &str, command: &str) {
        let twig = if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) };
        let line = format!("{twig}{name}  {command}");
        let line = elide(line.trim_end(), self.room());
        self.line("", &line);
    }
}
