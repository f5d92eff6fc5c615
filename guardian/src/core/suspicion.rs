//! Objects that go without a message, and what a dump says about them.
//!
//! The kernel announces neither the IPv4 routes that fall with a link, with the last address of an
//! interface or with a nexthop object (`fib_sync_down_dev`, `fib_flush` in `net/ipv4`): the announced
//! cause is remembered as a suspicion, the routes are read again, and what is missing then is put down to
//! the request that caused it.

use std::{sync::Arc, time::Duration};

use foldhash::{HashMap, HashSet};

use super::{
    alternatives::Alternatives,
    flow::{Dump, Reason},
    losses::Lost,
    machine::{Core, Who},
    rib::{BYSTANDERS, Loss, Phase},
};
use crate::model::{
    Actor, AddressKey, Fallen, Key, Notice, Object, Stamp,
    record::{Cause, Change, Outcome, Verdict},
};

/// Suspicions kept between two dumps; more would only mean that none of them tells much.
const CAPACITY: usize = 64;

/// The notifications of one request are not further apart.
pub(super) const ONE_REQUEST: Duration = Duration::from_millis(10);

/// What may have taken routes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Link(u32),
    /// A link that has lost its carrier.
    Carrier(u32),
    Address(AddressKey),
    Nexthop(u32),
    Key(Key),
}

impl Subject {
    pub fn concerns(&self, object: &Object) -> bool {
        match self {
            // A link goes with the one that it lies on, and is not lost with itself.
            Self::Link(index) => match object {
                Object::Link(upper) => upper.lower() == Some(*index) && upper.index != *index,
                object => object.links().contains(index),
            },
            Self::Carrier(index) => matches!(object, Object::Nexthop(nexthop) if nexthop.oif == *index),
            Self::Address(address) => match object {
                Object::Route(route) => {
                    route.prefsrc() == Some(address.local)
                        || (address.family() == route.family() && route.oifs().any(|oif| oif == address.link))
                }
                Object::Address(other) => {
                    !other.is_primary()
                        && other.key != *address
                        && other.key.link == address.link
                        && other.key.network() == address.network()
                }
                _ => false,
            },
            Self::Nexthop(id) => match object {
                Object::Route(route) => route.nexthop_id() == Some(*id),
                Object::Nexthop(group) => group.members().any(|member| member == *id),
                _ => false,
            },
            Self::Key(key) => object.key() == *key,
        }
    }
}

/// An announced change that may have had silent consequences.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    subject: Subject,
    cause: Cause,
    who: Who,
}

impl Suspicion {
    pub fn new(subject: Subject, cause: Cause, who: &Who) -> Self {
        Self { subject, cause, who: who.clone() }
    }

    /// Whether the owner did it, and this object had to go with it: not every route goes with one address of its link.
    fn is_owners_and_certain(&self, missing: &Object) -> bool {
        let certain = match (self.subject, missing) {
            (Subject::Address(address), Object::Route(route)) => route.prefsrc() == Some(address.local),
            _ => true,
        };
        self.who.verdict == Verdict::Owner && certain
    }

    /// Tells a loss of the same actor why it happened, if it is known by a lesser cause only: what the hooks see fall is
    /// told before its cause is.
    fn explain(&self, loss: &mut Loss) {
        if loss.actor == self.who.actor
            && outranks(self.cause, loss.cause)
            && (loss.silent || follows(&self.subject, loss, &self.who))
        {
            loss.cause = self.cause;
            loss.origin = loss.origin.take().or_else(|| self.who.origin.clone());
        }
    }

    /// Whether it is about this very key.
    pub fn is_of(&self, key: Key) -> bool {
        self.subject == Subject::Key(key)
    }
}

/// Whether a cause explains another: addresses go with their link, in the same request.
fn outranks(cause: Cause, known: Cause) -> bool {
    match known {
        Cause::Request => true,
        // What the kernel did by itself nobody asked for.
        Cause::Kernel => cause != Cause::Request,
        Cause::AddressRemoved => matches!(cause, Cause::LinkDown | Cause::LinkRemoved),
        Cause::LinkDown => cause == Cause::LinkRemoved,
        _ => false,
    }
}

/// Whether it went just before `subject` and because of it, though its message carries the port of the request: an
/// address with the first of its network (`__inet_del_ifa` in `net/ipv4/devinet.c`), a link with the one that it lies
/// on (`unregister_netdevice_many_notify`).
fn follows(subject: &Subject, loss: &Loss, who: &Who) -> bool {
    matches!(&*loss.object, Object::Address(_) | Object::Link(_))
        && subject.concerns(&loss.object)
        && who.at.since(loss.at) < ONE_REQUEST
}

/// Of what one actor did to an object, that which explains most. Of two actors the first; but what the owner did counts
/// before what others did, if it would certainly have had the same consequences.
fn explanation<'a>(suspicions: &'a [Suspicion], missing: &Object) -> Option<&'a Suspicion> {
    let concerned = suspicions.iter().filter(|suspicion| suspicion.subject.concerns(missing));
    concerned.reduce(|best, other| {
        let better = if best.who.actor == other.who.actor {
            outranks(other.cause, best.cause)
        } else {
            other.is_owners_and_certain(missing)
                && best.who.verdict != Verdict::Owner
                && !outranks(best.cause, other.cause)
        };
        if better { other } else { best }
    })
}

impl Core {
    /// Remembers an announced change and asks for a dump, if anything guarded may have gone with it.
    pub(super) fn suspect(&mut self, subject: Subject, cause: Cause, who: &Who) {
        let suspicion = Suspicion::new(subject, cause, who);
        let mut concerned = false;
        for entry in self.rib.iter_mut() {
            if !entry.desired.iter().any(|object| subject.concerns(object)) {
                continue;
            }
            match entry.loss.as_mut() {
                Some(loss) => suspicion.explain(loss),
                None => concerned = true,
            }
        }
        // Before the first dump it is not known who may be concerned.
        if concerned || !self.synced {
            if self.suspicions.len() >= CAPACITY {
                self.suspicions.remove(0);
            }
            self.suspicions.push(suspicion);
            self.reread(Reason::Silent);
        }
    }

    /// Leaves a suspicion to the next dump.
    pub(super) fn keep(&mut self, suspicion: Suspicion) {
        let known =
            self.suspicions.iter().any(|s| s.subject == suspicion.subject && s.who.at == suspicion.who.at);
        if !known && self.suspicions.len() < CAPACITY {
            self.suspicions.push(suspicion);
        }
        self.reread(Reason::Silent);
    }

    /// Why an object went for which nobody asked: it belongs to something that the same request has taken away just
    /// before.
    pub(super) fn consequence_of(&self, object: &Object, who: &Who) -> Option<Cause> {
        let of = |s: &&Suspicion| s.who.actor == who.actor && s.subject.concerns(object);
        (who.port == 0).then(|| self.suspicions.iter().rev().find(of).map(|s| s.cause)).flatten()
    }

    /// Who is behind what our own write has brought about: whoever made it necessary to take away what the object
    /// depends on, if that is what has happened.
    pub(super) fn behind(&self, at: Stamp, notice: &Notice) -> Who {
        let consequence = self.consequence(at);
        let Notice::Gone { object } = notice else { return consequence };
        let of = |s: &&Suspicion| {
            // What the owner does is never ours to make up for.
            s.who.verdict != Verdict::Owner
                && matches!(s.subject, Subject::Address(_))
                && s.subject.concerns(object)
        };
        match self.suspicions.iter().rev().find(of) {
            Some(suspicion) => Who { at, own: true, ..suspicion.who.clone() },
            None => consequence,
        }
    }

    /// The guarded route that has fallen. Of several that it can have been a dump tells which.
    pub(super) fn fallen(&mut self, fallen: &Fallen) -> Option<Object> {
        let can_be = |object: &&Arc<Object>| object.route().is_some_and(|route| fallen.can_be(route));
        let observed = &self.rib.get(&Key::Route(fallen.key))?.observed;
        let alike: Vec<Object> = observed.iter().filter(can_be).take(2).map(|o| Object::clone(o)).collect();
        match <[Object; 1]>::try_from(alike) {
            Ok([found]) => Some(found),
            Err(none_or_two) => {
                if !none_or_two.is_empty() {
                    self.reread(Reason::Silent);
                }
                None
            }
        }
    }

    /// Compares what is known with what the kernel holds.
    pub(super) fn dump(&mut self, now: Stamp, dump: Dump) {
        let links = dump.objects.iter().filter_map(|object| match object {
            Object::Link(link) => Some(link.clone()),
            _ => None,
        });
        self.links_dumped(links.collect(), dump.started);
        self.cards_dumped(&dump.objects, dump.started);
        let ports: Vec<Object> =
            self.links.iter().filter_map(|link| link.port.clone().map(Object::Port)).collect();
        let referenced = self.referenced(&dump.objects);
        let is_referenced =
            |object: &Object| matches!(object, Object::Nexthop(n) if referenced.contains(&n.id));
        let is_guarded = |object: &Object| self.scope.covers(object, &self.links) || is_referenced(object);
        let guarded: HashSet<Key> =
            dump.objects.iter().chain(&ports).filter(|o| is_guarded(o)).map(Object::key).collect();
        let mut held: HashMap<Key, Alternatives> = HashMap::default();
        // Rules of one priority are looked at in this order.
        let mut listed: HashMap<Key, usize> = HashMap::default();
        for object in dump.objects.into_iter().chain(ports) {
            let key = object.key();
            // With those of the same key that nobody guards: they are not to be written over.
            let entry = self.rib.get(&key);
            if entry.is_some() || guarded.contains(&key) {
                let there = held.get(&key).map_or(0, Alternatives::len);
                let is_bystander = entry.is_none_or(|entry| entry.is_apart(&object));
                if there >= BYSTANDERS && !is_guarded(&object) && is_bystander {
                    continue;
                }
                if matches!(key, Key::Rule(_)) {
                    listed.insert(key, listed.len());
                }
                held.entry(key).or_default().push(Arc::new(object));
            }
        }
        let suspicions = std::mem::take(&mut self.suspicions);
        // What was announced since may have had its consequences after the dump: the next one tells.
        self.suspicions = suspicions.iter().filter(|s| s.who.at >= dump.started).cloned().collect();
        let mut keys = self.rib.keys();
        // In the order in which one loss explains another: groups of nexthop objects behind their members, routes last.
        keys.sort_by_cached_key(|key| {
            let members = self.rib.get(key).map(|entry| entry.desired.nexthops());
            let is_group = matches!(key, Key::Nexthop(_)) && members.is_some_and(|ids| !ids.is_empty());
            (key.is_route(), is_group, *key)
        });
        let mut suspicions = suspicions;
        for key in keys {
            let observed = held.remove(&key).unwrap_or_default();
            self.compare(now, key, observed, (dump.started, dump.ended), &mut suspicions);
            self.rib.recount(&key);
        }
        let mut new: Vec<(Key, Alternatives)> = held.into_iter().collect();
        new.sort_by_key(|(key, _)| listed.get(key).copied().unwrap_or_default());
        for (key, mut objects) in new {
            // What went while the dump was read is not there any more, whatever it says.
            if !self.withdrawn.contains(&key) && !self.rib.was_forgotten_since(&key, dump.started) {
                let entry = self.rib.entry(key);
                entry.observed = objects.clone();
                entry.told = dump.started;
                entry.adopted = dump.ended;
                objects.retain(|object| self.scope.covers(object, &self.links) || is_referenced(object));
                entry.desired = objects;
                entry.note_bystanders();
                self.rib.recount(&key);
            }
        }
        self.rib.dumped(dump.started);
        self.synced = true;
    }

    /// The nexthop objects that guarded routes and groups among these refer to.
    fn referenced(&self, objects: &[Object]) -> HashSet<u32> {
        let routes = objects.iter().filter_map(Object::route);
        let mut ids: HashSet<u32> = routes
            .filter(|route| route.nexthop_id().is_some())
            .filter(|route| self.scope.covers(&Object::Route((*route).clone()), &self.links))
            .filter_map(crate::model::Route::nexthop_id)
            .collect();
        ids.extend(self.rib.iter().flat_map(|(_, entry)| entry.desired.nexthops()));
        for object in objects {
            if let Object::Nexthop(group) = object
                && ids.contains(&group.id)
            {
                ids.extend(group.members());
            }
        }
        ids
    }

    fn compare(
        &mut self,
        now: Stamp,
        key: Key,
        observed: Alternatives,
        (started, ended): (Stamp, Stamp),
        suspicions: &mut Vec<Suspicion>,
    ) {
        let synced = self.synced;
        let Some(entry) = self.rib.get_mut(&key) else { return };
        if entry.told >= started || entry.wrote.is_some_and(|wrote| wrote.done >= started) {
            // What is known is newer than this dump; one that began later will tell.
            let contested = entry.loss.as_deref().is_some_and(|loss| loss.phase == Phase::Contested);
            let unclear = entry.doubt || contested;
            // What is suspected of it is not answered yet.
            let open = |s: &&Suspicion| entry.desired.iter().any(|object| s.subject.concerns(object));
            let open: Vec<Suspicion> = suspicions.iter().filter(open).cloned().collect();
            if unclear {
                self.reread(Reason::Exists);
            }
            for suspicion in open {
                self.keep(suspicion);
            }
            return;
        }
        let doubt = std::mem::take(&mut entry.doubt);
        let was_whole = doubt || entry.is_whole() || !synced;
        entry.observed = observed;
        entry.told = started;
        if doubt && entry.desired.is_empty() {
            entry.surplus = entry.ours.clone().filter(|ours| entry.observed.contains(ours));
            self.settle_accounts(key);
            return;
        }
        if entry.is_whole() {
            let observed = entry.observed.clone();
            entry.desired.refresh(&observed);
            entry.note_bystanders();
            self.resolve(key, Outcome::AlreadyPresent, ended);
            self.settle_accounts(key);
            return;
        }
        if let Some(loss) = entry.loss.as_deref_mut() {
            for suspicion in &*suspicions {
                if suspicion.subject.concerns(&loss.object) {
                    suspicion.explain(loss);
                }
            }
        }
        match entry.loss.as_deref().map(|loss| loss.phase) {
            Some(Phase::Contested) => self.set_phase(key, Phase::Ready),
            Some(_) => self.found_gone(key, suspicions, ended),
            // Known already: a write of our own is on its way.
            None if !was_whole => self.settle_accounts(key),
            None => self.found_missing(now, key, suspicions, ended, doubt),
        }
    }

    /// A nexthop object that was not what it should be is gone altogether: a group of one, with its last member
    /// (`remove_nh_grp_entry` in `net/ipv4/nexthop.c`). Its routes went with it.
    fn found_gone(&self, key: Key, suspicions: &mut Vec<Suspicion>, ended: Stamp) {
        let Key::Nexthop(id) = key else { return };
        let Some(entry) = self.rib.get(&key).filter(|entry| entry.observed.is_empty()) else { return };
        let Some(loss) = entry.loss.as_deref() else { return };
        let who = explanation(suspicions, &loss.object)
            .map_or_else(|| Who { at: ended, ..Who::of(loss) }, |s| s.who.clone());
        suspicions.push(Suspicion::new(Subject::Nexthop(id), Cause::NexthopRemoved, &who));
    }

    fn found_missing(
        &mut self,
        now: Stamp,
        key: Key,
        suspicions: &mut Vec<Suspicion>,
        ended: Stamp,
        doubt: bool,
    ) {
        let Some(entry) = self.rib.get_mut(&key) else { return };
        let Some(missing) = entry.desired.first_missing_in(&entry.observed).cloned() else { return };
        let suspect = explanation(suspicions, &missing).cloned();
        if let (Key::Nexthop(id), Some(suspicion)) = (key, &suspect) {
            // Its groups became smaller without a word, and its routes went with it.
            suspicions.push(Suspicion::new(Subject::Nexthop(id), Cause::NexthopRemoved, &suspicion.who));
        }
        let stands = entry.desired.iter().any(|object| entry.observed.contains(object));
        // What the kernel itself has made meanwhile, because we put something else back, has replaced nothing; neither
        // has what stood there before.
        let by_others = |object: &&Arc<Object>| {
            entry.surplus.as_ref() != Some(*object)
                && entry.is_rival(object, &missing)
                && !entry.beside.iter().any(|beside| beside.same(object))
        };
        let rival = entry.observed.iter().find(by_others).filter(|_| !stands).cloned();
        let replaced = rival.is_some();
        match suspect {
            Some(Suspicion { cause, who, .. }) if who.verdict == Verdict::Owner => {
                let (cause, who) = (&cause, &who);
                if replaced && key.is_single() {
                    entry.desired = entry.observed.clone();
                    self.tell_allowed(now, &missing, Change::Changed, *cause, who);
                    return;
                }
                let observed = &entry.observed;
                entry.desired.retain(|object| observed.contains(object));
                if entry.desired.is_empty() {
                    self.withdraw(key);
                }
                self.tell_allowed(now, &missing, Change::Deleted, *cause, who);
            }
            Some(Suspicion { cause, who, .. }) => {
                let (cause, who) = (&cause, &who);
                let change = match (replaced, key.is_route()) {
                    (true, true) => Change::Replaced,
                    (true, false) => Change::Changed,
                    (false, _) => Change::Deleted,
                };
                self.lose(now, key, Lost { object: missing, change, now: rival }, *cause, who);
            }
            // The owner's word is known, and so is that we have overwritten it.
            None if doubt => {}
            None => match rival {
                // A message was lost. What stands in its place may well be the owner's: it is taken for it.
                Some(rival) if key.is_route() => entry.desired = entry.desired_with(&rival, true),
                rival => {
                    let who = Who {
                        at: ended,
                        port: 0,
                        actor: Arc::new(Actor::Unknown),
                        origin: None,
                        verdict: Verdict::Unknown,
                        own: false,
                    };
                    let change = if rival.is_some() { Change::Changed } else { Change::Deleted };
                    self.lose(now, key, Lost { object: missing, change, now: rival }, Cause::Unknown, &who);
                }
            },
        }
        self.settle_accounts(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_did_gets_a_cause_and_is_never_called_a_request() {
        for cause in [Cause::LinkDown, Cause::LinkRemoved, Cause::AddressRemoved, Cause::NexthopRemoved] {
            assert!(outranks(cause, Cause::Kernel), "{cause:?}");
            assert!(!outranks(Cause::Kernel, cause), "{cause:?}");
        }
        assert!(!outranks(Cause::Request, Cause::Kernel));
    }
}
