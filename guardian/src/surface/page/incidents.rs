//! The incidents on the page: a strip of time, and a list that unfolds.

use jiff::{Timestamp, tz::TimeZone};
use maud::{Markup, html};

use super::Shown;
use crate::{
    knowledge::Advice,
    model::record::EventRecord,
    surface::{
        incident::Incident,
        text::{
            Colour, Explanation, Style, actor_name, change_words, explain, micros, object_text, outage,
            outcome_colour, result, summary,
        },
    },
};

/// Units of the strip's picture.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 56.0;

pub(super) fn list(shown: &Result<Shown, String>) -> Markup {
    let shown = match shown {
        Ok(shown) => shown,
        Err(error) => return html! { p.card.notice { "The journal cannot be read: " (error) } },
    };
    html! {
        @if shown.incidents.is_empty() {
            p.card.empty.dim { "No incidents like this in the journal." }
        } @else {
            (strip(shown))
            @for (incident, records) in &shown.incidents { (entry(incident, records)) }
        }
        @if shown.more > 0 {
            p.dim { (shown.more) " older incidents are not shown; `route-guardian incidents` lists them." }
        }
    }
}

/// When they were: a bar each, higher for more changes.
fn strip(shown: &Shown) -> Markup {
    let at = |incident: &Incident| incident.first.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
    let times: Vec<i64> = shown.incidents.iter().filter_map(|(incident, _)| at(incident)).collect();
    let (Some(&first), Some(&last)) = (times.iter().min(), times.iter().max()) else { return html! {} };
    let span = (last - first).max(1) as f64;
    let ends = |(incident, _): &(Incident, Vec<EventRecord>)| time(&incident.first, "%Y-%m-%d %H:%M:%S");
    html! {
        svg.strip viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img"
            aria-label="when the incidents were" {
            @for (incident, _) in &shown.incidents {
                @if let Some(at) = at(incident) {
                    @let height = ((incident.changes as f64 + 1.0).log2() * 7.0 + 8.0).min(HEIGHT - 8.0);
                    rect.(class(result(incident).0))
                        x=(format!("{:.1}", 12.0 + (at - first) as f64 / span * (WIDTH - 30.0)))
                        y=(format!("{:.1}", HEIGHT - height)) width="6" height=(format!("{height:.1}")) {}
                }
            }
        }
        div.ends.dim {
            span { (shown.incidents.last().map(ends).unwrap_or_default()) }
            span { (shown.incidents.first().map(ends).unwrap_or_default()) }
        }
    }
}

fn entry(incident: &Incident, records: &[EventRecord]) -> Markup {
    let style = Style { colour: false, legend: false, width: 96, zone: TimeZone::UTC };
    let explanation = Explanation::of(&incident.head, &Advice::default());
    let text = explain(&style, &incident.head, Some(incident), &explanation);
    let (colour, word) = result(incident);
    let state = class(colour);
    html! {
        details.incident.(state) id=(format!("i-{}", incident.id)) {
            summary {
                span.when.dim { (time(&incident.first, "%Y-%m-%d %H:%M:%S")) }
                span.who { (actor_name(&incident.actor)) }
                span.what { (summary(incident)) }
                span.state.(state) { (word) }
                span.out.dim { (outage(incident)) }
            }
            div.body {
                pre { (text) }
                ul.records {
                    @for record in records {
                        li {
                            span.dim.mono { (time(&record.time, "%H:%M:%S%.6f")) } " "
                            code { (object_text(&record.object)) } " " (change_words(record.change)) ", "
                            span.(class(outcome_colour(record.outcome))) { (record.outcome.as_str().replace('_', " ")) }
                            @if let Some(us) = record.outage_us { " after " (micros(us)) }
                        }
                    }
                    @if incident.changes > records.len() as u64 {
                        li.dim { "and " (incident.changes - records.len() as u64) " more" }
                    }
                }
            }
        }
    }
}

const fn class(colour: Colour) -> &'static str {
    match colour {
        Colour::Good => "good",
        Colour::Warn => "warn",
        Colour::Bad => "bad",
        Colour::Faint | Colour::Strong => "dim",
    }
}

fn time(moment: &str, format: &str) -> String {
    let style = Style { colour: false, legend: false, width: 100, zone: TimeZone::UTC };
    style.time(moment, format)
}
