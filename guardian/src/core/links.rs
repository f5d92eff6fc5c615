//! Which links are guarded, and what a link's change means for its ports, addresses and routes.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    flow::{Effect, Reason},
    machine::{Core, Who},
    suspicion::Subject,
};
use crate::model::{
    Key, Link, Object, Stamp,
    record::{Cause, Change, Outcome, Verdict},
};

impl Core {
    pub(super) fn link_set(&mut self, now: Stamp, link: Link, who: &Who) {
        let (index, up, running) = (link.index, link.is_up(), link.is_running());
        let port = link.port.clone();
        if who.own && self.link_told.get(&index).is_some_and(|told| who.at <= *told) {
            // A step on the way to what the link was in the end.
            return;
        }
        self.link_told.insert(index, who.at);
        if self.classify(&link) {
            self.reread(Reason::Silent);
        }
        let before = self.links.set(link.clone());
        self.cables_change();
        self.set(now, &Arc::new(Object::Link(link)), false, false, who);
        let was_port = before.as_ref().and_then(|link| link.port.clone());
        if port.is_some() && was_port.is_none() {
            self.port_came(now, index);
        }
        let moved = was_port.as_ref().map(|port| port.master) != port.as_ref().map(|port| port.master);
        let into_vrf = moved && port.as_ref().and_then(|port| port.kind.as_deref()) == Some("vrf");
        match (port, was_port) {
            (Some(port), _) => self.set(now, &Arc::new(Object::Port(port)), false, false, who),
            (None, Some(was)) => self.gone(now, &Object::Port(was), who.cause(), who),
            (None, None) => {}
        }
        // Routes fall with a link that goes down, and with one that moves into a VRF (`do_vrf_add_slave`).
        if before.as_ref().is_some_and(|link| link.is_up() && (!up || into_vrf)) {
            self.suspect(Subject::Link(index), Cause::LinkDown, who);
        } else if before.is_some_and(|link| link.is_running() && !running) {
            // Nexthop objects go with the carrier (`nh_netdev_event` in `net/ipv4/nexthop.c`).
            self.suspect(Subject::Carrier(index), Cause::LinkDown, who);
        }
    }

    pub(super) fn link_gone(&mut self, now: Stamp, link: Link, who: &Who) {
        let index = link.index;
        let was_port = self.links.remove(index).and_then(|link| link.port);
        self.cables_go(&link);
        self.link_told.insert(index, who.at);
        // Another link may get its ifindex.
        self.set_outside(index, false);
        if let Some(port) = was_port
            && self.rib.get(&Key::Port(index)).is_some()
        {
            // A pod's cable goes with the pod, and nobody else can make it: told, and not mourned.
            let owner = who.verdict == Verdict::Owner;
            let outcome = if owner { Outcome::Allowed } else { Outcome::Observed };
            let port = Arc::new(Object::Port(port));
            self.tell(now, &port, Change::Deleted, who.cause(), who, outcome);
            self.let_go(Key::Port(index));
        }
        self.gone(now, &Object::Link(link), who.cause(), who);
        self.suspect(Subject::Link(index), Cause::LinkRemoved, who);
    }

    /// A link that we have written is there as it was, whatever was announced before.
    pub(super) fn link_is_back(&mut self, link: &Link, done: Stamp) {
        self.link_told.insert(link.index, done);
        self.classify(link);
        let port = self.links.get(link.index).and_then(|link| link.port.clone());
        self.links.set(Link { port, ..link.clone() });
        self.cables_change();
    }

    /// Forgets a key: it is not guarded any longer.
    pub(super) fn let_go(&mut self, key: Key) {
        self.forget_loss(key);
        self.rib.remove(&key);
    }

    /// Decides whether a link is out of scope; whether its routes have to be looked at because it is no longer.
    ///
    /// A link that was guarded stays so under another name: that it was given one is no reason to stop looking
    /// after what it carries.
    fn classify(&mut self, link: &Link) -> bool {
        let known = self.links.get(link.index).is_some();
        let guarded =
            self.scope.covers_link(&link.name) || (known && !self.outside_links.contains(&link.index));
        self.set_outside(link.index, !guarded) && guarded
    }

    /// Takes over the links of a dump, but for what was announced since it began.
    pub(super) fn links_dumped(&mut self, links: Vec<Link>, started: Stamp) {
        let newer = |core: &Self, index: u32| core.link_told.get(&index).is_some_and(|told| *told >= started);
        let there: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        let gone: Vec<u32> =
            self.links.iter().map(|link| link.index).filter(|i| !there.contains(i)).collect();
        for index in gone.into_iter().filter(|&index| !newer(self, index)).collect::<Vec<_>>() {
            if let Some(link) = self.links.remove(index) {
                self.cables_go(&link);
            }
            self.set_outside(index, false);
        }
        for link in links {
            if !newer(self, link.index) {
                self.classify(&link);
                self.links.set(link);
            }
        }
        self.link_told.retain(|_, told| *told >= started);
        self.cables_change();
    }

    /// Decides anew about all links, after the scope was replaced.
    pub(super) fn classify_links(&mut self) {
        let unguarded = self.links.iter().filter(|link| !self.scope.covers_link(&link.name));
        let outside: BTreeSet<u32> = unguarded.map(|link| link.index).collect();
        for index in outside.symmetric_difference(&self.outside_links).copied().collect::<Vec<_>>() {
            self.set_outside(index, outside.contains(&index));
        }
    }

    /// Notes whether a link is known to be out of scope, and tells when that changes; whether it did.
    fn set_outside(&mut self, index: u32, outside: bool) -> bool {
        let changed =
            if outside { self.outside_links.insert(index) } else { self.outside_links.remove(&index) };
        if changed {
            self.effects.push(Effect::Link { index, outside });
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use glob::Pattern;

    use super::*;
    use crate::{
        core::{Dump, Input, Scope, Settings, testing},
        model::{Actor, Notice, Stamp, record::Verdict},
    };

    fn core() -> Core {
        Core::new(
            Settings::default(),
            Scope { links: vec![Pattern::new("tun-*").unwrap()], ..Scope::default() },
        )
    }

    fn step(core: &mut Core, notice: Notice) -> Vec<Effect> {
        let (at, actor) = (Stamp(1), Arc::new(Actor::Unknown));
        core.step(at, Input::Notice { at, notice, port: 1, actor, verdict: Verdict::Unknown });
        core.effects().collect()
    }

    fn set(core: &mut Core, index: u32, name: &str) -> Vec<Effect> {
        step(core, testing::set(testing::link(index, name)))
    }

    #[test]
    fn a_link_that_is_not_guarded_is_told_of_once_when_it_comes_and_when_it_goes() {
        let mut core = core();
        core.step(Stamp(1), Input::Dump(Dump { started: Stamp(0), ended: Stamp(1), objects: Vec::new() }));
        let (comes, goes) =
            (Effect::Link { index: 7, outside: true }, Effect::Link { index: 7, outside: false });
        assert_eq!(set(&mut core, 7, "veth7"), [comes]);
        assert_eq!(set(&mut core, 7, "veth7"), []);
        assert_eq!(step(&mut core, testing::gone(testing::link(7, "veth7"))), [goes]);
        assert_eq!(set(&mut core, 7, "tun-a"), [], "a guarded link with the ifindex of one that is gone");
        assert!(core.outside_links().is_empty());
    }

    #[test]
    fn a_link_that_gets_a_guarded_name_is_read_anew() {
        let mut core = core();
        set(&mut core, 7, "veth7");
        let inside = Effect::Link { index: 7, outside: false };
        assert_eq!(set(&mut core, 7, "tun-a"), [inside, Effect::Reread(Reason::Silent)]);
        assert_eq!(set(&mut core, 7, "veth7"), [], "what was guarded stays so under another name");
    }

    #[test]
    fn a_dump_tells_only_what_is_different() {
        let mut core = core();
        set(&mut core, 7, "veth7");
        set(&mut core, 8, "veth8");
        let links = [testing::link(8, "veth8"), testing::link(9, "veth9"), testing::link(10, "tun-a")];
        let objects = links.map(Object::Link).to_vec();
        let dump = Dump { started: Stamp(2), ended: Stamp(3), objects };
        core.step(Stamp(3), Input::Dump(dump));
        let gone = Effect::Link { index: 7, outside: false };
        let new = Effect::Link { index: 9, outside: true };
        assert_eq!(core.effects().collect::<Vec<_>>(), [gone, new]);
        assert_eq!(*core.outside_links(), BTreeSet::from([8, 9]));
    }

    #[test]
    fn a_link_announced_while_a_dump_is_read_is_kept() {
        let mut core = core();
        let (at, actor) = (Stamp(5), Arc::new(Actor::Unknown));
        let notice = testing::set(testing::link(9, "tun-x"));
        core.step(at, Input::Notice { at, notice, port: 1, actor, verdict: Verdict::Unknown });
        let dump = |started, links: Vec<Link>| {
            let (started, ended) = (Stamp(started), Stamp(started + 2));
            let objects = links.into_iter().map(Object::Link).collect();
            Input::Dump(Dump { started, ended, objects })
        };
        core.step(Stamp(6), dump(4, vec![testing::link(8, "eth0")]));
        assert!(core.links().get(9).is_some() && core.links().get(8).is_some());
        core.step(Stamp(12), dump(10, vec![testing::link(8, "eth0")]));
        assert!(core.links().get(9).is_none(), "the next dump began after it was gone");
    }
}
