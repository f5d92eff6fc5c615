//! The status page: one file, no script, nothing fetched from elsewhere.

use std::fmt::Write as _;

use super::{
    report::StatusReport,
    text::{actor_name, change_words, human_duration, object_text},
};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;\
color-scheme:light dark}h1{font-size:1.3em}table{border-collapse:collapse;margin:1em 0}\
td,th{text-align:left;padding:.15em 1.2em .15em 0;vertical-align:top}code{font-size:.95em}\
.bad{color:#c00;font-weight:600}.good{color:#080;font-weight:600}";

/// Writes the page.
pub(super) fn render(status: &StatusReport) -> String {
    let mut out = String::new();
    let (class, word) = if status.is_fine() { ("good", "fine") } else { ("bad", "degraded") };
    let _ = write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>route-guardian on {node}</title><style>{STYLE}</style>\
         <h1>route-guardian on {node}: <span class={class}>{word}</span></h1>\
         <p>version {}, mode {}, profile {}, running for {}, network namespace {}</p>",
        escape(&status.version),
        status.mode,
        escape(&status.profile),
        human_duration(std::time::Duration::from_secs(status.uptime_s)),
        status.netns,
        node = escape(&status.node),
    );
    if !status.ready {
        out += "<p class=bad>Not ready: the first snapshot has not been taken.</p>";
    }
    for why in &status.degraded {
        let _ = write!(out, "<p class=bad>{}</p>", escape(why));
    }
    out += "<table><tr><th>objects<th>family<th>protected<th>missing<th>held</tr>";
    for counts in status.objects.iter().filter(|counts| counts.protected > 0) {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            counts.kind,
            counts.family.map_or("", |family| family.as_str()),
            counts.protected,
            counts.missing,
            counts.held
        );
    }
    out += "</table><table><tr><th>sensor<th>attached<th></tr>";
    for sensor in &status.sensors {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}</tr>",
            escape(&sensor.name),
            if sensor.attached { "yes" } else { "no" },
            escape(sensor.why.as_deref().unwrap_or_default())
        );
    }
    out += "</table>";
    counts(&mut out, "events lost", &status.lost);
    counts(&mut out, "resyncs", &status.resyncs);
    if !status.held.is_empty() {
        out += "<table><tr><th>held<th>against<th>why</tr>";
        for held in &status.held {
            let _ = write!(
                out,
                "<tr><td><code>{}</code><td>{}<td>{}</tr>",
                escape(&object_text(&held.object)),
                escape(&held.actor),
                escape(&held.why)
            );
        }
        out += "</table>";
    }
    if let Some(last) = &status.last {
        let _ = write!(
            out,
            "<p>Last: {}, <code>{}</code> {} by {}, {}{}</p>",
            escape(&last.time),
            escape(&object_text(&last.object)),
            change_words(last.change),
            escape(&actor_name(&last.actor)),
            last.outcome,
            last.outage_us
                .map(|micros| format!(" after {}", human_duration(std::time::Duration::from_micros(micros))))
                .unwrap_or_default()
        );
    }
    out += "<p><a href=\"metrics\">metrics</a> · <a href=\"healthz\">healthz</a> · <a href=\"readyz\">readyz</a></p></html>\n";
    out
}

fn counts(out: &mut String, title: &str, counts: &std::collections::BTreeMap<String, u64>) {
    let some: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{} {count}", escape(name)))
        .collect();
    let text = if some.is_empty() { "none".to_owned() } else { some.join(", ") };
    let _ = write!(out, "<p>{title}: {text}</p>");
}

/// Names of processes and interfaces are other people's text.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
