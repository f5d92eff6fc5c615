//! Cables, lent to ports that have to stay out of their bridge ([`crate::model::Cable`]).

use std::collections::BTreeMap;

use tokio::task::spawn_blocking;

use super::{clock, guard::Guard};
use crate::{
    core::Report,
    model::{Cable, Link, Object},
};

/// What is told of a port that was lent one, once it is back.
const CARRIED: &str = "its frames were carried to the bridge meanwhile";

/// What was ordered last.
#[derive(Default)]
pub(super) struct Ordered {
    cables: BTreeMap<u32, Cable>,
    /// Whether what an earlier guardian may have left was looked for.
    swept: bool,
}

impl Ordered {
    /// Other sensors have none.
    pub fn forget(&mut self) {
        self.cables.clear();
    }
}

impl Guard {
    /// Has those lent that are to be lent now, and the others taken back.
    pub(super) fn lend_cables(&mut self) {
        let wanted = self.core.cables();
        let Some(cables) = self.source.cables() else { return };
        let mut has_work = false;
        if !self.ordered.swept && self.core.is_synced() {
            self.ordered.swept = true;
            let names = |of: fn(&Link) -> bool| {
                self.core.links().iter().filter(|link| of(link)).map(|link| link.name.clone()).collect()
            };
            has_work |= cables.sweep(names(|link| link.port.is_some()), names(Link::is_bridge));
        }
        if wanted != self.ordered.cables {
            if !wanted.is_empty() {
                self.managed.look(clock::now());
            }
            has_work |= cables.order(wanted.clone());
            self.ordered.cables = wanted;
        }
        if has_work {
            let cables = cables.clone();
            spawn_blocking(move || cables.lend());
        }
    }

    /// Says of a port that is back how its pod fared.
    pub(super) fn tell_of_cable(&self, report: &mut Report) {
        let Object::Port(port) = &*report.object else { return };
        let is_lent = self.ordered.cables.get(&port.link).is_some_and(|cable| cable.until.is_some());
        if report.restored.is_some()
            && is_lent
            && self.source.cables().is_some_and(|cables| cables.is_attached(port.link))
        {
            report.error = Some(CARRIED.into());
        }
    }
}
