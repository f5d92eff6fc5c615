//! A core, a time and a node, for the tests that tell it one thing after the other.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Core, Dump, Effect, Input, Settings,
    plan::{Action, Applied},
    simulation::scope,
    testing::{address, link, route},
};
use crate::model::{Actor, Cable, Key, Link, Notice, Object, Port, Route, Rule, Stamp, record::Verdict};

pub(super) const TUN: u32 = 2;
pub(super) const BRIDGE: u32 = 5;
pub(super) const VETH: u32 = 6;

pub(super) fn guarded() -> super::Scope {
    let mut scope = scope();
    scope.links.push(glob::Pattern::new("kube-*").unwrap());
    scope.tables.insert(77);
    scope
}

/// A core and the time.
pub(super) struct Stage {
    pub core: Core,
    pub now: u64,
    pub reports: Vec<super::Report>,
    /// How many times damping has held something.
    pub damped: usize,
    cables: (Vec<u32>, BTreeMap<u32, Cable>),
}

impl Stage {
    pub fn new(settings: Settings, objects: &[Object]) -> Self {
        let mut core = Core::new(settings, guarded());
        core.step(
            Stamp(2),
            Input::Dump(Dump { started: Stamp(1), ended: Stamp(2), objects: objects.to_vec() }),
        );
        let _ = core.effects().count();
        Self { core, now: 1000, reports: vec![], damped: 0, cables: Default::default() }
    }

    pub fn tell(&mut self, notice: Notice, who: &Arc<Actor>, verdict: Verdict) {
        self.now += 1000;
        let (at, actor) = (Stamp(self.now), Arc::clone(who));
        self.core.step(at, Input::Notice { at, notice, port: 0, actor, verdict });
        self.collect();
    }

    pub fn own(&mut self, notice: Notice) {
        self.now += 1000;
        self.core.step(Stamp(self.now), Input::Own { at: Stamp(self.now), notice });
        self.collect();
    }

    pub fn collect(&mut self) {
        // Who asks only where it says that something has changed misses nothing.
        let is_told = self.core.take_cables_changed();
        let cables = (self.core.ports(), self.core.cables());
        assert!(is_told || cables == self.cables, "{:?} became {cables:?}", self.cables);
        self.cables = cables;
        for effect in self.core.effects() {
            match effect {
                Effect::Report(report) => self.reports.push(*report),
                Effect::Damped(true) => self.damped += 1,
                _ => {}
            }
        }
    }

    /// A dump that finds this.
    pub fn dump(&mut self, objects: Vec<Object>) {
        let (started, ended) = (Stamp(self.now + 1), Stamp(self.now + 2));
        self.core.step(ended, Input::Dump(Dump { started, ended, objects }));
        self.now += 1000;
        self.collect();
    }

    /// One round of writes, all of which the kernel accepts.
    pub fn write(&mut self) -> Vec<Action> {
        let actions = self.core.plan(Stamp(self.now), 100);
        self.now += 1000;
        let sent = Stamp(self.now);
        self.now += 1000;
        self.core.applied(vec![Applied::Verified; actions.len()], sent, Stamp(self.now));
        self.collect();
        actions
    }
}

pub(super) fn bridge() -> Link {
    Link { kind: Some("bridge".into()), mtu: 1500, ..link(BRIDGE, "kube-bridge") }
}

pub(super) fn veth(master: u32) -> Link {
    let port = (master != 0).then(|| Port { link: VETH, master, kind: None, options: vec![] });
    Link { kind: Some("veth".into()), port, ..link(VETH, "veth12ab") }
}

pub(super) fn rule() -> Rule {
    Rule {
        family: crate::model::Family::Inet,
        priority: 32765,
        table: 77,
        action: 1,
        flags: 0,
        tos: 0,
        dst: None,
        src: Some("10.244.1.0/24".parse().unwrap()),
        attributes: vec![],
    }
}

pub(super) fn node() -> Vec<Object> {
    vec![
        link(1, "eth0").into(),
        link(TUN, "tun-a").into(),
        bridge().into(),
        veth(BRIDGE).into(),
        address("10.244.1.1", BRIDGE, 24).into(),
        rule().into(),
        route("10.244.1.0/24", BRIDGE).into(),
    ]
}

impl Stage {
    /// What is desired of a route's key.
    pub fn desired(&self, of: &Route) -> Vec<Object> {
        let entry = self.core.rib.get(&Key::Route(of.key));
        entry.into_iter().flat_map(|entry| entry.desired.iter()).map(|o| Object::clone(o)).collect()
    }

    /// How many objects of a route's key are known to be there, guarded or not.
    pub fn held(&self, of: &Route) -> usize {
        self.core.rib.get(&Key::Route(of.key)).map_or(0, |entry| entry.observed.len())
    }
}
