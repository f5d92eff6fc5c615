//! What one notification means for the object that it is about.

use std::{sync::Arc, time::Duration};

use super::{
    alternatives::{Alternatives, Removal, stands_on_another_link},
    flow::Reason,
    losses::Lost,
    machine::{Core, Who},
    rib::{BYSTANDERS, Entry, Phase},
    suspicion::{Subject, Suspicion},
};
use crate::model::{
    Key, Mode, Notice, Object, Route, Stamp,
    record::{Cause, Change, Outcome, Verdict},
};

/// How long a route may be there that shows no lifetime and has one: a moment, and then until the kernel takes it away, which
/// looks every `net.ipv6.route.gc_interval` (30 s).
const LAST_MOMENT: Duration = Duration::from_secs(60);

impl Core {
    pub(super) fn notice(&mut self, now: Stamp, notice: Notice, who: &Who) {
        match notice {
            Notice::Set { object: Object::Link(link), .. } => {
                self.lender_set(&link);
                self.link_set(now, link, who);
            }
            Notice::Gone { object: Object::Link(link) } => self.link_gone(now, link, who),
            Notice::Set { object, replaced, appended } => {
                if let Object::Address(address) = &object {
                    self.repay(address, who);
                }
                self.set(now, &Arc::new(object), replaced, appended, who);
            }
            Notice::Gone { object } => {
                let subject = match &object {
                    Object::Address(address) => Some((Subject::Address(address.key), Cause::AddressRemoved)),
                    Object::Nexthop(nexthop) => Some((Subject::Nexthop(nexthop.id), Cause::NexthopRemoved)),
                    _ => None,
                };
                if let Object::Address(address) = &object {
                    self.lend(now, address, who);
                }
                self.gone(now, &object, who.cause(), who);
                if let Some((subject, cause)) = subject {
                    self.suspect(subject, cause, who);
                }
            }
        }
    }

    /// An object is there now, like this.
    pub(super) fn set(
        &mut self,
        now: Stamp,
        object: &Arc<Object>,
        replaced: bool,
        appended: bool,
        who: &Who,
    ) {
        let key = object.key();
        self.take_set(now, key, Arc::clone(object), replaced, appended, who);
        self.rib.recount(&key);
        self.help(|waiting| object.helps(waiting));
    }

    fn take_set(
        &mut self,
        now: Stamp,
        key: Key,
        object: Arc<Object>,
        replaced: bool,
        appended: bool,
        who: &Who,
    ) {
        let covered = self.scope.covers(&object, &self.links) || self.is_referenced(&object);
        if !covered && self.rib.get(&key).is_none() {
            return;
        }
        let entry = self.rib.entry(key);
        if who.own && entry.wrote.is_some_and(|wrote| who.at <= wrote.done) {
            // A step on the way to what the kernel said it held in the end.
            return;
        }
        if entry.wrote.is_some_and(|wrote| who.at < wrote.sent) {
            // It happened before our own write, which the kernel accepted: that it is there no longer is
            // known. What the owner wanted counts all the same.
            if who.verdict == Verdict::Owner {
                entry.desired =
                    if covered { [object].into_iter().collect() } else { Alternatives::default() };
                entry.surplus = None;
                self.withdrawn.remove(&key);
                self.settle_accounts(key);
            }
            return;
        }
        let is_bystander = !covered && !entry.desired.is_empty() && entry.is_apart(&object);
        if is_bystander && entry.observed.len() >= entry.desired.len() + BYSTANDERS {
            return;
        }
        if object.route().is_some_and(|route| route.expires) {
            entry.adopted = Stamp(0);
        }
        let was_there = !entry.observed.is_empty();
        let is_news = !entry.observed.contains(&object);
        entry.observed.set(Arc::clone(&object), replaced, appended);
        entry.told = who.at;
        let doubt = who.verdict == Verdict::Owner && entry.wrote.is_some_and(|wrote| wrote.is_around(who.at));
        entry.doubt |= doubt;
        let observed = &entry.observed;
        entry.surplus.take_if(|surplus| surplus.same(&object) || !observed.contains(surplus));
        if who.own && key.is_route() && !entry.is_apart(&object) && !entry.desired.contains(&object) {
            // The kernel has made it besides what there was: its own local route next to the owner's.
            entry.surplus = Some(Arc::clone(&object));
        }

        let own = entry.is_added_by(&who.actor);
        if who.verdict == Verdict::Owner || (own && !entry.is_whole()) {
            let stays = |o: &Arc<Object>, observed: &Alternatives| {
                observed.contains(o) || (!replaced && stands_on_another_link(o, &object))
            };
            let before = entry.desired.iter().find(|o| !stays(o, &entry.observed)).cloned();
            if doubt {
                entry.desired = Alternatives::default();
                entry.observed = [Arc::clone(&object)].into_iter().collect();
            }
            let adopted = covered || (key.is_single() && !entry.desired.is_empty());
            let missing: Vec<Arc<Object>> = entry
                .desired
                .iter()
                .filter(|o| !entry.observed.contains(o) && stays(o, &entry.observed))
                .cloned()
                .collect();
            entry.desired = entry.desired_with(&object, adopted);
            for object in missing {
                entry.desired.push(object);
            }
            if who.verdict == Verdict::Owner {
                (entry.adder, entry.adder_program) = (None, None);
                entry.adopted = Stamp(0);
                self.withdrawn.remove(&key);
                // What it took away before counts no longer.
                self.suspicions.retain(|suspicion| !suspicion.is_of(key));
            }
            let was_lost = self.resolve(key, Outcome::AlreadyPresent, who.at);
            if let Some(before) = before.filter(|_| !was_lost) {
                let (change, cause) = changed(&before, self.rib.get(&key).map(|e| &e.observed), replaced);
                self.tell_allowed(now, &before, change, cause, who);
            }
        } else if entry.desired.is_empty() {
            if covered && !self.withdrawn.contains(&key) {
                entry.added_by(&who.actor, &object);
                entry.adopted = who.at;
                entry.desired.set(object, false, false);
                self.adopt_what_it_needs(key);
            }
        } else if entry.is_whole() {
            // What is not compared may be newer.
            let observed = entry.observed.clone();
            entry.desired.refresh(&observed);
            self.resolve(key, if who.own { Outcome::Restored } else { Outcome::AlreadyPresent }, who.at);
        } else if matches!(key, Key::Link(_)) && !was_there && !entry.is_namesake() {
            // Not the link that was lost: another one has got its ifindex.
            self.forget_loss(key);
            let entry = self.rib.entry(key);
            entry.desired = if covered { entry.observed.clone() } else { Alternatives::default() };
            entry.added_by(&who.actor, &object);
        } else if replaced && key.is_route() && who.verdict == Verdict::Unknown {
            // Nobody knows whether this was the owner: undoing it could fight kube-router.
            let before = entry.desired.first_missing_in(&entry.observed).cloned();
            entry.desired = entry.desired_with(&object, true);
            if let Some(before) = before {
                self.tell(now, &before, Change::Replaced, Cause::Replace, who, Outcome::Observed);
            }
        } else if let Some(loss) = entry.loss.as_mut()
            && (self.settings.mode != Mode::Observe || !is_news)
        {
            let is_rival = !entry.desired.contains(&object) && !stands_on_another_link(&object, &loss.object);
            let stands = loss.now.as_ref().is_some_and(|rival| entry.observed.contains(rival));
            // The first one stands for all that come after it.
            if is_news && is_rival && !stands {
                (loss.change, _) = changed(&loss.object, Some(&entry.observed), replaced);
                loss.now = Some(object);
            }
        } else if let Some(missing) = entry.desired.first_missing_in(&entry.observed).cloned() {
            let (change, cause) = changed(&missing, Some(&entry.observed), replaced);
            let cause = if who.verdict == Verdict::Kernel { Cause::Kernel } else { cause };
            let rival = self.rib.get(&key).is_some_and(|entry| entry.is_rival(&object, &missing));
            self.supersede(key, who);
            let lost = Lost { object: missing, change, now: rival.then_some(object) };
            self.lose(now, key, lost, cause, who);
        }
        if doubt {
            self.reread(Reason::Mismatch);
        }
        self.settle_accounts(key);
    }

    /// An object is gone.
    pub(super) fn gone(&mut self, now: Stamp, object: &Object, cause: Cause, who: &Who) {
        let key = object.key();
        self.take_gone(now, key, object, cause, who);
        self.rib.recount(&key);
    }

    fn take_gone(&mut self, now: Stamp, key: Key, object: &Object, cause: Cause, who: &Who) {
        let Some(entry) = self.rib.get_mut(&key) else {
            if !self.synced {
                // The dump that is being read may have seen it; the next one tells.
                self.keep(Suspicion::new(Subject::Key(key), cause, who));
            }
            return;
        };
        if who.own && entry.wrote.is_some_and(|wrote| who.at <= wrote.done) {
            return;
        }
        if entry.wrote.is_some_and(|wrote| who.at < wrote.sent) {
            if who.verdict == Verdict::Owner {
                entry.desired = Alternatives::default();
                // To be taken away again, once it is certain that this was its last word.
                entry.doubt = true;
                self.withdraw(key);
                self.forget_loss(key);
                self.reread(Reason::Mismatch);
            }
            self.settle_accounts(key);
            return;
        }
        if !entry.desired.is_empty() && entry.is_apart(object) && !entry.observed.contains(object) {
            // Not one of those that are remembered.
            return;
        }
        let before = match entry.observed.remove(object) {
            Removal::Removed(before) => before,
            Removal::Unknown if who.verdict != Verdict::Owner => return,
            Removal::Unknown | Removal::Mismatch => {
                // What was known is wrong; a dump will tell.
                entry.observed = Alternatives::default();
                entry.told = who.at;
                entry.doubt = true;
                if who.verdict == Verdict::Owner {
                    // Whatever it was that the owner removed, it wants nothing there.
                    entry.desired = Alternatives::default();
                    self.forget_loss(key);
                    self.withdraw(key);
                }
                self.suspicions.push(Suspicion::new(Subject::Key(key), Cause::Request, who));
                self.reread(Reason::Mismatch);
                return;
            }
        };
        entry.told = who.at;
        let observed = &entry.observed;
        entry.surplus.take_if(|surplus| !observed.contains(surplus));
        let own = !who.own && entry.is_added_by(&who.actor);
        if who.verdict == Verdict::Owner || own || has_run_out(entry, object, &before, who) {
            if entry.wrote.is_some_and(|wrote| wrote.is_around(who.at)) {
                entry.doubt = true;
                self.reread(Reason::Mismatch);
            }
            let Some(entry) = self.rib.get_mut(&key) else { return };
            if !matches!(entry.desired.remove(object), Removal::Removed(_)) && entry.observed.is_empty() {
                entry.desired = Alternatives::default();
            }
            let gone = entry.desired.is_empty();
            if gone && who.verdict == Verdict::Owner {
                self.withdraw(key);
            }
            self.tell_allowed(now, &before, Change::Deleted, cause, who);
            if gone {
                self.forget_loss(key);
            }
        } else if entry.desired.contains(&before) {
            let left = entry.observed.iter().find(|left| shares_a_leg(left, &before)).cloned();
            let is_port = matches!(key, Key::Port(_));
            let change = if left.is_some() || is_port { Change::Changed } else { Change::Deleted };
            let cause = self.consequence_of(&before, who).unwrap_or(cause);
            self.lose(now, key, Lost { object: before, change, now: left }, cause, who);
        } else if entry.observed.is_empty()
            && entry.loss.as_ref().is_some_and(|loss| {
                self.settings.mode == Mode::Observe || (loss.actor != who.actor && !who.own)
            })
        {
            // Somebody else has taken away altogether what was not as it should be; or nobody puts it right, and
            // whatever is done to it next is news.
            let missing = entry.desired.first_missing_in(&entry.observed).cloned();
            self.supersede(key, who);
            if let Some(missing) = missing {
                self.lose(now, key, Lost::deleted(missing), cause, who);
            }
        } else if let Some(loss) = entry.loss.as_mut() {
            if loss.now.as_ref().is_none_or(|rival| !entry.observed.contains(rival)) {
                (loss.change, loss.now) = (Change::Deleted, None);
            }
            // What the kernel had made of our request is gone: another try.
            if loss.phase == Phase::Left && self.settings.mode == Mode::Restore {
                self.admit(now, key);
            }
        }
        self.settle_accounts(key);
    }

    /// Whether this is a nexthop object that a guarded route, or a group in use, refers to.
    fn is_referenced(&self, object: &Object) -> bool {
        let Object::Nexthop(nexthop) = object else { return false };
        self.rib.get(&Key::Nexthop(nexthop.id)).is_some()
    }

    /// A guarded route brings the nexthop object that it refers to into the scope: it is read anew.
    fn adopt_what_it_needs(&mut self, key: Key) {
        let needed: Vec<u32> = self.rib.get(&key).into_iter().flat_map(|e| e.desired.nexthops()).collect();
        if needed.iter().any(|id| self.rib.get(&Key::Nexthop(*id)).is_none()) {
            self.reread(Reason::Silent);
        }
    }
}

/// How something that is there still differs from what it was.
fn changed(before: &Object, observed: Option<&Alternatives>, replaced: bool) -> (Change, Cause) {
    let now = observed.and_then(|observed| observed.iter().next());
    match (before, now.map(|now| &**now)) {
        (Object::Route(_), _) => (Change::Replaced, Cause::Replace),
        (Object::Nexthop(_), _) if replaced => (Change::Replaced, Cause::Replace),
        (Object::Link(was), Some(Object::Link(is))) if was.is_up() && !is.is_up() => {
            (Change::Down, Cause::Request)
        }
        _ => (Change::Changed, Cause::Request),
    }
}

/// Whether the kernel has taken away a route because its time had come, which nobody knew: in its last moment it showed no
/// lifetime, and was taken for one that is to stay. One that has been guarded for longer has got its lifetime from
/// somebody who is not its owner: that is a loss.
fn has_run_out(entry: &Entry, object: &Object, before: &Arc<Object>, who: &Who) -> bool {
    who.verdict == Verdict::Kernel
        && !who.own
        && object.route().is_some_and(|route| route.expires)
        && entry.adopted != Stamp(0)
        && who.at.since(entry.adopted) < LAST_MOMENT
        && entry.desired.contains(before)
}

/// Whether `now` is what is left of the multipath route `before`.
fn shares_a_leg(now: &Object, before: &Object) -> bool {
    let (Some(now), Some(before)) = (now.route(), before.route()) else { return false };
    before.legs.len() > 1 && now.legs.iter().any(|leg| before.legs.contains(leg))
}

impl Object {
    /// Whether `waiting` may have been refused for want of this.
    pub(super) fn helps(&self, waiting: &Self) -> bool {
        match self {
            // What is on it, and what the kernel looks for a link for.
            Self::Link(link) => {
                let links = waiting.links();
                links.contains(&link.index)
                    || waiting.route().is_some_and(|route| link.is_up() && route.oifs().next().is_none())
            }
            Self::Address(address) if !address.tentative => {
                let on_link = waiting.links().contains(&address.key.link);
                on_link || waiting.route().and_then(Route::prefsrc) == Some(address.key.local)
            }
            Self::Nexthop(nexthop) => match waiting {
                Self::Route(route) => route.nexthop_id() == Some(nexthop.id),
                Self::Nexthop(group) => group.members().any(|id| id == nexthop.id),
                _ => false,
            },
            Self::Route(route) => {
                let leads = |gateway| route.key.dst.contains(gateway);
                match waiting {
                    Self::Route(other) => other.legs.iter().filter_map(crate::model::Leg::gateway).any(leads),
                    Self::Nexthop(other) => other.gateway().is_some_and(leads),
                    _ => false,
                }
            }
            _ => false,
        }
    }
}
