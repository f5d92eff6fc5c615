//! Incidents: a line each, in full, and explained.

use std::fmt::Write as _;

use super::{
    Colour, Style, actor_name, clean, elide,
    events::{outcome_colour, right, run},
    explain::{Explanation, Page},
    fit, micros, object_text, width,
};
use crate::{
    model::record::{Cause, ObjectKind, Outcome},
    surface::incidents::{EXAMPLES, Incident, Lost},
};

const TIME: usize = 8;
const OUTCOME: usize = 8;
const OUTAGE: usize = 7;
const BEFORE: usize = 6;
/// The end of an id that `explain` takes: of each run of the guardian its own.
const ID: usize = 10;
const ACTOR_LEAST: usize = 12;
const ACTOR_MOST: usize = 22;
const GAPS: usize = 6 * 2;

/// The compact table: one line an incident, cut to the width, never wrapped.
#[derive(Debug)]
pub struct IncidentTable {
    style: Style,
    actor: usize,
    lost: usize,
    day: String,
}

impl IncidentTable {
    /// A table that is wide enough for the actors of `incidents`.
    pub fn new(style: &Style, incidents: &[Incident]) -> Self {
        let widest = incidents.iter().map(|incident| width(&actor_name(&incident.actor))).max();
        let fixed = TIME + OUTCOME + OUTAGE + BEFORE + ID + GAPS;
        let rest = style.width.min(super::WIDTH_MAX).saturating_sub(fixed).max(2 * ACTOR_LEAST);
        let actor = widest.unwrap_or(ACTOR_MOST).clamp(ACTOR_LEAST, ACTOR_MOST).min(rest / 2);
        Self { style: style.clone(), actor, lost: rest - actor, day: String::new() }
    }

    /// The line of an incident, with a heading before the first and the date before the first of another day.
    pub fn line(&mut self, incident: &Incident) -> String {
        let day = self.style.time(&incident.first, "%Y-%m-%d");
        let mut out = String::new();
        if self.style.legend && day != self.day {
            if self.day.is_empty() {
                let heading = format!(
                    "{}  {}  {}  {}  {:>OUTAGE$}  {:>BEFORE$}  ID",
                    fit("TIME", TIME),
                    fit("ACTOR", self.actor),
                    fit("LOST", self.lost),
                    fit("OUTCOME", OUTCOME),
                    "OUTAGE",
                    "BEFORE",
                );
                out += &self.style.paint(Colour::Faint, &heading);
                out.push('\n');
            }
            out += &self.style.paint(Colour::Faint, &day);
            out.push('\n');
        }
        self.day = day;
        let style = &self.style;
        let worst = worst(incident);
        let _ = writeln!(
            out,
            "{}  {}  {}  {}  {}  {}  {}",
            fit(&style.time(&incident.first, "%H:%M:%S"), TIME),
            fit(&actor_name(&incident.actor), self.actor),
            fit(&lost(incident), self.lost),
            style.paint(outcome_colour(worst), &fit(outcome_word(worst), OUTCOME)),
            right(&outage(incident), OUTAGE),
            right(&before(incident), BEFORE),
            short_id(&incident.id),
        );
        out
    }
}

/// The end of an id, which is enough to name it.
pub fn short_id(id: &str) -> String {
    let skip = id.chars().count().saturating_sub(ID);
    clean(&id.chars().skip(skip).collect::<String>())
}

/// Everything of an incident, uncut.
pub fn wide_incident(style: &Style, incident: &Incident) -> String {
    let worst = worst(incident);
    let mut out = format!(
        "{}  {}  {}  {}  {}\n",
        style.time(&incident.first, "%Y-%m-%d %H:%M:%S%.6f"),
        style.paint(Colour::Strong, &actor_name(&incident.actor)),
        lost(incident),
        style.paint(outcome_colour(worst), &outcomes(incident)),
        outage(incident)
    );
    let actor = &incident.actor;
    let mut details = vec![run(&actor.argv, actor.argv_cut, &actor_name(actor))];
    details.extend(actor.unit.as_ref().map(|unit| format!("unit {}", clean(unit))));
    details.extend(actor.pod.as_ref().map(|pod| format!("pod {}", clean(pod))));
    details.extend(incident.lost.iter().map(named));
    details.push(format!("first {}", object_text(&incident.telling.object)));
    details.push(format!("causes {}", causes(incident)));
    details.extend(incident.failed_lookups.map(|n| format!("failed lookups {n}")));
    details.push(format!("before {}", before(incident)));
    details.push(format!("id {}", clean(&incident.id)));
    out += &style.paint(Colour::Faint, &format!("    {}", details.join("; ")));
    out.push('\n');
    out
}

/// Tells an incident like the first page of a post-mortem.
pub fn explain_incident(style: &Style, incident: &Incident) -> String {
    let mut page = Page::new(style);
    page.text("WHAT", &format!("{}: {}", count(incident.changes, "change"), lost_in_full(incident)));
    for lost in &incident.lost {
        page.elided(&format!("  {}", named(lost)));
    }
    let followed = match incident.consequences {
        0 => String::new(),
        n => format!(" ({n} followed from another change)"),
    };
    page.text("", &format!("causes: {}{followed}", causes(incident)));
    page.text("", &format!("what came of it: {}", outcomes(incident)));
    let stamp = |time: &str| style.time(time, "%Y-%m-%d %H:%M:%S%.6f %Z");
    page.text("WHEN", &format!("{} the first change", stamp(&incident.first)));
    if incident.last != incident.first {
        page.text("", &format!("{} the last change", stamp(&incident.last)));
    }
    page.who(&incident.telling);
    page.text("", &history(incident));
    page.why(&Explanation::of(&incident.telling));
    for (n, line) in cost(incident).iter().enumerate() {
        page.text(if n == 0 { "COST" } else { "" }, line);
    }
    page.fix(&Explanation::of(&incident.telling));
    page.line("NEXT", &format!("route-guardian events --incident {}", clean(&incident.id)));
    page.line(
        "",
        &format!("route-guardian explain --event {}   # the most telling one", clean(&incident.telling.id)),
    );
    page.out
}

/// What it cost, in sentences.
fn cost(incident: &Incident) -> Vec<String> {
    let outage = &incident.outage;
    let mut lines = Vec::new();
    if outage.total_us > 0 {
        let longest = if incident.changes > 1 {
            format!(", the longest single outage {}", micros(outage.longest_us))
        } else {
            String::new()
        };
        lines.push(format!("{} with something missing{longest}.", micros(outage.total_us)));
    }
    if outage.open > 0 {
        let not_back =
            if outage.open == 1 { "1 object was" } else { &format!("{} objects were", outage.open) };
        lines.push(format!("{not_back} not back when last recorded: that outage is open-ended."));
    }
    if let Some(lookups) = incident.failed_lookups {
        lines.push(format!("{} failed meanwhile.", count(lookups, "route lookup")));
    }
    if lines.is_empty() {
        lines.push("No outage: nothing that was to stay was missing.".into());
    }
    lines
}

/// How often the actor has done so before, as a sentence.
pub(crate) fn history(incident: &Incident) -> String {
    let before = &incident.before;
    match (before.times, before.at_least) {
        (0, false) => "the first incident of this program in the journal".into(),
        (0, true) => "the first incident of this program as far as the journal reaches".into(),
        (n, at_least) => {
            let least = if at_least { "at least " } else { "" };
            format!("{least}{} of this program before this one", count(n, "incident"))
        }
    }
}

/// `1 change`, `3 changes`.
fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `12 routes, 1 link`: whatever the family.
pub(crate) fn lost(incident: &Incident) -> String {
    let kinds = ObjectKind::ALL.iter().filter_map(|&kind| {
        let n: u64 = incident.lost.iter().filter(|lost| lost.kind == kind).map(|lost| lost.count).sum();
        (n > 0).then_some((kind, n))
    });
    let mut kinds: Vec<_> = kinds.collect();
    kinds.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    match kinds[..] {
        [(_, 1)] if incident.changes == 1 => object_text(&incident.telling.object),
        _ => kinds.iter().map(|&(kind, n)| plural(kind, n)).collect::<Vec<_>>().join(", "),
    }
}

fn lost_in_full(incident: &Incident) -> String {
    let parts: Vec<String> = incident
        .lost
        .iter()
        .map(|lost| {
            let family = lost.family.map(|family| format!("{family} ")).unwrap_or_default();
            plural(lost.kind, lost.count).replacen(' ', &format!(" {family}"), 1)
        })
        .collect();
    parts.join(", ")
}

fn plural(kind: ObjectKind, n: u64) -> String {
    match (kind, n) {
        (ObjectKind::Nexthop, 1) => "1 nexthop object".into(),
        (ObjectKind::Nexthop, n) => format!("{n} nexthop objects"),
        (ObjectKind::Address, 2..) => format!("{n} addresses"),
        (kind, n) => count(n, kind.as_str()),
    }
}

fn named(lost: &Lost) -> String {
    let names: Vec<String> = lost.examples.iter().map(|key| clean(key)).collect();
    let more = if lost.examples.len() >= EXAMPLES && lost.count > EXAMPLES as u64 { " …" } else { "" };
    format!("{} {}{more}", lost.kind, names.join(" "))
}

pub(crate) fn outcomes(incident: &Incident) -> String {
    let parts: Vec<String> = incident
        .outcomes
        .iter()
        .map(|(outcome, n)| format!("{n} {}", outcome.as_str().replace('_', " ")))
        .collect();
    parts.join(", ")
}

fn causes(incident: &Incident) -> String {
    let words = |cause: &Cause| cause.as_str().replace('_', " ");
    let parts: Vec<String> =
        incident.causes.iter().map(|(cause, n)| format!("{n} by {}", words(cause))).collect();
    parts.join(", ")
}

/// The least good of its ends.
pub(crate) fn worst(incident: &Incident) -> Outcome {
    let by_harm = [
        Outcome::Failed,
        Outcome::Held,
        Outcome::Observed,
        Outcome::Restored,
        Outcome::AlreadyPresent,
        Outcome::Allowed,
    ];
    by_harm
        .into_iter()
        .find(|outcome| incident.outcomes.contains_key(outcome))
        .unwrap_or(incident.telling.outcome)
}

fn outcome_word(outcome: Outcome) -> &'static str {
    if outcome == Outcome::AlreadyPresent { "present" } else { outcome.as_str() }
}

pub(crate) fn outage(incident: &Incident) -> String {
    match &incident.outage {
        outage if outage.open > 0 => "open".into(),
        outage if outage.total_us > 0 => micros(outage.total_us),
        _ => "-".into(),
    }
}

fn before(incident: &Incident) -> String {
    let plus = if incident.before.at_least { "+" } else { "" };
    elide(&format!("{}{plus}", incident.before.times), BEFORE)
}
