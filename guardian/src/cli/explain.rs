//! `explain`: an incident, or one event of it.

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::{
    Ended, Places,
    args::{ExplainArgs, Output as Form},
    ask, events, incidents,
    output::{Output, print_now},
};
use crate::{
    model::record::{EventRecord, Verdict},
    surface::{
        incidents::Incident,
        query::Query,
        text::{self, Explanation},
    },
};

pub(super) fn explain(args: &ExplainArgs, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let (event, incident, whole) = match &args.id {
        None => last(places)?,
        Some(id) => of_id(id, args.event, places)?,
    };
    match args.output {
        Form::Text => {
            let text = match &incident {
                Some(incident) if whole => text::explain_incident(&output.style, incident),
                incident => text::explain(&output.style, &event, incident.as_ref()),
            };
            output.print(&text)?;
        }
        Form::Json => {
            let explanation = Explanation::of(&event);
            print_now(&ask::json(&Explained { event, explanation, incident })?)?;
        }
    }
    Ok(Ended::Well)
}

/// What is explained: an event, its incident, and whether all of that.
type Chosen = (EventRecord, Option<Incident>, bool);

fn last(places: &Places) -> anyhow::Result<Chosen> {
    let incident = incidents::find(&Query::default(), places)?
        .incidents
        .into_iter()
        .rev()
        .find(|incident| incident.verdict != Verdict::Owner)
        .context("nothing has happened yet that was not the owner's doing")?;
    Ok(chosen(incident))
}

fn of_id(id: &str, only_event: bool, places: &Places) -> anyhow::Result<Chosen> {
    let query = Query { id: Some(id.to_owned()), ..Query::default() };
    if !only_event {
        let mut found = incidents::find(&query, places)?.incidents;
        match (found.len(), found.pop()) {
            (1, Some(incident)) => return Ok(chosen(incident)),
            (0, _) => {}
            (n, _) => bail!("{n} incidents have an id that ends in `{id}`; write more of it"),
        }
    }
    let mut found = events::find(&query, places)?.events;
    if found.len() > 1 {
        bail!("{} events have an id that ends in `{id}`; write more of it", found.len());
    }
    let event = found.pop().with_context(|| {
        format!(
            "no event has the id `{id}`; `route-guardian incidents` and `route-guardian events -o wide` show the ids"
        )
    })?;
    let query = Query { id: Some(event.incident.clone()), ..Query::default() };
    let incident = incidents::find(&query, places)?.incidents.pop();
    Ok((event, incident, false))
}

/// An incident of one change is that change.
fn chosen(incident: Incident) -> Chosen {
    let whole = incident.changes > 1;
    (incident.telling.clone(), Some(incident), whole)
}

/// What `explain -o json` prints.
#[derive(Serialize)]
struct Explained {
    event: EventRecord,
    explanation: Explanation,
    incident: Option<Incident>,
}
