//! `events` and `explain`: from the daemon, or from the journal's files where none is running.

use std::fs;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Ended, Places,
    args::{EventOutput, EventsArgs, ExplainArgs, Output as Form},
    ask,
    output::{Output, print_now},
    when,
};
use crate::{
    model::record::{EventRecord, Verdict},
    surface::{
        client::{self, ClientError, Replies},
        protocol::{Reply, Request},
        query::{self, Found, Query},
        text::{self, EventTable, Explanation},
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
        of_incident: None,
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

pub(super) fn explain(args: &ExplainArgs, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let query = Query { id: args.id.clone(), ..Query::default() };
    let mut found = find(&query, places)?.events;
    let event = match &args.id {
        Some(id) if found.len() > 1 => {
            bail!("{} events have an id that ends in `{id}`; write more of it", found.len())
        }
        Some(id) => found.pop().with_context(|| {
            format!("no event has the id `{id}`; `route-guardian events -o wide` shows the ids")
        })?,
        None => found
            .into_iter()
            .rev()
            .find(|event| event.verdict != Verdict::Owner)
            .context("nothing has happened yet that was not the owner's doing")?,
    };
    match args.output {
        Form::Text => output.print(&text::explain(&output.style, &event))?,
        Form::Json => {
            let explanation = Explanation::of(&event);
            print_now(&ask::json(&Explained { event, explanation })?)?;
        }
    }
    Ok(Ended::Well)
}

/// What `explain -o json` prints.
#[derive(Serialize)]
struct Explained {
    event: EventRecord,
    explanation: Explanation,
}

/// Asks the daemon, or where none is running, the files.
fn find(query: &Query, places: &Places) -> anyhow::Result<Found> {
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
