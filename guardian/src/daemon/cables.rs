//! Cables, lent to ports that have to stay out of their bridge ([`crate::model::Cable`]).

use std::collections::BTreeMap;

use tokio::task::spawn_blocking;

use super::{clock, guard::Guard};
use crate::{
    core::Report,
    model::{Cable, Link, Object},
    sensor::Cables,
};

/// What is told of a port that was lent one, once it is back.
const CARRIED: &str = "its frames were carried to the bridge meanwhile";

/// What was ordered last.
#[derive(Default)]
pub(super) struct Ordered {
    cables: BTreeMap<u32, Cable>,
    /// Whether what an earlier guardian may have left was looked for.
    swept: bool,
    /// Those of sensors that there were before.
    before: Vec<Cables>,
}

impl Ordered {
    /// Other sensors have none yet, and get them when those of `before` are gone.
    pub fn forget(&mut self, before: Option<Cables>) {
        self.cables.clear();
        self.before.extend(before);
    }
}

impl Guard {
    /// Has those lent that are to be lent now, and the others taken back; all of it beside this thread, since it takes the lock
    /// that changes of links and routes take, too.
    pub(super) fn lend_cables(&mut self) {
        let before = std::mem::take(&mut self.ordered.before);
        let cables = self.source.cables().cloned();
        let mut has_work = !before.is_empty();
        if let Some(cables) = &cables {
            if !self.ordered.swept && self.core.is_synced() {
                self.ordered.swept = true;
                let names = |of: fn(&Link) -> bool| {
                    self.core.links().iter().filter(|link| of(link)).map(|link| link.name.clone()).collect()
                };
                has_work |= cables.sweep(names(|link| link.port.is_some()), names(Link::is_bridge));
            }
            let wanted = self.core.cables();
            if wanted != self.ordered.cables {
                if !wanted.is_empty() {
                    self.managed.look(clock::now());
                }
                has_work |= cables.order(wanted.clone());
                self.ordered.cables = wanted;
            }
        }
        if has_work {
            spawn_blocking(move || {
                before.iter().for_each(Cables::end);
                drop(before);
                if let Some(cables) = cables {
                    cables.lend();
                }
            });
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
