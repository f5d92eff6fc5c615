//! Events, a line each.

use super::{
    Colour, Style, actor_name, change_words, clean, elide, fit, micros, object_text, pod_name, process_name,
    width,
};
use crate::model::record::{ActorRecord, Change, EventRecord, Outcome, Verdict};

const TIME: usize = 12;
const VERDICT: usize = 7;
const OUTCOME: usize = 8;
const OUTAGE: usize = 8;
const ACTOR_LEAST: usize = 12;
const ACTOR_MOST: usize = 22;
/// Two blanks between columns, and the sign of the change with its blank.
const GAPS: usize = 5 * 2 + 2;

/// The compact table: one line an event, cut to the width, never wrapped. It keeps its column widths and the
/// day, so that lines can be added as events come.
#[derive(Debug)]
pub struct EventTable {
    style: Style,
    actor: usize,
    object: usize,
    day: String,
}

impl EventTable {
    /// A table that is wide enough for the actors of `events`; with none, for any.
    pub fn new(style: &Style, events: &[EventRecord]) -> Self {
        let widest = events.iter().map(|event| width(&actor_name(&event.actor))).max().unwrap_or(ACTOR_MOST);
        let fixed = TIME + VERDICT + OUTCOME + OUTAGE + GAPS;
        let rest = style.width.min(super::WIDTH_MAX).saturating_sub(fixed).max(2 * ACTOR_LEAST);
        let actor = widest.clamp(ACTOR_LEAST, ACTOR_MOST).min(rest / 2);
        let object = rest - actor;
        Self { style: style.clone(), actor, object, day: String::new() }
    }

    /// The line of an event, with a heading before the first and the date before the first of another day.
    pub fn line(&mut self, event: &EventRecord) -> String {
        let day = self.style.time(&event.time, "%Y-%m-%d");
        let mut out = String::new();
        if self.style.legend && day != self.day {
            let first = self.day.is_empty();
            let heading = if first { self.heading(&day) } else { day.clone() };
            out += &self.style.paint(Colour::Faint, &heading);
            out.push('\n');
        }
        self.day = day;
        out += &self.row(event);
        out.push('\n');
        out
    }

    fn heading(&self, day: &str) -> String {
        format!(
            "{}    {}  {}  {}  {}  {:>OUTAGE$}",
            fit(day, TIME),
            fit("OBJECT", self.object),
            fit("ACTOR", self.actor),
            fit("VERDICT", VERDICT),
            fit("OUTCOME", OUTCOME),
            "OUTAGE"
        )
    }

    fn row(&self, event: &EventRecord) -> String {
        let style = &self.style;
        let verdict = fit(event.verdict.as_str(), VERDICT);
        let verdict = match event.verdict {
            Verdict::Foreign | Verdict::Unknown => style.paint(Colour::Strong, &verdict),
            Verdict::Owner | Verdict::Kernel => verdict,
        };
        let outcome = style.paint(outcome_colour(event.outcome), &fit(outcome_word(event.outcome), OUTCOME));
        format!(
            "{}  {} {}  {}  {verdict}  {outcome}  {}",
            fit(&style.time(&event.time, "%H:%M:%S%.3f"), TIME),
            sign(event.change),
            fit(&object_text(&event.object), self.object),
            fit(&actor_name(&event.actor), self.actor),
            style.paint(outage_colour(event), &right(&outage(event), OUTAGE)),
        )
    }
}

/// Everything of an event, uncut: the compact columns, then what was run, by whom, and the id.
pub fn wide(style: &Style, event: &EventRecord) -> String {
    let mut out = format!(
        "{}  {} {}  {}  {}  {}  {}\n",
        style.time(&event.time, "%Y-%m-%d %H:%M:%S%.6f"),
        change_words(event.change),
        style.paint(Colour::Strong, &object_text(&event.object)),
        actor_name(&event.actor),
        event.verdict,
        style.paint(outcome_colour(event.outcome), &event.outcome.as_str().replace('_', " ")),
        outage(event)
    );
    let mut details = vec![family_line(&event.actor)];
    details.extend(event.origin.as_ref().map(|origin| likely(origin)));
    details.extend(event.actor.unit.as_ref().map(|unit| format!("unit {}", clean(unit))));
    details.extend(pod_name(&event.actor).map(|pod| format!("pod {}", clean(&pod))));
    details.extend(event.actor.runtime.as_ref().map(|runtime| format!("container of {}", clean(runtime))));
    details.push(format!("confidence {}", event.actor.confidence.as_str()));
    details.push(format!("cause {}", event.cause));
    details.extend(event.detail.as_ref().map(|detail| clean(detail)));
    details.extend(event.failed_lookups.map(|count| format!("failed lookups {count}")));
    details.extend(event.error.as_ref().map(|error| clean(error)));
    details.push(format!("id {}", clean(&event.id)));
    out += &style.paint(Colour::Faint, &format!("    {}", details.join("; ")));
    out.push('\n');
    out
}

/// What was run, by whom, by whom in turn.
pub(super) fn family_line(actor: &ActorRecord) -> String {
    let mut chain = vec![run(&actor.argv, actor.argv_cut, &actor_name(actor))];
    chain.extend(actor.ancestors.iter().map(|ancestor| {
        format!("{}[{}]", process_name(ancestor.exe.as_deref(), &ancestor.comm), ancestor.pid)
    }));
    chain.join(" ← ")
}

/// Whose request likely led to what the kernel did.
pub(super) fn likely(origin: &ActorRecord) -> String {
    let name = actor_name(origin);
    let ran = if origin.argv.is_empty() { "" } else { ": " };
    format!("likely after {name}{ran}{}", run(&origin.argv, origin.argv_cut, ""))
}

/// The command line as a shell would take it, or what stands in for it.
pub(super) fn run(argv: &[String], cut: bool, instead: &str) -> String {
    if argv.is_empty() {
        return instead.to_owned();
    }
    let words: Vec<String> = argv
        .iter()
        .map(|word| {
            let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word.clone()
            } else {
                format!("'{}'", clean(word).replace('\'', "'\\''"))
            }
        })
        .collect();
    words.join(" ") + if cut { " …" } else { "" }
}

fn sign(change: Change) -> &'static str {
    match change {
        Change::Deleted => "-",
        Change::Replaced | Change::Changed => "~",
        Change::Down => "↓",
    }
}

/// At most [`OUTCOME`] columns.
fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::AlreadyPresent => "present",
        other => other.as_str(),
    }
}

pub(crate) fn outcome_colour(outcome: Outcome) -> Colour {
    match outcome {
        Outcome::Restored | Outcome::AlreadyPresent => Colour::Good,
        Outcome::Observed | Outcome::Held => Colour::Warn,
        Outcome::Failed => Colour::Bad,
        Outcome::Allowed => Colour::Faint,
    }
}

/// How long it was missing; `open` where it may still be.
fn outage(event: &EventRecord) -> String {
    match event.outage_us {
        Some(us) => micros(us),
        None if event.is_open() => "open".into(),
        None => "-".into(),
    }
}

fn outage_colour(event: &EventRecord) -> Colour {
    match event.outage_us {
        None if event.is_open() => Colour::Bad,
        Some(us) if us >= 1_000_000 => Colour::Warn,
        _ => Colour::Faint,
    }
}

pub(super) fn right(text: &str, columns: usize) -> String {
    let text = elide(text, columns);
    let blanks = columns.saturating_sub(width(&text));
    format!("{}{text}", " ".repeat(blanks))
}
