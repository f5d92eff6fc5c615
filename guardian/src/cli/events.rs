//! `events`: from the daemon, or from the journal's files where none is running.

use std::fs;

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use super::{
    Ended, Places,
    args::{EventOutput, EventsArgs},
    ask,
    output::{Output, print_now},
    when,
};
use crate::{
    model::record::EventRecord,
    surface::{
        client::{self, ClientError, Replies},
        protocol::{Reply, Request},
        query::{self, Found, Query},
        text::{self, EventTable},
    },
};

pub(super) fn events(args: &EventsArgs, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let time = |option, text: &Option<String>| {
        text.as_ref().map(|text| when::parse(option, text, Timestamp::now(), &output.style.zone)).transpose()
    };
    let query = Query {
        since: time("--since", &args.since)?,
        until: time("--until", &args.until)?,
        last: args.last,
        object: args.object.clone(),
        actor: args.actor.clone(),
        id: None,
        of_incident: args.incident.as_ref().map(|id| id.to_uppercase()),
    };
    if args.follow {
        return follow(args, &query, places, output);
    }
    let found = find(&query, places)?;
    let mut printer = Printer::new(args.output, output, &found.events);
    let mut text = String::new();
    for event in &found.events {
        text += &printer.print(event)?;
    }
    output.print(&text)?;
    remark(&found, &query);
    Ok(Ended::Well)
}

fn follow(args: &EventsArgs, query: &Query, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    // Like `tail -f`: the last few first, unless more is asked for.
    let mut query = query.clone();
    if query.since.is_none() && query.last.is_none() {
        query.last = Some(10);
    }
    let mut replies = client::ask(&places.socket, &Request::Events { query, follow: true })?;
    let mut printer = Printer::new(args.output, output, &[]);
    loop {
        match replies.next_reply()? {
            Some(Reply::Event(event)) => print_now(&printer.print(&event)?)?,
            Some(Reply::End { .. }) => replies.wait_for_ever()?,
            Some(_) => return ask::unfit(),
            None => bail!("the daemon has ended"),
        }
    }
}

/// Asks the daemon, or where none is running, the files.
pub(super) fn find(query: &Query, places: &Places) -> anyhow::Result<Found> {
    match client::ask(&places.socket, &Request::Events { query: query.clone(), follow: false }) {
        Ok(replies) => collect(replies),
        Err(error @ (ClientError::NotRunning(_) | ClientError::Denied(_))) => {
            let dir = &places.state_dir;
            // Neither a daemon nor a journal: the first is the news.
            if fs::metadata(dir).is_err() {
                return Err(error.into());
            }
            log::info!("{error}; reading the journal in {}", dir.display());
            query::read(dir, query, Query::READ)
                .with_context(|| format!("cannot read the journal in {}", dir.display()))
        }
        Err(error) => Err(error.into()),
    }
}

fn collect(mut replies: Replies) -> anyhow::Result<Found> {
    let mut found = Found::default();
    loop {
        match replies.next_reply()? {
            Some(Reply::Event(event)) => found.events.push(*event),
            Some(Reply::End { torn, left_out }) => {
                (found.torn, found.left_out) = (torn, left_out);
                return Ok(found);
            }
            Some(_) => return ask::unfit(),
            None => bail!("the daemon broke off"),
        }
    }
}

fn remark(found: &Found, query: &Query) {
    if found.torn > 0 {
        log::warn!("lines of the journal that are no events, and were skipped: {}", found.torn);
    }
    if found.left_out > 0 {
        log::warn!(
            "older events that were left out: {}; ask for less with --since, --until or --object",
            found.left_out
        );
    }
    if found.events.is_empty() {
        let any = if *query == Query::default() { "" } else { " like this" };
        log::warn!("no events{any}");
    }
}

/// Prints events in one of the forms.
struct Printer<'o> {
    form: EventOutput,
    output: &'o Output,
    table: EventTable,
}

impl<'o> Printer<'o> {
    fn new(form: EventOutput, output: &'o Output, events: &[EventRecord]) -> Self {
        Self { form, output, table: EventTable::new(&output.style, events) }
    }

    fn print(&mut self, event: &EventRecord) -> anyhow::Result<String> {
        Ok(match self.form {
            EventOutput::Compact => self.table.line(event),
            EventOutput::Wide => text::wide(&self.output.style, event),
            EventOutput::Json => serde_json::to_string(event)? + "\n",
        })
    }
}
