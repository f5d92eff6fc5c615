//! What operators may look at.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    machine::{Core, Settings},
    rib::Phase,
    scope::Scope,
};
use crate::model::{Actor, Family, Links, Mode, Route, Stamp, record::Outcome};

/// How many objects of a family are guarded, missing and held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Desired routes.
    pub protected: usize,
    /// Desired routes that the kernel does not hold.
    pub missing: usize,
    /// Of the missing, those held back by damping.
    pub held: usize,
}

/// A route that is missing now.
#[derive(Clone, Debug)]
pub struct Missing {
    /// The route.
    pub route: Arc<Route>,
    /// Since when.
    pub since: Stamp,
    /// Whether damping holds it, or it waits for what it needs.
    pub outcome: Option<Outcome>,
    /// Who took it away.
    pub actor: Option<Arc<Actor>>,
    /// When it is tried again, if at a set time.
    pub retry: Option<Stamp>,
    /// Why it is not back.
    pub error: Option<String>,
}

impl Core {
    /// Whether the first dump has been taken in.
    pub const fn is_synced(&self) -> bool {
        self.synced
    }

    /// The links of the namespace.
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// The links that are known to be out of scope, by ifindex.
    pub const fn outside_links(&self) -> &BTreeSet<u32> {
        &self.outside_links
    }

    /// Whether the guardian acts.
    pub const fn mode(&self) -> Mode {
        self.settings.mode
    }

    /// Which routes are guarded.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The counts of one family.
    pub const fn counts(&self, family: Family) -> Counts {
        self.rib.counts(family)
    }

    /// All that is desired, by key.
    pub fn desired(&self) -> Vec<Arc<Route>> {
        let mut routes: Vec<_> = self
            .rib
            .iter()
            .flat_map(|(key, entry)| entry.desired.iter().map(move |r| (*key, Arc::clone(r))))
            .collect();
        routes.sort_by_key(|(key, _)| *key);
        routes.into_iter().map(|(_, route)| route).collect()
    }

    /// All that is missing, by key.
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing: Vec<_> = self
            .rib
            .iter()
            .filter_map(|(key, entry)| {
                let route = Arc::clone(entry.desired.first_missing_in(&entry.observed)?);
                let loss = entry.loss.as_deref();
                let phase = loss.map(|loss| loss.phase);
                let outcome = match phase {
                    Some(Phase::Held(_) | Phase::Insisted(_) | Phase::Waiting { .. }) => Some(Outcome::Held),
                    Some(Phase::Left) => Some(Outcome::Observed),
                    _ => None,
                };
                let since = loss.map_or(entry.told, |loss| loss.at);
                let error = match phase {
                    Some(Phase::Insisted(_)) => {
                        Some("held back until who keeps undoing it has finished".into())
                    }
                    _ => loss.and_then(|loss| loss.error.clone()),
                };
                let actor = loss.map(|loss| Arc::clone(&loss.actor));
                let retry = phase.and_then(Phase::deadline);
                Some((*key, Missing { route, since, outcome, actor, retry, error }))
            })
            .collect();
        missing.sort_by_key(|(key, _)| *key);
        missing.into_iter().map(|(_, m)| m).collect()
    }

    /// Takes over a changed configuration. Routes that a new scope leaves out are let go; those that it adds
    /// are adopted by the next dump. What is missing is left alone from now on, or put back.
    pub fn reconfigure(&mut self, now: Stamp, settings: Settings, scope: Scope) {
        let mode = settings.mode;
        self.settings = settings;
        if scope != self.scope {
            self.scope = scope;
            for key in self.rib.keys() {
                let Some(entry) = self.rib.get_mut(&key) else { continue };
                let (scope, links) = (&self.scope, &self.links);
                entry.desired.retain(|route| scope.covers(route, links));
                if entry.desired.is_empty() {
                    self.forget_loss(key);
                    self.rib.remove(&key);
                }
                self.rib.recount(&key);
            }
            self.classify_links();
        }
        for key in self.rib.keys() {
            let phase = self.rib.get(&key).and_then(|entry| entry.loss.as_deref()).map(|loss| loss.phase);
            match (mode, phase) {
                (_, None) | (Mode::Observe, Some(Phase::Left)) => {}
                (Mode::Observe, Some(_)) => {
                    self.set_phase(key, Phase::Left);
                    self.report(key, Outcome::Observed, Some("the guardian only observes now".into()));
                }
                (Mode::Restore, Some(Phase::Left)) => self.admit(now, key),
                (Mode::Restore, Some(_)) => {}
            }
        }
        self.reread(super::flow::Reason::Operator);
    }
}
