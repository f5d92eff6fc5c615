//! What happened: asked of the daemon, or read from the journal's files where none is running.

use std::{fs, io, path::Path};

use anyhow::{Context as _, bail};

use super::{Places, ask};
use crate::surface::{
    client::{self, ClientError},
    incident,
    protocol::{Reply, Request},
    query::{self, Query},
};

/// The events of a query.
pub(super) fn events(query: &Query, places: &Places) -> anyhow::Result<query::Found> {
    let mut found = query::Found::default();
    let request = Request::Events { query: query.clone(), follow: false };
    let end = asked(&request, places, |reply| {
        let Reply::Event(event) = reply else { return Some(reply) };
        found.events.push(*event);
        None
    })?;
    match end {
        Some((torn, left_out)) => Ok(query::Found { torn, left_out, ..found }),
        None => from_files(places, |dir| query::read(dir, query, Query::READ)),
    }
}

/// The incidents of a query.
pub(super) fn incidents(query: &Query, places: &Places) -> anyhow::Result<incident::Found> {
    let mut found = incident::Found::default();
    let end = asked(&Request::Incidents { query: query.clone() }, places, |reply| {
        let Reply::Incident(incident) = reply else { return Some(reply) };
        found.incidents.push(*incident);
        None
    })?;
    match end {
        Some((torn, left_out)) => Ok(incident::Found { torn, left_out, ..found }),
        None => from_files(places, |dir| incident::read(dir, query, incident::Incident::READ)),
    }
}

/// Asks the daemon; `take` gives back what it does not know. What the end says, or `None` where the files are to be
/// read instead.
fn asked(
    request: &Request,
    places: &Places,
    mut take: impl FnMut(Reply) -> Option<Reply>,
) -> anyhow::Result<Option<(u64, u64)>> {
    let mut replies = match client::ask(&places.socket, request) {
        Ok(replies) => replies,
        Err(error @ (ClientError::NotRunning(_) | ClientError::Denied(_))) => {
            let dir = &places.state_dir;
            // Neither a daemon nor a journal: the first is the news.
            if fs::metadata(dir).is_err() {
                return Err(error.into());
            }
            log::info!("{error}; reading the journal in {}", dir.display());
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    loop {
        match replies.next_reply()?.map(&mut take) {
            Some(None) => {}
            Some(Some(Reply::End { torn, left_out })) => return Ok(Some((torn, left_out))),
            Some(Some(_)) => return ask::unfit(),
            None => bail!("the daemon broke off"),
        }
    }
}

fn from_files<T>(places: &Places, read: impl FnOnce(&Path) -> io::Result<T>) -> anyhow::Result<T> {
    let dir = &places.state_dir;
    read(dir).with_context(|| format!("cannot read the journal in {}", dir.display()))
}
