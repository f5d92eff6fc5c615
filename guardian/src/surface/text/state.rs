//! `status`: the whole health on one screen.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{
    Colour, Style, actor_name, change_words, clean, elide, human_duration, micros, object_name, wrap,
};
use crate::{
    model::record::ObjectKind,
    surface::report::{ObjectCounts, OwnerReport, StatusReport},
};

const LABEL: usize = 11;

/// Tells how the daemon is.
pub fn status(style: &Style, status: &StatusReport) -> String {
    let mut out = String::new();
    let (colour, word) = if status.is_fine() { (Colour::Good, "fine") } else { (Colour::Bad, "DEGRADED") };
    let _ = writeln!(
        out,
        "{} {}  {}  mode {}  profile {}  up {}",
        style.paint(colour, "●"),
        clean(&status.node),
        style.paint(colour, word),
        status.mode,
        clean(&status.profile),
        human_duration(Duration::from_secs(status.uptime_s)),
    );
    let room = style.width.min(super::WIDTH_MAX).saturating_sub(LABEL).max(20);
    let mut rows = Rows { out, room };
    rows.row(
        "Daemon:",
        &format!(
            "version {}, pid {}, network namespace {}",
            clean(&status.version),
            status.pid,
            status.netns
        ),
    );
    let kinds = protected(&status.objects);
    for (n, line) in kinds.iter().enumerate() {
        rows.line(if n == 0 { "Protected:" } else { "" }, line);
    }
    if kinds.is_empty() {
        rows.row("Protected:", "none");
    }
    let missing: u64 = status.objects.iter().map(|counts| counts.missing).sum();
    let held: u64 = status.objects.iter().map(|counts| counts.held).sum();
    rows.row("Missing:", &format!("{missing}, of these held back: {held}"));
    for held in &status.held {
        let retry = match held.retry_in_ms {
            Some(ms) => format!("retry in {}", human_duration(Duration::from_millis(ms))),
            None => "no retry by itself".into(),
        };
        let text =
            format!("  {}, {retry}: {}; {}", object_name(&held.object), clean(&held.actor), clean(&held.why));
        rows.row("", &text);
    }
    if let Some(owner) = &status.owner {
        for (n, line) in owner_lines(style, owner).iter().enumerate() {
            rows.row(if n == 0 { "Owner:" } else { "" }, line);
        }
    }
    let attached = status.sensors.iter().filter(|sensor| sensor.attached).count();
    let names: Vec<&str> =
        status.sensors.iter().filter(|sensor| sensor.attached).map(|sensor| sensor.name.as_str()).collect();
    rows.row(
        "Sensors:",
        &format!("{attached}/{} attached: {}", status.sensors.len(), or_none(&clean(&names.join(", ")))),
    );
    for sensor in &status.sensors {
        if !sensor.attached || sensor.why.is_some() {
            let state = if sensor.attached { "attached" } else { "not attached" };
            let why = sensor.why.as_deref().map(|why| format!(": {}", clean(why))).unwrap_or_default();
            rows.row("", &format!("  {} {state}{why}", clean(&sensor.name)));
        }
    }
    rows.row("Lost:", &counts(&status.lost));
    rows.row("Resyncs:", &counts(&status.resyncs));
    if !status.ready {
        rows.row("Not ready:", "the first snapshot has not been taken");
    }
    for (n, why) in status.degraded.iter().enumerate() {
        rows.row(if n == 0 { "Degraded:" } else { "" }, &clean(why));
    }
    match &status.last {
        None => rows.row("Last:", "nothing yet"),
        Some(last) => {
            let outage = match last.outage_us {
                Some(us) => format!("{} after {}", last.outcome.as_str().replace('_', " "), micros(us)),
                None if last.is_open() => format!("{}, open-ended", last.outcome),
                None => last.outcome.to_string(),
            };
            let time = style.time(&last.time, "%Y-%m-%d %H:%M:%S");
            rows.row(
                "Last:",
                &format!(
                    "{time} {} {} by {}",
                    object_name(&last.object),
                    change_words(last.change),
                    actor_name(&last.actor)
                ),
            );
            rows.row("", &outage);
        }
    }
    rows.out
}

/// Whether an owner is running, and what follows if none is.
pub(crate) fn owner_lines(style: &Style, owner: &OwnerReport) -> Vec<String> {
    let time = |time: &String| style.time(time, "%Y-%m-%d %H:%M:%S");
    let Some(since) = &owner.absent_since else {
        let pids: Vec<String> = owner.pids.iter().map(ToString::to_string).collect();
        return vec![format!("running, pid {}", pids.join(", "))];
    };
    let none = if owner.seen { "absent since" } else { "none seen since" };
    let from = match &owner.held_from {
        Some(from) => format!("; losses are held from {} on", time(from)),
        None => String::new(),
    };
    vec![format!("{none} {}{from}", time(since))]
}

/// Text behind labels.
struct Rows {
    out: String,
    room: usize,
}

impl Rows {
    /// Text that is broken between words, its further lines indented like the first.
    fn row(&mut self, label: &str, text: &str) {
        let indent = text.len() - text.trim_start().len();
        for (n, line) in wrap(text, self.room - indent).iter().enumerate() {
            self.line(if n == 0 { label } else { "" }, &format!("{:indent$}{line}", ""));
        }
    }

    /// A line as it is.
    fn line(&mut self, label: &str, text: &str) {
        let _ = writeln!(self.out, "{label:LABEL$}{}", elide(text, self.room));
    }
}

/// A line for each kind of which anything is guarded: how many are there of how many, by family.
fn protected(objects: &[ObjectCounts]) -> Vec<String> {
    let of = |kind: ObjectKind| {
        let counts: Vec<String> = objects
            .iter()
            .filter(|counts| counts.kind == kind && counts.protected > 0)
            .map(|counts| {
                let family = counts.family.map(|family| format!("{family} ")).unwrap_or_default();
                format!("{family}{}/{}", counts.protected.saturating_sub(counts.missing), counts.protected)
            })
            .collect();
        (!counts.is_empty()).then(|| (kinds_word(kind), counts.join(", ")))
    };
    let lines: Vec<_> = ObjectKind::ALL.iter().filter_map(|&kind| of(kind)).collect();
    let widest = lines.iter().map(|(word, _)| word.len()).max().unwrap_or_default();
    lines.into_iter().map(|(word, counts)| format!("{word:widest$} {counts}")).collect()
}

const fn kinds_word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Link => "links",
        ObjectKind::Address => "addresses",
        ObjectKind::Route => "routes",
        ObjectKind::Rule => "rules",
        ObjectKind::Nexthop => "nexthops",
    }
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".into() } else { text.into() }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let some: Vec<String> =
        counts.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{} {n}", clean(name))).collect();
    or_none(&some.join(", "))
}
