//! `status`: the whole health on one screen.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{Colour, Style, actor_name, clean, elide, human_duration, is_open, micros, wrap};
use crate::surface::report::StatusReport;

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
    let mut row = |label: &str, text: &str| {
        let indent = text.len() - text.trim_start().len();
        for (n, line) in wrap(text, room - indent).iter().enumerate() {
            let label = if n == 0 { label } else { "" };
            let _ = writeln!(out, "{label:LABEL$}{:indent$}{}", "", elide(line, room - indent));
        }
    };
    row(
        "Daemon:",
        &format!(
            "version {}, pid {}, network namespace {}",
            clean(&status.version),
            status.pid,
            status.netns
        ),
    );
    let objects: Vec<String> = status
        .objects
        .iter()
        .map(|counts| {
            let family = counts.family.map(|family| format!(" {family}")).unwrap_or_default();
            format!(
                "{}s{family} {}/{}",
                counts.kind,
                counts.protected - counts.missing.min(counts.protected),
                counts.protected
            )
        })
        .collect();
    row("Protected:", &or_none(&objects.join(", ")));
    let missing: u64 = status.objects.iter().map(|counts| counts.missing).sum();
    let held: u64 = status.objects.iter().map(|counts| counts.held).sum();
    row("Missing:", &format!("{missing}, of these held back: {held}"));
    for held in &status.held {
        let retry = match held.retry_in_ms {
            Some(ms) => format!("retry in {}", human_duration(Duration::from_millis(ms))),
            None => "no retry by itself".into(),
        };
        let text =
            format!("  {}, {retry}: {}; {}", clean(&held.object.key), clean(&held.actor), clean(&held.why));
        row("", &text);
    }
    let attached = status.sensors.iter().filter(|sensor| sensor.attached).count();
    let names: Vec<&str> =
        status.sensors.iter().filter(|sensor| sensor.attached).map(|sensor| sensor.name.as_str()).collect();
    row(
        "Sensors:",
        &format!("{attached}/{} attached: {}", status.sensors.len(), or_none(&clean(&names.join(", ")))),
    );
    for sensor in &status.sensors {
        if !sensor.attached || sensor.why.is_some() {
            let state = if sensor.attached { "attached" } else { "not attached" };
            let why = sensor.why.as_deref().map(|why| format!(": {}", clean(why))).unwrap_or_default();
            row("", &format!("  {} {state}{why}", clean(&sensor.name)));
        }
    }
    row("Lost:", &counts(&status.lost));
    row("Resyncs:", &counts(&status.resyncs));
    if !status.ready {
        row("Not ready:", "the first snapshot has not been taken");
    }
    for (n, why) in status.degraded.iter().enumerate() {
        row(if n == 0 { "Degraded:" } else { "" }, &clean(why));
    }
    match &status.last {
        None => row("Last:", "nothing yet"),
        Some(last) => {
            let outage = match last.outage_us {
                Some(us) => format!("{} after {}", last.outcome.as_str().replace('_', " "), micros(us)),
                None if is_open(last.outcome) => format!("{}, open-ended", last.outcome),
                None => last.outcome.to_string(),
            };
            let time = style.time(&last.time, "%Y-%m-%d %H:%M:%S");
            row(
                "Last:",
                &format!("{time} {} {} by {}", clean(&last.object.key), last.change, actor_name(&last.actor)),
            );
            row("", &outage);
        }
    }
    out
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".into() } else { text.into() }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let some: Vec<String> =
        counts.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{} {n}", clean(name))).collect();
    or_none(&some.join(", "))
}
