//! Whose request likely led to what the kernel does later, by itself.
//!
//! A carrier is told to be gone by the kernel's link watch (`net/core/link_watch.c`), up to a second after somebody took
//! the other end down; an address or a route expires when the lifetime that somebody gave it ends. The kernel does not say
//! why, so this remembers requests that have such consequences. It answers for what it has seen, and else for nothing.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use foldhash::HashMap;

use crate::model::{Actor, Key, Link, Links, Notice, Object, Stamp, record::Verdict};

/// Link watch waits up to a second (`linkwatch_schedule_work`), and a busy node longer.
const CARRIER: Duration = Duration::from_secs(3);

/// Links taken down that are remembered; the oldest gives way.
const LINKS: usize = 64;

/// Lifetimes that are remembered; the oldest gives way.
const LIFETIMES: usize = 1024;

/// A link that somebody took down.
#[derive(Debug)]
struct Downed {
    index: u32,
    at: Stamp,
    actor: Arc<Actor>,
}

/// Requests that the kernel may act upon later.
#[derive(Debug, Default)]
pub struct Origins {
    downed: VecDeque<Downed>,
    /// Who gave an address or a route its lifetime.
    lifetimes: HashMap<Key, Arc<Actor>>,
    /// The keys of `lifetimes` in the order in which they came, and some that are not in there any longer.
    order: VecDeque<Key>,
}

impl Origins {
    /// Takes in a change, before `links` does: whose request it likely follows from, if the kernel made it by itself.
    pub fn of(
        &mut self,
        at: Stamp,
        notice: &Notice,
        actor: &Arc<Actor>,
        verdict: Verdict,
        links: &Links,
    ) -> Option<Arc<Actor>> {
        let by_kernel = verdict == Verdict::Kernel;
        match notice {
            Notice::Set { object: Object::Link(link), .. } => {
                let before = links.get(link.index)?;
                if by_kernel && before.is_running() && !link.is_running() {
                    return self.downed_end(at, link);
                }
                if link.is_up() {
                    self.downed.retain(|downed| downed.index != link.index);
                } else if !by_kernel && actor.process().is_some() && before.is_up() {
                    self.down(link.index, at, actor);
                }
                None
            }
            Notice::Set { object, .. } => {
                let expires = match object {
                    Object::Address(address) => address.expires,
                    Object::Route(route) => route.expires,
                    _ => return None,
                };
                if expires && !by_kernel && actor.process().is_some() {
                    self.lives(object.key(), actor);
                } else if !by_kernel || !expires {
                    self.lifetimes.remove(&object.key());
                }
                None
            }
            Notice::Gone { object } => {
                let origin = self.lifetimes.remove(&object.key());
                origin.filter(|_| by_kernel)
            }
        }
    }

    /// Who took down the other end of a veth, or the link that this one lies on.
    fn downed_end(&self, at: Stamp, link: &Link) -> Option<Arc<Actor>> {
        let other = link.lower()?;
        let near =
            |downed: &&Downed| downed.index == other && at >= downed.at && at.since(downed.at) < CARRIER;
        self.downed.iter().rev().find(near).map(|downed| Arc::clone(&downed.actor))
    }

    fn down(&mut self, index: u32, at: Stamp, actor: &Arc<Actor>) {
        if self.downed.len() >= LINKS {
            self.downed.pop_front();
        }
        self.downed.push_back(Downed { index, at, actor: Arc::clone(actor) });
    }

    fn lives(&mut self, key: Key, actor: &Arc<Actor>) {
        if self.lifetimes.insert(key, Arc::clone(actor)).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > LIFETIMES {
            if let Some(oldest) = self.order.pop_front() {
                self.lifetimes.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{simulation::someone, testing},
        model::{
            Attribute,
            link::{iff, ifla},
        },
    };

    const SECOND: u64 = 1_000_000_000;

    fn kernel() -> Arc<Actor> {
        Arc::new(Actor::Kernel { what: "kworker/0:1".into() })
    }

    fn veth(index: u32, peer: u32, flags: u32) -> Link {
        let mut link = testing::link(index, &format!("veth{index}"));
        link.flags = flags;
        link.attributes.push(Attribute { kind: ifla::LINK, value: Box::from(peer.to_ne_bytes()) });
        link
    }

    /// Two ends that are up; somebody takes the second down at 1 s, the first loses its carrier after `delay`.
    fn downed(delay: u64, taker: &Arc<Actor>, verdict: Verdict) -> Option<Arc<Actor>> {
        let (up, mut links, mut origins) = (iff::UP | iff::RUNNING, Links::default(), Origins::default());
        links.set(veth(1, 2, up));
        links.set(veth(2, 1, up));
        let told = origins.of(Stamp(SECOND), &testing::set(veth(2, 1, 0)), taker, verdict, &links);
        assert_eq!(told, None, "that is the request itself");
        links.set(veth(2, 1, 0));
        origins.of(
            Stamp(SECOND + delay),
            &testing::set(veth(1, 2, iff::UP)),
            &kernel(),
            Verdict::Kernel,
            &links,
        )
    }

    #[test]
    fn a_carrier_goes_with_the_other_end() {
        let ip = someone(812, "/usr/sbin/ip");
        assert_eq!(downed(SECOND / 2, &ip, Verdict::Foreign), Some(Arc::clone(&ip)));
        assert_eq!(downed(4 * SECOND, &ip, Verdict::Foreign), None, "too long ago to be the reason");
        assert_eq!(downed(1, &kernel(), Verdict::Kernel), None, "nobody was seen");
    }

    #[test]
    fn who_has_put_the_other_end_up_again_has_nothing_to_do_with_it() {
        let (ip, mut links, mut origins) =
            (someone(812, "/usr/sbin/ip"), Links::default(), Origins::default());
        let running = iff::UP | iff::RUNNING;
        for link in [veth(1, 2, running), veth(2, 1, running)] {
            links.set(link);
        }
        for flags in [0, running] {
            origins.of(Stamp(SECOND), &testing::set(veth(2, 1, flags)), &ip, Verdict::Foreign, &links);
            links.set(veth(2, 1, flags));
        }
        let lost = testing::set(veth(1, 2, iff::UP));
        assert_eq!(origins.of(Stamp(SECOND + 1), &lost, &kernel(), Verdict::Kernel, &links), None);
    }

    /// An address of somebody's, with a lifetime or without, that the kernel then takes away.
    fn expired(setters: &[(&Arc<Actor>, bool)]) -> Option<Arc<Actor>> {
        let mut origins = Origins::default();
        let links = Links::default();
        let mut address = testing::address("10.244.1.9", 1, 24);
        for (who, expires) in setters {
            address.expires = *expires;
            let verdict = if who.process().is_some() { Verdict::Foreign } else { Verdict::Kernel };
            assert_eq!(origins.of(Stamp(1), &testing::set(address.clone()), who, verdict, &links), None);
        }
        let gone = testing::gone(address);
        let origin = origins.of(Stamp(9 * SECOND), &gone, &kernel(), Verdict::Kernel, &links);
        assert_eq!(origins.of(Stamp(9 * SECOND), &gone, &kernel(), Verdict::Kernel, &links), None, "once");
        origin
    }

    #[test]
    fn an_address_expires_for_who_set_its_lifetime() {
        let (ip, other) = (someone(812, "/usr/sbin/ip"), someone(813, "/usr/sbin/ip"));
        assert_eq!(expired(&[(&ip, true)]), Some(Arc::clone(&ip)));
        assert_eq!(expired(&[(&ip, true), (&other, true)]), Some(other.clone()));
        assert_eq!(expired(&[(&ip, true), (&kernel(), true)]), Some(Arc::clone(&ip)), "detection is over");
        assert_eq!(expired(&[(&ip, true), (&other, false)]), None, "it has none any more");
        assert_eq!(expired(&[(&kernel(), true)]), None, "a router advertised it");
        assert_eq!(expired(&[]), None, "nobody was seen");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (ip, links, mut origins) = (someone(812, "/usr/sbin/ip"), Links::default(), Origins::default());
        for n in 0..2 * LIFETIMES as u32 {
            let mut address = testing::address("10.244.1.9", n, 24);
            address.expires = true;
            origins.of(Stamp(1), &testing::set(address), &ip, Verdict::Foreign, &links);
            origins.down(n, Stamp(1), &ip);
        }
        assert_eq!((origins.lifetimes.len(), origins.order.len()), (LIFETIMES, LIFETIMES));
        assert_eq!(origins.downed.len(), LINKS);
    }
}
