//! `incidents`: from the daemon, or from the journal's files where none is running.

use std::fs;

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use super::{
    Ended, Places,
    args::{EventOutput, IncidentsArgs},
    ask,
    output::Output,
    when,
};
use crate::surface::{
    client::{self, ClientError},
    incidents::{self, Found},
    protocol::{Reply, Request},
    query::Query,
    text::{self, IncidentTable},
};

/// The most incidents that are read from the files directly.
const READ: usize = 10_000;

pub(super) fn incidents(args: &IncidentsArgs, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let time = |option, text: &Option<String>| {
        text.as_ref().map(|text| when::parse(option, text, Timestamp::now(), &output.style.zone)).transpose()
    };
    let query = Query {
        since: time("--since", &args.since)?,
        until: time("--until", &args.until)?,
        last: args.last,
        object: args.object.clone(),
        actor: args.actor.clone(),
        ..Query::default()
    };
    let found = find(&query, places)?;
    let mut table = IncidentTable::new(&output.style, &found.incidents);
    let mut text = String::new();
    for incident in &found.incidents {
        match args.output {
            EventOutput::Json => text += &(serde_json::to_string(incident)? + "\n"),
            EventOutput::Wide => text += &text::wide_incident(&output.style, incident),
            EventOutput::Compact if args.wide => text += &text::wide_incident(&output.style, incident),
            EventOutput::Compact => text += &table.line(incident),
        }
    }
    output.print(&text)?;
    if found.torn > 0 {
        log::warn!("lines of the journal that are no events, and were skipped: {}", found.torn);
    }
    if found.left_out > 0 {
        let left_out = found.left_out;
        log::warn!("older incidents that were left out: {left_out}; ask for less with --since or --object");
    }
    if found.incidents.is_empty() {
        log::warn!("no incidents{}", if query == Query::default() { "" } else { " like this" });
    }
    Ok(Ended::Well)
}

/// Asks the daemon, or where none is running, the files.
pub(super) fn find(query: &Query, places: &Places) -> anyhow::Result<Found> {
    let mut replies = match client::ask(&places.socket, &Request::Incidents { query: query.clone() }) {
        Ok(replies) => replies,
        Err(error @ (ClientError::NotRunning(_) | ClientError::Denied(_))) => {
            let dir = &places.state_dir;
            // Neither a daemon nor a journal: the first is the news.
            if fs::metadata(dir).is_err() {
                return Err(error.into());
            }
            log::info!("{error}; reading the journal in {}", dir.display());
            return incidents::read(dir, query, READ)
                .with_context(|| format!("cannot read the journal in {}", dir.display()));
        }
        Err(error) => return Err(error.into()),
    };
    let mut found = Found::default();
    loop {
        match replies.next_reply()? {
            Some(Reply::Incident(incident)) => found.incidents.push(*incident),
            Some(Reply::End { torn, left_out }) => {
                (found.torn, found.left_out) = (torn, left_out);
                return Ok(found);
            }
            Some(_) => return ask::unfit(),
            None => bail!("the daemon broke off"),
        }
    }
}
