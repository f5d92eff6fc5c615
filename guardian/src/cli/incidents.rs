//! `incidents` and `explain`.

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::{
    Ended, Places,
    args::{ExplainArgs, IncidentsArgs, Output as Form},
    ask, doctor, history,
    output::{Output, print_now},
};
use crate::{
    config::Config,
    model::record::EventRecord,
    surface::{
        incident::Incident,
        query::Query,
        text::{self, Explanation},
    },
};

pub(super) fn incidents(args: &IncidentsArgs, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let query = output.query(&args.which)?;
    let found = history::incidents(&query, places)?;
    match args.output {
        Form::Text => output.print(&text::incidents(&output.style, &found.incidents, args.wide))?,
        Form::Json => {
            for incident in &found.incidents {
                print_now(&(serde_json::to_string(incident)? + "\n"))?;
            }
        }
    }
    if found.torn > 0 {
        log::warn!("lines of the journal that are no events, and were skipped: {}", found.torn);
    }
    if found.left_out > 0 {
        log::warn!("older incidents that were left out: {}; ask for less with --since", found.left_out);
    }
    if found.incidents.is_empty() {
        let any = if query == Query::default() { "" } else { " like this" };
        log::warn!("no incidents{any}");
    }
    Ok(Ended::Well)
}

pub(super) fn explain(
    args: &ExplainArgs,
    config: Option<&Config>,
    places: &Places,
    output: &Output,
) -> anyhow::Result<Ended> {
    let (event, incident) = if let Some(id) = &args.id {
        named(id, places)?
    } else {
        let last = Query { last: Some(1), ..Query::default() };
        let incident = history::incidents(&last, places)?.incidents.pop();
        let incident = incident.context("nothing has happened yet that was not the owner's doing")?;
        (incident.head.clone(), Some(incident))
    };
    let advice = config.map(|config| doctor::at_fault(config, &event.actor)).transpose();
    let advice = advice.unwrap_or_else(|error| {
        log::warn!("what is set on this node cannot be looked at: {error:#}");
        None
    });
    let explanation = Explanation::of(&event, &advice.unwrap_or_default());
    match args.output {
        Form::Text => output.print(&text::explain(&output.style, &event, incident.as_ref(), &explanation))?,
        Form::Json => {
            print_now(&ask::json(&Explained { event, incident, explanation })?)?;
        }
    }
    Ok(Ended::Well)
}

/// The change of this id, or that which tells most of the incident of this id, with the incident. An incident has
/// the id of its first change, and means more.
fn named(id: &str, places: &Places) -> anyhow::Result<(EventRecord, Option<Incident>)> {
    let of = |incident: &str| Query { incident: Some(incident.to_owned()), ..Query::default() };
    let mut incidents = history::incidents(&of(id), places)?.incidents;
    if incidents.len() > 1 {
        bail!("{} incidents have an id that ends in `{id}`; write more of it", incidents.len());
    }
    if let Some(incident) = incidents.pop() {
        return Ok((incident.head.clone(), Some(incident)));
    }
    let mut events = history::events(&Query { id: Some(id.to_owned()), ..Query::default() }, places)?.events;
    if events.len() > 1 {
        bail!("{} events have an id that ends in `{id}`; write more of it", events.len());
    }
    let event = events.pop().with_context(|| {
        format!("no event or incident has the id `{id}`; `route-guardian events -o wide` shows the ids")
    })?;
    let incident = history::incidents(&of(&event.incident), places)?.incidents.pop();
    Ok((event, incident))
}

/// What `explain -o json` prints.
#[derive(Serialize)]
struct Explained {
    event: EventRecord,
    incident: Option<Incident>,
    explanation: Explanation,
}
