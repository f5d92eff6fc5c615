//! Incidents, a line each.

use super::{
    Colour, Style, actor_name, clean,
    events::{family_line, outcome_colour, right},
    fit, micros, object_name,
};
use crate::{
    model::record::{ObjectKind, Outcome},
    surface::incident::{Incident, LostKind},
};

const TIME: usize = 12;
const ACTOR: usize = 22;
const RESULT: usize = 10;
const OUTAGE: usize = 8;
const BEFORE: usize = 6;
const LOST_LEAST: usize = 16;
/// Two blanks between columns.
const GAPS: usize = 5 * 2;

/// The table: one line an incident, cut to the width, never wrapped; with `wide` what belongs to each below it.
pub fn incidents(style: &Style, incidents: &[Incident], wide: bool) -> String {
    let fixed = TIME + ACTOR + RESULT + OUTAGE + BEFORE + GAPS;
    let lost = style.width.min(super::WIDTH_MAX).saturating_sub(fixed).max(LOST_LEAST);
    let mut out = String::new();
    let mut day = String::new();
    for incident in incidents {
        let its_day = style.time(&incident.first, "%Y-%m-%d");
        if style.legend && its_day != day {
            let heading = if day.is_empty() { heading(&its_day, lost) } else { its_day.clone() };
            out += &style.paint(Colour::Faint, &heading);
            out.push('\n');
        }
        day = its_day;
        out += &row(style, incident, lost);
        out.push('\n');
        if wide {
            out += &details(style, incident);
        }
    }
    out
}

fn heading(day: &str, lost: usize) -> String {
    format!(
        "{}  {}  {}  {}  {:>OUTAGE$}  {:>BEFORE$}",
        fit(day, TIME),
        fit("LOST", lost),
        fit("ACTOR", ACTOR),
        fit("RESULT", RESULT),
        "OUTAGE",
        "BEFORE"
    )
}

fn row(style: &Style, incident: &Incident, lost: usize) -> String {
    let (colour, result) = result(incident);
    let before = if incident.before == 0 { "-".to_owned() } else { incident.before.to_string() };
    format!(
        "{}  {}  {}  {}  {}  {before:>BEFORE$}",
        fit(&style.time(&incident.first, "%H:%M:%S%.3f"), TIME),
        fit(&summary(incident), lost),
        fit(&actor_name(&incident.actor), ACTOR),
        style.paint(colour, &fit(&result, RESULT)),
        right(&outage(incident), OUTAGE),
    )
}

fn details(style: &Style, incident: &Incident) -> String {
    let mut lines = vec![family_line(&incident.actor)];
    for lost in &incident.lost {
        let keys: Vec<String> = lost.keys.iter().map(|key| clean(key)).collect();
        let more = lost.count.saturating_sub(keys.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(format!("{}: {}{more}", counted(lost), keys.join(", ")));
    }
    let causes: Vec<String> =
        incident.causes.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    let outcomes: Vec<String> = incident
        .outcomes
        .iter()
        .map(|(outcome, count)| format!("{} {count}", outcome.as_str().replace('_', " ")))
        .collect();
    lines.push(format!("causes: {}; outcomes: {}", causes.join(", "), outcomes.join(", ")));
    let longest =
        incident.longest_us.map(|us| format!("; longest outage {}", micros(us))).unwrap_or_default();
    let lookups =
        incident.failed_lookups.map(|count| format!("; failed lookups {count}")).unwrap_or_default();
    lines.push(format!("id {}{longest}{lookups}", clean(&incident.id)));
    lines.iter().map(|line| style.paint(Colour::Faint, &format!("    {line}")) + "\n").collect()
}

/// For how long anything was missing; `open` where something may still be.
pub(crate) fn outage(incident: &Incident) -> String {
    match incident.outage_us {
        _ if incident.open > 0 => "open".into(),
        Some(us) => micros(us),
        None => "-".into(),
    }
}

/// What an incident took, in a few words: the object where it is one, else how many of which kind.
pub(crate) fn summary(incident: &Incident) -> String {
    if incident.changes <= 1 {
        return object_name(&incident.head.object);
    }
    let parts: Vec<String> = by_kind(&incident.lost).iter().map(|(kind, n)| count(*n, *kind)).collect();
    parts.join(", ")
}

/// Families taken together, the most first.
fn by_kind(lost: &[LostKind]) -> Vec<(ObjectKind, u64)> {
    let mut kinds: Vec<(ObjectKind, u64)> = ObjectKind::ALL
        .iter()
        .map(|&kind| (kind, lost.iter().filter(|lost| lost.kind == kind).map(|lost| lost.count).sum()))
        .filter(|(_, count)| *count > 0)
        .collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    kinds
}

/// `2 inet routes`.
fn counted(lost: &LostKind) -> String {
    let family = lost.family.map(|family| format!("{family} ")).unwrap_or_default();
    let text = count(lost.count, lost.kind);
    match text.split_once(' ') {
        Some((number, kind)) => format!("{number} {family}{kind}"),
        None => text,
    }
}

fn count(n: u64, kind: ObjectKind) -> String {
    let word = match (kind, n) {
        (ObjectKind::Nexthop, 1) => "nexthop object",
        (ObjectKind::Nexthop, _) => "nexthop objects",
        (ObjectKind::Address, 1) => "address",
        (ObjectKind::Address, _) => "addresses",
        (kind, 1) => kind.as_str(),
        (kind, _) => return format!("{n} {kind}s"),
    };
    format!("{n} {word}")
}

/// How it ended, at most [`RESULT`] columns: how many are open, else the worst outcome.
pub(crate) fn result(incident: &Incident) -> (Colour, String) {
    const WORST_FIRST: [Outcome; 6] = [
        Outcome::Failed,
        Outcome::Held,
        Outcome::Restored,
        Outcome::AlreadyPresent,
        Outcome::Observed,
        Outcome::Allowed,
    ];
    if incident.open > 0 {
        return (Colour::Bad, format!("{} open", incident.open));
    }
    let worst = WORST_FIRST.into_iter().find(|outcome| incident.outcomes.contains_key(outcome));
    let worst = worst.unwrap_or(Outcome::Observed);
    let word = if worst == Outcome::AlreadyPresent { "present" } else { worst.as_str() };
    (outcome_colour(worst), word.to_owned())
}
