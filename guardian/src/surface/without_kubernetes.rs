//! In place of what tells Kubernetes, in a build without it.

use std::{io, sync::Arc};

use super::{ask::Asker, metrics::Metrics};
use crate::{config, model::record::EventRecord};

/// There is none.
#[derive(Debug)]
pub enum Kubernetes {}

impl Kubernetes {
    /// Starts nothing.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unnecessary_wraps, clippy::needless_pass_by_value, reason = "as where there is one")]
    pub fn start(_: &config::Kubernetes, _: Metrics, _: Asker) -> io::Result<Option<Self>> {
        Ok(None)
    }

    /// There is nobody to be told.
    pub fn tell(&self, _: &Arc<EventRecord>) {
        match *self {}
    }
}
