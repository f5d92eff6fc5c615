//! What operators may look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    alternatives::Alternatives,
    machine::{Core, Settings},
    rib::{Entry, Phase},
    scope::Scope,
};
use crate::model::{
    Actor, Family, Key, Links, Mode, Object, RouteKey, Stamp,
    record::{ObjectKind, Outcome},
};

/// How many objects of a kind and a family are guarded, missing and held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Desired objects.
    pub protected: usize,
    /// Desired objects that the kernel does not hold.
    pub missing: usize,
    /// Of the missing, those held back by damping.
    pub held: usize,
}

/// An object that is missing now.
#[derive(Clone, Debug)]
pub struct Missing {
    /// The object.
    pub object: Arc<Object>,
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

    /// Which objects are guarded.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The counts of one kind and family; links and nexthop objects have none.
    pub fn counts(&self, kind: ObjectKind, family: Option<Family>) -> Counts {
        self.rib.counts(kind, family)
    }

    /// Whether anything is held for want of an owner.
    pub const fn has_orphans(&self) -> bool {
        self.orphans > 0
    }

    /// Whether what is desired has changed since this was last asked.
    pub const fn take_changed(&mut self) -> bool {
        self.rib.take_changed()
    }

    /// All that is desired, by key.
    pub fn desired(&self) -> Vec<Arc<Object>> {
        self.listed(|entry| &entry.desired)
    }

    /// All that the kernel is known to hold of it, by key. Other routes of the same keys are not guarded.
    pub fn observed(&self) -> Vec<Arc<Object>> {
        let mut observed = self.listed(|entry| &entry.observed);
        let is_referenced = |o: &Object| matches!(o, Object::Nexthop(_) | Object::Link(_));
        observed.retain(|object| is_referenced(object) || self.scope.covers(object, &self.links));
        observed
    }

    fn listed(&self, which: impl Fn(&Entry) -> &Alternatives) -> Vec<Arc<Object>> {
        let of = |(key, entry): (&Key, _)| {
            let key = *key;
            which(entry).iter().map(move |o| (key, Arc::clone(o))).collect::<Vec<_>>()
        };
        let mut objects: Vec<_> = self.rib.iter().flat_map(of).collect();
        objects.sort_by_key(|(key, _)| *key);
        objects.into_iter().map(|(_, object)| object).collect()
    }

    /// Takes what was saved for desired, before the first dump: what of it is missing then is put back.
    pub fn preset(&mut self, objects: Vec<Object>) {
        for object in objects {
            let key = object.key();
            self.rib.entry(key).desired.push(Arc::new(object));
            self.rib.recount(&key);
        }
    }

    /// All that is missing, by key.
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing: Vec<_> = self
            .rib
            .iter()
            .filter_map(|(key, entry)| {
                let object = Arc::clone(entry.desired.first_missing_in(&entry.observed)?);
                let loss = entry.loss.as_deref();
                let phase = loss.map(|loss| loss.phase);
                let outcome = match phase {
                    Some(phase) if phase.is_held() => Some(Outcome::Held),
                    Some(Phase::Left) => Some(Outcome::Observed),
                    _ => None,
                };
                let since = loss.map_or(entry.told, |loss| loss.at);
                let error = match phase {
                    Some(Phase::Insisted(_)) => Some("held back until who took it has finished".into()),
                    _ => loss.and_then(|loss| loss.error.clone()),
                };
                let actor = loss.map(|loss| Arc::clone(&loss.actor));
                let retry = phase.and_then(Phase::deadline);
                Some((*key, Missing { object, since, outcome, actor, retry, error }))
            })
            .collect();
        missing.sort_by_key(|(key, _)| *key);
        missing.into_iter().map(|(_, m)| m).collect()
    }

    /// The routes that were lost and are missing still, by the number of the change; at most `most` of them.
    pub fn lost_routes(&self, most: usize) -> BTreeMap<u64, RouteKey> {
        if Family::ALL.iter().all(|&family| self.counts(ObjectKind::Route, Some(family)).missing == 0) {
            return BTreeMap::new();
        }
        let lost = |(key, entry): (&Key, &Entry)| match key {
            Key::Route(route) => entry.loss.as_deref().map(|loss| (loss.seq, *route)),
            _ => None,
        };
        self.rib.iter().filter_map(lost).take(most).collect()
    }

    /// Takes over a changed configuration. Routes that a new scope leaves out are let go; those that it adds
    /// are adopted by the next dump. What is missing is left alone from now on, or put back.
    pub fn reconfigure(&mut self, now: Stamp, settings: Settings, scope: Scope) {
        let mode = settings.mode;
        let same_loans =
            (mode, settings.lend) == (self.settings.mode, self.settings.lend) && scope == self.scope;
        self.settings = settings;
        self.cables_change();
        if !same_loans {
            self.call_loans_in();
        }
        if scope != self.scope {
            self.scope = scope;
            for key in self.rib.keys() {
                let Some(entry) = self.rib.get_mut(&key) else { continue };
                let (scope, links) = (&self.scope, &self.links);
                entry.desired.retain(|object| {
                    // A link that was guarded stays so under another name, and a nexthop object while it is in use.
                    scope.covers(object, links) || matches!(&**object, Object::Nexthop(_))
                });
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
                // The time that an owner may be away can be longer now.
                (Mode::Restore, Some(Phase::Orphaned)) if self.orphaned(now).is_none() => {
                    self.admit(now, key);
                }
                (Mode::Restore, Some(_)) => {}
            }
        }
        self.reread(super::flow::Reason::Operator);
    }
}
