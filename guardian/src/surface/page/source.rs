//! What the page shows of the journal, bounded.

use std::{collections::HashMap, io, path::Path};

use super::Filter;
use crate::{
    model::record::EventRecord,
    surface::{
        incident::{self, Incident},
        query::{self, Query},
    },
};

/// The incidents of one page.
const INCIDENTS: usize = 50;

/// The records of one incident that are listed.
const RECORDS: usize = 20;

/// The incidents of a page.
#[derive(Debug, Default)]
pub struct Shown {
    /// The newest first, each with its first records.
    pub incidents: Vec<(Incident, Vec<EventRecord>)>,
    /// Older ones that match.
    pub more: u64,
}

/// Reads the journal in `dir`; it blocks.
pub fn load(dir: &Path, filter: &Filter) -> io::Result<Shown> {
    let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let query = Query { actor: text(&filter.actor), object: text(&filter.object), ..Query::default() };
    let found = incident::read(dir, &query, INCIDENTS)?;
    let mut records: HashMap<&str, Vec<EventRecord>> =
        found.incidents.iter().map(|incident| (incident.id.as_str(), Vec::new())).collect();
    query::each(dir, &mut |event| {
        let Some(records) = records.get_mut(event.incident.as_str()) else { return };
        if let Some(earlier) = records.iter_mut().find(|earlier| earlier.id == event.id) {
            *earlier = event;
        } else if records.len() < RECORDS {
            records.push(event);
        }
    })?;
    let lists: Vec<_> = found
        .incidents
        .iter()
        .map(|incident| records.remove(incident.id.as_str()).unwrap_or_default())
        .collect();
    let incidents = found.incidents.into_iter().zip(lists).rev().collect();
    Ok(Shown { incidents, more: found.left_out })
}
