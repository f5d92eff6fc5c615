//! Incidents from the journal's files.

use std::{io, path::Path};

use super::{Gather, Incident};
use crate::surface::{
    journal,
    query::{self, Query},
};

/// The most incidents of one answer of the daemon.
pub const SERVED: usize = 500;

/// What a query found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The incidents, the newest last.
    pub incidents: Vec<Incident>,
    /// Lines of the journal that are no event.
    pub torn: u64,
    /// Older incidents that were left out because there were too many.
    pub left_out: u64,
}

/// Reads the journal in `dir` once, at most the last `most` incidents of which a record matches. An id is that of
/// an incident here, or the end of one.
pub fn read(dir: &Path, query: &Query, most: usize) -> io::Result<Found> {
    let mut gather = Gather::new(query, most, journal::is_full(dir));
    let torn = query::each(dir, |event| gather.push(event))?;
    let (incidents, left_out) = gather.finish();
    let left_out = if query.last.is_some_and(|last| last <= most) { 0 } else { left_out };
    Ok(Found { incidents, torn, left_out })
}
