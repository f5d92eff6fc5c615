//! One event told like the first page of a post-mortem: what, when, who, why, the fix, what next.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    Colour, Style, WIDTH_MAX, actor_name, change_words, clean, elide,
    events::{likely, run},
    incidents::summary,
    micros,
    path::lost_by,
    pod_name, process_name, wrap,
};
use crate::{
    knowledge::{self, Advice, FileState, Finding, Program},
    model::{
        ActorClass, Confidence,
        record::{Change, EventRecord, ObjectKind, Outcome, Verdict},
    },
    surface::incident::Incident,
};

/// What is said beyond the event itself; what `explain -o json` adds to the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Why it happened.
    pub why: String,
    /// What is set on this node that lets it happen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<Finding>,
    /// What stops it.
    pub fix: Vec<String>,
    /// How far the fix goes.
    pub note: Option<String>,
    /// What to look at next.
    pub next: String,
}

impl Explanation {
    /// What is known of an event like this one, and of what is set on the node where it happened.
    pub fn of(event: &EventRecord, advice: &Advice) -> Self {
        let path = lost_by(event.object.kind, event.change, event.cause);
        let next = next(event);
        let program = knowledge::find(&event.actor);
        let (why, fix, note) = match (event.verdict, event.actor.class, program) {
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
            (_, _, Some(program)) => {
                let ran = event.actor.class == ActorClass::Iproute2;
                let why = match (ran, program.class) {
                    (true, Some(ActorClass::Iproute2)) => command(event),
                    (true, _) => format!("{} {}", command(event), program.why),
                    (false, _) => program.why.clone(),
                };
                let note = (!program.note.is_empty()).then(|| program.note.clone());
                (format!("{path} {why}"), fix(program, advice), note)
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
        Self { why, found: advice.findings.clone(), fix, note, next }
    }
}

/// What to do: the files for this node where it was looked at, else those that help on most.
fn fix(program: &Program, advice: &Advice) -> Vec<String> {
    let mut fix = vec![program.how.clone()];
    let mut file = |name: String, lines: &mut dyn Iterator<Item = &str>| {
        fix.push(format!("  {name}"));
        fix.extend(lines.map(|line| format!("      {line}")));
    };
    if advice.files.is_empty() {
        for known in &program.files {
            file(known.path.clone(), &mut known.lines.iter().map(String::as_str));
        }
        return fix;
    }
    let mut open = false;
    for missing in advice.files.iter().filter(|file| file.state != FileState::Right) {
        open = true;
        let lines = missing.text.lines().filter(|line| !line.starts_with('#'));
        file(missing.path.display().to_string(), &mut lines.into_iter());
    }
    let last = if open {
        "`route-guardian doctor --fix --yes` writes this."
    } else {
        "Nothing is left to be written here: the files are as they should be."
    };
    fix.push(last.to_owned());
    fix
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
            "route-guardian status   # when it is tried again; route-guardian restore puts it back now".into()
        }
        Outcome::Failed => "route-guardian diff; route-guardian restore --dry-run".into(),
        Outcome::Observed => {
            format!("{}   # to see it alone; --mode restore would have put it back", of_key(&key))
        }
        _ => of_key(&key),
    }
}

fn of_key(key: &str) -> String {
    format!("route-guardian events --object {key}")
}

/// Tells an event, and the incident that it is part of, where that is known.
pub fn explain(
    style: &Style,
    event: &EventRecord,
    incident: Option<&Incident>,
    explanation: &Explanation,
) -> String {
    let mut page = Page { style, out: String::new() };
    page.what(event);
    if let Some(incident) = incident {
        page.rest(incident);
    }
    page.when(event);
    page.who(event);
    if let Some(incident) = incident {
        page.history(incident);
    }
    page.cost(event, incident);
    page.text("WHY", &explanation.why);
    for finding in &explanation.found {
        match &finding.place {
            // To be copied: it is not broken.
            Some(place) => page.line("", &format!("  {}", clean(&place.to_string()))),
            None => page.text("", &format!("  {}", clean(&finding.what))),
        }
    }
    for (n, line) in explanation.fix.iter().enumerate() {
        let label = if n == 0 { "FIX" } else { "" };
        // Lines of files are to be copied: they are not broken.
        if line.starts_with(' ') { page.line(label, line) } else { page.text(label, line) }
    }
    if let Some(note) = &explanation.note {
        page.text("", note);
    }
    page.text("NEXT", &explanation.next);
    page.out
}

const LABEL: usize = 6;

/// An outage of a route that is shorter is over before lookups are counted, in microseconds.
const COUNTED_FROM_US: u64 = 20_000;

struct Page<'s> {
    style: &'s Style,
    out: String,
}

impl Page<'_> {
    /// A line as it is.
    fn line(&mut self, label: &str, text: &str) {
        let label = self.style.paint(Colour::Strong, &format!("{label:LABEL$}"));
        let _ = writeln!(self.out, "{label}{text}");
    }

    /// Text that is broken to the width.
    fn text(&mut self, label: &str, text: &str) {
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
            Outcome::Observed if event.let_go => "nobody waits for it to come back",
            Outcome::Observed => "observed only: the guardian touches nothing in this mode",
            Outcome::Allowed => "obeyed",
            Outcome::Held => "held back",
            Outcome::Failed => "could not be put back",
        };
        let error = event.error.as_ref().map(|error| format!(" ({})", clean(error))).unwrap_or_default();
        let detail = event.detail.as_ref().map(|detail| format!(" ({})", clean(detail))).unwrap_or_default();
        self.text("", &format!("{family}{kind}, {change}{detail}; {done}{error}"));
    }

    fn when(&mut self, event: &EventRecord) {
        let stamp = self.style.time(&event.time, "%Y-%m-%d %H:%M:%S%.6f %Z");
        let seen = event.detection_us.map(|us| format!(", seen {} later", micros(us))).unwrap_or_default();
        self.text("WHEN", &format!("{stamp} {}{seen}", change_words(event.change)));
        let back = event.outage_us.and_then(|us| {
            let time = event.time.parse::<Timestamp>().ok()?;
            time.checked_add(SignedDuration::from_micros(i64::try_from(us).ok()?)).ok()
        });
        if let Some(back) = back {
            self.text(
                "",
                &format!("{} back", self.style.time(&back.to_string(), "%Y-%m-%d %H:%M:%S%.6f %Z")),
            );
        }
    }

    /// What else the incident took.
    fn rest(&mut self, incident: &Incident) {
        if incident.changes > 1 {
            let open = match incident.open {
                0 => "none of them missing any more".to_owned(),
                open => format!("{open} not back"),
            };
            self.text(
                "",
                &format!("one of {} changes in one burst: {}; {open}", incident.changes, summary(incident)),
            );
        }
    }

    /// How often this actor has done so.
    fn history(&mut self, incident: &Incident) {
        let Some(previous) = &incident.previous else { return };
        let times = match incident.before {
            1 => "once before".to_owned(),
            n => format!("{n} times before"),
        };
        let last = self.style.time(previous, "%Y-%m-%d %H:%M:%S %Z");
        self.text("", &format!("this program was at it {times} in the journal, the last time {last}"));
    }

    fn cost(&mut self, event: &EventRecord, incident: Option<&Incident>) {
        let own = match event.outage_us {
            Some(us) => format!("an outage of {}", micros(us)),
            None if event.is_open() => "not back as far as this record goes: the outage is open-ended".into(),
            None => return,
        };
        let several = incident.filter(|incident| incident.changes > 1 && event.outage_us.is_some());
        let all = several.and_then(|incident| {
            let (all, longest) = (incident.outage_us?, incident.longest_us?);
            let (all, longest) = (micros(all), micros(longest));
            Some(format!("; of the whole incident {all}, of one object {longest} at most"))
        });
        self.text("COST", &format!("{own}{}", all.unwrap_or_default()));
        let failed = incident.map_or(event.failed_lookups, |incident| incident.failed_lookups);
        match failed {
            Some(0) => self.text("", "no packet asked for it meanwhile"),
            Some(failed) => {
                let what = if incident.is_some_and(|i| i.changes > 1) { "its routes" } else { "it" };
                let packets = if failed == 1 { "lookup that needed" } else { "lookups that needed" };
                self.text(
                    "",
                    &format!("{failed} {packets} {what} found another route or none: about as many packets"),
                );
            }
            None if event.object.kind == ObjectKind::Route
                && event.outage_us.is_some_and(|us| us < COUNTED_FROM_US) =>
            {
                self.text("", "over before the lookups that failed could be counted");
            }
            None => {}
        }
    }

    fn who(&mut self, event: &EventRecord) {
        let actor = &event.actor;
        let sure = match (actor.confidence, actor.class) {
            (_, ActorClass::Kernel) => "the kernel itself, not on behalf of a program",
            (Confidence::Exact, _) => "exact: taken in the task that made the change",
            (Confidence::Partial, _) => "partial: the process is certain, but not all about it is known",
            (Confidence::None, _) => "none: attribution was lost or is not available",
        };
        self.text("WHO", &format!("{} ({sure})", actor_name(actor)));
        if let Some(origin) = &event.origin {
            self.text("", &likely(origin));
        }
        if actor.pid.is_none() {
            return;
        }
        let room = self.room();
        let gone = if actor.exe_deleted { " (deleted or replaced since)" } else { "" };
        let exe = actor.exe.as_ref().map(|exe| format!("{exe}{gone}"));
        let thread = actor.tid.map(|tid| format!("{tid}, not the first of the process"));
        let mut facts = vec![
            ("executable", exe),
            ("thread", thread),
            ("folder", actor.cwd.clone()),
            ("unit", actor.unit.clone()),
        ];
        facts.push(("pod", pod_name(actor)));
        let runtime = actor.runtime.as_ref().map(|runtime| format!(", of {runtime}")).unwrap_or_default();
        facts.push(("container", actor.container.as_ref().map(|id| format!("{id}{runtime}"))));
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
