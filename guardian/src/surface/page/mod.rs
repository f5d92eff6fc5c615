//! The page for people: how the guardian is, and the incidents, newest first.
//!
//! One file, nothing fetched from elsewhere, complete without script; the script only brings it up to date.
//! All text is escaped by the template: names of processes and interfaces are other people's text.

mod incidents;
mod source;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;

use super::{
    report::StatusReport,
    text::{Style, human_duration, object_text, owner_lines},
};
pub(super) use source::{Shown, load};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");

/// Seconds between two looks of the script.
const EVERY: u32 = 10;

/// What is asked for in the address.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    actor: String,
    object: String,
}

/// A page and the policy that lets only its own style and script run.
pub(super) struct Page {
    pub html: String,
    pub policy: String,
}

/// Writes the page.
pub(super) fn render(status: &StatusReport, filter: &Filter, shown: &Result<Shown, String>) -> Page {
    // Two keys of the process's random state: nobody who writes into a comm can know it.
    let nonce = format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1));
    let (class, word) = if status.is_fine() { ("good", "fine") } else { ("bad", "degraded") };
    let html = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (status.node) ": " (word) " – route-guardian" }
                style nonce=(nonce) { (PreEscaped(STYLE)) }
            }
            body data-every=(EVERY) {
                div.page {
                    section #health { (health(status, class, word)) }
                    h2 { "Incidents" }
                    form method="get" action="/" {
                        input name="actor" value=(filter.actor) placeholder="actor: name, unit, pod, pid" aria-label="actor";
                        input name="object" value=(filter.object) placeholder="object: prefix, link, text" aria-label="object";
                        button type="submit" { "Filter" }
                        @if !filter.actor.is_empty() || !filter.object.is_empty() { a href="/" { "all" } }
                    }
                    section #incidents { (incidents::list(shown)) }
                    p.dim {
                        span #live { a href="" { "refresh" } }
                        " · " a href="metrics" { "metrics" } " · " a href="healthz" { "healthz" }
                        " · " a href="readyz" { "readyz" } " · times in UTC"
                    }
                }
                script nonce=(nonce) { (PreEscaped(SCRIPT)) }
            }
        }
    };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    Page { html: html.into_string(), policy }
}

fn health(status: &StatusReport, class: &str, word: &str) -> Markup {
    let sum = |of: fn(&super::report::ObjectCounts) -> u64| status.objects.iter().map(of).sum::<u64>();
    let (protected, missing, held) = (sum(|c| c.protected), sum(|c| c.missing), sum(|c| c.held));
    let attached = status.sensors.iter().filter(|sensor| sensor.attached).count();
    let utc = Style { colour: false, legend: false, width: 100, zone: TimeZone::UTC };
    html! {
        div.head {
            h1 { (status.node) }
            span.pill.(class) { (word) }
            span.dim {
                "mode " (status.mode) " · profile " (status.profile) " · up "
                (human_duration(Duration::from_secs(status.uptime_s))) " · version " (status.version)
                " · network namespace " (status.netns)
            }
        }
        @if !status.ready { p.card.notice { "Not ready: the first snapshot has not been taken." } }
        @for why in &status.degraded { p.card.notice { (why) } }
        div.cards {
            div.card {
                h3 { "Protected" }
                p.big { (protected) }
                p.dim { (kinds(status)) }
            }
            div.card {
                h3 { "Missing" }
                p.big.(if missing == 0 { "good" } else { "bad" }) { (missing) }
                p.dim { "of these held back: " (held) }
            }
            div.card {
                h3 { "Sensors" }
                p.big.(if attached == status.sensors.len() { "good" } else { "bad" }) {
                    (attached) "/" (status.sensors.len())
                }
                p.dim { (attached_names(status)) }
                @for sensor in status.sensors.iter().filter(|s| !s.attached || s.why.is_some()) {
                    p.dim {
                        (sensor.name) @if !sensor.attached { " not attached" }
                        @if let Some(why) = &sensor.why { ": " (why) }
                    }
                }
            }
            div.card {
                h3 { "Owner" }
                @match &status.owner {
                    None => p.dim { "not known" },
                    Some(owner) => {
                        p.big.(if owner.absent_since.is_none() { "good" } else { "warn" }) {
                            @if owner.absent_since.is_none() { "running" }
                            @else if owner.seen { "absent" } @else { "none seen" }
                        }
                        @for line in owner_lines(&utc, owner) { p.dim { (line) } }
                    }
                }
            }
            div.card {
                h3 { "Lost events" }
                @let lost: u64 = status.lost.values().sum();
                p.big.(if lost == 0 { "good" } else { "warn" }) { (lost) }
                p.dim { (counts(&status.lost)) }
                p.dim { "resyncs: " (counts(&status.resyncs)) }
            }
        }
        @if !status.held.is_empty() {
            h2 { "Held back" }
            @for held in &status.held {
                p.card {
                    code { (object_text(&held.object)) } " against " (held.actor) ": " (held.why)
                    @if let Some(ms) = held.retry_in_ms {
                        "; retry in " (human_duration(Duration::from_millis(ms)))
                    }
                }
            }
        }
    }
}

fn attached_names(status: &StatusReport) -> String {
    let plain = status.sensors.iter().filter(|sensor| sensor.attached && sensor.why.is_none());
    plain.map(|sensor| sensor.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// `routes 82, links 3`.
fn kinds(status: &StatusReport) -> String {
    let mut kinds: BTreeMap<_, u64> = BTreeMap::new();
    for counts in &status.objects {
        *kinds.entry(counts.kind).or_default() += counts.protected;
    }
    let some = kinds.iter().filter(|(_, n)| **n > 0).map(|(kind, n)| format!("{kind} {n}"));
    some.collect::<Vec<_>>().join(", ")
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let some = counts.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}"));
    let text = some.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "none".into() } else { text }
}

#[cfg(test)]
mod tests;
