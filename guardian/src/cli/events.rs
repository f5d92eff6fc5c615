//! `events`: from the daemon, or from the journal's files where none is running.

use anyhow::bail;

use super::{
    Ended, Places,
    args::{EventOutput, EventsArgs},
    ask,
    history::events as find,
    output::{Output, print_now},
};
use crate::{
    model::record::EventRecord,
    surface::{
        client,
        protocol::{Reply, Request},
        query::{Found, Query},
        text::{self, EventTable},
    },
};

pub(super) fn events(args: &EventsArgs, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let query = Query { incident: args.incident.clone(), ..output.query(&args.which)? };
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
